"""The audit: what the immune system decides goes into a signed stream, and never onto a caller's back.

Rules kept here:

1. Recording costs the caller one put into a queue; no lock of Python's, so it may happen in a signal handler.
   One thread writes what many record, and synchronises once for all of it.
2. A block is recorded with `AuditTrail.record_durably`: it is on disk and vouched for before this answers
   True. Anything else is on disk within the linger time, or when so many wait that they make a group.
3. Where the audit can't be written, the answer is False within a bounded time and the call goes on: the
   immune system fails open. What was not written is counted and shown by `AuditTrail.status`, and the alarm
   is raised once when it begins.
4. While nothing can be written, entries wait in memory, up to a bound; what doesn't fit is counted, and the
   first entry that can be written again says how many are missing.
5. A forked child begins anew: what waits in the parent is the parent's to write. No thread is started before
   the first entry.

A process that ends by ``os._exit`` or a signal loses what waited less than the linger time, but no block. So
does, on Python 3.12, one that ends within milliseconds of its first entry; the log of errors says so.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from cloister.core.clock import Clock, system_clock
from cloister.core.errors import CloisterError
from cloister.immune.audit_event import AuditEvent
from cloister.immune.audit_recorder import (
    CLOSE_SECONDS,
    Alarm,
    AuditLog,
    AuditStatus,
    Recorder,
    Waiting,
    log_alarm,
)

__all__ = ["Alarm", "AuditLog", "AuditStatus", "AuditTrail", "log_alarm"]


class AuditTrail:
    """Records what is decided; safe with threads, forks and signal handlers.

    Args:
        log: takes the entries.
        redact: applied to an entry's reason before it is written, off the caller's thread.
        alarm: told when writing begins to fail.
        capacity: entries that wait at most; one tenth more is kept for blocks.
        patience: seconds that `record_durably` waits at most.
        group: so many waiting entries are written at once.
        linger: seconds that fewer wait at most.
        clock: dates the audit's own entries.
        preface: what is written before the first entry of each process.
    """

    def __init__(
        self,
        log: AuditLog,
        *,
        redact: Callable[[str], str] = str,
        alarm: Alarm = log_alarm,
        capacity: int = 10_000,
        patience: float = 1.0,
        group: int = 64,
        linger: float = 0.1,
        clock: Clock = system_clock,
        preface: Callable[[], Iterable[AuditEvent]] = tuple,
    ) -> None:
        self._make = partial(Recorder, log, redact, alarm, group, linger, clock, preface)
        self._log, self._capacity, self._patience = log, capacity, patience
        self._recorder = self._make()
        # Bound weakly: a trail that nobody uses any more isn't kept until the interpreter ends.
        itself = weakref.ref(self)
        self._at_exit = partial(_close, itself)
        atexit.register(self._at_exit)
        _TRAILS.add(self)

    def record(self, event: AuditEvent) -> bool:
        """Take an entry; it is on disk soon.

        Returns:
            Whether there was room; where not, it is counted.
        """
        return self._recorder.put(Waiting(event, None), self._capacity)

    def record_durably(self, event: AuditEvent) -> bool:
        """Take an entry and wait until it is durable, as long as patience lasts.

        Returns:
            Whether it is durable. False, by rule 3, means that the call goes on. The entry is still written
            when that becomes possible.
        """
        recorder, done = self._recorder, threading.Event()
        waiting = Waiting(event, done)
        if recorder.put(waiting, self._capacity + self._capacity // 10) and not recorder.stalled:
            done.wait(self._patience)
        if not waiting.durable:
            recorder.count_late()
        return waiting.durable

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until all that was taken so far is durable.

        Returns:
            Whether it is.
        """
        done = threading.Event()
        waiting = Waiting(None, done)
        return self._recorder.put(waiting, None) and done.wait(seconds) and waiting.durable

    def status(self) -> AuditStatus:
        """How the audit fares."""
        return self._recorder.status()

    def close(self) -> None:
        """Write what waits, for two seconds at most, and close the stream. A second time does nothing."""
        _TRAILS.discard(self)
        atexit.unregister(self._at_exit)
        self._recorder.close()
        with suppress(CloisterError):
            self._log.close()

    def _after_fork(self) -> None:
        self._recorder = self._make()


_TRAILS: weakref.WeakSet[AuditTrail] = weakref.WeakSet()


def _close(trail: weakref.ref[AuditTrail]) -> None:
    found = trail()
    if found is not None:
        found.close()


def _forget_parents() -> None:
    for trail in list(_TRAILS):
        trail._after_fork()


os.register_at_fork(after_in_child=_forget_parents)
