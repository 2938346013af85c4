"""Making audit exports: what a log gives about a job or a span of time, composed and signed.

Rules kept here:

1. An export holds what the log's owner would have to show: all of a job's entries, or a gapless range of the
   log. Nothing is chosen entry by entry.
2. All proofs of one log lead to one signed head.
3. An export names, for each log, the one made from it before, with the log's own stream from there to the
   statement that this one was asked for, which comes first.
4. What would be refused is refused before anything is stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cloister.core.canonical import JSON, b64encode, canonicalize
from cloister.core.clock import Clock, format_time
from cloister.core.keys import Signer
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.custody.access import own_backwards
from cloister.evidence.custody.bundle import (
    EXPORT_CLAIMS_NOT_MADE,
    EXPORT_SCHEMA,
    MAX_BUNDLE_BYTES,
    MAX_ENTRIES,
    ExportedEntry,
    ExportedLog,
    Sighting,
    asked_subject,
    exported_entry,
    signed_bytes,
)
from cloister.evidence.custody.dating import DatedLog
from cloister.evidence.custody.finding import what_to_show
from cloister.evidence.errors import AuditError
from cloister.evidence.extract import ProvenEntry, log_owner
from cloister.evidence.predicates import Access, Export, ExportSelection
from cloister.evidence.statement import open_statement

if TYPE_CHECKING:
    from cloister.evidence.log import EvidenceLog


def logs_to_export(
    selection: ExportSelection, exporter: EvidenceLog, others: Sequence[EvidenceLog], clock: Clock
) -> tuple[EvidenceLog, ...]:
    """The logs that have a part in an export, the exporter's first; to be asked before anything is stated.

    Args:
        selection: one job, or a span of time that has ended.
        exporter: the exporting party's log.
        others: further logs.
        clock: tells whether it has.

    Returns:
        The exporter's log, and the others that know the job; for a span of time, all.

    Raises:
        AuditError: ``evidence.export_refused`` if no log knows the job, or the span hasn't ended.
    """
    if selection.end is not None and selection.end > format_time(clock()):
        raise AuditError(
            "evidence.export_refused",
            "The period hasn't ended yet, so an export of it couldn't be complete.",
            "Let it end now or earlier.",
        )
    if selection.job_id is None:
        return (exporter, *others)
    knowing = [one for one in (exporter, *others) if one.length(selection.job_id)]
    if not knowing:
        raise AuditError(
            "evidence.export_refused",
            f"No log here holds a statement about job {selection.job_id}.",
            "Name a job that ran in this workspace, or the workspace in which it ran.",
        )
    return (exporter, *(one for one in knowing if one is not exporter))


def _of_job(log: EvidenceLog, job_id: str, export_id: str) -> ExportedLog:
    extract = log.extract(job_id)
    previous, own = _own(log, export_id, extract.checkpoint.size)
    return ExportedLog(
        checkpoint=extract.checkpoint.encode(),
        previous=previous,
        own=own,
        span=None,
        entries=_exported(extract.entries),
        heads=(),
        sightings=(),
    )


def _of_period(
    log: EvidenceLog,
    heads: Mapping[str, tuple[EvidenceLog, Checkpoint]],
    period: tuple[str, str],
    recipient: str,
    export_id: str,
    notes: Sequence[Checkpoint],
) -> ExportedLog:
    head = heads[log.origin][1]
    dated = DatedLog(log, head.size)
    span = dated.span(*period)
    others = [DatedLog(other, at.size) for origin, (other, at) in heads.items() if origin != log.origin]
    shown = what_to_show(dated, span, period, recipient, notes, others)
    if shown.stop - shown.first > MAX_ENTRIES:
        raise _too_large()
    previous, own = _own(log, export_id, head.size)
    return ExportedLog(
        checkpoint=head.encode(),
        previous=previous,
        own=own,
        span=span,
        entries=_exported(log.proven(head, shown.first, shown.stop)),
        heads=tuple(dict.fromkeys(one.head.encode() for one in shown.found if one.head is not None)),
        sightings=tuple(
            Sighting(log=one.log, entry=exported_entry(one.entry))
            for one in shown.found
            if one.log is not None and one.entry is not None
        ),
    )


def _exported(entries: Sequence[ProvenEntry]) -> tuple[ExportedEntry, ...]:
    if len(entries) > MAX_ENTRIES:
        raise _too_large()
    return tuple(exported_entry(one) for one in entries)


def _own(log: EvidenceLog, export_id: str, size: int) -> tuple[str | None, tuple[ExportedEntry, ...]]:
    """The log's own stream between the export before, if any, and this one's being asked for."""
    asked, previous = asked_subject(export_id), None
    own: list[ExportedEntry] = []
    for entry in own_backwards(log):
        statement = open_statement(entry.envelope)
        if own or (isinstance(statement.predicate, Access) and asked in statement.subjects):
            proof = log.inclusion_proof(entry.index, size)
            own.append(exported_entry(ProvenEntry(entry.index, entry.envelope, proof)))
            if isinstance(statement.predicate, Export):
                previous = statement.predicate.bundle_sha256
                break
            if len(own) > MAX_ENTRIES:
                raise _too_large()
    if not own:
        raise AuditError(
            "evidence.export_refused", f"{log.origin} doesn't state that this export was asked for."
        )
    return previous, tuple(reversed(own))


def _too_large() -> AuditError:
    return AuditError(
        "evidence.export_refused", "There is more than one export can hold.", "Ask for a shorter period."
    )


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
    notes: Sequence[Checkpoint] = (),
) -> bytes:
    """Compose and sign an export that each of its logs states it was asked for.

    It may be handed over once its Export statement is logged.

    Args:
        export_id: a fresh UUID, which the logs' newest Access statements name.
        signer: the exporting party's key.
        clock: gives the time of the export.
        recipient: for whom it is.
        selection: one job, or a span of time that has ended.
        exporter: the exporting party's log.
        others: further logs to export from.
        credentials: certificate chains by ``<role>/<party>``, where keys aren't pinned.
        notes: heads of these logs that witnesses cosigned, to bound a span of time with.

    Returns:
        The bundle's canonical bytes.

    Raises:
        AuditError: ``evidence.export_refused`` if no log knows the job, the span hasn't ended, a log doesn't
            state that it was asked for, or there is too much for one export.
        EvidenceError: if a log doesn't hold together.
    """
    chosen = logs_to_export(selection, exporter, others, clock)
    if selection.job_id is not None:
        job_id = selection.job_id
        logs = {one.origin: _of_job(one, job_id, export_id) for one in chosen}
    else:
        period = (selection.start or "", selection.end or "")
        heads = {one.origin: (one, one.checkpoint()) for one in chosen}
        logs = {one.origin: _of_period(one, heads, period, recipient, export_id, notes) for one in chosen}
    exported_at = format_time(clock())
    role, party = log_owner(exporter.origin)
    body: dict[str, JSON] = {
        "schema": EXPORT_SCHEMA,
        "export_id": export_id,
        "exported_at": exported_at,
        "exporter_role": role.value,
        "exporter": party,
        "recipient": recipient,
        "selection": selection.model_dump(mode="json"),
        "logs": {origin: log.model_dump(mode="json") for origin, log in logs.items()},
        "credentials": {place: list(chains) for place, chains in credentials.items()},
        "claims_not_made": list(EXPORT_CLAIMS_NOT_MADE),
    }
    signature = signer.sign(signed_bytes(body))
    key_id = signer.public_key.key_id
    bundle = canonicalize({"body": body, "signature": {"key_id": key_id, "sig": b64encode(signature)}})
    if len(bundle) > MAX_BUNDLE_BYTES:
        raise _too_large()
    return bundle
