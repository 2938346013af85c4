"""A function's baseline in numbers: mean, deviation and percentiles of its duration.

The statistics are of all samples given: mean and population deviation from exactly rounded sums,
percentiles by linear interpolation between order statistics (Hyndman and Fan 1996, type 7, NumPy's default).
What isn't a duration (not finite, negative) is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from cloister.immune.errors import ImmuneError

_LEAST_MOVE: Final = 1e-7
"""Seconds below which two durations are the same: the resolution of the clock that took them."""


@dataclass(frozen=True, slots=True)
class BaselineProfile:
    """How long a function takes.

    Attributes:
        function_name: ``module:qualname``.
        mean: seconds.
        std: population standard deviation, seconds.
        p50: median, seconds.
        p95: seconds.
        p99: seconds.
        sample_count: calls that it was made from.
        taken_at: seconds since 1970.
        version: 1 for a function's first, and one more each time; 0 before it is stored.
    """

    function_name: str
    mean: float
    std: float
    p50: float
    p95: float
    p99: float
    sample_count: int
    taken_at: float
    version: int = 0

    def to_json(self) -> str:
        """It as one line of JSON, the version left to whoever stores it."""
        members = asdict(self)
        del members["version"]
        return json.dumps(members, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, version: int = 0) -> BaselineProfile:
        """Read what `to_json` writes.

        Args:
            text: of a row or a file.
            version: under which it is stored.

        Raises:
            ImmuneError: ``immune.state_damaged``.
        """
        try:
            members = json.loads(text)
            name, count = members.pop("function_name"), members.pop("sample_count")
            numbers = {key: float(value) for key, value in members.items()}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            raise _no_profile() from None
        if set(numbers) != _NUMBERS or not isinstance(name, str) or type(count) is not int:
            raise _no_profile()
        if count < 1 or not all(map(math.isfinite, numbers.values())) or numbers["std"] < 0:
            raise _no_profile()
        return cls(function_name=name, sample_count=count, version=version, **numbers)


_NUMBERS: Final = frozenset({"mean", "std", "p50", "p95", "p99", "taken_at"})


def profile_of(function: str, durations: Iterable[float], now: float) -> BaselineProfile | None:
    """The baseline of these calls.

    Args:
        function: ``module:qualname``.
        durations: seconds of each.
        now: seconds since 1970.

    Returns:
        None where fewer than two of them are durations.
    """
    kept = sorted(one for one in durations if math.isfinite(one) and one >= 0)
    if len(kept) < 2:
        return None
    mean = math.fsum(kept) / len(kept)
    std = math.sqrt(math.fsum((one - mean) ** 2 for one in kept) / len(kept))
    p50, p95, p99 = (percentile(kept, rank) for rank in (0.50, 0.95, 0.99))
    return BaselineProfile(function, mean, std, p50, p95, p99, len(kept), now)


def percentile(ascending: Sequence[float], rank: float) -> float:
    """A percentile by linear interpolation between order statistics.

    Args:
        ascending: at least one value, in order.
        rank: 0 to 1.
    """
    place = rank * (len(ascending) - 1)
    below = math.floor(place)
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    return low + (high - low) * (place - below)


def has_moved(earlier: BaselineProfile, later: BaselineProfile, share: float) -> bool:
    """Whether a baseline differs so much from the one before that it is a new version.

    Args:
        earlier: the stored one.
        later: the present one.
        share: how far median or 95th percentile may be apart, relative to the earlier.
    """
    pairs = ((earlier.p50, later.p50), (earlier.p95, later.p95))
    return any(abs(new - old) > share * old + _LEAST_MOVE for old, new in pairs)


def _no_profile() -> ImmuneError:
    return ImmuneError("immune.state_damaged", "A stored baseline isn't one.")
