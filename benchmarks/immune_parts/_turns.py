"""Measures several ways of the same work turn by turn, so that what disturbs the machine disturbs all alike.

Rules kept here:

* All ways run in each round, in an order that is drawn anew; figures are medians over rounds.
* A way runs as often in one round as fills its slice of processor time: dear ways less often.
* What is subtracted or divided by is of the same round.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping

Work = Callable[[int], float]
"""Does the work so many times, and says how many seconds of processor time that took."""

SLICE = 0.004
_FEWEST, _MOST = 20, 50_000


def times_of(
    works: Mapping[str, Work], rounds: int, *, slice_seconds: float = SLICE
) -> dict[str, list[float]]:
    """Nanoseconds of one call in each round, by name.

    Args:
        works: all ways.
        rounds: how many.
        slice_seconds: processor time of one way in one round, about.
    """
    counts = {name: _count(work, slice_seconds) for name, work in works.items()}
    order, chance = list(works), random.Random(1)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        chance.shuffle(order)
        for name in order:
            times[name].append(works[name](counts[name]) / counts[name] * 1e9)
    return times


def _count(work: Work, slice_seconds: float) -> int:
    work(_FEWEST)
    once = max(work(_FEWEST) / _FEWEST, 1e-9)
    return max(_FEWEST, min(_MOST, round(slice_seconds / once)))


def above(times: Mapping[str, list[float]], name: str, bare: str) -> float:
    """The median of how many nanoseconds more than another a way takes."""
    return statistics.median(one - less for one, less in zip(times[name], times[bare], strict=True))


def rounds_of(share: float, full: int, fewest: int = 3) -> int:
    """How many rounds a share of the full size has."""
    return max(fewest, round(full * share))
