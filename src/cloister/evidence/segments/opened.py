"""The segment that a writer is at: what was made of it, how far it got, and who waits for it.

Rules kept here:

1. A segment begins with its header and the mark that signs it, before any event.
2. Each segment draws its own secrets. The sealed ones are in its header; the writer has the next line's key.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloister.core.clock import Clock, format_time
from cloister.core.errors import CloisterError
from cloister.core.keys import Signer
from cloister.evidence.segments.chain import SegmentChain
from cloister.evidence.segments.checkpoint import SegmentCheckpoint, State
from cloister.evidence.segments.file import SegmentFile
from cloister.evidence.segments.gate import Gate
from cloister.evidence.segments.layout import SEGMENT_SCHEMA, Cipher, Header, Link, SegmentId
from cloister.evidence.segments.process import Process, Uptime
from cloister.evidence.segments.secrets import SealingKey, SegmentSecrets

_TOGETHER_MICROSECONDS: Final = 100_000
_READINGS: Final = 5


@dataclass(eq=False, slots=True)
class OpenSegment:
    """The segment being written, guarded by the writer's lock; its file by the flushing thread.

    Attributes:
        name: the segment's name.
        chain: makes its lines.
        file: takes them.
        opened: when it was made, by the monotonic clock.
        lost_before: how many entries this process had lost by then.
        durable: how many lines are on disk, and the hash of the last.
        waiting: lines that are not, and how many bytes they have.
        size: how many bytes it has, waiting ones included.
        marks: checkpoints that the sinks don't have.
        gates: opened when all that was taken before is settled.
        since: since when an entry waits for its mark, None where none does.
        last_mark: when something was signed.
        entries: how many were taken, and how many of them are on disk.
        vouched: up to which line every sink has a checkpoint.
        unsent: why not all have the last one.
        failure: why nothing more is appended to it.
        ending: whether its closing mark was made.
        ended: whether it was settled for good.
    """

    name: str
    chain: SegmentChain
    file: SegmentFile
    opened: float
    lost_before: int
    durable: tuple[int, bytes] = (0, b"")
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
        """A line to be written."""
        self.waiting.append(line)
        self.waiting_bytes += len(line)
        self.size += len(line)


@dataclass(slots=True)
class SegmentMaker:
    """Begins segments and signs them.

    Attributes:
        directory: where they are made.
        stream: what the stream is called.
        signer: signs from now on.
        sealing_key: whom secrets are sealed to from now on.
        cipher: how events are kept.
        heartbeat: at most so many seconds pass between two marks.
        clock: the time that lines carry.
        uptime: microseconds since the boot.
    """

    directory: Path
    stream: str
    signer: Signer
    sealing_key: SealingKey
    cipher: Cipher
    heartbeat: int
    clock: Clock
    uptime: Uptime

    def begin(
        self,
        process: Process,
        number: int,
        *,
        previous: Link | None,
        parent: Link | None,
        lost: int,
        told: int,
    ) -> OpenSegment:
        """A new segment with its first two lines.

        Args:
            process: who writes it.
            number: which of its segments it is.
            previous: where the one before ended.
            parent: for a first one, where the process stood that this one was forked from.
            lost: how many entries the process has lost.
            told: how many of them a header on disk says.

        Raises:
            StorageError: its file can't be made.
        """
        name = SegmentId(process.boot, process.pid, process.token, number)
        secrets = SegmentSecrets.draw()
        at, uptime = self._now()
        header = Header(
            boot=name.boot,
            cipher=self.cipher,
            heartbeat=self.heartbeat,
            key=self.signer.public_key.key_id,
            lost=lost - told,
            number=name.number,
            parent=parent if previous is None else None,
            pid=name.pid,
            previous=previous,
            process=name.process,
            schema=SEGMENT_SCHEMA,
            secrets=self.sealing_key.seal(secrets, name),
            stream=self.stream,
            uptime=uptime,
        )
        chain = SegmentChain(header, secrets, self.signer)
        first = chain.open(at)
        second, made = chain.mark(*self._now(), State.RUNNING)
        now = time.monotonic()
        file = SegmentFile(self.directory / name.file_name)
        segment = OpenSegment(str(name), chain, file, now, lost, last_mark=now)
        segment.take(first)
        segment.take(second)
        segment.marks.append(made)
        return segment

    def mark(self, segment: OpenSegment, state: State) -> None:
        """Sign what a segment is now."""
        line, made = segment.chain.mark(*self._now(), state)
        segment.take(line)
        segment.marks.append(made)
        segment.last_mark = time.monotonic()

    def _now(self) -> tuple[str, int]:
        """Both clocks at one moment: read again where the machine stopped this process between the two.

        Otherwise a pause would read as a clock that somebody set.
        """
        for _ in range(_READINGS):
            before, at, uptime = self.uptime(), format_time(self.clock()), self.uptime()
            if uptime - before <= _TOGETHER_MICROSECONDS:
                break
        return at, uptime
