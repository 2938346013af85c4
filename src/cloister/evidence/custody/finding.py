"""Finding, for an export, what others saw of a log: it bounds the period beside the word of the log's owner.

An exporter looks at the cosigned heads it is given, and at what the other logs at hand state. It shows more
of its log where that lets somebody else's word bound the range: from a head on that was seen before the
period began, up to one that was seen when it was over.

Rules kept here:

1. What is found is offered; whether it counts, the verifier decides with its own keys.
2. An export for somebody who got one before begins no later than that one ended.
3. Where few entries follow a period, they are shown, so that none is left out after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from cloister.core.clock import format_time
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.custody.access import exports_backwards
from cloister.evidence.custody.bundle import IndexRange
from cloister.evidence.custody.dating import DatedLog
from cloister.evidence.extract import ProvenEntry
from cloister.evidence.predicates.log import held_checkpoints, may_hold
from cloister.evidence.statement import open_statement

if TYPE_CHECKING:
    pass

FEW: Final = 256
"""So many entries after a period are shown rather than left out."""
LOOK: Final = 2048
"""How far from a period's edge another log is searched for what it states."""
NEWEST: Final = 64
"""How many exports are looked at for the one that a recipient got before."""
_COSIGNATURE_SIZE: Final = 8 + 64


@dataclass(frozen=True, slots=True)
class Found:
    """A head of a log that somebody else saw.

    Attributes:
        size: how many entries it had.
        at: when, as a statement writes it.
        head: the cosigned head; None for a statement.
        log: the log that states it, and the statement; None for a cosigned head.
    """

    size: int
    at: str
    head: Checkpoint | None
    log: str | None = None
    entry: ProvenEntry | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """Which entries of a log an export of a period shows, and what bounds them."""

    first: int
    stop: int
    found: tuple[Found, ...]


def cosigned_heads(notes: Iterable[Checkpoint], origin: str) -> Iterator[Found]:
    """The heads of a log among these notes, by each time at which a witness says that it saw one."""
    for note in notes:
        for line in note.signatures if note.origin == origin else ():
            if line.name != origin and len(line.sig) == _COSIGNATURE_SIZE:
                second = int.from_bytes(line.sig[:8], "big")
                if second < 2**37:
                    yield Found(note.size, format_time(datetime.fromtimestamp(second, UTC)), note)


def what_to_show(
    dated: DatedLog,
    span: IndexRange,
    period: tuple[str, str],
    recipient: str,
    notes: Sequence[Checkpoint],
    others: Sequence[DatedLog],
) -> Shown:
    """Decide which entries an export of a period shows of a log.

    Args:
        dated: the log.
        span: its entries dated in the period.
        period: the period's start and end.
        recipient: for whom the export is.
        notes: heads at hand that witnesses cosigned.
        others: the other logs of the export.

    Returns:
        The range, with what bounds it.

    Raises:
        EvidenceError: if a log doesn't hold together.
    """
    start, end = period
    first, stop = max(span.start - 1, 0), min(span.end + 1, dated.size)
    cosigned = [one for one in cosigned_heads(notes, dated.log.origin) if one.size <= dated.size]
    found: list[Found] = []
    if first:
        first = min(first, _continued(dated, start, recipient))
        before = [max((one for one in cosigned if one.at <= start), key=lambda one: one.size, default=None)]
        before += [_stated(other, dated.log.origin, start, before=True) for other in others]
        found += [one for one in before if one is not None]
        first = min([first, *(one.size for one in found)])
    if dated.size - stop <= FEW:
        stop = dated.size
    else:
        over = [one for one in cosigned if one.at >= end and one.size >= first]
        after = [min(over, key=lambda one: one.size, default=None)]
        after += [_stated(other, dated.log.origin, end, before=False) for other in others]
        ends = [one for one in after if one is not None and first <= one.size <= dated.size]
        stop = max([stop, *(one.size for one in ends)])
        found += ends
    return Shown(first, stop, tuple(found))


def _continued(dated: DatedLog, start: str, recipient: str) -> int:
    """Where the last period ended that this recipient got; the log's size if none of the newest was one."""
    for export in islice(exports_backwards(dated.log), NEWEST):
        period = export.selection
        if export.recipient == recipient and period.start is not None and period.start <= start:
            return dated.index(period.end or start)
    return dated.size


def _stated(other: DatedLog, origin: str, moment: str, *, before: bool) -> Found | None:
    """The statement nearest to a moment that another log's owner held a head of this log."""
    edge = other.index(moment)
    low, high = (max(0, edge - LOOK), edge) if before else (edge, min(other.size, edge + LOOK))
    entries = list(other.log.entries(low, high))
    for one in reversed(entries) if before else entries:
        envelope = one.envelope
        if not may_hold(envelope.payload):
            continue
        predicate = open_statement(envelope).predicate
        at = predicate.recorded_at
        if not (at <= moment if before else at >= moment):
            continue
        for held in held_checkpoints(predicate):
            if held.origin == origin:
                proof = other.log.inclusion_proof(one.index, other.size)
                return Found(held.size, at, None, other.log.origin, ProvenEntry(one.index, envelope, proof))
    return None
