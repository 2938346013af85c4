"""Making audit exports: what a log gives about a job or a span of time, composed and signed.

Rules kept here:

1. An export holds what the log's owner would have to show: all of a job's entries, or a gapless range of the
   log with a neighbour outside the span on either side. Nothing is chosen entry by entry.
2. All proofs of one log lead to one signed head.
3. An export names, for each log, the one made from it before, with the log's own statement about that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from cloister.core.canonical import JSON, b64encode, canonicalize
from cloister.core.clock import Clock, format_time
from cloister.core.keys import Signer
from cloister.evidence.custody.bundle import (
    EXPORT_CLAIMS_NOT_MADE,
    EXPORT_SCHEMA,
    ExportedLog,
    IndexRange,
    PreviousExport,
    exported_entry,
    signed_bytes,
)
from cloister.evidence.envelope import decode_envelope
from cloister.evidence.errors import AuditError
from cloister.evidence.extract import ProvenEntry, log_owner, log_stream
from cloister.evidence.predicates import Export, ExportSelection
from cloister.evidence.statement import open_statement

if TYPE_CHECKING:
    from cloister.evidence.log import EvidenceLog


def select(log: EvidenceLog, selection: ExportSelection) -> ExportedLog:
    """What a log gives for a selection.

    Args:
        log: the log.
        selection: one job, or a span of time.

    Returns:
        Its head and entries with proofs; for a job the log doesn't know, no entries.

    Raises:
        EvidenceError: if the log doesn't hold together.
    """
    stated = last_export(log)
    if selection.job_id is not None:
        extract = log.extract(selection.job_id)
        return ExportedLog(
            checkpoint=extract.checkpoint.encode(),
            previous=_previous(log, stated, extract.checkpoint.size),
            span=None,
            entries=tuple(exported_entry(one) for one in extract.entries),
        )
    head = log.checkpoint()
    times = [
        open_statement(decode_envelope(one.data)).predicate.recorded_at for one in log.entries(0, head.size)
    ]
    span = _span(times, cast(str, selection.start), cast(str, selection.end))
    proven = log.proven(head, max(span.start - 1, 0), min(span.end + 1, head.size))
    return ExportedLog(
        checkpoint=head.encode(),
        previous=_previous(log, stated, head.size),
        span=span,
        entries=tuple(exported_entry(one) for one in proven),
    )


def _previous(log: EvidenceLog, stated: ProvenEntry | None, size: int) -> PreviousExport | None:
    """The export stated last, proven under the head that the bundle carries."""
    if stated is None:
        return None
    entry = ProvenEntry(stated.index, stated.envelope, log.inclusion_proof(stated.index, size))
    predicate = cast(Export, open_statement(stated.envelope).predicate)
    return PreviousExport(sha256=predicate.bundle_sha256, entry=exported_entry(entry))


def _span(times: Sequence[str], start: str, end: str) -> IndexRange:
    """The smallest range that holds every entry dated in the period and has neighbours that aren't."""
    inside = [index for index, when in enumerate(times) if start <= when < end]
    if inside:
        first, stop = inside[0], inside[-1] + 1
    else:
        first = stop = next((index for index, when in enumerate(times) if when >= end), len(times))
    while first > 0 and times[first - 1] >= start:
        first -= 1
    while stop < len(times) and times[stop] < end:
        stop += 1
    return IndexRange(start=first, end=stop)


def last_export(log: EvidenceLog) -> ProvenEntry | None:
    """Where a log states its owner's latest export; None if there was none.

    Raises:
        EvidenceError: if the log doesn't hold together.
    """
    entries = log.extract(log_stream(log.origin)).entries
    stated = (one for one in reversed(entries) if isinstance(open_statement(one.envelope).predicate, Export))
    return next(stated, None)


def compose_bundle(
    *,
    export_id: str,
    signer: Signer,
    clock: Clock,
    recipient: str,
    selection: ExportSelection,
    exporter: EvidenceLog,
    others: Sequence[EvidenceLog] = (),
    credentials: Mapping[str, Sequence[str]],
) -> bytes:
    """Compose and sign an export. It may be handed over once its Export statement is logged.

    Args:
        export_id: a fresh UUID.
        signer: the exporting party's key.
        clock: gives the time of the export.
        recipient: for whom it is.
        selection: one job, or a span of time that has ended.
        exporter: the exporting party's log.
        others: further logs to export from.
        credentials: certificate chains by ``<role>/<party>``, where keys aren't pinned.

    Returns:
        The bundle's canonical bytes.

    Raises:
        AuditError: ``evidence.export_refused`` if no log knows the job, or the span hasn't ended.
        EvidenceError: if a log doesn't hold together.
    """
    exported_at = format_time(clock())
    if selection.end is not None and selection.end > exported_at:
        raise AuditError(
            "evidence.export_refused",
            "The period hasn't ended yet, so an export of it couldn't be complete.",
            "Let it end now or earlier.",
        )
    logs = {one.origin: select(one, selection) for one in (exporter, *others)}
    kept = {origin: log for origin, log in logs.items() if _has_part(log) or origin == exporter.origin}
    if selection.job_id is not None and not any(log.entries for log in kept.values()):
        raise AuditError(
            "evidence.export_refused",
            f"No log here holds a statement about job {selection.job_id}.",
            "Name a job that ran in this workspace, or the workspace in which it ran.",
        )
    role, party = log_owner(exporter.origin)
    body: dict[str, JSON] = {
        "schema": EXPORT_SCHEMA,
        "export_id": export_id,
        "exported_at": exported_at,
        "exporter_role": role.value,
        "exporter": party,
        "recipient": recipient,
        "selection": selection.model_dump(mode="json"),
        "logs": {origin: log.model_dump(mode="json") for origin, log in kept.items()},
        "credentials": {place: list(chains) for place, chains in credentials.items()},
        "claims_not_made": list(EXPORT_CLAIMS_NOT_MADE),
    }
    signature = signer.sign(signed_bytes(body))
    key_id = signer.public_key.key_id
    return canonicalize({"body": body, "signature": {"key_id": key_id, "sig": b64encode(signature)}})


def _has_part(log: ExportedLog) -> bool:
    return log.span is not None or bool(log.entries)
