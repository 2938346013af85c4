"""A detector that stands beside ours in the table: the one that most monitoring systems have.

It judges a call by what `Observed` holds, and learns from it afterwards.
"""

from __future__ import annotations

import math
from typing import Protocol

from cloister.immune.observation import NOTHING_UNUSUAL, Observed, Score

FEATURES = ("duration", "size", "rate", "errors", "caller")
# A floor for each variance; that of errors keeps a single one from being a surprise of many deviations.
LEAST_VARIANCE = (1e-4, 1e-4, 1e-4, 1e-2, 1e-4)
_FLOOR = 1e-300


class Features:
    """What it looks at: five numbers of a call, which for ordinary ones are about normal."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._gap = 0.0
        self._errors = 0.0
        self._callers: set[str] = set()

    def of(self, observed: Observed) -> tuple[float, ...]:
        """Logarithms of duration, size and recent rate, recent share of errors, 1 for an unknown caller."""
        entered = observed.entered
        gap = self._recent_gap(observed)
        share = (entered.errors + observed.failed) / entered.calls
        return (
            math.log(max(observed.duration, 1e-9)),
            math.log(max(entered.size, 1)),
            -math.log(max(gap, 1e-9)),
            self._errors + 0.1 * (share - self._errors),
            float(entered.caller not in self._callers),
        )

    def _recent_gap(self, observed: Observed) -> float:
        if self._last is None:
            return 1.0
        gap = (observed.entered.at - self._last) / observed.entered.calls
        # One gap alone says little: about ten of them.
        return gap if self._gap == 0.0 else self._gap + 0.1 * (gap - self._gap)

    def learn(self, observed: Observed, features: tuple[float, ...]) -> None:
        """Remember when, who and how often it failed."""
        self._gap = self._recent_gap(observed) if self._last is not None else 0.0
        self._last = observed.entered.at
        self._errors = features[3]
        self._callers.add(observed.entered.caller)


class Peer(Protocol):
    """A detector of one function's calls, as the table takes it."""

    def score(self, observed: Observed) -> Score:
        """Judge a call by what was learned before."""
        ...

    def learn(self, observed: Observed) -> None:
        """Learn from it."""
        ...


class EwmaZ(Peer):
    """Exponentially weighted mean and variance of each feature (Roberts 1959); the largest z decides."""

    def __init__(self, memory: float = 0.01, start: int = 50) -> None:
        self._features = Features()
        self._memory, self._start = memory, start
        self._count = 0
        self._means = [0.0] * len(FEATURES)
        self._variances = [0.0] * len(FEATURES)

    def score(self, observed: Observed) -> Score:
        """Probability of the largest z under a Gaussian, times five features."""
        values = self._features.of(observed)
        if self._count < self._start:
            return NOTHING_UNUSUAL
        highest, feature = 0.0, FEATURES[0]
        for place, (name, value) in enumerate(zip(FEATURES, values, strict=True)):
            variance = max(self._variances[place], LEAST_VARIANCE[place])
            z = (value - self._means[place]) / math.sqrt(variance)
            if z > highest:
                highest, feature = z, name
        p = min(1.0, len(FEATURES) * 0.5 * math.erfc(highest / math.sqrt(2.0)))
        return _score(p, feature)

    def learn(self, observed: Observed) -> None:
        """Move mean and variance."""
        values = self._features.of(observed)
        self._count += 1
        weight = max(self._memory, 1.0 / self._count)
        for place, value in enumerate(values):
            off = value - self._means[place]
            self._means[place] += weight * off
            self._variances[place] = (1.0 - weight) * (self._variances[place] + weight * off * off)
        self._features.learn(observed, values)


def _score(p: float, feature: str) -> Score:
    # The scale of the product: above 80 exactly where p is below 0.001.
    p = max(p, _FLOOR)
    return Score(100.0 * (1.0 - p ** (math.log(0.2) / math.log(0.001))), p, feature)
