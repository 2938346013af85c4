"""Group commit: many threads hand something in, one of them commits for all, each gets its own answer.

Whoever comes while nobody commits becomes the leader. Those who come meanwhile wait; when the leader is done,
the first of them leads the next group. There is no thread of its own and no timer: a lone writer waits for
nobody.

Rules kept here:

1. A ticket is answered once, by the commit that held it.
2. An error that the commit gives a ticket reaches the one who handed it in. Any error that the commit raises
   (an interrupt, a key that is gone) is the leader's alone: the others' tickets are tried again, marked as
   uncertain, so that the commit looks whether they are in already.
3. A waiter that is interrupted withdraws its ticket if no leader has taken it, and passes the lead on.
4. The answered wake each other, one after the other: woken all at once they would fight for the interpreter.
   Whoever is woken wakes the next before anything else, interrupted or not.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cloister.core.errors import CloisterError

MAX_GROUP: Final = 1024


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Where an envelope was logged.

    Attributes:
        index: its position in the log, from 0.
        leaf_hash: its 32-byte leaf hash.
    """

    index: int
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """An entry on its way into the log: its encoded envelope, leaf hash and place."""

    data: bytes
    leaf: bytes
    stream: str
    position: int


class Ticket:
    """Entries that are logged together or not at all, and the answer to whoever handed them in.

    Attributes:
        entries: what to log.
        uncertain: an earlier commit that held it was cut off; it may be in the log already.
        following: whom its waiter wakes next.
    """

    __slots__ = ("_bell", "_outcome", "_rung", "entries", "following", "uncertain")

    def __init__(self, entries: Sequence[PendingEntry]) -> None:
        self.entries = entries
        self.uncertain = False
        self.following: Ticket | None = None
        self._outcome: tuple[LogEntry, ...] | CloisterError | None = None
        self._rung = False
        self._bell = threading.Lock()
        self._bell.acquire()

    @property
    def settled(self) -> bool:
        """Whether it has its answer."""
        return self._outcome is not None

    def settle(self, outcome: tuple[LogEntry, ...] | CloisterError) -> None:
        """Give the answer."""
        self._outcome = outcome

    def result(self) -> tuple[LogEntry, ...]:
        """The answer: where the entries are, or the error."""
        if isinstance(self._outcome, CloisterError):
            raise self._outcome
        if self._outcome is None:
            raise RuntimeError("a ticket was asked before it was settled")
        return self._outcome

    def ring(self) -> None:
        """Wake whoever waits for it."""
        self._rung = True
        self._bell.release()

    def wait(self) -> None:
        """Sleep until somebody rings; where somebody has, a second time returns at once."""
        if not self._rung:
            self._bell.acquire()


class GroupCommit:
    """Collects tickets and commits them in groups.

    Args:
        commit: settles every ticket of a group, or raises.
    """

    def __init__(self, commit: Callable[[Sequence[Ticket]], None]) -> None:
        self._commit = commit
        self._mutex = threading.Lock()
        self._waiting: deque[Ticket] = deque()
        self._led = False

    def submit(self, ticket: Ticket) -> tuple[LogEntry, ...]:
        """Have a ticket committed, with others if there are any.

        Returns:
            Where its entries are; they are durable.

        Raises:
            CloisterError: as the commit gave it.
        """
        with self._mutex:
            waits = self._led
            if waits:
                self._waiting.append(ticket)
            self._led = True
        if waits:
            self._wait(ticket)
        if not ticket.settled:
            self._lead(ticket)
        return ticket.result()

    def _wait(self, ticket: Ticket) -> None:
        try:
            ticket.wait()
        except BaseException:
            with self._mutex:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                    raise
            # A leader has it, or it was given the lead: the bell has rung or is about to.
            ticket.wait()
            if not ticket.settled:
                self._pass_on()
            raise
        finally:
            if ticket.following is not None:
                ticket.following.ring()

    def _lead(self, own: Ticket) -> None:
        with self._mutex:
            others = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP - 1))]
        try:
            self._commit((own, *others))
        finally:
            again = [one for one in others if not one.settled]
            answered = [one for one in others if one.settled]
            for one, following in pairwise(answered):
                one.following = following
            if answered:
                answered[0].ring()
            for one in again:
                one.uncertain = True
            with self._mutex:
                self._waiting.extendleft(reversed(again))
            self._pass_on()

    def _pass_on(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().ring()
            else:
                self._led = False
