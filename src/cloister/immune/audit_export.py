"""Whether an audit is whole and unchanged, and its entries as JSON Lines for who reads them elsewhere.

Rules kept here:

1. The verdict is computed anew from the files, by `cloister.evidence.segments`; nothing is taken over.
2. An entry is exported only out of a segment that verifies. What doesn't is named in the verdict.
3. An export is whole under its name, or there is none; nothing is overwritten. The verdict beside it names
   the export's hash.
4. Segments name those before them. These entries are judged, not exported: they say nothing of the service.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

from cloister.core.canonical import JSON, canonicalize
from cloister.core.errors import CloisterError
from cloister.core.files import open_plain, storage_error, sync_directory, write_new
from cloister.core.keys import PublicKey
from cloister.evidence.checks import Outcome
from cloister.evidence.segments import (
    SegmentCheckpoint,
    SegmentEntry,
    StreamVerdict,
    parse_held,
    read_entries,
    verify_directory,
)
from cloister.evidence.segments.layout import SUFFIX
from cloister.evidence.segments.secrets import SecretsOpener
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.audit_folder import HELD_SUFFIX, AuditFolder

EXPORT_SCHEMA: Final = "urn:cloister:immune-audit-export:v1"
VERDICT_SUFFIX: Final = ".verdict.json"
_LAST_CHECKPOINTS: Final = 64
_TAIL_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What was found about an audit.

    Attributes:
        accepted: whether every check passed and every event is an entry of the audit.
        segments: how many segments there are.
        entries: how many entries were read, without those by which segments name those before them.
        problems: each check that failed or could not be made, with its segment.
        keys: ids of the keys that may have signed.
        export: SHA-256 of the exported lines; None where nothing was exported.
        written: whether there is an audit at all; not where nothing was decided yet.
        vouched_outside: whether checkpoints that are held outside of the folder were compared. Without them,
            who owns the folder may have cut away its newest entries.
    """

    accepted: bool
    segments: int
    entries: int
    problems: tuple[str, ...]
    keys: tuple[str, ...]
    export: str | None = None
    written: bool = True
    vouched_outside: bool = False

    def as_json(self) -> dict[str, JSON]:
        """The verdict as it is kept beside an export."""
        return {
            "accepted": self.accepted,
            "entries": self.entries,
            "export_sha256": self.export,
            "keys": list(self.keys),
            "problems": list(self.problems),
            "schema": EXPORT_SCHEMA,
            "segments": self.segments,
            "vouched_outside": self.vouched_outside,
            "written": self.written,
        }


NOTHING_WRITTEN: Final = AuditVerdict(True, 0, 0, (), (), written=False)
"""Of a folder where nothing was decided yet."""


def verify_audit(
    folder: AuditFolder,
    *,
    keys: Sequence[PublicKey] | None = None,
    held: Iterable[SegmentCheckpoint] | None = None,
    outside: Path | None = None,
    secrets: SecretsOpener | None = None,
) -> AuditVerdict:
    """Judge an audit.

    Args:
        folder: where it is kept.
        keys: the keys that may have signed; none takes the folder's own word for them.
        held: checkpoints held elsewhere; none takes those that the folder holds.
        outside: a second folder that holds checkpoints.
        secrets: who opens the segments; none takes the folder's opening keys, where they are there.

    Returns:
        A verdict; it is never taken from what the folder says of itself but for what isn't given.
    """
    return _judged(folder, keys, held, outside, secrets, None)


def export_audit(
    folder: AuditFolder,
    out: Path,
    *,
    keys: Sequence[PublicKey] | None = None,
    held: Iterable[SegmentCheckpoint] | None = None,
    outside: Path | None = None,
    secrets: SecretsOpener | None = None,
) -> AuditVerdict:
    """Write all entries of the segments that verify as JSON Lines, and the verdict beside them.

    Each line holds the entry, its ``segment`` and ``line``, the time ``at`` which it was written, and as
    ``signature`` the line's HMAC-SHA256 tag.

    Args:
        folder: where the audit is kept.
        out: the file to make; the verdict gets its name with ``.verdict.json`` behind it.
        keys, held, outside, secrets: as for `verify_audit`.

    Raises:
        StorageError: it can't be written, or is there already.
    """
    found = _judged(folder, keys, held, outside, secrets, out)
    write_new(out.with_name(out.name + VERDICT_SUFFIX), canonicalize(found.as_json()) + b"\n")
    return found


def held_checkpoints(directory: Path) -> list[SegmentCheckpoint]:
    """The last checkpoints that a folder holds of each segment; those before say nothing more.

    Args:
        directory: what a `CheckpointFolder` wrote.
    """
    found: list[SegmentCheckpoint] = []
    for path in sorted(directory.glob(f"*{HELD_SUFFIX}")):
        found += deque(parse_held(_tail(path)), maxlen=_LAST_CHECKPOINTS)
    return found


def _judged(
    folder: AuditFolder,
    keys: Sequence[PublicKey] | None,
    held: Iterable[SegmentCheckpoint] | None,
    outside: Path | None,
    secrets: SecretsOpener | None,
    out: Path | None,
) -> AuditVerdict:
    pinned = tuple(folder.public_keys() if keys is None else keys)
    kept = held_checkpoints(folder.checkpoints) if held is None else list(held)
    told = _Told()
    beyond = [] if outside is None else held_checkpoints(outside)
    present = {path.name.removesuffix(SUFFIX) for path in folder.segments.glob(f"*{SUFFIX}")}
    kept += [one for one in beyond if one.segment in present]
    told.named.update((one.segment, one.lines) for one in beyond)
    opener = secrets or folder.opening_keys()
    stream = verify_directory(folder.segments, keys=pinned, held=kept, secrets=opener)
    problems = list(_problems(stream))
    count = 0

    def entries() -> Iterator[tuple[str, SegmentEntry]]:
        nonlocal count
        for name in _in_their_order(stream):
            try:
                for entry in read_entries(folder.segments / name, keys=pinned, held=kept, secrets=opener):
                    if told.take(AuditEvent.from_json(entry.event)):
                        continue
                    count += 1
                    yield name, entry
            except CloisterError as error:
                problems.append(f"{name}: {error.message}")

    digest: str | None = None
    if out is None:
        deque(entries(), maxlen=0)
    else:
        digest = _write_lines(out, (_line(name, entry) for name, entry in entries()))
    problems += told.problems(stream)
    ids = tuple(key.key_id for key in pinned)
    accepted = stream.accepted and not problems
    vouched = held is not None or any(one.segment in present for one in beyond)
    return AuditVerdict(
        accepted, len(stream.segments), count, tuple(problems), ids, digest, vouched_outside=vouched
    )


class _Told:
    """What is told of segments: which there were and how long, and which were removed for their age."""

    def __init__(self) -> None:
        self.named: set[tuple[str, int]] = set()
        self._removed: set[str] = set()

    def take(self, event: AuditEvent) -> bool:
        """Take an entry's word; whether it says nothing else."""
        if event.event_type is AuditKind.RETENTION:
            self._removed.add(event.event_id.removesuffix(SUFFIX))
        elif event.event_type is AuditKind.FOLLOWS:
            name, _, lines = event.event_id.rpartition("@")
            if lines.isdecimal():
                self.named.add((name, int(lines)))
            return True
        return False

    def problems(self, stream: StreamVerdict) -> Iterator[str]:
        for name, lines in sorted(self.named):
            found = stream.segments.get(f"{name}{SUFFIX}")
            if found is None:
                if name not in self._removed:
                    yield f"{name}: it is named by what is held or came later, and it isn't here"
            elif found.last is None or found.last.lines < lines:
                yield f"{name}: it had {lines} lines by what is held or came later, and has fewer"


def _problems(stream: StreamVerdict) -> Iterator[str]:
    for check in stream.checks:
        if check.outcome is not Outcome.PASSED:
            yield f"{check.id}: {check.detail}"
    for name, verdict in stream.segments.items():
        for check in verdict.checks:
            if check.outcome is not Outcome.PASSED:
                yield f"{name}: {check.id}: {check.detail}"


def _in_their_order(stream: StreamVerdict) -> list[str]:
    return sorted(stream.segments, key=lambda name: (stream.segments[name].opened or "", name))


def _line(name: str, entry: SegmentEntry) -> bytes:
    body: dict[str, JSON] = {
        **entry.event,
        "at": entry.at,
        "line": entry.line,
        "segment": name,
        "signature": entry.tag,
    }
    return canonicalize(body) + b"\n"


def _tail(path: Path) -> bytes:
    """The end of a file, from the beginning of a line."""
    with os.fdopen(open_plain(path), "rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        start = stream.seek(max(0, end - _TAIL_BYTES))
        data = stream.read(_TAIL_BYTES)
    return data if start == 0 else data.partition(b"\n")[2]


def _write_lines(out: Path, lines: Iterable[bytes]) -> str:
    """Write lines to a new file; the SHA-256 of them."""
    temporary = out.with_name(f".{out.name[:64]}.{token_hex(8)}.tmp")
    digest = hashlib.sha256()
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                for line in lines:
                    stream.write(line)
                    digest.update(line)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(temporary, out, follow_symlinks=False)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(out.parent)
    except OSError as error:
        raise storage_error(error, out) from None
    return digest.hexdigest()
