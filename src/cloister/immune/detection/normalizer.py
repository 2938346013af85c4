"""Features of different units on one scale from 0 to 1, as the percentile detector needs them.

Rules this module keeps:

* 0 is the least value that was seen, 1 the 99th percentile; what lies above is 1, so that one outlier doesn't
  press all others together.
* A missing value is taken for the median.
* The capped scale makes an outlier of twice and one of a hundred times the same; `uncapped` keeps them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Final

CAP: Final = 99.0


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile by linear interpolation between the two nearest values (R. J. Hyndman, Y. Fan, Sample
    quantiles in statistical packages, American Statistician 50, 1996, definition 7).

    Args:
        ordered: at least one number, from the least to the largest.
        percent: 0 to 100.
    """
    place = (len(ordered) - 1) * percent / 100.0
    below = int(place)
    if below + 1 >= len(ordered):
        return ordered[-1]
    return ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])


class FeatureNormalizer:
    """A linear scale for each column.

    Args:
        rows: what the scales are made from: rows of equal length; a value that isn't finite is missing. A
            column without any value is 0 throughout.
    """

    __slots__ = ("_cap", "_fill", "_least")

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self._least: list[float] = []
        self._cap: list[float] = []
        self._fill: list[float] = []
        for column in zip(*rows, strict=True):
            known = sorted(value for value in column if isfinite(value))
            self._least.append(known[0] if known else 0.0)
            self._cap.append(percentile(known, CAP) if known else 0.0)
            self._fill.append(percentile(known, 50.0) if known else 0.0)

    def capped(self, row: Sequence[float]) -> list[float]:
        """A row on the scale from 0 to 1."""
        return [min(max(value, 0.0), 1.0) for value in self.uncapped(row)]

    def uncapped(self, row: Sequence[float]) -> list[float]:
        """A row on the same scale, with what lies beyond its ends."""
        found: list[float] = []
        for value, least, cap, fill in zip(row, self._least, self._cap, self._fill, strict=True):
            known = value if isfinite(value) else fill
            span = cap - least
            if span > 0.0:
                found.append((known - least) / span)
            else:
                found.append(0.0 if known <= cap else 1.0)
        return found
