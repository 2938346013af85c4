"""What is done about a function over time: a machine of six stages, without clock, chance or I/O.

::

    learning -> observe -> suspect -> contain -> half-open -> release -> observe
                   ^_________|           ^___________|

Rules this module keeps:

1. Whether a call is stopped follows from the function's stage, never from one call's score alone: to contain
   takes two unusual calls at least. With one ordinary call in a thousand above the threshold, independently,
   a call is the first of three within 21 about twice in ten million.
2. Nothing is stopped while the function is learned, with fewer than ``block_after`` learned calls, where the
   operator didn't enable it, or without a promoted detector. Such a function takes the same stages, and its
   calls proceed and are marked.
3. Each containment ends by itself: after its time the function is half-open, and after the same time once
   more, where no probe was unusual, it is released. A clock that goes back only begins that time anew.
4. An unusual probe contains again, for twice as long, up to `LONGEST` times the first.
5. The operator's release works in every stage and forgets what was held against the function.

A call counts once, however often it is scored. Nothing here draws lots: which call is a probe is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from cloister.immune.observation import Ground, Score

WINDOW: Final = 20
"""Calls after the first unusual one within which further ones make a suspicion sure."""
CONTAIN_AT: Final = 3
"""Unusual calls that contain; one above ``quarantine_above`` counts twice."""
PROBES: Final = 3
"""Ordinary probes that release."""
LONGEST: Final = 16.0
"""The longest containment, in first ones."""


class Stage(StrEnum):
    """Where a function stands."""

    LEARNING = "learning"
    OBSERVE = "observe"
    SUSPECT = "suspect"
    CONTAIN = "contain"
    HALF_OPEN = "half-open"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class ContainmentRules:
    """The operator's numbers.

    Attributes:
        unusual_above: score above which a call is unusual.
        quarantine_above: score above which it is also audited in full and asks for a review.
        block_after: learned calls without which nothing is contained.
        contain_seconds: the first containment's length.
        probe_one_in: of a half-open function's calls, the first and then one in so many is a probe.
    """

    unusual_above: float = 80.0
    quarantine_above: float = 95.0
    block_after: int = 200
    contain_seconds: float = 60.0
    probe_one_in: int = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a function besides its calls.

    Attributes:
        baseline: whether there is a baseline to judge by.
        learned: calls that it learned from.
        enforcing: whether the operator lets its calls be stopped.
        promoted: whether a promoted detector applies to it.
    """

    baseline: bool
    learned: int
    enforcing: bool
    promoted: bool

    def may_block(self, rules: ContainmentRules) -> bool:
        """Whether a contained call is really stopped."""
        return self.baseline and self.enforcing and self.promoted and self.learned >= rules.block_after


@dataclass(frozen=True, slots=True)
class Containment:
    """One function's state.

    Attributes:
        stage: where it stands.
        since: when that began, seconds of the caller's clock.
        seconds: length of the present or last containment; 0 where none is remembered.
        calm_at: when the last containment is forgotten.
        calls: calls since ``since``: of a suspicion, or of a half-open function.
        weight: unusual calls of a suspicion, the very unusual ones twice.
        counted: when the calls behind ``weight`` began, so that none counts twice.
        probes: ordinary probes so far.
    """

    stage: Stage = Stage.LEARNING
    since: float = 0.0
    seconds: float = 0.0
    calm_at: float = 0.0
    calls: int = 0
    weight: int = 0
    counted: tuple[float, ...] = ()
    probes: int = 0


def advance(state: Containment, standing: Standing, now: float) -> Containment:
    """The state at a later time, without a call.

    Args:
        state: the state so far.
        standing: what else is known of the function; without a baseline it is learned anew.
        now: seconds of the clock that gave ``state.since``.

    Returns:
        The state, in which everything has ended that had its time.
    """
    if not standing.baseline:
        return state if state.stage is Stage.LEARNING else Containment(since=now)
    if state.stage is Stage.LEARNING:
        return Containment(Stage.OBSERVE, now)
    if now < state.since:
        state = replace(state, since=now, calm_at=min(state.calm_at, now + state.seconds))
    if state.stage is Stage.CONTAIN and now >= state.since + state.seconds:
        return replace(state, stage=Stage.HALF_OPEN, since=now, calls=0, probes=0)
    if state.stage is Stage.HALF_OPEN and now >= state.since + state.seconds:
        return _released(state, now)
    if state.stage is Stage.RELEASE and now >= state.calm_at:
        return Containment(Stage.OBSERVE, now)
    return state


def enter(
    state: Containment, score: Score, standing: Standing, now: float, rules: ContainmentRules
) -> tuple[Containment, Ground]:
    """Judge a call before its body runs.

    Args:
        state: the function's state so far.
        score: how unusual what is known before the call is.
        standing: what else is known of the function.
        now: when the call began; also what it is known by in `leave`.
        rules: the operator's numbers.

    Returns:
        The new state, and the ground of what is done about the call; only ``contained`` stops it.
    """
    state = advance(state, standing, now)
    if state.stage is Stage.LEARNING:
        return state, Ground.ORDINARY
    unusual = score.value > rules.unusual_above
    stopped = Ground.CONTAINED if standing.may_block(rules) else Ground.WOULD_BLOCK
    if state.stage is Stage.CONTAIN:
        return state, stopped
    if state.stage is Stage.HALF_OPEN:
        probe = state.calls % rules.probe_one_in == 0
        state = replace(state, calls=state.calls + 1)
        if not probe:
            return state, stopped
        return (_contained(state, now, rules), stopped) if unusual else (state, Ground.PROBE)
    if state.stage is Stage.SUSPECT:
        state = _unsuspected(state, now) if state.calls >= WINDOW else replace(state, calls=state.calls + 1)
    if not unusual:
        return state, Ground.ORDINARY
    state = _suspected(state, score, standing, now, now, rules)
    if state.stage is Stage.CONTAIN:
        return state, stopped
    return state, Ground.REVIEW if score.value > rules.quarantine_above else Ground.UNUSUAL


def leave(
    state: Containment, score: Score, standing: Standing, began: float, now: float, rules: ContainmentRules
) -> Containment:
    """Take note of how unusual a call was that has ended.

    Args:
        state: the function's state so far.
        score: how unusual the whole call was.
        standing: what else is known of the function.
        began: ``now`` of its `enter`.
        now: when it ended.
        rules: the operator's numbers.
    """
    # Ends are told late and out of order: an early one doesn't say that the clock went back.
    now = max(now, state.since)
    state = advance(state, standing, now)
    unusual = score.value > rules.unusual_above
    if state.stage in (Stage.OBSERVE, Stage.SUSPECT, Stage.RELEASE):
        if not unusual or began in state.counted:
            return state
        return _suspected(state, score, standing, began, now, rules)
    if state.stage is Stage.HALF_OPEN and began >= state.since:
        if unusual:
            return _contained(state, now, rules)
        state = replace(state, probes=state.probes + 1)
        return _released(state, now) if state.probes >= PROBES else state
    return state


def contain(state: Containment, standing: Standing, now: float, rules: ContainmentRules) -> Containment:
    """The operator contains a function; one that has too few learned calls stays as it is."""
    state = advance(state, standing, now)
    return state if standing.learned < rules.block_after else _contained(state, now, rules)


def release(state: Containment, now: float) -> Containment:
    """The operator releases a function, or says that it was deployed anew."""
    return state if state.stage is Stage.LEARNING else Containment(Stage.OBSERVE, now)


def wants_every_call(state: Containment) -> bool:
    """Whether each of its calls has to be judged before it runs, sampled or not."""
    return state.stage in (Stage.SUSPECT, Stage.CONTAIN, Stage.HALF_OPEN)


def _suspected(
    state: Containment, score: Score, standing: Standing, began: float, now: float, rules: ContainmentRules
) -> Containment:
    if state.stage is not Stage.SUSPECT:
        state = replace(state, stage=Stage.SUSPECT, since=now, calls=0, weight=0, counted=())
    weight = state.weight + (2 if score.value > rules.quarantine_above else 1)
    state = replace(state, weight=weight, counted=(*state.counted, began)[-WINDOW:])
    if weight >= CONTAIN_AT and standing.learned >= rules.block_after:
        return _contained(state, now, rules)
    return state


def _unsuspected(state: Containment, now: float) -> Containment:
    if now >= state.calm_at:
        return Containment(Stage.OBSERVE, now)
    return replace(state, stage=Stage.RELEASE, since=now, calls=0, weight=0, counted=())


def _contained(state: Containment, now: float, rules: ContainmentRules) -> Containment:
    again = state.stage is Stage.HALF_OPEN or (state.seconds > 0 and now < state.calm_at)
    longest = LONGEST * rules.contain_seconds
    seconds = min(2 * state.seconds, longest) if again else rules.contain_seconds
    return Containment(Stage.CONTAIN, now, seconds)


def _released(state: Containment, now: float) -> Containment:
    return Containment(Stage.RELEASE, now, state.seconds, now + state.seconds)
