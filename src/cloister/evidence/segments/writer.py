"""The writer of a process's audit stream: many threads append, one thread makes it durable for all.

Rules kept here:

1. An entry is acknowledged when its line is on disk, a signed checkpoint covers it, and every sink has that
   checkpoint. So whatever was acknowledged can't be cut off unseen, not even by who owns the machine.
2. Whoever doesn't wait is covered by a checkpoint after at most 256 entries or 100 ms, and an idle process
   signs a mark every 10 s. What can vanish with a crash or be cut off unseen lies behind the last one.
3. One segment belongs to one process. A forked child erases its copy of the parent's secrets, begins a stream
   of its own, and names the place where its parent stood.
4. After a write that failed nothing is appended to that segment: who waited gets an error, the next segment
   says how many entries were lost, and nothing is written twice.
5. Memory is bounded: where the disk can't follow, appending waits.

Not to be called from a signal handler. A process that ends by `os._exit` or a signal writes no closing mark.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.clock import Clock, format_time, system_clock
from cloister.core.errors import CloisterError, InputError, StorageError
from cloister.core.keys import Signer
from cloister.evidence.errors import SegmentError
from cloister.evidence.predicates.base import PARTY_PATTERN
from cloister.evidence.segments.chain import SegmentChain
from cloister.evidence.segments.checkpoint import SegmentCheckpoint, State
from cloister.evidence.segments.file import SegmentFile
from cloister.evidence.segments.gate import Gate, open_all
from cloister.evidence.segments.layout import (
    MAX_EVENT_BYTES,
    MAX_EVENT_DEPTH,
    SEGMENT_SCHEMA,
    Cipher,
    Header,
    Link,
    SegmentId,
)
from cloister.evidence.segments.process import Process, Uptime, system_uptime, this_process
from cloister.evidence.segments.secrets import SealingKey, SegmentSecrets
from cloister.evidence.segments.sinks import CheckpointSink

_GATHER_SECONDS: Final = 0.002
_BRACKETS: Final = (b"[", b"{")


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """When marks are made and segments end.

    Attributes:
        entries_per_mark: so many entries at most lie between two marks.
        mark_seconds: an entry waits so long at most for the mark that covers it.
        heartbeat_seconds: so long at most is nothing signed.
        max_bytes: a segment that has so many bytes is closed before the next entry.
        max_seconds: a segment that was opened so long ago is closed before the next entry.
        max_waiting_bytes: so much is held in memory at most before appending waits.
    """

    entries_per_mark: int = 256
    mark_seconds: float = 0.1
    heartbeat_seconds: int = 10
    max_bytes: int = 64 * 1024 * 1024
    max_seconds: float = 3600.0
    max_waiting_bytes: int = 8 * 1024 * 1024


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


@dataclass(eq=False, slots=True)
class _Segment:
    """The segment being written, guarded by the writer's lock; the file by the flushing thread."""

    name: str
    chain: SegmentChain
    file: SegmentFile
    opened: float
    durable: tuple[int, bytes]
    waiting: list[bytes] = field(default_factory=list)
    waiting_bytes: int = 0
    size: int = 0
    marks: list[SegmentCheckpoint] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    since: float | None = None
    last_mark: float = 0.0
    entries: int = 0
    durable_entries: int = 0
    vouched: int = 0
    unsent: CloisterError | None = None
    failure: CloisterError | None = None
    ending: bool = False
    ended: bool = False

    def take(self, line: bytes) -> None:
        self.waiting.append(line)
        self.waiting_bytes += len(line)
        self.size += len(line)


class Ticket:
    """An entry that was taken and is on its way to the disk.

    Attributes:
        receipt: where the entry will stand.
    """

    __slots__ = ("_segment", "_writer", "receipt")

    def __init__(self, writer: SegmentWriter, segment: _Segment, receipt: EntryReceipt) -> None:
        self._writer = writer
        self._segment = segment
        self.receipt = receipt

    def wait(self) -> EntryReceipt:
        """Wait until the entry is durable and vouched for outside; asks for that to happen at once.

        Raises:
            SegmentError: ``evidence.segment_lost`` if it never became durable, ``evidence.segment_unsent``
                if it is durable and not every sink took its checkpoint.
            StorageError: the disk refused it.
        """
        self._writer._settle(self._segment, self.receipt.line)
        return self.receipt


class SegmentWriter:
    """Writes one process's audit stream as segments.

    Nothing is opened and no thread is started before the first entry.

    Args:
        directory: where segments are made; it has to exist.
        stream: what the stream is called, such as ``immune``.
        signer: signs checkpoints; its public key is what third parties pin.
        sealing_key: whom the tagging and encryption secrets are sealed to.
        sinks: who holds the checkpoints outside this process. Without any, only its missing
            closing mark shows that a segment's end was cut off.
        cipher: whether events are encrypted at rest.
        limits: when marks are made and segments end.
        clock: the time that lines carry.
        uptime: microseconds since the boot.

    Raises:
        InputError: ``input.schema`` for a stream's name that can't be written.
    """

    def __init__(
        self,
        directory: Path,
        stream: str,
        signer: Signer,
        sealing_key: SealingKey,
        *,
        sinks: Sequence[CheckpointSink],
        cipher: Cipher = Cipher.NONE,
        limits: SegmentLimits = SegmentLimits(),
        clock: Clock = system_clock,
        uptime: Uptime = system_uptime,
    ) -> None:
        if not re.fullmatch(PARTY_PATTERN, stream):
            raise InputError(
                "input.schema", "A stream's name has up to 63 letters, digits, dots, dashes, underscores."
            )
        self._directory = directory
        self._stream = stream
        self._signer = signer
        self._sealing_key = sealing_key
        self._sinks = tuple(sinks)
        self._cipher = cipher
        self._limits = limits
        self._clock = clock
        self._uptime = uptime
        self._closed = False
        self._parent: Link | None = None
        self._lost = 0
        self._begin_process()
        _WRITERS.add(self)

    @property
    def lost(self) -> int:
        """How many entries were taken and never became durable, because writing failed."""
        return self._lost

    def append(self, event: Mapping[str, JSON]) -> Ticket:
        """Take an entry; durable and vouched for within the limits' time, or when the ticket is waited for.

        Args:
            event: what JSON can carry exactly, at most 64 KiB in canonical form.

        Raises:
            InputError: ``input.not_json`` or ``input.too_large``; nothing was taken.
            SegmentError: ``evidence.segment_closed``.
            StorageError: a new segment was needed and can't be made; nothing was taken.
        """
        text = _event(event)
        with self._lock:
            return self._take(text)

    def append_durable(self, event: Mapping[str, JSON]) -> EntryReceipt:
        """Take an entry and wait until it is durable and vouched for outside: for what must not be lost.

        Raises:
            As `append` and `Ticket.wait`.
        """
        text = _event(event)
        with self._lock:
            ticket = self._take(text)
            gate = self._gate(ticket._segment)
        gate.wait()
        return ticket.wait()

    def flush(self) -> None:
        """Wait until all that was taken so far is durable and vouched for outside.

        Raises:
            As `Ticket.wait`.
        """
        with self._lock:
            segment = self._segment
            line = 0 if segment is None else segment.chain.lines
        if segment is not None:
            self._settle(segment, line)

    def rotate(self, signer: Signer | None = None, sealing_key: SealingKey | None = None) -> None:
        """Close the segment; the next entry begins another, under new secrets and, where given, new keys.

        Args:
            signer: signs checkpoints from now on.
            sealing_key: whom secrets are sealed to from now on.

        Raises:
            As `Ticket.wait`; the keys are changed all the same.
        """
        with self._lock:
            segment = self._end()
            self._signer = signer or self._signer
            self._sealing_key = sealing_key or self._sealing_key
        if segment is not None:
            self._settle(segment, segment.chain.lines)

    def close(self) -> None:
        """Write the closing mark and stop. A second time does nothing.

        Raises:
            As `Ticket.wait`; the writer is closed all the same.
        """
        with self._lock:
            self._closed = True
            segment = self._end()
        try:
            if segment is not None:
                self._settle(segment, segment.chain.lines)
        finally:
            with self._lock:
                self._stopping = True
                self._work.notify_all()
            if self._thread is not None:
                self._thread.join()
            _WRITERS.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a segment's writer is never copied out of its process")

    # What follows is called with the lock held, unless it says otherwise.

    def _begin_process(self) -> None:
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._process: Process | None = None
        self._segment: _Segment | None = None
        self._previous: Link | None = None
        self._number = 0
        self._urgent = False
        self._expected = 0
        self._gather_until = 0.0
        self._stopping = False

    def _after_fork(self) -> None:
        """In a forked child, before it does anything else: forget all that is the parent's."""
        segment = self._segment
        if segment is not None:
            lines, head = segment.durable
            if lines:
                self._parent = Link(segment=segment.name, lines=lines, head=head.hex())
            segment.failure = _lost("it belongs to the process that this one was forked from")
            segment.chain.erase()
            segment.file.close()
        else:
            self._parent = self._previous or self._parent
        self._lost = 0
        self._begin_process()

    def _ready(self) -> _Segment:
        """A segment that takes the next entry; waits where the disk can't follow."""
        while True:
            if self._closed:
                raise SegmentError("evidence.segment_closed", "The segment's writer was closed.")
            segment = self._segment
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
        chain, at = segment.chain, format_time(self._clock())
        if chain.unsigned >= self._limits.entries_per_mark:
            self._mark(segment, State.RUNNING)
        segment.take(chain.entry(at, text))
        segment.entries += 1
        if segment.since is None:
            segment.since = time.monotonic()
            self._work.notify()
        return Ticket(self, segment, EntryReceipt(segment.name, chain.lines, at, chain.head))

    def _gate(self, segment: _Segment) -> Gate:
        """What the flushing thread opens when all that was taken so far is settled.

        Everybody waits at a gate of his own: behind a shared condition all who wake contend for one lock.
        """
        gate = Gate()
        segment.gates.append(gate)
        if not self._urgent or len(segment.gates) == self._expected:
            self._wake()
        return gate

    def _over(self, segment: _Segment) -> bool:
        age = time.monotonic() - segment.opened
        return segment.size >= self._limits.max_bytes or age >= self._limits.max_seconds

    def _begin(self) -> _Segment:
        if self._process is None:
            self._process = this_process()
        process = self._process
        name = SegmentId(process.boot, process.pid, process.token, self._number + 1)
        secrets = SegmentSecrets.draw(self._cipher)
        header = Header(
            boot=name.boot,
            cipher=self._cipher,
            heartbeat=self._limits.heartbeat_seconds,
            key=self._signer.public_key.key_id,
            lost=self._lost,
            number=name.number,
            parent=self._parent if self._previous is None else None,
            pid=name.pid,
            previous=self._previous,
            process=name.process,
            schema=SEGMENT_SCHEMA,
            secrets=self._sealing_key.seal(secrets, name),
            stream=self._stream,
            uptime=self._uptime(),
        )
        chain = SegmentChain(header, secrets, self._signer)
        first = chain.open(format_time(self._clock()))
        second, made = chain.mark(format_time(self._clock()), self._uptime(), State.RUNNING)
        file = SegmentFile(self._directory / name.file_name)
        now = time.monotonic()
        segment = _Segment(str(name), chain, file, now, (0, b""), last_mark=now)
        segment.take(first)
        segment.take(second)
        segment.marks.append(made)
        self._segment = segment
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"segments-{self._stream}", daemon=True)
            self._thread.start()
        return segment

    def _mark(self, segment: _Segment, state: State) -> None:
        line, made = segment.chain.mark(format_time(self._clock()), self._uptime(), state)
        segment.take(line)
        segment.marks.append(made)
        segment.last_mark = time.monotonic()

    def _end(self) -> _Segment | None:
        """Begin to close the segment, if there is one."""
        segment = self._segment
        if segment is not None and not segment.ending:
            self._end_segment(segment)
        return segment

    def _end_segment(self, segment: _Segment) -> None:
        try:
            self._mark(segment, State.CLOSED)
        except Exception as error:  # a signer or clock that fails loses the segment, and nobody waits forever
            self._fail(segment, error)
        segment.ending = True
        self._wake()

    def _wake(self) -> None:
        self._urgent = True
        self._work.notify()

    def _settle(self, segment: _Segment, line: int) -> None:
        """Wait for a line of a segment; called without the lock."""
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
                        self._mark(segment, State.RUNNING)
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
            unsent = self._hand_out(marks)
            with self._lock:
                segment.durable, segment.durable_entries = reached, entries
                self._number = segment.chain.id.number
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

    def _due(self) -> _Segment | None:
        """The segment, when there is something to do for it; None when the writer is done."""
        while True:
            segment, now = self._segment, time.monotonic()
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

    def _silent(self, segment: _Segment) -> bool:
        return time.monotonic() >= segment.last_mark + self._limits.heartbeat_seconds

    def _hand_out(self, marks: Sequence[SegmentCheckpoint]) -> CloisterError | None:
        """Give checkpoints to every sink, also when one fails; called without the lock."""
        found: CloisterError | None = None
        for sink in self._sinks:
            try:
                for mark in marks:
                    sink(mark)
            except CloisterError as error:
                found = error
            except Exception as error:  # whatever a caller's sink raises, the stream goes on
                found = SegmentError(
                    "evidence.segment_unsent",
                    f"A segment's checkpoint could not be handed outside: {type(error).__name__}.",
                    "See that whoever receives checkpoints is running and has room.",
                )
        return found

    def _fail(self, segment: _Segment, error: Exception) -> None:
        segment.failure = error if isinstance(error, CloisterError) else _lost(type(error).__name__)
        segment.chain.erase()
        self._lost += segment.entries - segment.durable_entries
        self._finish(segment)
        self._done.notify_all()

    def _finish(self, segment: _Segment) -> None:
        segment.ended = True
        lines, head = segment.durable
        if lines:
            segment.file.close()
            self._previous = Link(segment=segment.name, lines=lines, head=head.hex())
        else:
            # Where the name can't be freed, making the next segment is what fails, and says so.
            with suppress(StorageError):
                segment.file.discard()
        self._segment = None
        gates, segment.gates = segment.gates, []
        open_all(gates)


def _lost(reason: str) -> SegmentError:
    return SegmentError("evidence.segment_lost", f"An entry was not made durable: {reason}.")


def _event(event: Mapping[str, JSON]) -> bytes:
    text = canonicalize(dict(event))
    if len(text) > MAX_EVENT_BYTES:
        raise InputError(
            "input.too_large", f"The event has {len(text)} bytes; at most {MAX_EVENT_BYTES} are taken."
        )
    if sum(map(text.count, _BRACKETS)) > MAX_EVENT_DEPTH:
        parse(text, max_depth=MAX_EVENT_DEPTH)
    return text


_WRITERS: weakref.WeakSet[SegmentWriter] = weakref.WeakSet()


def _forget_parents() -> None:
    for writer in list(_WRITERS):
        writer._after_fork()


def _close_all() -> None:
    with ExitStack() as every_one:
        for writer in list(_WRITERS):
            every_one.callback(writer.close)


os.register_at_fork(after_in_child=_forget_parents)
atexit.register(_close_all)
