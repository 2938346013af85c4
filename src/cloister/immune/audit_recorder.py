"""One process's queue of audit entries, and the thread that writes what many record.

The rules are those of `cloister.immune.audit`, whose trail is what others use.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from cloister.core.clock import Clock, format_time
from cloister.core.errors import CloisterError, StorageError
from cloister.immune.audit_event import AuditEvent, AuditKind

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

CLOSE_SECONDS: Final = 2.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_LARGEST_BATCH: Final = 1024
_LOG: Final = logging.getLogger("cloister.immune")


class AuditLog(Protocol):
    """Where entries go: `cloister.evidence.segments.SegmentWriter`."""

    @property
    def lost(self) -> int:
        """How many were taken and never became durable."""
        ...

    def append(self, event: Mapping[str, JSON], /) -> object:
        """Take an entry; StorageError where nothing was taken and it may be tried again."""
        ...

    def flush(self) -> None:
        """Wait until all that was taken is durable."""
        ...

    def close(self) -> None:
        """Close it for good."""
        ...


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """How the audit of this process fares.

    Attributes:
        written: entries that are durable.
        waiting: entries that wait in memory.
        dropped: entries for which there was no room.
        lost: entries that were refused, or taken and never became durable.
        late: blocks whose entry was not durable when they had to be decided.
        failing: the code of what keeps entries from being written now; empty where nothing does.
    """

    written: int
    waiting: int
    dropped: int
    lost: int
    late: int
    failing: str

    @property
    def whole(self) -> bool:
        """Whether nothing is missing and nothing fails."""
        return not (self.dropped or self.lost or self.failing)


Alarm = Callable[[str], None]
"""Told once, with a code, when entries can't be written any more."""


def log_alarm(code: str) -> None:
    """The alarm where none is given: an error in the log of ``cloister.immune``."""
    _LOG.error("the immune system's audit can't be written: %s", code)


class Waiting:
    """An entry on its way; without an event, a mark that everything before it was settled."""

    __slots__ = ("done", "durable", "event")

    def __init__(self, event: AuditEvent | None, done: threading.Event | None) -> None:
        self.event, self.done, self.durable = event, done, False

    def settle(self, durable: bool) -> None:  # noqa: FBT001 - a result, not a switch
        """Say whether it is durable, to whoever waits."""
        self.durable = durable
        if self.done is not None:
            self.done.set()


class Recorder:
    """One process's queue and the thread that empties it."""

    def __init__(
        self,
        log: AuditLog,
        redact: Callable[[str], str],
        alarm: Alarm,
        group: int,
        linger: float,
        clock: Clock,
        preface: Callable[[], Iterable[AuditEvent]],
    ) -> None:
        self._preface: Callable[[], Iterable[AuditEvent]] | None = preface
        self._log, self._redact, self._alarm = log, redact, alarm
        self._group, self._linger, self._clock = group, linger, clock
        # Its put is re-entrant, which that of no other queue is.
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._backlog: list[Waiting] = []
        self._held = 0
        self._counting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._written = self._refused = self._dropped = self._told = self._late = 0
        self.failing = ""

    def put(self, waiting: Waiting, room: int | None) -> bool:
        """Queue an entry, where there is room for it."""
        if room is not None and self._queue.qsize() + self._held >= room:
            with self._counting:
                self._dropped += 1
            return False
        if self._ending.is_set() or (self._thread is None and not self._started()):
            with self._counting:
                self._refused += waiting.event is not None
            return False
        self._queue.put(waiting)
        return True

    @property
    def stalled(self) -> bool:
        """Whether entries wait for a disk that takes none."""
        return bool(self.failing and self._backlog)

    def count_late(self) -> None:
        """Count a block whose entry was not durable in time."""
        with self._counting:
            self._late += 1

    def status(self) -> AuditStatus:
        """How it fares."""
        return AuditStatus(
            written=self._written,
            waiting=self._queue.qsize() + self._held,
            dropped=self._dropped,
            lost=self._refused + self._log.lost,
            late=self._late,
            failing=self.failing,
        )

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._ending.set()
        thread = self._thread
        if thread is not None:
            self._queue.put(None)
            thread.join(CLOSE_SECONDS)

    def _started(self) -> bool:
        with self._counting:
            if self._thread is None:
                # Named before it is started: a signal handler that interrupts the start makes no second one.
                self._thread = threading.Thread(target=self._run, name="immune-audit", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter ends (Python 3.12 and later), or there are too many
                    self._thread = None
                    return False
        return True

    # The recording thread.

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            batch, last = self._gather()
            self._backlog = self._commit(batch)
            self._held = len(self._backlog)
            if last:
                break
            if not self._backlog:
                pause = _FIRST_PAUSE
            else:
                self._ending.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        self._give_up()

    def _give_up(self) -> None:
        left, self._backlog, self._held = self._backlog, [], 0
        with suppress(Empty):
            while True:
                one = self._queue.get_nowait()
                left += [one] if one is not None else []
        with self._counting:
            self._refused += sum(one.event is not None for one in left)
        for one in left:
            one.settle(durable=False)

    def _gather(self) -> tuple[list[Waiting], bool]:
        """What is written next, and whether it is the last."""
        batch, deadline = list(self._backlog), monotonic() + self._linger
        # The first entry is written at once: it opens the log, whose threads can't be started any more when
        # the main thread has ended (Python 3.12).
        urgent = bool(batch) or not self._written
        while len(batch) < _LARGEST_BATCH:
            hurry = bool(batch) and (urgent or len(batch) >= self._group)
            try:
                if hurry:
                    one = self._queue.get_nowait()
                else:
                    one = self._queue.get(timeout=max(0.0, deadline - monotonic()) if batch else None)
            except Empty:
                return batch, False
            if one is None:
                return batch, True
            if not batch:
                deadline = monotonic() + self._linger
            batch.append(one)
            self._held = len(batch)
            urgent = urgent or one.done is not None
        return batch, False

    def _commit(self, batch: list[Waiting]) -> list[Waiting]:
        """Write a batch; what can't be written now, but later, is the answer."""
        taken: list[Waiting] = []
        problem = self._begin() or self._tell_dropped()
        rest = batch if problem else []
        if not problem:
            for place, one in enumerate(batch):
                try:
                    if one.event is not None:
                        self._log.append(self._redacted(one.event))
                    taken.append(one)
                except StorageError as error:  # nothing was taken; the disk may be freed
                    problem, rest = error.code, batch[place:]
                    break
                except Exception as error:  # whatever is wrong with one entry, the others are written
                    problem = _code(error)
                    self._refused += 1
                    one.settle(durable=False)
        try:
            if taken:
                self._log.flush()
        except Exception as error:
            problem = _code(error)
            for one in taken:
                one.settle(durable=False)
        else:
            self._written += sum(one.event is not None for one in taken)
            for one in taken:
                one.settle(durable=True)
        self._report(problem)
        for one in rest:  # nobody waits for the disk to be freed
            if one.done is not None:
                one.settle(durable=False)
        return [one for one in rest if one.event is not None]

    def _redacted(self, event: AuditEvent) -> dict[str, JSON]:
        entry = event.as_json()
        try:
            entry["reason"] = self._redact(str(entry["reason"]))
        except Exception:  # what can't be redacted isn't written
            entry["reason"] = "[withheld]"
        return entry

    def _begin(self) -> str:
        """What comes before this process's first entry; why it can't be written."""
        if self._preface is None:
            return ""
        try:
            for event in self._preface():
                self._log.append(event.as_json())
        except StorageError as error:  # the disk may be freed
            return error.code
        except Exception as error:  # nothing that it could say keeps an entry from being written
            _LOG.warning("the immune system's audit names no segment before it: %s", _code(error))
        self._preface = None
        return ""

    def _tell_dropped(self) -> str:
        """An entry about those for which there was no room; why it can't be written."""
        dropped = self._dropped
        if dropped == self._told:
            return ""
        reason = f"{dropped - self._told} entries were dropped: more came than could be written"
        now = format_time(self._clock())
        try:
            self._log.append(AuditEvent(now, AuditKind.FAULT, "dropped", "", None, reason, "").as_json())
        except Exception as error:
            return _code(error)
        self._told = dropped
        return ""

    def _report(self, problem: str) -> None:
        begins = bool(problem) and not self.failing
        self.failing = problem
        if begins:
            with suppress(Exception):
                self._alarm(problem)


def _code(error: Exception) -> str:
    return error.code if isinstance(error, CloisterError) else type(error).__name__
