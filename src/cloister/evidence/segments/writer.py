"""The writer of a process's audit stream: many threads append, one thread makes it durable for all.

Rules kept here:

1. An entry is acknowledged when its line is on disk, a signed checkpoint covers it, and every sink has that
   checkpoint. So whatever was acknowledged can't be cut off unseen, not even by who owns the machine.
2. Whoever doesn't wait is covered by a checkpoint after at most 256 entries or 100 ms, and an idle process
   signs a mark every 10 s. What can vanish with a crash or be cut off unseen lies behind the last one.
3. One segment belongs to one process. A forked child erases its copy of the parent's secrets, begins a stream
   of its own, and names the place where its parent stood.
4. After a write that failed nothing is appended to that segment: who waited gets an error, the next segment
   says how many entries were lost, and nothing is written twice. A writer that is closed says it too.
5. Memory is bounded: where the disk can't follow, appending waits.

Not to be called from a signal handler. A process that ends by `os._exit` or a signal writes no closing mark.
"""

from __future__ import annotations

import atexit
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.clock import Clock, system_clock
from cloister.core.closing import Closing
from cloister.core.errors import InputError
from cloister.core.keys import Signer
from cloister.evidence.predicates.base import PARTY_PATTERN
from cloister.evidence.segments.flow import EntryReceipt, SegmentFlow, Ticket
from cloister.evidence.segments.layout import MAX_EVENT_BYTES, MAX_EVENT_DEPTH, Cipher
from cloister.evidence.segments.limits import SegmentLimits
from cloister.evidence.segments.opened import SegmentMaker
from cloister.evidence.segments.process import Uptime, system_uptime
from cloister.evidence.segments.secrets import SealingKey
from cloister.evidence.segments.sinks import CheckpointSink

_BRACKETS: Final = (b"[", b"{")
_BY_DEFAULT: Final = SegmentLimits()


class SegmentWriter(Closing):
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
        limits: SegmentLimits = _BY_DEFAULT,
        clock: Clock = system_clock,
        uptime: Uptime = system_uptime,
    ) -> None:
        if not re.fullmatch(PARTY_PATTERN, stream):
            raise InputError(
                "input.schema", "A stream's name has up to 63 letters, digits, dots, dashes, underscores."
            )
        self._maker = SegmentMaker(
            directory, stream, signer, sealing_key, cipher, limits.heartbeat_seconds, clock, uptime
        )
        self._sinks = tuple(sinks)
        self._limits = limits
        self._flow = SegmentFlow(self._maker, self._sinks, limits, None)
        _WRITERS.add(self)

    @property
    def lost(self) -> int:
        """How many entries were taken and never became durable, because writing failed."""
        return self._flow.lost

    def append(self, event: Mapping[str, JSON]) -> Ticket:
        """Take an entry; durable and vouched for within the limits' time, or when the ticket is waited for.

        Args:
            event: what JSON can carry exactly, at most 64 KiB in canonical form.

        Raises:
            InputError: ``input.not_json`` or ``input.too_large``; nothing was taken.
            SegmentError: ``evidence.segment_closed``.
            StorageError: a new segment was needed and can't be made; nothing was taken.
        """
        return self._flow.take(_event(event))

    def append_durable(self, event: Mapping[str, JSON]) -> EntryReceipt:
        """Take an entry and wait until it is durable and vouched for outside: for what must not be lost.

        Raises:
            As `append` and `Ticket.wait`.
        """
        return self._flow.take_durably(_event(event))

    def flush(self) -> None:
        """Wait until all that was taken so far is durable and vouched for outside.

        Raises:
            As `Ticket.wait`.
        """
        self._flow.flush()

    def rotate(self, signer: Signer | None = None, sealing_key: SealingKey | None = None) -> None:
        """Close the segment and begin another, under new secrets and, where given, new keys.

        A writer that has no segment yet, or none since a write failed, begins one with the next entry.

        Args:
            signer: signs checkpoints from now on.
            sealing_key: whom secrets are sealed to from now on.

        Raises:
            As `Ticket.wait`, and StorageError where the next segment can't be made; the keys are changed
            all the same.
        """
        self._flow.rotate(signer, sealing_key)

    def close(self) -> None:
        """Write the closing mark and stop. A second time does nothing.

        Where entries were lost and no segment says so yet, a last one is written that does.

        Raises:
            As `Ticket.wait`, and StorageError where that last one can't be made; the writer is closed all the
            same.
        """
        try:
            self._flow.close()
        finally:
            _WRITERS.discard(self)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a segment's writer is never copied out of its process")

    def _after_fork(self) -> None:
        """In a forked child, before it does anything else: begin a stream of its own."""
        self._flow = SegmentFlow(self._maker, self._sinks, self._limits, self._flow.abandon())


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
