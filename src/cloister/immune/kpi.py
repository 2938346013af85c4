"""How well detection does, in the figures that the field reports.

Rules this module keeps:

* A rate is one division of two counts; a rate over nothing is an error, not a number.
* A threshold is chosen from ordinary calls alone, so that no more of them than asked are flagged.
* Higher scores are more unusual; flagged is what lies above a threshold.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloister.immune.errors import ImmuneError


@dataclass(frozen=True, slots=True)
class Detection:
    """Counts of judged calls or sessions.

    Attributes:
        benign: how many were ordinary.
        flagged: how many of these were flagged.
        malicious: how many belonged to an attack.
        detected: how many of these were flagged.
    """

    benign: int
    flagged: int
    malicious: int
    detected: int

    def __post_init__(self) -> None:
        if not (0 <= self.flagged <= self.benign and 0 <= self.detected <= self.malicious):
            raise _undefined("More were flagged than there are.")

    @property
    def false_positive_rate(self) -> float:
        """Flagged of the ordinary ones; ``immune.measure_undefined`` without any."""
        return _share(self.flagged, self.benign)

    @property
    def true_positive_rate(self) -> float:
        """Detected of the malicious ones; ``immune.measure_undefined`` without any."""
        return _share(self.detected, self.malicious)


def detection(judged: Iterable[tuple[bool, bool]]) -> Detection:
    """Count calls or sessions.

    Args:
        judged: for each, whether it is malicious, and whether it was flagged.
    """
    benign = flagged = malicious = detected = 0
    for bad, marked in judged:
        if bad:
            malicious += 1
            detected += marked
        else:
            benign += 1
            flagged += marked
    return Detection(benign, flagged, malicious, detected)


def area_under_curve(benign: Sequence[float], malicious: Sequence[float]) -> float:
    """Probability that a malicious score lies above an ordinary one (Mann and Whitney 1947); ties count half.

    Raises:
        ImmuneError: ``immune.measure_undefined``; one of both is empty.
    """
    ordered = sorted(benign)
    # Twice the rank sum stays a whole number.
    twice = sum(bisect_left(ordered, score) + bisect_right(ordered, score) for score in malicious)
    return _share(twice, 2 * len(ordered) * len(malicious))


def threshold_at(benign: Sequence[float], false_positive_rate: float) -> float:
    """The lowest threshold above which no more than a share of ordinary scores lies.

    Args:
        benign: scores of ordinary calls or sessions.
        false_positive_rate: the share, 0 to 1.

    Returns:
        One of the scores; flagged is what is above it.

    Raises:
        ImmuneError: ``immune.measure_undefined``; there are no scores, or no such share.
    """
    if not benign or not 0 <= false_positive_rate < 1:
        raise _undefined("A threshold needs ordinary scores, and a share of at least 0 and below 1.")
    ordered = sorted(benign, reverse=True)
    return ordered[math.floor(false_positive_rate * len(ordered))]


def true_positive_rate_at(
    benign: Sequence[float], malicious: Sequence[float], false_positive_rate: float
) -> float:
    """Share of malicious scores above `threshold_at`.

    Raises:
        ImmuneError: ``immune.measure_undefined``; one of both is empty, or no such share.
    """
    threshold = threshold_at(benign, false_positive_rate)
    return _share(sum(score > threshold for score in malicious), len(malicious))


def percentile(values: Sequence[float], rank: float) -> float:
    """A percentile, interpolated between neighbours (Hyndman and Fan 1996, definition 7).

    Args:
        values: in any order.
        rank: 0 to 100.

    Raises:
        ImmuneError: ``immune.measure_undefined``; there are no values, or no such rank.
    """
    if not values or not 0 <= rank <= 100:
        raise _undefined("A percentile needs values, and a rank of 0 to 100.")
    ordered = sorted(values)
    position = rank / 100 * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of durations, seconds."""

    p50: float
    p95: float
    p99: float


def latency(durations: Sequence[float]) -> Latency:
    """P50, P95 and P99.

    Raises:
        ImmuneError: ``immune.measure_undefined``; there are no durations.
    """
    ordered = sorted(durations)
    return Latency(percentile(ordered, 50), percentile(ordered, 95), percentile(ordered, 99))


def _share(part: int, whole: int) -> float:
    if whole == 0:
        raise _undefined("A rate over nothing isn't a number.")
    return part / whole


def _undefined(message: str) -> ImmuneError:
    return ImmuneError("immune.measure_undefined", message)
