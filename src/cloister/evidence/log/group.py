"""Group commit: many threads hand something in, one of them commits for all, each gets its own answer.

Those who come while somebody commits gather in a group, before its gate. The first one through leads: when
the commit before it is done, it closes the group and commits for all. The others come through the gate one
after the other and find their answers. There is no thread of its own and no timer: a lone writer waits for
nobody.

Rules kept here:

1. A ticket is answered once, by the commit that held it.
2. An error that the commit gives a ticket reaches the one who handed it in. Any error that the commit raises
   (an interrupt, a key that is gone) is the leader's alone: the next one through the gate commits for the
   rest, marked as uncertain, so that the commit looks whether they are in already.
3. Whoever leaves by an exception abandons its ticket, which is in no commit that begins later, and waits for
   the one that may have it. Cut short even there, by a second interrupt, it holds up nobody.
4. Nobody owes anybody a wake-up. Every lock is held by a ``with`` statement, which gives it back wherever an
   interrupt falls.
5. Those who were answered come through the gate in turn: woken all at once they would fight for the
   interpreter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        abandoned: nobody waits for the answer any more; it is not to be committed.
    """

    __slots__ = ("_outcome", "abandoned", "entries", "uncertain")

    def __init__(self, entries: Sequence[PendingEntry]) -> None:
        self.entries = entries
        self.uncertain = False
        self.abandoned = False
        self._outcome: tuple[LogEntry, ...] | CloisterError | None = None

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


class _Group:
    """Tickets that are committed together, and the gate before which their owners wait."""

    __slots__ = ("gate", "tickets", "tried")

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.gate = threading.Lock()
        self.tried = False


class GroupCommit:
    """Collects tickets and commits them in groups.

    Args:
        commit: settles every ticket of a group, or raises.
    """

    def __init__(self, commit: Callable[[Sequence[Ticket]], None]) -> None:
        self._commit = commit
        self._mutex = threading.Lock()
        self._turn = threading.Lock()
        self._gathering = _Group()

    def submit(self, ticket: Ticket) -> tuple[LogEntry, ...]:
        """Have a ticket committed, with others if there are any.

        Returns:
            Where its entries are; they are durable.

        Raises:
            CloisterError: as the commit gave it.
        """
        try:
            group = self._join(ticket)
            with group.gate:
                if not ticket.settled:
                    self._lead(group)
        except BaseException:
            ticket.abandoned = True
            with self._turn:
                pass  # Who commits just now may have taken it; no later commit does.
            raise
        return ticket.result()

    def _join(self, ticket: Ticket) -> _Group:
        with self._mutex:
            if len(self._gathering.tickets) >= MAX_GROUP:
                self._gathering = _Group()
            self._gathering.tickets.append(ticket)
            return self._gathering

    def _lead(self, group: _Group) -> None:
        with self._turn:
            with self._mutex:
                if self._gathering is group:
                    self._gathering = _Group()
            tickets = [one for one in group.tickets if not (one.settled or one.abandoned)]
            for one in tickets:
                one.uncertain = one.uncertain or group.tried
            group.tried = True
            self._commit(tickets)
