"""The events of a segment, once the segment is known to be what its writer wrote.

Rules kept here:

1. No event is given out before the whole segment was judged, over the very bytes that are read, and none of a
   line that the verdict doesn't count: behind the last mark anybody may have written.
2. Each line is read strictly: one canonical JSON object with the members that an event has, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from cloister.core.canonical import JSON, b64decode, parse_canonical
from cloister.core.errors import CloisterError
from cloister.core.files import read_bounded
from cloister.core.keys import PublicKey
from cloister.evidence.checks import Outcome
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments.chain import decrypt_event
from cloister.evidence.segments.checkpoint import SegmentCheckpoint
from cloister.evidence.segments.layout import (
    MAX_EVENT_BYTES,
    MAX_EVENT_DEPTH,
    Cipher,
    Header,
    Kind,
    malformed,
    parse_line,
)
from cloister.evidence.segments.lines import SegmentLines
from cloister.evidence.segments.ratchet import event_key, next_key
from cloister.evidence.segments.secrets import SecretsOpener
from cloister.evidence.segments.verify import verify_segment

MAX_SEGMENT_BYTES: Final = 512 * 1024 * 1024
_OF_THE_WRITER: Final = frozenset({"segment-end", "segment-lost", "segment-clock"})
"""Checks that say how the writer fared, and nothing against a line."""


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """An event as it was written.

    Attributes:
        line: its line in the segment.
        at: the writer's time.
        event: what happened.
        tag: the line's HMAC-SHA256 over its time, its number, its event and all before it; hexadecimal.
    """

    line: int
    at: str
    event: dict[str, JSON]
    tag: str


def read_entries(
    source: Path | bytes,
    *,
    keys: Sequence[PublicKey],
    held: Iterable[SegmentCheckpoint] | None,
    secrets: SecretsOpener | None = None,
) -> Iterator[SegmentEntry]:
    """The events of a segment in their order; of a running or killed process, as far as they are proven.

    Args:
        source: the file, or its bytes.
        keys: the keys that may sign checkpoints.
        held: checkpoints held outside, None where none can be had.
        secrets: who can open the segment's secrets; needed where events are encrypted.

    Returns:
        An iterator; the segment was judged when this returns.

    Raises:
        InputError: the file can't be read or is too large.
        SegmentError: ``evidence.segment_broken`` where a check of its lines failed (its writer's clock and
            losses stand in the verdict), ``evidence.segment_secrets`` where events are encrypted and can't be
            opened, ``evidence.segment_malformed`` for a line that its own writer wrote wrongly.
    """
    data = source if isinstance(source, bytes) else read_bounded(source, MAX_SEGMENT_BYTES)
    verdict = verify_segment(data, keys=keys, held=held, secrets=secrets)
    header = verdict.header
    wrong = [
        check
        for check in verdict.checks
        if check.outcome is Outcome.FAILED and check.id not in _OF_THE_WRITER
    ]
    if header is None or wrong:
        raise SegmentError(
            "evidence.segment_broken",
            "The segment doesn't verify, so nothing of it is read.",
            details=[f"{check.id}: {check.detail}" for check in wrong],
        )
    if isinstance(source, Path) and source.name != header.id.file_name:
        raise SegmentError("evidence.segment_broken", "The file has another segment's name.")
    if header.cipher is Cipher.NONE:
        return _entries(data, header, verdict.proven, None)
    if secrets is None:
        raise SegmentError(
            "evidence.segment_secrets", "The events are encrypted.", "Read them with the opening key."
        )
    return _entries(data, header, verdict.proven, secrets.open(header).root)


def _entries(data: bytes, header: Header, proven: int, key: bytes | None) -> Iterator[SegmentEntry]:
    with SegmentLines(data) as lines:
        for number, line in enumerate(islice(lines, proven), 1):
            members = parse_line(line)
            if members.get("kind") == Kind.ENTRY:
                at, event = members.get("at"), members.get("event")
                if set(members) != {"at", "event", "kind", "n", "tag", "tip"} or not isinstance(at, str):
                    raise malformed(f"line {number} has not the members of an event")
                if key is not None:
                    event = _decrypted(event_key(key), str(header.id), number, event)
                if not isinstance(event, dict):
                    raise malformed(f"line {number} has no event")
                yield SegmentEntry(number, at, event, str(members["tag"]))
            key = None if key is None else next_key(key)


def _decrypted(key: bytes, segment: str, number: int, sealed: JSON) -> JSON:
    if not isinstance(sealed, str):
        raise malformed(f"line {number} has no event")
    try:
        text = decrypt_event(key, segment, number, b64decode(sealed))
        return parse_canonical(text, max_bytes=MAX_EVENT_BYTES, max_depth=MAX_EVENT_DEPTH)
    except CloisterError:
        raise malformed(f"the event of line {number} doesn't open") from None
