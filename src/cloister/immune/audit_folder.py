"""The folder of an audit: its segments, its keys, and what is held of its checkpoints.

    <folder>/segments/*.jsonl       the signed stream; each process writes segments of its own
    <folder>/checkpoints/*.held     the checkpoints of each segment, by which a cut end is found
    <folder>/keys/audit-1.pem       signs; the highest number is today's
    <folder>/public/*.pem           the public halves, former ones too: what a third party pins
    <folder>/opening/audit-1.pem    opens what is encrypted, and recomputes tags
    <folder>/sealing/audit-1.pem    its public half, by which segments are sealed

Rules kept here:

1. What opens the past isn't needed for writing: move ``opening`` to another machine, and who takes this one
   over can neither read nor forge what was written before. Writing goes on with ``sealing``.
2. Checkpoints in this folder show a cut end to whoever can't write here. Against who can, there is
   ``storage.checkpoint_directory``: a second folder, on another disk or of another machine.
3. Keys are made once and never overwritten; a rotation makes the next number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from cloister.core.clock import Clock, format_time, system_clock
from cloister.core.errors import KeyStoreError, StorageError
from cloister.core.files import read_bounded, write_new
from cloister.core.keys import FileKeyStore, KeyStore, PublicKey, Signer
from cloister.core.keys.folder import private_folder
from cloister.evidence.segments import (
    CheckpointSink,
    Cipher,
    FileSink,
    OpeningKey,
    OpeningKeys,
    SealingKey,
    SegmentCheckpoint,
    SegmentWriter,
    parse_held,
)
from cloister.immune.audit import Alarm, AuditTrail, log_alarm
from cloister.immune.audit_event import AuditEvent, AuditKind

STREAM: Final = "immune"
HELD_SUFFIX: Final = ".held"
_KEY: Final = re.compile(r"audit-([1-9][0-9]{0,5})")
_MAX_PEM: Final = 16 * 1024
_NAMED_BEFORE: Final = 4
_LAST_LINES: Final = 16 * 1024


class AuditFolder:
    """Where one service's audit is kept.

    Args:
        directory: the folder; made with mode 0700 where it is missing.
        keys: keeps the signing keys; none keeps them as files in the folder.

    Raises:
        KeyStoreError: ``key.permissions`` where others may enter the folder.
        StorageError: it can't be made.
    """

    def __init__(self, directory: Path, *, keys: KeyStore | None = None) -> None:
        self._directory = private_folder(directory)
        self._keys = keys or FileKeyStore(directory / "keys")
        self.segments = private_folder(directory / "segments")
        self.checkpoints = private_folder(directory / "checkpoints")

    def signer(self) -> Signer:
        """Today's signing key; made where there is none."""
        return self._keys.load(self._latest(self._keys.names()) or self._new_signer())

    def public_keys(self) -> tuple[PublicKey, ...]:
        """The keys that ever signed here, former ones too."""
        self.signer()
        paths = sorted((self._directory / "public").glob("*.pem"))
        return tuple(PublicKey.from_pem(read_bounded(path, _MAX_PEM)) for path in paths)

    def sealing_key(self) -> SealingKey:
        """Whom segments are sealed to; a pair is made where there is none."""
        folder = private_folder(self._directory / "sealing")
        latest = self._latest([path.stem for path in folder.glob("*.pem")]) or self._new_opening_key()
        return SealingKey.from_pem(read_bounded(folder / f"{latest}.pem", _MAX_PEM))

    def opening_keys(self) -> OpeningKeys | None:
        """What opens the segments, where it is still here."""
        folder = self._directory / "opening"
        return OpeningKeys(folder) if folder.is_dir() else None

    def writer(
        self, *, encrypted: bool = False, sinks: Sequence[CheckpointSink] = (), clock: Clock = system_clock
    ) -> SegmentWriter:
        """A writer of this process's segments.

        Args:
            encrypted: whether events are kept as AES-256-GCM ciphertext.
            sinks: who holds checkpoints beside this folder.
            clock: the time that lines carry.
        """
        return SegmentWriter(
            self.segments,
            STREAM,
            self.signer(),
            self.sealing_key(),
            sinks=[CheckpointFolder(self.checkpoints), *sinks],
            cipher=Cipher.AES_256_GCM if encrypted else Cipher.NONE,
            clock=clock,
        )

    def rotate(self, writer: SegmentWriter) -> None:
        """Make new keys, and have a writer go on with them. Former ones verify and open what they did.

        Raises:
            As `SegmentWriter.rotate`, and StorageError where a key can't be kept.
        """
        signer = self._keys.load(self._new_signer())
        if self.opening_keys() is not None:
            self._new_opening_key()
        writer.rotate(signer, self.sealing_key())

    def _latest(self, names: Sequence[str]) -> str | None:
        numbers = [int(found[1]) for name in names if (found := _KEY.fullmatch(name))]
        return f"audit-{max(numbers)}" if numbers else None

    def _following(self, names: Sequence[str]) -> str:
        latest = self._latest(names)
        return f"audit-{1 if latest is None else int(latest.removeprefix('audit-')) + 1}"

    def _new_signer(self) -> str:
        name = self._following(self._keys.names())
        try:
            signer = self._keys.generate(name)
        except KeyStoreError as error:
            if error.code != "key.exists":  # another process was faster
                raise
            signer = self._keys.load(name)
        _keep(private_folder(self._directory / "public") / f"{name}.pem", signer.public_key.pem)
        return name

    def _new_opening_key(self) -> str:
        keys = OpeningKeys(self._directory / "opening")
        name = self._following(keys.names())
        try:
            key: OpeningKey = keys.generate(name)
        except KeyStoreError as error:
            if error.code != "key.exists":
                raise
            key = keys.load(name)
        _keep(private_folder(self._directory / "sealing") / f"{name}.pem", key.sealing_key.pem)
        return name


class CheckpointFolder:
    """Holds checkpoints, a file for each segment, so that what is read for one segment stays small.

    Args:
        directory: the folder, best on another disk or where only appending is allowed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segment = ""
        self._sink: FileSink | None = None

    def __call__(self, checkpoint: SegmentCheckpoint) -> None:
        """Append one line.

        Raises:
            SegmentError: ``evidence.segment_unsent``.
            StorageError, OSError: the file or its folder can't be made.
        """
        if self._sink is None or checkpoint.segment != self._segment:
            if self._sink is not None:
                self._sink.close()
                self._sink = None
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sink = FileSink(self._directory / f"{checkpoint.segment}{HELD_SUFFIX}")
            self._segment = checkpoint.segment
        self._sink(checkpoint)


def open_audit(
    folder: AuditFolder,
    *,
    encrypted: bool = False,
    checkpoints: Path | None = None,
    sinks: Sequence[CheckpointSink] = (),
    redact: Callable[[str], str] = str,
    alarm: Alarm = log_alarm,
    clock: Clock = system_clock,
) -> AuditTrail:
    """The audit of this process; nothing is written before the first entry.

    Args:
        folder: where it is kept.
        encrypted: whether it is encrypted at rest.
        checkpoints: a second folder that holds checkpoints; made at the first one.
        sinks: who else holds them: standard output, the hub.
        redact: applied to what entries say in words.
        alarm: told when entries can't be written any more.
        clock: dates lines and the audit's own entries.
    """
    held = () if checkpoints is None else (CheckpointFolder(checkpoints),)
    writer = folder.writer(encrypted=encrypted, sinks=(*held, *sinks), clock=clock)
    preface = partial(segments_before, folder.checkpoints, clock)
    return AuditTrail(writer, redact=redact, alarm=alarm, clock=clock, preface=preface)


def segments_before(checkpoints: Path, clock: Clock) -> Iterator[AuditEvent]:
    """Entries that name the newest segments of others, and where they stood: they can't vanish unseen.

    Args:
        checkpoints: what a `CheckpointFolder` wrote.
        clock: dates the entries.
    """
    newest = sorted(checkpoints.glob(f"*{HELD_SUFFIX}"), key=lambda one: one.stat().st_mtime_ns)
    for path in newest[-_NAMED_BEFORE:]:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LAST_LINES))
            last = list(parse_held(stream.read().partition(b"\n")[2]))[-1:]
        for one in last:
            reason = f"goes on from a segment that stood at line {one.lines}"
            name = f"{one.segment}@{one.lines}"
            yield AuditEvent(format_time(clock()), AuditKind.FOLLOWS, "follows", "", None, reason, name)


def _keep(path: Path, pem: str) -> None:
    try:
        write_new(path, pem.encode("ascii"))
    except StorageError as error:
        if error.code != "storage.exists":
            raise
