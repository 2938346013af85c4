"""What every detector does, whatever it thinks is unusual.

A detector belongs to one function and is used by one thread at a time: whoever owns it holds a lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cloister.immune.observation import Entered, Observed, Score

if TYPE_CHECKING:
    from cloister.core.canonical import JSON


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """What an operator may set of a detector.

    Attributes:
        alpha: of the tail detector: expected share of ordinary calls with a score above 80.
        half_life: learned calls after which what was learned weighs half.
        min_samples: learned calls after which anything is judged.
        min_seconds: or seconds since the first one, where there are two calls.
        threshold_percentile: of the percentile detector: the rank above which a distance scores above 80.
    """

    alpha: float = 0.001
    half_life: float = 4000.0
    min_samples: int = 20
    min_seconds: float = 7200.0
    threshold_percentile: float = 95.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What is usual of a function.

    Attributes:
        learned: calls that taught.
        calls: all calls.
        errors: those that raised.
        mean: of the durations, seconds, newer ones weighing more.
        std: their standard deviation.
        p50: their median.
        p95: what 5 % of them exceed.
        p99: what 1 % of them exceed.
    """

    learned: int
    calls: int
    errors: int
    mean: float
    std: float
    p50: float
    p95: float
    p99: float


class Detector(Protocol):
    """Learns how one function behaves, and judges its calls: first `score`, then `learn`."""

    @property
    def learned(self) -> int:
        """Calls that taught."""
        ...

    @property
    def judging(self) -> bool:
        """Whether enough was learned to judge at all; before, no score is above 0."""
        ...

    def entry(self, entered: Entered) -> Score:
        """Judge a call before its body runs, by what is known then. Changes nothing."""
        ...

    def score(self, observed: Observed) -> Score:
        """Judge a call that has ended. Changes nothing."""
        ...

    def learn(self, observed: Observed) -> None:
        """Take note of a call that has ended; it teaches if chance chose it."""
        ...

    def note(self, observed: Observed) -> None:
        """Take note of a call that has ended and may not teach: what is normal stays as it is."""
        ...

    def follow(self, observed: Observed) -> None:
        """Let the levels that `level` tells follow a call that may not teach: nothing else changes."""
        ...

    def trust(self, calls: int) -> None:
        """Take what the function does at present, and in so many calls, for normal: a person said so."""
        ...

    def rest(self) -> None:
        """Forget the calls just before, not what was learned: those that come next are of another time."""
        ...

    def rested(self) -> Detector:
        """A copy to try calls of another time on: it knows what was learned, and no call just before."""
        ...

    def summary(self) -> Summary | None:
        """What is usual; None while there is too little to say."""
        ...

    def level(self, feature: str) -> float:
        """Where a feature lies at present, in its unit; ``nan`` where that isn't known or makes no sense."""
        ...

    def as_json(self) -> dict[str, JSON]:
        """All that was learned."""
        ...
