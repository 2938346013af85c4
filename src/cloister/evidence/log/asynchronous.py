"""The log for programs on an event loop: thousands of tasks append, a thread of its own commits for them.

Rules kept here:

1. `append` is answered after the commit, like the log's own; what comes meanwhile is the next group.
2. A task that is cancelled before its entry was taken into a group has logged nothing. Later, the entry is
   logged though nobody waits for the answer, as with any writer that dies after it has spoken.
3. Closing waits for what was handed in, and refuses what comes after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeAlias

from cloister.core.errors import CloisterError
from cloister.evidence.envelope import Envelope
from cloister.evidence.errors import LogError
from cloister.evidence.log.group import MAX_GROUP, LogEntry, Ticket
from cloister.evidence.log.log import EvidenceLog, LogItem, pending

_Waiting: TypeAlias = tuple[Ticket, asyncio.Future[tuple[LogEntry, ...]]]


class AsyncEvidenceLog:
    """Appends to a log from one event loop. Use it as an asynchronous context manager.

    Args:
        log: an open log, which stays the caller's to read from and to close.
    """

    def __init__(self, log: EvidenceLog) -> None:
        self._log = log
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evidence-log")
        self._closed = False

    async def append(self, envelope: Envelope, *, stream: str, position: int) -> LogEntry:
        """Add an envelope; it is durable when this returns.

        Args:
            envelope: what to log.
            stream: what the entry belongs to: the job's id.
            position: its place among the stream's entries, from 0; each is taken once.

        Returns:
            Where it is.

        Raises:
            LogError: as :meth:`EvidenceLog.append`; ``evidence.log_closed`` after `aclose`.
            StorageError: as :meth:`EvidenceLog.append`.
        """
        return (await self._submit(Ticket((pending(LogItem(envelope, stream, position)),))))[0]

    async def append_many(self, items: Iterable[LogItem]) -> tuple[LogEntry, ...]:
        """Add several envelopes, all or none; they are durable when this returns.

        Args:
            items: what to log, in this order.

        Returns:
            Where they are, one after the other.

        Raises:
            LogError: as `append`; if one is refused, none is logged.
            StorageError: as `append`; all or none are logged.
        """
        entries = tuple(pending(one) for one in items)
        return await self._submit(Ticket(entries)) if entries else ()

    async def aclose(self) -> None:
        """Wait until what was handed in has its answer; what comes later is refused. The log stays open."""
        self._closed = True
        while self._committing is not None:
            await asyncio.wait((self._committing,))
        self._thread.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _submit(self, ticket: Ticket) -> tuple[LogEntry, ...]:
        if self._closed:
            raise LogError("evidence.log_closed", "The log takes no more entries: it was closed.")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[LogEntry, ...]] = loop.create_future()
        self._waiting.append((ticket, answer))
        if self._committing is None:
            # A task of its own: no appender that is cancelled takes the others' commit with it.
            self._committing = loop.create_task(self._commit_all())
        return await answer

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group = [one for one in self._waiting[:MAX_GROUP] if not one[1].done()]
                del self._waiting[:MAX_GROUP]
                tickets = [ticket for ticket, _ in group]
                failed: BaseException | None = None
                try:
                    await loop.run_in_executor(self._thread, self._log.commit_tickets, tickets)
                except Exception as error:
                    failed = error
                for ticket, answer in group:
                    _settle(ticket, answer, failed)
        finally:
            self._committing = None


def _settle(
    ticket: Ticket, answer: asyncio.Future[tuple[LogEntry, ...]], failed: BaseException | None
) -> None:
    if answer.done():
        return
    if failed is not None and not ticket.settled:
        answer.set_exception(failed)
        return
    try:
        answer.set_result(ticket.result())
    except CloisterError as error:
        answer.set_exception(error)
