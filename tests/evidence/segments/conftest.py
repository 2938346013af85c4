"""A stream with its keys, and what an attacker who owns the machine can do to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cloister.core.canonical import JSON, canonicalize
from cloister.core.clock import Clock
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence.segments import (
    Cipher,
    Header,
    OpeningKey,
    SegmentCheckpoint,
    SegmentId,
    SegmentLimits,
    SegmentVerdict,
    SegmentWriter,
    StreamVerdict,
    verify_directory,
    verify_segment,
)
from cloister.evidence.segments.chain import SegmentChain
from cloister.evidence.segments.checkpoint import State
from cloister.evidence.segments.layout import SEGMENT_SCHEMA, parse_opening
from cloister.evidence.segments.secrets import SegmentSecrets


class Stream:
    """A folder of segments, its keys, and the checkpoints that somebody outside holds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.signer: Signer = EphemeralKeyStore().generate("stream")
        self.opening = OpeningKey.generate()
        self.held: list[SegmentCheckpoint] = []

    def writer(
        self,
        *,
        cipher: Cipher = Cipher.NONE,
        limits: SegmentLimits | None = None,
        clock: Clock | None = None,
        sink: Callable[[SegmentCheckpoint], None] | None = None,
    ) -> SegmentWriter:
        more = {} if clock is None else {"clock": clock}
        return SegmentWriter(
            self.directory,
            "immune",
            self.signer,
            self.opening.sealing_key,
            sinks=[sink or self.held.append],
            cipher=cipher,
            limits=limits or SegmentLimits(),
            **more,
        )

    def written(self, count: int = 9, **options: object) -> Path:
        """A closed segment with so many events, each acknowledged before the next."""
        with self.writer(**options) as writer:  # type: ignore[arg-type]
            for number in range(count):
                writer.append_durable({"number": number, "what": "call"})
        return self.files()[-1]

    def made(self, events: Sequence[dict[str, JSON]], cipher: Cipher = Cipher.NONE) -> bytes:
        """The bytes that a writer makes of events, each acknowledged before the next, without a disk."""
        segment, secrets = (
            SegmentId("0" * 8 + "-0000" * 3 + "-" + "0" * 12, 7, "0" * 16, 1),
            SegmentSecrets.draw(),
        )
        header = Header(
            boot=segment.boot,
            cipher=cipher,
            heartbeat=10,
            key=self.signer.public_key.key_id,
            lost=0,
            number=1,
            parent=None,
            pid=7,
            previous=None,
            process=segment.process,
            schema=SEGMENT_SCHEMA,
            secrets=self.opening.sealing_key.seal(secrets, segment),
            stream="immune",
            uptime=5,
        )
        chain, at = SegmentChain(header, secrets, self.signer), "2026-11-21T14:00:00.000000Z"
        data = chain.open(at)

        def marked(state: State) -> bytes:
            line, made = chain.mark(at, 5, state)
            self.held.append(made)
            return line

        data += marked(State.RUNNING)
        for event in events:
            data += chain.entry(at, canonicalize(event))
            data += marked(State.RUNNING)
        return data + marked(State.CLOSED)

    def files(self) -> list[Path]:
        return sorted(self.directory.glob("*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))

    def verify(self, source: Path | bytes) -> SegmentVerdict:
        """With everything: pinned key, checkpoints held outside, secrets."""
        return verify_segment(source, keys=[self.signer.public_key], held=self.held, secrets=self.opening)

    def verify_as_third_party(self, source: Path | bytes) -> SegmentVerdict:
        return verify_segment(source, keys=[self.signer.public_key], held=self.held)

    def verify_all(self) -> StreamVerdict:
        return verify_directory(self.directory, keys=[self.signer.public_key], held=self.held)

    def stolen(self, data: bytes, lines: int, key: bytes) -> SegmentChain:
        """A chain behind the first lines of a segment, for who stole the signing key and a tagging key."""
        kept = data.split(b"\n")[:lines]
        header = parse_opening(kept[0])[1]
        chain = SegmentChain(header, SegmentSecrets(key), self.signer)
        chain._lines, chain._head = lines, bytes.fromhex(kept[-1][-66:-2].decode())
        return chain


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    directory = tmp_path / "segments"
    directory.mkdir()
    return Stream(directory)


def failing(verdict: SegmentVerdict) -> list[str]:
    """The checks that failed."""
    return [check.id for check in verdict.checks if check.outcome.value == "failed"]
