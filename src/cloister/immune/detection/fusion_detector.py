"""A detector that averages signals of several kinds, for comparison with the one that takes the rarest.

Selected by ``anomaly.detector: fusion`` (PIC-D5). Rules this module keeps:

* The timing signal is the tail detector's score of the call, which learns as ever; the other three are what
  the function reached for the first time since its last call ended, of each kind the highest (`fusion`).
* Where nothing was reached for, the score is the tail detector's, unchanged.
* An average hides what one signal shows: the egress guard goes on deciding by itself.
"""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING, Final

from cloister.immune.detection import state
from cloister.immune.detection.detector import DetectorSettings, Summary
from cloister.immune.detection.fusion import signals_of
from cloister.immune.detection.score import Calibration
from cloister.immune.detection.tail_detector import TailDetector
from cloister.immune.observation import Entered, Observed, Score

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

KIND: Final = "fusion"
_LN_FIFTH: Final = log(0.2)
_MOST_REACHED: Final = 64
_MOST_CERTAIN: Final = 1e-12


class FusionDetector:
    """Judges one function's calls by the weighted average of four signals.

    Args:
        settings: of the tail detector within.
    """

    __slots__ = ("_reached", "_tail")

    def __init__(self, settings: DetectorSettings | None = None) -> None:
        self._tail: TailDetector = TailDetector(settings)
        self._reached: list[tuple[str, Score]] = []

    @property
    def learned(self) -> int:
        """Calls that taught."""
        return self._tail.learned

    @property
    def judging(self) -> bool:
        """Whether enough was learned to judge; before, every score is 0."""
        return self._tail.judging

    @property
    def calibration(self) -> Calibration:
        """Observed against promised shares of the timing signal."""
        return self._tail.calibration

    def reach(self, operation: str, score: Score) -> None:
        """Hear that the function reached for something new.

        Args:
            operation: in the words of `cloister.immune.acting.reach.Operation`.
            score: how unusual that is.
        """
        if len(self._reached) < _MOST_REACHED:
            self._reached.append((operation, score))

    def entry(self, entered: Entered) -> Score:
        """Judge a call before its body runs."""
        return self._fused(self._tail.entry(entered))

    def score(self, observed: Observed) -> Score:
        """Judge a call that has ended, with what was reached for until then."""
        return self._fused(self._tail.score(observed))

    def learn(self, observed: Observed) -> None:
        """Take note of a call that has ended; what it reached for counts no more."""
        self._tail.learn(observed)
        self._reached.clear()

    def note(self, observed: Observed) -> None:
        """Take note of a call that may not teach; what it reached for counts no more."""
        self._tail.note(observed)
        self._reached.clear()

    def follow(self, observed: Observed) -> None:
        """Let the levels follow a call that may not teach."""
        self._tail.follow(observed)

    def trust(self, calls: int) -> None:
        """Learn in full from so many calls."""
        self._tail.trust(calls)

    def rest(self) -> None:
        """Forget the calls just before, not what was learned."""
        self._tail.rest()
        self._reached.clear()

    def rested(self) -> FusionDetector:
        """A copy that has rested, to try calls on."""
        found = FusionDetector(self._tail.settings)
        found._tail = self._tail.rested()
        return found

    def summary(self) -> Summary | None:
        """What is usual of the function's durations."""
        return self._tail.summary()

    def level(self, feature: str) -> float:
        """Where a feature lies at present."""
        return self._tail.level(feature)

    def as_json(self) -> dict[str, JSON]:
        """All that was learned."""
        return {"kind": KIND, "tail": self._tail.as_json()}

    @classmethod
    def from_json(cls, value: object, settings: DetectorSettings | None = None) -> FusionDetector:
        """The detector that `as_json` wrote.

        Raises:
            ImmuneError: ``immune.baseline_damaged`` where the value isn't one of its documents.
        """
        part = state.members(value, "detector", ("kind", "tail"))
        if part["kind"] != KIND:
            state.refuse("it is of another kind of detector")
        found = cls(settings)
        found._tail = TailDetector.from_json(part["tail"], settings)
        return found

    def _fused(self, timing: Score) -> Score:
        if not self._reached or not self.judging:
            return timing
        value = signals_of(timing, self._reached).fused()
        operation, strongest = max(self._reached, key=lambda one: one[1].value)
        feature, times = (
            (timing.feature, timing.times) if timing.value >= strongest.value else (operation, 0.0)
        )
        return Score(value, self._p(value), feature, times)

    def _p(self, value: float) -> float:
        """The probability of which a score is that: below alpha exactly where it is above 80."""
        power = _LN_FIFTH / log(self.calibration.scale.alpha)
        return exp(log(max(1.0 - value / 100.0, _MOST_CERTAIN)) / power)
