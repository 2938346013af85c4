"""What is done about a call, decided before its body runs: exactly one of allow, quarantine and block.

Rules this module keeps:

1. The effector never fails the application. Whatever goes wrong in it lets the call through, is counted, and
   says so in the log (the first, second, fourth, eighth ... time). This is the house's one exception to
   "closed on error": a broken immune part must not stop a hospital's service.
2. A score that can't be one (not a number, outside of 0 to 100) is such a failure: a corrupt detector blocks
   nothing.
3. With the kill switch thrown everything is let through and nothing changes its stage.
4. It is safe in threads, in signal handlers that call watched functions, and over forks.

The rules of when to stop a call are in `cloister.immune.acting.containment`; this is the shell around them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from types import MappingProxyType
from typing import Final
from weakref import WeakSet

from cloister.immune.acting import containment
from cloister.immune.acting.containment import Containment, ContainmentRules, Stage, Standing
from cloister.immune.event_ids import EventIds
from cloister.immune.observation import Action, Decision, Ground, Score

_LOG: Final = logging.getLogger("cloister.immune")


@dataclass(frozen=True, slots=True)
class StageChange:
    """A function went from one stage to another.

    Attributes:
        function: ``module:qualname``.
        before: the stage that it left.
        after: the stage that it is in.
        at: when, seconds of the clock that the calls' times are from.
        seconds: how long a containment lasts; 0 for any other stage.
        by_operator: whether a person did it.
    """

    function: str
    before: Stage
    after: Stage
    at: float
    seconds: float
    by_operator: bool


def _nobody(_: StageChange) -> None:
    return None


def _not_thrown() -> bool:
    return False


class Effector:
    """Decides on calls, and keeps every function's stage.

    Args:
        rules: the operator's numbers.
        switched_off: whether the kill switch is thrown; asked for every decision, so it has to be cheap.
        event_ids: where decisions' ids are from.
        changed: told of each change of stage, outside of any lock, on the thread of the call. What it raises
            is counted as a failure of the effector.
    """

    def __init__(
        self,
        rules: ContainmentRules,
        *,
        switched_off: Callable[[], bool] = _not_thrown,
        event_ids: EventIds | None = None,
        changed: Callable[[StageChange], None] = _nobody,
    ) -> None:
        self._rules = rules
        self._switched_off = switched_off
        self._event_ids = event_ids or EventIds()
        self._changed = changed
        self._states: dict[str, Containment] = {}
        # Re-entrant: a signal handler may call a watched function while this thread holds it.
        self._lock = threading.RLock()
        self._failures = 0
        self._latest = 0.0
        _IN_THIS_PROCESS.add(self)

    @property
    def failures(self) -> int:
        """How often the effector itself failed and let a call through."""
        return self._failures

    def decide(self, function: str, score: Score, standing: Standing, now: float) -> Decision:
        """Decide on a call before its body runs; it never raises.

        Args:
            function: ``module:qualname``.
            score: how unusual what is known before the call is.
            standing: what else is known of the function.
            now: when the call began, monotonic seconds; `ended` knows it by this.

        Returns:
            Exactly one of three actions, with its reason and id; allow where deciding failed.
        """
        return self.consider(function, score, standing, now) or Decision(
            Action.ALLOW, "nothing unusual", score.value, self._an_id()
        )

    def passes(self, function: str, score: Score, *, judging: bool, now: float) -> bool:
        """Whether an ordinary call of a calm function passes: `consider` would decide and change nothing.

        Most calls are such, and what they take is what observing costs. What can't be told is for `consider`.

        Args:
            function: ``module:qualname``.
            score: how unusual what is known before the call is.
            judging: whether there is a baseline to judge by.
            now: when the call began, monotonic seconds.
        """
        if not self.unmoved(function, score, judging=judging) or not self._latest <= now < inf:
            return False
        try:
            if self._switched_off():
                return False
        except Exception:
            return False
        self._latest = now
        return True

    def unmoved(self, function: str, score: Score, *, judging: bool) -> bool:
        """Whether such a call changes no stage: it is ordinary, its function calm, and no stage has its time.

        Args:
            function: ``module:qualname``.
            score: how unusual the call was.
            judging: whether there is a baseline to judge by.
        """
        calm = Stage.OBSERVE if judging else Stage.LEARNING
        try:
            ordinary = 0.0 <= score.value <= self._rules.unusual_above and 0.0 <= score.p <= 1.0
        except Exception:
            return False
        return ordinary and self._states.get(function, _UNKNOWN).stage is calm

    def consider(self, function: str, score: Score, standing: Standing, now: float) -> Decision | None:
        """`decide`, with None for an ordinary call, of which nothing is to be recorded."""
        try:
            return self._consider(function, score, standing, now)
        except Exception as error:
            self._failed(function, error)
            return Decision(Action.ALLOW, "the effector failed", 0.0, self._an_id(), Ground.EFFECTOR_FAILED)

    def ended(self, function: str, score: Score, standing: Standing, began: float, now: float) -> None:
        """Take note of how unusual a call was, now that it has ended; it never raises.

        Args:
            function: ``module:qualname``.
            score: how unusual the whole call was.
            standing: what else is known of the function.
            began: ``now`` of its `decide`.
            now: when it ended, monotonic seconds; where it is before the latest call began, that counts, so
                that a containment doesn't begin in the past.
        """
        try:
            if self._switched_off():
                return
            _require(score, began, now)
            now = max(now, self._latest)
            with self._lock:
                before = self._states.get(function, _UNKNOWN)
                after = containment.leave(before, score, standing, began, now, self._rules)
                self._states[function] = after
            self._tell(function, before, after, now)
        except Exception as error:
            self._failed(function, error)

    def contain(self, function: str, standing: Standing, now: float) -> bool:
        """Contain a function by an operator's hand.

        Returns:
            Whether it is contained; not where it has too few learned calls.
        """
        with self._lock:
            before = self._states.get(function, _UNKNOWN)
            after = containment.contain(before, standing, now, self._rules)
            self._states[function] = after
        self._tell(function, before, after, now, by_operator=True)
        return after.stage is Stage.CONTAIN

    def release(self, function: str, now: float) -> None:
        """Release a function by an operator's hand, or because it was deployed anew; works in every stage."""
        with self._lock:
            before = self._states.get(function, _UNKNOWN)
            after = containment.release(before, now)
            self._states[function] = after
        self._tell(function, before, after, now, by_operator=True)

    def resume(self, function: str, state: Containment) -> None:
        """Put a function where it stood when its process ended; one that has a stage already keeps it."""
        with self._lock:
            self._states.setdefault(function, state)

    def state(self, function: str) -> Containment:
        """A function's state as of its last call."""
        return self._states.get(function, _UNKNOWN)

    def present(self, function: str, standing: Standing, now: float) -> Containment:
        """A function's state now: what has had its time has ended, whether or not a call came."""
        return containment.advance(self.state(function), standing, now)

    def states(self) -> Mapping[str, Containment]:
        """All functions' states as of their last calls."""
        return MappingProxyType(dict(self._states))

    def wants_every_call(self, function: str) -> bool:
        """Whether each call has to come to `decide`, sampled or not."""
        return containment.wants_every_call(self._states.get(function, _UNKNOWN))

    def _consider(self, function: str, score: Score, standing: Standing, now: float) -> Decision | None:
        if self._switched_off():
            reason, event_id = "the kill switch is thrown", self._event_ids.next()
            return Decision(Action.ALLOW, reason, score.value, event_id, Ground.SWITCHED_OFF)
        _require(score, now, now)
        self._latest = now
        with self._lock:
            before = self._states.get(function, _UNKNOWN)
            after, ground = containment.enter(before, score, standing, now, self._rules)
            self._states[function] = after
        self._tell(function, before, after, now)
        if ground is Ground.ORDINARY:
            return None
        reason = _reason(ground, score, after, now)
        return Decision(_action(ground), reason, score.value, self._event_ids.next(), ground)

    def _tell(
        self, function: str, before: Containment, after: Containment, now: float, *, by_operator: bool = False
    ) -> None:
        if before is after:
            return
        # A containment that follows a half-open one within one step has the same stage and another beginning.
        again = after.stage is Stage.CONTAIN and before.since != after.since
        if before.stage is after.stage and not again:
            return
        seconds = after.seconds if after.stage is Stage.CONTAIN else 0.0
        try:
            self._changed(StageChange(function, before.stage, after.stage, now, seconds, by_operator))
        except Exception as error:
            self._failed(function, error)

    def _failed(self, function: str, error: Exception) -> None:
        # The kind only: a message may hold what the application works on.
        try:
            self._failures += 1
            if self._failures & (self._failures - 1) == 0:
                _LOG.warning(
                    "the effector failed and let a call through: function=%s error=%s failures=%d",
                    function,
                    type(error).__name__,
                    self._failures,
                )
        except Exception:  # noqa: S110 - a broken log handler is not the application's concern
            pass

    def _an_id(self) -> str:
        try:
            return self._event_ids.next()
        except Exception:
            return f"unnumbered-{self._failures:x}"


_UNKNOWN: Final = Containment()


def _require(score: Score, began: float, now: float) -> None:
    if not (0.0 <= score.value <= 100.0 and 0.0 <= score.p <= 1.0):
        raise ValueError("a score is outside of its range")
    if not (isfinite(began) and isfinite(now)):
        raise ValueError("a time is not a number")


def _action(ground: Ground) -> Action:
    if ground is Ground.CONTAINED:
        return Action.BLOCK
    return Action.QUARANTINE if ground is Ground.REVIEW else Action.ALLOW


def _reason(ground: Ground, score: Score, state: Containment, now: float) -> str:
    match ground:
        case Ground.CONTAINED | Ground.WOULD_BLOCK:
            left = max(0.0, state.since + state.seconds - now)
            stage = "contained" if state.stage is Stage.CONTAIN else "half-open"
            return f"{stage} for {left:.0f} s more; {score.reason}"
        case Ground.PROBE:
            return f"a probe of a contained function; {score.reason}"
        case _:
            return score.reason


_IN_THIS_PROCESS: WeakSet[Effector] = WeakSet()


def _after_fork() -> None:
    for effector in list(_IN_THIS_PROCESS):
        effector._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
