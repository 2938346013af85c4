"""When a brain counts as dead, when it is started again, and when no more: decided without doing any of it.

Rules kept here:

1. A brain whose process ended is dead at once; one that answered before and doesn't now, after two checks in
   a row. So with a check each 10 s a dead brain is found and started again within 30 s.
2. After three restarts within five minutes the next death ends in safe mode: calls are observed only, the
   alarm is raised, and nothing is started until an operator resets it.
3. Code that differs from its signed manifest is stopped and not started again, not even by a reset, before it
   verifies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf


class Mode(StrEnum):
    """What the watchdog does."""

    WATCHING = "watching"
    """The brain runs, or is being started again."""
    SAFE = "safe-mode"
    """The brain died too often and is not started again."""
    TAMPERED = "tampered"
    """The brain's code isn't what was signed."""


@dataclass(frozen=True, slots=True)
class WatchState:
    """What is known of a brain.

    Attributes:
        mode: what is done about it.
        started: when it was started last; seconds, monotonic, as all times here.
        checked: when it was last asked whether it lives.
        hashed: when its code was last looked at.
        answered: whether it has answered since it was started.
        failures: how often in a row it didn't answer.
        restarts: when it was started again, within the window.
    """

    mode: Mode = Mode.WATCHING
    started: float = 0.0
    checked: float = -inf
    hashed: float = -inf
    answered: bool = False
    failures: int = 0
    restarts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The rules, in numbers; every method answers a new state and does nothing.

    Attributes:
        check_seconds: a brain is asked so often whether it lives.
        hash_seconds: its code is looked at so often.
        failures: so many checks in a row without an answer make it dead.
        grace_seconds: so long after a start nobody expects its first answer.
        restarts: so many restarts
        window_seconds: within so long are the last.
    """

    check_seconds: float = 10.0
    hash_seconds: float = 60.0
    failures: int = 2
    grace_seconds: float = 60.0
    restarts: int = 3
    window_seconds: float = 300.0

    def check_is_due(self, state: WatchState, now: float) -> bool:
        """Whether the brain is to be asked now."""
        return state.mode is Mode.WATCHING and now - max(state.checked, state.started) >= self.check_seconds

    def hash_is_due(self, state: WatchState, now: float) -> bool:
        """Whether its code is to be looked at now."""
        return now - state.hashed >= self.hash_seconds

    def begun(self, state: WatchState, now: float) -> WatchState:
        """It was started."""
        return replace(state, started=now, answered=False, failures=0)

    def answered(self, state: WatchState, now: float) -> WatchState:
        """It was asked, and lives."""
        return replace(state, checked=now, answered=True, failures=0)

    def unanswered(self, state: WatchState, now: float) -> WatchState:
        """It was asked, and didn't answer; while it starts, that means nothing."""
        starting = not state.answered and now - state.started < self.grace_seconds
        return replace(state, checked=now, failures=0 if starting else state.failures + 1)

    def is_dead(self, state: WatchState) -> bool:
        """Whether it was silent for too long."""
        return state.failures >= self.failures

    def died(self, state: WatchState, now: float) -> WatchState:
        """It is dead: in mode WATCHING it is to be started again, and in mode SAFE not."""
        recent = tuple(one for one in state.restarts if now - one < self.window_seconds)
        if len(recent) >= self.restarts:
            return replace(state, mode=Mode.SAFE, restarts=recent, failures=0)
        return replace(state, restarts=(*recent, now), failures=0)

    def unchanged(self, state: WatchState, now: float) -> WatchState:
        """Its code was looked at, and is what was signed."""
        return replace(state, hashed=now)

    def changed(self, state: WatchState, now: float) -> WatchState:
        """Its code was looked at, and is something else."""
        return replace(state, mode=Mode.TAMPERED, hashed=now, failures=0)

    def reset(self, state: WatchState) -> WatchState:
        """An operator wants it started again, its former deaths forgotten."""
        return WatchState(hashed=-inf, started=state.started)
