"""How often a batch is tried, when to stop trying, and what came of it.

Everything here is given its clock, its waiting and its chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

JITTER_SECONDS: Final = (0.2, 0.4, 0.8)
"""The longest wait after the first, second and third failed try."""
LONGEST_WAIT_SECONDS: Final = 5.0


class Reply(StrEnum):
    """What one try came to."""

    TAKEN = "taken"
    REFUSED = "refused"
    TRY_AGAIN = "try again"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one try.

    Attributes:
        reply: what it means for the batch.
        wait: seconds that the service asks to wait.
        limited: events of a taken batch that the service left out because there were too many.
    """

    reply: Reply
    wait: float = 0.0
    limited: int = 0


class Outcome(StrEnum):
    """What became of a batch."""

    DELIVERED = "delivered"
    REFUSED = "the service refused it"
    UNREACHABLE = "the service didn't take it"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch's end.

    Attributes:
        outcome: what became of it.
        limited: events of a delivered batch that the service left out.
    """

    outcome: Outcome
    limited: int = 0


Attempt: TypeAlias = Callable[[], Answer]
"""Tries one batch once; called again, the same batch again."""


def deliver(attempt: Attempt, pause: Callable[[float], object], chance: random.Random) -> Delivery:
    """Try a batch up to three times, with full jitter between.

    Args:
        attempt: one try.
        pause: waits so many seconds.
        chance: draws the waits.
    """
    for most in JITTER_SECONDS:
        answer = attempt()
        if answer.reply is Reply.TAKEN:
            return Delivery(Outcome.DELIVERED, answer.limited)
        if answer.reply is Reply.REFUSED:
            return Delivery(Outcome.REFUSED)
        pause(max(chance.uniform(0.0, most), min(answer.wait, LONGEST_WAIT_SECONDS)))
    return Delivery(Outcome.UNREACHABLE)


@dataclass(slots=True)
class Breaker:
    """Stops trying for a while after several batches in a row were lost, then lets one through as a probe.

    Attributes:
        clock: monotonic seconds.
        failures_to_open: lost batches in a row after which it opens; a lost probe opens it again at once.
        open_seconds: how long it stays open.
    """

    clock: Callable[[], float]
    failures_to_open: int = 3
    open_seconds: float = 30.0
    _failures: int = field(default=0, init=False)
    _opened_at: float | None = field(default=None, init=False)

    def seconds_left(self) -> float:
        """How long nothing is to be tried; 0 where something may be."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self.open_seconds - (self.clock() - self._opened_at))

    def succeeded(self) -> None:
        """A batch was delivered."""
        self._failures, self._opened_at = 0, None

    def failed(self) -> None:
        """A batch was lost because nobody took it."""
        self._failures += 1
        if self._failures >= self.failures_to_open:
            self._opened_at = self.clock()
