"""The stream of one process, from taking an entry to vouching for it: its state, lock and flushing thread.

Rules kept here:

1. An entry is acknowledged when its line is on disk, a signed checkpoint covers it, and every sink has that
   checkpoint.
2. One thread makes durable what many take. Those who wait together share one synchronisation.
3. After a write that failed nothing is appended to that segment, and nothing is written twice. What was lost
   is counted and stands in the header of the next segment.
4. Memory is bounded: where the disk can't follow, taking waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cloister.core.clock import format_time
from cloister.core.errors import CloisterError, StorageError
from cloister.core.keys import Signer
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments.checkpoint import State
from cloister.evidence.segments.gate import Gate, open_all
from cloister.evidence.segments.layout import Link
from cloister.evidence.segments.limits import SegmentLimits
from cloister.evidence.segments.opened import OpenSegment, SegmentMaker
from cloister.evidence.segments.process import Process, this_process
from cloister.evidence.segments.secrets import SealingKey
from cloister.evidence.segments.sinks import CheckpointSink, hand_out

_GATHER_SECONDS: Final = 0.002


@dataclass(frozen=True, slots=True)
class EntryReceipt:
    """Where an entry stands.

    Attributes:
        segment: the segment's name.
        line: its line in it, from 1.
        at: its time.
        head: the hash of that line, which covers everything before it too.
    """

    segment: str
    line: int
    at: str
    head: bytes


class Ticket:
    """An entry that was taken and is on its way to the disk.

    Attributes:
        receipt: where the entry will stand.
        segment: the segment it is in.
    """

    __slots__ = ("_flow", "receipt", "segment")

    def __init__(self, flow: SegmentFlow, segment: OpenSegment, receipt: EntryReceipt) -> None:
        self._flow = flow
        self.segment = segment
        self.receipt = receipt

    def wait(self) -> EntryReceipt:
        """Wait until the entry is durable and vouched for outside; asks for that to happen at once.

        Raises:
            SegmentError: ``evidence.segment_lost`` if it never became durable, ``evidence.segment_unsent``
                if it is durable and not every sink took its checkpoint.
            StorageError: the disk refused it.
        """
        self._flow.settle(self.segment, self.receipt.line)
        return self.receipt


class SegmentFlow:
    """One process's segments, one after the other.

    Nothing is opened and no thread is started before the first entry.

    Args:
        maker: begins and signs them.
        sinks: who holds their checkpoints.
        limits: when marks are made and segments end.
        parent: where the process stood that this one was forked from.

    Attributes:
        segment: the segment being written, if there is one.
        lost: how many entries were taken and never became durable.
    """

    def __init__(
        self,
        maker: SegmentMaker,
        sinks: Sequence[CheckpointSink],
        limits: SegmentLimits,
        parent: Link | None,
    ) -> None:
        self._maker = maker
        self._sinks = tuple(sinks)
        self._limits = limits
        self._parent = parent
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._process: Process | None = None
        self._previous: Link | None = None
        self._number = 0
        self._told = 0
        self._urgent = False
        self._expected = 0
        self._gather_until = 0.0
        self._closed = False
        self._stopping = False
        self.segment: OpenSegment | None = None
        self.lost = 0

    def take(self, text: bytes) -> Ticket:
        """Take an event in canonical form."""
        with self._lock:
            return self._take(text)

    def take_durably(self, text: bytes) -> EntryReceipt:
        """Take an event and wait for it."""
        with self._lock:
            ticket = self._take(text)
            gate = self._gate(ticket.segment)
        gate.wait()
        return ticket.wait()

    def flush(self) -> None:
        """Wait for all that was taken so far."""
        with self._lock:
            segment = self.segment
            line = 0 if segment is None else segment.chain.lines
        if segment is not None:
            self.settle(segment, line)

    def rotate(self, signer: Signer | None, sealing_key: SealingKey | None) -> None:
        """Close the segment and begin another at once, so that heartbeats go on."""
        with self._lock:
            segment = self._end()
            self._maker.signer = signer or self._maker.signer
            self._maker.sealing_key = sealing_key or self._maker.sealing_key
        if segment is not None:
            self.settle(segment, segment.chain.lines)
            with self._lock:
                if self.segment is None and not self._closed:
                    self._begin()
                    self._work.notify()

    def close(self) -> None:
        """Write the closing mark and stop; say in a last segment what no other says was lost."""
        try:
            with self._lock:
                if self.segment is None and self.lost > self._told and not self._closed:
                    self._begin()
                self._closed = True
                segment = self._end()
            if segment is not None:
                self.settle(segment, segment.chain.lines)
        finally:
            with self._lock:
                self._closed = self._stopping = True
                self._work.notify_all()
            if self._thread is not None:
                self._thread.join()

    def abandon(self) -> Link | None:
        """In a forked child: give up what is the parent's, and say where the parent stood.

        Whatever lock the parent's threads held is replaced, so that who waits gets an error.
        """
        self._lock = threading.Lock()
        parent, segment = self._previous or self._parent, self.segment
        if segment is not None:
            lines, head = segment.durable
            if lines:
                parent = Link(segment=segment.name, lines=lines, head=head.hex())
            segment.failure = _lost("it belongs to the process that this one was forked from")
            segment.chain.erase()
            segment.file.close()
        return parent

    def settle(self, segment: OpenSegment, line: int) -> None:
        """Wait for a line of a segment."""
        while segment.vouched < line:
            with self._lock:
                if segment.failure is not None:
                    raise segment.failure
                if segment.ended:
                    break
                gate = self._gate(segment)
            gate.wait()
            if segment.unsent is not None and segment.durable[0] >= line:
                break
        if segment.vouched < line and segment.unsent is not None:
            raise segment.unsent

    # What follows is called with the lock held, unless it says otherwise.

    def _ready(self) -> OpenSegment:
        """A segment that takes the next entry; waits where the disk can't follow."""
        while True:
            if self._closed:
                raise SegmentError("evidence.segment_closed", "The segment's writer was closed.")
            segment = self.segment
            if segment is None:
                return self._begin()
            if segment.ending:
                self._done.wait()
            elif self._over(segment):
                self._end_segment(segment)
            elif segment.waiting_bytes > self._limits.max_waiting_bytes:
                self._wake()
                self._done.wait()
            else:
                return segment

    def _take(self, text: bytes) -> Ticket:
        segment = self._ready()
        chain, at = segment.chain, format_time(self._maker.clock())
        if chain.unsigned >= self._limits.entries_per_mark:
            self._maker.mark(segment, State.RUNNING)
        segment.take(chain.entry(at, text))
        segment.entries += 1
        if segment.since is None:
            segment.since = time.monotonic()
            self._work.notify()
        return Ticket(self, segment, EntryReceipt(segment.name, chain.lines, at, chain.head))

    def _gate(self, segment: OpenSegment) -> Gate:
        """What the flushing thread opens when all that was taken so far is settled.

        Everybody waits at a gate of his own: behind a shared condition all who wake contend for one lock.
        """
        gate = Gate()
        segment.gates.append(gate)
        if not self._urgent or len(segment.gates) == self._expected:
            self._wake()
        return gate

    def _over(self, segment: OpenSegment) -> bool:
        age = time.monotonic() - segment.opened
        return segment.size >= self._limits.max_bytes or age >= self._limits.max_seconds

    def _begin(self) -> OpenSegment:
        if self._process is None:
            self._process = this_process()
        if self._thread is None:
            self._thread = self._started()
        segment = self._maker.begin(
            self._process,
            self._number + 1,
            previous=self._previous,
            parent=self._parent,
            lost=self.lost,
            told=self._told,
        )
        self.segment = segment
        return segment

    def _started(self) -> threading.Thread:
        """The flushing thread, before there is anything that waits for it."""
        thread = threading.Thread(target=self._run, name=f"segments-{self._maker.stream}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there are too many threads, or the main one has ended (Python 3.12 and later)
            raise SegmentError(
                "evidence.segment_closed",
                "No thread can be started that makes entries durable: the process ends or is at its limit.",
            ) from None
        return thread

    def _end(self) -> OpenSegment | None:
        """Begin to close the segment, if there is one."""
        segment = self.segment
        if segment is not None and not segment.ending:
            self._end_segment(segment)
        return segment

    def _end_segment(self, segment: OpenSegment) -> None:
        try:
            self._maker.mark(segment, State.CLOSED)
        except Exception as error:  # a signer or clock that fails loses the segment, and nobody waits forever
            self._fail(segment, error)
        segment.ending = True
        self._wake()

    def _wake(self) -> None:
        self._urgent = True
        self._work.notify()

    # The flushing thread.

    def _run(self) -> None:
        while True:
            with self._lock:
                segment = self._due()
                if segment is None:
                    return
                self._urgent = False
                segment.since = None
                try:
                    if not segment.ending and (segment.chain.unsigned or self._silent(segment)):
                        self._maker.mark(segment, State.RUNNING)
                except Exception as error:  # as in `_end_segment`
                    self._fail(segment, error)
                    continue
                data, marks = b"".join(segment.waiting), segment.marks
                gates, segment.gates = segment.gates, []
                reached = (segment.chain.lines, segment.chain.head)
                entries, ending = segment.entries, segment.ending
                segment.waiting, segment.waiting_bytes, segment.marks = [], 0, []
            try:
                if data:
                    segment.file.append(data)
            except CloisterError as error:
                with self._lock:
                    segment.gates += gates
                    self._fail(segment, error)
                continue
            unsent = hand_out(self._sinks, marks)
            with self._lock:
                segment.durable, segment.durable_entries = reached, entries
                self._number = segment.chain.id.number
                self._told = segment.lost_before
                segment.unsent = unsent
                if unsent is None:
                    segment.vouched = reached[0]
                else:
                    segment.marks[:0] = marks[-1:]
                if ending:
                    self._finish(segment)
                self._done.notify_all()
                self._expected = len(gates) + len(segment.gates)
                self._gather_until = time.monotonic() + _GATHER_SECONDS
            open_all(gates)

    def _due(self) -> OpenSegment | None:
        """The segment, when there is something to do for it; None when the writer is done."""
        while True:
            segment, now = self.segment, time.monotonic()
            if segment is None:
                if self._stopping:
                    return None
                self._urgent = False
                self._work.wait()
                continue
            deadline = segment.last_mark + self._limits.heartbeat_seconds
            if segment.since is not None:
                deadline = min(deadline, segment.since + self._limits.mark_seconds)
            if self._urgent:
                # Those who waited a moment ago are about to come back: one synchronisation will do for all.
                deadline = self._gather_until if len(segment.gates) < self._expected else now
            if segment.ending or now >= deadline:
                return segment
            self._work.wait(deadline - now)

    def _silent(self, segment: OpenSegment) -> bool:
        return time.monotonic() >= segment.last_mark + self._limits.heartbeat_seconds

    def _fail(self, segment: OpenSegment, error: Exception) -> None:
        segment.failure = error if isinstance(error, CloisterError) else _lost(type(error).__name__)
        segment.chain.erase()
        self.lost += segment.entries - segment.durable_entries
        self._finish(segment)
        self._done.notify_all()

    def _finish(self, segment: OpenSegment) -> None:
        segment.ended = True
        lines, head = segment.durable
        if lines:
            segment.file.close()
            self._previous = Link(segment=segment.name, lines=lines, head=head.hex())
        else:
            # Where the name can't be freed, making the next segment is what fails, and says so.
            with suppress(StorageError):
                segment.file.discard()
        self.segment = None
        gates, segment.gates = segment.gates, []
        open_all(gates)


def _lost(reason: str) -> SegmentError:
    return SegmentError("evidence.segment_lost", f"An entry was not made durable: {reason}.")
