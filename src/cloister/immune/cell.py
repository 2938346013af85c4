"""One function under the brain: the sensor that its wrapper tells, and what is made of it.

Rules kept here:

1. A call is judged by what was known before it; then, if chance chose it, it teaches. Of what a gate chose
   the caller is met, where the function isn't one that may be blocked or a person said that this is normal.
2. Whatever is decided about a call is in the audit before it takes effect. Nothing else on a call's way waits
   for a disk: each kind of unusual call makes one candidate, once.
3. Blocking takes all of: a function that the operator enabled, an approved baseline, enough learned calls, a
   promoted detector that recognised what is going on, and containment. Where one is missing, the call
   proceeds and is marked.
4. A function that may be blocked learns nothing beyond what was approved, and nothing from a call whose size
   or errors chance would never make: otherwise a few calls of a first attack make the second one ordinary.
   Times aren't looked at here: a slow machine makes those.
5. What goes wrong here is raised; the wrapper counts it and lets the call go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from cloister.core.canonical import canonicalize
from cloister.core.errors import CloisterError
from cloister.immune.acting.containment import Stage, Standing
from cloister.immune.detection.fusion_detector import FusionDetector
from cloister.immune.detection.yardstick import SCORING, Yardstick
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.approval import Standing as Approval
from cloister.immune.keeping.detector import DetectorState
from cloister.immune.keeping.detectors import POLICY
from cloister.immune.keeping.locks import ForkSafe
from cloister.immune.keeping.pattern import pattern_of
from cloister.immune.keeping.validation import is_candidate
from cloister.immune.observation import Action, Decision, Entered, Ground, Observed, Score

if TYPE_CHECKING:
    from cloister.immune.acting.effector import Effector
    from cloister.immune.detection.detector import Detector
    from cloister.immune.keeping.approval import AnchorKeeper
    from cloister.immune.keeping.detectors import DetectorRegistry
    from cloister.immune.keeping.events import StateEvent
    from cloister.immune.keeping.traces import TraceStore
    from cloister.immune.keeping.upkeep import Upkeep

_VALIDATED_ON: Final = 100
_SUSPICIOUS_P: Final = 0.02
"""Below it the next call is judged as well, whatever chance says: episodes have several calls."""
_MOST_PATTERNS: Final = 64
"""Kinds of unusual calls of one function that a process makes candidates of."""
_NO_CHANCE: Final = 1e-6
"""So few ordinary calls are less probable that what is ordinary is the same without them."""
_TIMES: Final = ("duration", "run")
_NO_TIMES: Final = ("size", "errors")
_LEVELS: Final = ("duration", "size", "errors")
_NOTHING_APPROVED: Final = (Approval.UNAPPROVED, Approval.INVALID)
_CALM: Final = frozenset({Stage.LEARNING, Stage.OBSERVE, Stage.RELEASE})


def _not_at_all() -> None:
    """There is no gate that could let a call through: everything is judged."""


class Record(Protocol):
    """Where decisions and events go: the audit, and whoever is told of incidents."""

    def decided(self, function: str, decision: Decision) -> None:
        """A decision about a call, before it takes effect; a block is durable when this returns."""
        ...

    def happened(self, event: StateEvent) -> None:
        """Something that happened to what is kept."""
        ...


@dataclass(frozen=True, slots=True)
class CellRules:
    """What the operator set for one function.

    Attributes:
        enforcing: whether its calls may be blocked.
        threshold: score above which a call makes a candidate.
        by_policy: whether a candidate that passes its validation is promoted at once.
    """

    enforcing: bool
    threshold: float
    by_policy: bool


@dataclass(frozen=True, slots=True)
class Organs:
    """What all cells of a brain share.

    ``stopwatch`` times the brain's own work beside a call; it tells ``nan`` where that isn't the machine that
    the calls are on.
    """

    effector: Effector
    registry: DetectorRegistry
    anchors: AnchorKeeper
    traces: TraceStore
    upkeep: Upkeep
    record: Record
    sound: Callable[[], bool]
    matured: Callable[[str, int], None]
    mature_every: int
    monotonic: Callable[[], float]
    stopwatch: Callable[[], float]


class Cell(ForkSafe):
    """The sensor of one function.

    Attributes:
        recognised_by: number of the promoted detector that recognised what is going on; 0 where none did.

    Args:
        name: ``module:qualname``.
        detector: what it learned so far.
        rules: what the operator set.
        organs: what it shares.
    """

    def __init__(self, name: str, detector: Detector, rules: CellRules, organs: Organs) -> None:
        super().__init__()
        self.name, self.detector, self.rules = name, detector, rules
        self._organs = organs
        self.recognised_by: int = 0
        self._yardstick = Yardstick()
        self._found: set[bytes] = set()
        self._relearning = False
        self.look_closer: Callable[[], None] = _not_at_all
        self.decisions: dict[Action, int] = dict.fromkeys(Action, 0)

    @property
    def standing(self) -> Standing:
        """What is known of the function besides its calls."""
        return Standing(
            self.detector.judging,
            self.detector.learned,
            self.rules.enforcing and self._organs.sound() and self._organs.anchors.may_block(self.name),
            self._recognised,
        )

    @property
    def _recognised(self) -> bool:
        """Whether the detector that recognised what is going on is still promoted."""
        if not self.recognised_by:
            return False
        try:
            active = self._organs.registry.get_active_detectors(self.name)
        except CloisterError:
            # A store that is busy for a moment releases nobody.
            return True
        if not any(one.id == self.recognised_by for one in active):
            self.recognised_by = 0
        return self.recognised_by > 0

    def usual(self) -> tuple[int, frozenset[str]]:
        """The largest size and the callers among the newest ordinary calls."""
        return self._organs.traces.usual(self.name)

    def enter(self, entered: Entered) -> Decision | None:
        """See `Sensor.enter`."""
        organs = self._organs
        detector = self.detector
        with self._lock:
            score = detector.entry(entered)
        if organs.effector.passes(self.name, score, judging=detector.judging, now=entered.at):
            return None
        if score.value > self.rules.threshold:
            self._recognise(score)
        decision = organs.effector.consider(self.name, score, self.standing, entered.at)
        if decision is None:
            return None
        self.decisions[decision.action] += 1
        if decision.ground is not Ground.ORDINARY:
            organs.record.decided(self.name, decision)
        return decision

    def leave(self, observed: Observed) -> None:
        """See `Sensor.leave`."""
        organs, detector = self._organs, self.detector
        began = observed.entered.at
        now = began + max(observed.duration, 0.0)
        with self._lock:
            started = organs.stopwatch()
            score = detector.score(observed)
            if detector.judging:
                self._yardstick.take(organs.stopwatch() - started)
            at_entry = self._at_entry(observed, score)
            self._teach(observed, score)
            judging, learned = detector.judging, detector.learned
        unusual = judging and score.value > self.rules.threshold
        if judging and score.p < _SUSPICIOUS_P:
            self.look_closer()
        if unusual:
            if organs.effector.state(self.name).stage is Stage.HALF_OPEN:
                # A probe says anew what is going on: the same again, or something that nobody has promoted.
                self.recognised_by = 0
            self._unusual(score, began)
        if at_entry is not None:
            self._unusual(at_entry, began)
        if not organs.effector.unmoved(self.name, score, judging=judging):
            organs.effector.ended(self.name, score, self.standing, began, now)
        calm = organs.effector.state(self.name).stage in _CALM
        if calm:
            self.recognised_by = 0
        for event in organs.upkeep.observed(self.name, observed, ordinary=calm, blocks=self.rules.enforcing):
            organs.record.happened(event)
        if judging and observed.entered.teaches:
            if self._relearning or organs.anchors.standing(self.name) not in _NOTHING_APPROVED:
                self._compare(began, calm=calm, unusual=unusual)
                self._take_a_persons_word(now)
            if calm and learned % organs.mature_every == 0:
                self._try_candidates(inf)
        if observed.entered.teaches and (learned == 1 or learned % organs.mature_every == 0):
            organs.matured(self.name, learned)

    def flagged(self) -> tuple[int, int]:
        """What a validation would find now: how many of the newest ordinary calls it flags, of how many."""
        ordinary = self._organs.traces.ordinary(self.name, _VALIDATED_ON)
        scores = self._scores_of(ordinary).values()
        return sum(is_candidate(one, self.rules.threshold) for one in scores), len(ordinary)

    def learned_state(self) -> bytes:
        """What its detector learned, as it is kept."""
        with self._lock:
            return canonicalize(self.detector.as_json())

    def resume(self, detector: int) -> None:
        """The function was contained when its process ended.

        Args:
            detector: number of the detector that recognised why; it counts if it is promoted still.
        """
        active = self._organs.registry.get_active_detectors(self.name)
        if any(one.id == detector for one in active):
            self.recognised_by = detector

    def rest(self) -> None:
        """The function was contained: how it behaved just before that says nothing of the calls to come."""
        with self._lock:
            self.detector.rest()

    def reached(self, operation: str, score: Score) -> None:
        """Take note that the function reached for something that it never did.

        Args:
            operation: in the words of `cloister.immune.acting.reach.Operation`.
            score: how unusual that is.
        """
        now = self._organs.monotonic()
        if isinstance(self.detector, FusionDetector):
            with self._lock:
                self.detector.reach(operation, score)
        self._unusual(score, now)
        self._organs.effector.ended(self.name, score, self.standing, now, now)

    def _compare(self, began: float, *, calm: bool, unusual: bool) -> None:
        """Compare where the function lies with what was approved."""
        levels = {feature: self.detector.level(feature) for feature in _LEVELS}
        levels[SCORING] = self._yardstick.level
        drifted = self._organs.anchors.check(self.name, levels, began, calm=calm, unusual=unusual)
        if drifted is not None:
            self._organs.record.happened(drifted)

    def _take_a_persons_word(self, now: float) -> None:
        """Where a person says that what the function does is normal, forget what was held against it so far.

        At the beginning of the time of the new baseline, once it has settled, and at its end.
        """
        relearning = self._organs.anchors.standing(self.name) is Approval.RELEARNING
        if relearning is self._relearning:
            if relearning and self._organs.anchors.has_settled(self.name):
                self._organs.effector.release(self.name, now)
            return
        self._relearning = relearning
        with self._lock:
            self.detector.trust(self._organs.mature_every if relearning else 0)
        self._organs.effector.release(self.name, now)

    def _recognise(self, score: Score) -> None:
        found = self._organs.registry.matching(self.name, score)
        if found is not None:
            self.recognised_by = found.id

    def _at_entry(self, observed: Observed, score: Score) -> Score | None:
        """What was unusual of an unusual call before it ran, where its time is what stands out at its end.

        It makes a candidate of its own: by it the next such call can be stopped before it runs.
        """
        if score.value <= self.rules.threshold or score.feature not in _TIMES:
            return None
        found = self.detector.entry(observed.entered)
        return found if found.value > self.rules.threshold else None

    def _teach(self, observed: Observed, score: Score) -> None:
        """Learn from a call, or only let the level follow it: it tells when the function is itself again."""
        detector = self.detector
        if not observed.entered.teaches or self._may_teach(score):
            self._tell(detector, observed)
        else:
            detector.note(observed)
            detector.follow(observed)

    def _tell(self, detector: Detector, observed: Observed) -> None:
        """Tell of a call; a gate makes nobody known to a function that may be blocked, but a person does."""
        only_judged = self.rules.enforcing and not self._relearning and not observed.entered.teaches
        (detector.note if only_judged else detector.learn)(observed)

    def _may_teach(self, score: Score) -> bool:
        if not self.rules.enforcing:
            return True
        anchors = self._organs.anchors
        if not anchors.may_learn(self.name, blocks=True):
            return False
        if score.p >= _NO_CHANCE or not anchors.may_block(self.name):
            return True
        return all(score.p_by_feature.get(one, 1.0) >= _NO_CHANCE for one in _NO_TIMES)

    def _unusual(self, score: Score, began: float) -> None:
        self._recognise(score)
        pattern = pattern_of(self.name, score)
        if self.recognised_by or pattern in self._found or len(self._found) >= _MOST_PATTERNS:
            return
        self._found.add(pattern)
        made, event = self._organs.registry.store_detector(
            self.name, pattern, self.rules.threshold, score.reason
        )
        if event is not None:
            self._organs.record.happened(event)
        if made.state is DetectorState.CANDIDATE and made.verdict is None:
            # What came before it: what is flagged among that is a false alarm.
            self._try_candidates(began)
            self._recognise(score)

    def _scores_of(self, ordinary: Sequence[Observed]) -> dict[int, Score]:
        """How calls are scored as they came, newest first, each by its ``id``.

        Rates and runs follow the order of calls: a copy sees them. It learns, the original doesn't.
        """
        with self._lock:
            copy = self.detector.rested()
        scores: dict[int, Score] = {}
        for one in reversed(ordinary):
            scores[id(one)] = copy.score(one)
            self._tell(copy, one)
        return scores

    def _try_candidates(self, before: float) -> None:
        """Try what waits for it on the ordinary calls before a time, where there are enough of them.

        What an operator asked another trial of is tried only where all of them came since.
        """
        waiting = self._waiting()
        if not waiting:
            return
        organs = self._organs
        ordinary = organs.traces.ordinary(self.name, _VALIDATED_ON, before)
        if len(ordinary) < _VALIDATED_ON:
            return
        oldest = min(one.entered.at for one in ordinary)
        due = [number for number, since in waiting if oldest >= since]
        if not due:
            return
        scores = self._scores_of(ordinary)
        for number in due:
            try:
                verdict, tried = organs.registry.validate(number, ordinary, lambda one: scores[id(one)])
                organs.record.happened(tried)
                if verdict.passed and self.rules.by_policy:
                    organs.record.happened(organs.registry.promote(number, POLICY))
            except ImmuneError as error:
                if error.code not in {"immune.not_eligible", "immune.detector_unknown"}:
                    raise

    def _waiting(self) -> list[tuple[int, float]]:
        """Which candidates are to be tried, and since when the calls count that each is tried on."""
        try:
            waiting = self._organs.registry.to_try(self.name)
        except CloisterError:
            # A store that is busy for a moment is asked at the next look.
            return []
        now = self._organs.monotonic()
        return [(number, now - ago) for number, ago in waiting]
