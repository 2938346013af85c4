"""Drift: how far a function's present level is beyond the levels that were approved.

A band is all levels that were seen while the anchor was taken, so a daily rhythm lies inside of it; drift is
a level more than a ratio beyond the band, in either direction. A boiling frog can't avoid that: however slow
its steps are, the band doesn't follow.

A machine that is slower than it was makes all durations longer. What our own work takes (`YARDSTICK`) is one
of the levels, has a band, and is never a drift itself: a duration is beyond its band only as far as the
yardstick isn't beyond its own, in the same direction. That forgives `MOST_SLOWED` times at most, so who can
slow the whole machine down hides no more than that, and of durations alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from cloister.immune.detection.yardstick import SCORING

YARDSTICK: Final = SCORING
MOST_SLOWED: Final = 3.0
LEAST_LEVELS: Final = MappingProxyType({"duration": 1e-6, "size": 1.0, "rate": 0.01, "errors": 0.05})
"""Seconds, bytes or items, calls a second, share of calls: levels below these are all the same."""

_LEAST_LEVEL: Final = 1e-9
_HAIR: Final = 1.0 + 1e-9

Limits: TypeAlias = tuple[tuple[str, float, float], ...]
"""For each feature the lowest and the highest level that is no drift."""


@dataclass(frozen=True, slots=True)
class Band:
    """The levels of one feature that are approved.

    Attributes:
        low: the lowest, in the feature's unit.
        high: the highest.
    """

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """A function's level left what was approved.

    Attributes:
        function: ``module:qualname``.
        feature: whose level.
        level: the present one.
        band: the approved ones.
        ratio: how many times further than the band; above 1.
        slowed: how many times slower (quicker) the machine itself is, which the ratio leaves out.
    """

    function: str
    feature: str
    level: float
    band: Band
    ratio: float
    slowed: float = 1.0

    @property
    def reason(self) -> str:
        """It in words and numbers."""
        low, high = self.band.low, self.band.high
        machine = f", without {self.slowed:.2f}x of the machine's own" if self.slowed > 1.0 else ""
        return (
            f"{self.feature} {self.level:.3g}, {self.ratio:.2f}x beyond the approved {low:.3g} to"
            f" {high:.3g}{machine}"
        )


def distance(level: float, band: Band, least: float = _LEAST_LEVEL) -> float:
    """How many times a level lies beyond a band, above or below.

    Args:
        level: in the feature's unit.
        band: of the same unit.
        least: a level, above 0, below which all are the same.

    Returns:
        1.0 inside of it.
    """
    level, low, high = (max(one, least) for one in (level, band.low, band.high))
    return max(level / high, low / level, 1.0)


def limits_of(bands: Mapping[str, Band], ratio: float) -> Limits:
    """The levels beyond which each band's feature drifts.

    Args:
        bands: what is approved.
        ratio: how far is too far, above 1.
    """
    found = []
    for feature, band in bands.items():
        if feature == YARDSTICK:
            continue
        least = LEAST_LEVELS.get(feature, _LEAST_LEVEL)
        low, high = max(band.low, least) / ratio, max(band.high, least) * ratio
        # Below the least level all are the same; a hair inside, so that rounding never hides a drift.
        found.append((feature, low * _HAIR if low > least else -math.inf, high / _HAIR))
    return tuple(found)


def within(levels: Mapping[str, float], limits: Limits) -> bool:
    """Whether no level drifts, for every call; where it says no, `drift_of` looks closely."""
    for feature, lowest, highest in limits:
        level = levels.get(feature)
        if level is not None and not lowest <= level <= highest and level == level:  # noqa: PLR0124 - nan
            return False
    return True


def drift_of(
    function: str, levels: Mapping[str, float], bands: Mapping[str, Band], ratio: float
) -> DriftAlarm | None:
    """The feature that is furthest beyond its band, if one is beyond the ratio.

    Args:
        function: ``module:qualname``.
        levels: the present level of each feature; one that isn't known (``nan``) or has no band isn't judged,
            nor is the yardstick.
        bands: what is approved.
        ratio: how far is too far, above 1.
    """
    worst: DriftAlarm | None = None
    for feature, level in levels.items():
        band = bands.get(feature)
        if band is None or feature == YARDSTICK or math.isnan(level):
            continue
        beyond = distance(level, band, LEAST_LEVELS.get(feature, _LEAST_LEVEL))
        slowed = _slowed(levels, bands, longer=level > band.high) if feature == "duration" else 1.0
        beyond = max(beyond / slowed, 1.0)
        if beyond > (ratio if worst is None else worst.ratio):
            worst = DriftAlarm(function, feature, level, band, beyond, slowed)
    return worst


def _slowed(levels: Mapping[str, float], bands: Mapping[str, Band], *, longer: bool) -> float:
    """How many times the machine itself is slower than at the approval (or quicker, where not longer)."""
    band, level = bands.get(YARDSTICK), levels.get(YARDSTICK, math.nan)
    if band is None or not level > 0.0 or not band.low > 0.0:
        return 1.0
    return min(max(level / band.high if longer else band.low / level, 1.0), MOST_SLOWED)
