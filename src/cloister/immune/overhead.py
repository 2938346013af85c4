"""What protection costs: the same work with and without it, turn by turn, and how sure the difference is.

Rules this module keeps:

* Both sides run in every round, and take turns in going first: what disturbs the machine disturbs both.
* The difference is the median over the rounds' differences. Its interval comes from the sign test, so it
  holds for any distribution (Conover 1999, section 3.2).
* The clock is given. Processor time of the thread is the one that neighbours on the machine disturb least.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

from cloister.immune.errors import ImmuneError
from cloister.immune.kpi import Latency, latency


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, and between what it lies.

    Attributes:
        value: the median.
        low: lower end.
        high: upper end.
        confidence: probability that both ends enclose the true median, at least.
    """

    value: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Overhead:
    """What was measured; times are seconds a call.

    Attributes:
        plain: percentiles without protection, over rounds.
        protected: and with it.
        difference: protected less plain.
        ratio: protected over plain.
    """

    plain: Latency
    protected: Latency
    difference: Interval
    ratio: Interval


def measure_overhead(
    plain: Callable[[], object],
    protected: Callable[[], object],
    *,
    rounds: int = 61,
    calls: int = 100,
    confidence: float = 0.95,
    clock_ns: Callable[[], int] = time.thread_time_ns,
) -> Overhead:
    """Measure the same work with and without protection.

    Args:
        plain: the work.
        protected: the same work under protection.
        rounds: pairs that are measured, 6 at least for an interval of 95 %.
        calls: of each side in a round; percentiles are over rounds' means, so 1 makes them those of calls.
        confidence: of the intervals.
        clock_ns: nanoseconds that never go back.

    Returns:
        Percentiles of both, and difference and ratio with their intervals.

    Raises:
        ImmuneError: ``immune.measure_undefined``; too few rounds for the confidence, or no calls.
    """
    if calls < 1:
        raise ImmuneError("immune.measure_undefined", "A round has at least one call.")
    _margin(rounds, confidence)
    times: tuple[list[float], list[float]] = ([], [])
    sides = (plain, protected)
    repeat = range(calls)
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            work = sides[side]
            begun = clock_ns()
            for _ in repeat:
                work()
            times[side].append((clock_ns() - begun) / calls / 1e9)
    pairs = list(zip(*times, strict=True))
    return Overhead(
        latency(times[0]),
        latency(times[1]),
        median_interval([with_it - without for without, with_it in pairs], confidence),
        median_interval(
            [with_it / without if without else math.inf for without, with_it in pairs], confidence
        ),
    )


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median, and an interval for the one of the distribution that the values come from.

    Args:
        values: independent draws.
        confidence: above 0 and below 1.

    Raises:
        ImmuneError: ``immune.measure_undefined``; too few values for the confidence.
    """
    margin = _margin(len(values), confidence)
    ordered = sorted(values)
    return Interval(median(ordered), ordered[margin], ordered[-1 - margin], confidence)


def _margin(count: int, confidence: float) -> int:
    """How many values may lie beyond each end: those that fall there by chance seldom enough."""
    if not 0 < confidence < 1:
        raise ImmuneError("immune.measure_undefined", "A confidence lies between 0 and 1.")
    beyond, term, margin = 0.0, 0.5**count if count < 1000 else 0.0, -1
    if count >= 1000:
        # 0.5**count runs out of floats; the normal approximation is exact enough by then.
        return max(0, math.floor(count / 2 - _normal_quantile(confidence) * math.sqrt(count) / 2))
    for below in range(count // 2 + 1):
        beyond += term
        if 2 * beyond > 1 - confidence:
            break
        margin = below
        term = term * (count - below) / (below + 1)
    if margin < 0:
        raise ImmuneError(
            "immune.measure_undefined", f"{count} rounds are too few for a confidence of {confidence:g}."
        )
    return margin


def _normal_quantile(confidence: float) -> float:

    return NormalDist().inv_cdf(0.5 + confidence / 2)
