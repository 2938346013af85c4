"""Checks on an audit export: who signed it, its logs' heads and statements, and that the logs hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from cloister.core.canonical import JSON
from cloister.core.clock import parse_time
from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import Checkpoint, verify_checkpoint
from cloister.evidence.checks import Check, failed, judged, passed
from cloister.evidence.custody.bundle import EXPORT_CLAIMS_NOT_MADE, signature_of, signed_bytes
from cloister.evidence.custody.record import ExportedStatement, ExportRecord
from cloister.evidence.envelope import verify_envelope
from cloister.evidence.extract import log_owner, verify_entry
from cloister.evidence.key_order import (
    SignedPlace,
    by_former,
    document_place,
    entry_place,
    head_place,
    misplaced,
)
from cloister.evidence.pki import read_chain
from cloister.evidence.predicates import Role
from cloister.evidence.trust import Trust


def check_export_signature(record: ExportRecord, trust: Trust) -> Check:
    """The exporting party, as pinned, signed every byte of the body."""
    bundle = record.bundle
    at = parse_time(bundle.body.exported_at)
    role = Role(bundle.body.exporter_role)
    key = trust.key(role, bundle.body.exporter, key_id=bundle.signature.key_id, at=at)
    if bundle.signature.key_id != key.key_id:
        return failed("export-signature", "the export is signed by another key than the exporter's")
    body = cast(JSON, bundle.body.model_dump(mode="json", by_alias=True))
    key.verify(signature_of(bundle), signed_bytes(body))
    former = by_former(trust, role, bundle.body.exporter, [bundle.signature.key_id])
    return passed("export-signature", f"signed by {role.value} {bundle.body.exporter}{former}")


def check_trust(record: ExportRecord, trust: Trust) -> Check:
    """A key is known for the owner of each log, and the exporter's own log is among them."""
    problems = [
        f"a certificate of {place} is another party's"
        for place, chains in record.bundle.body.credentials.items()
        for chain in map(read_chain, chains)
        if f"{chain.role.value}/{chain.party}" != place
    ]
    at = parse_time(record.bundle.body.exported_at)
    for origin in record.extracts:
        try:
            trust.keys(*log_owner(origin), at=at)
        except CloisterError as error:
            problems.append(error.message)
    if record.exporter_origin not in record.extracts:
        problems.append("the exporter's own log is not in the export")
    return judged("trust", problems, f"{len(record.extracts)} parties known by their keys")


def check_checkpoint_signatures(record: ExportRecord, trust: Trust) -> Check:
    """Each log's head is signed by its owner, with its key or one that it used before."""
    problems: list[str] = []
    at = parse_time(record.bundle.body.exported_at)
    for origin, extract in record.extracts.items():
        try:
            _verify_head(extract.checkpoint, origin, trust.keys(*log_owner(origin), at=at))
        except CloisterError as error:
            problems.append(f"{origin}: {error.message}")
    return judged("checkpoint-signature", problems, f"{len(record.extracts)} signed log heads")


def _verify_head(checkpoint: Checkpoint, origin: str, keys: Sequence[PublicKey]) -> None:
    for position, key in enumerate(keys, start=1):
        try:
            verify_checkpoint(checkpoint, origin, key)
        except CloisterError:
            if position == len(keys):
                raise
        else:
            return


def check_log_inclusion(record: ExportRecord, trust: Trust) -> Check:
    """Each entry is proven to be in its log, at its index, under the log's signed head."""
    problems: list[str] = []
    for one in record.proven:
        try:
            verify_entry(one.entry, record.extracts[one.origin].checkpoint)
        except CloisterError as error:
            problems.append(f"{one.place}: {error.message}")
    return judged("log-inclusion", problems, f"{len(record.proven)} entries proven in their logs")


def check_statement_signatures(record: ExportRecord, trust: Trust) -> Check:
    """Each statement is signed by its log's owner, who names itself in it and may make such a statement.

    Where the owner changed its key, each key signed what lies in the log before the next one's.
    """
    problems = [problem for one in record.proven for problem in _signature_problems(one, trust)]
    problems = problems or _order_of_keys(record, trust)
    ids: dict[str, set[str]] = {}
    for one in record.proven:
        ids.setdefault(one.origin, set()).add(_named(one))
    former = [
        f"; {origin}{told}"
        for origin in sorted(ids)
        if (told := by_former(trust, *log_owner(origin), ids[origin]))
    ]
    return judged(
        "statement-signature",
        problems,
        f"{len(record.proven)} statements signed by their party{''.join(former)}",
    )


def _order_of_keys(record: ExportRecord, trust: Trust) -> list[str]:
    """What is signed with a key that its party had given up by then."""
    problems: list[str] = []
    at = parse_time(record.bundle.body.exported_at)
    entries: dict[str, list[SignedPlace]] = {origin: [] for origin in record.extracts}
    for one in record.proven:
        entries[one.origin].append(entry_place(one.entry.index, _named(one)))
    for origin, extract in record.extracts.items():
        signed = entries[origin]
        signed += head_place(extract.checkpoint, trust.keys(*log_owner(origin), at=at))
        if origin == record.exporter_origin:
            signed.append(document_place(extract.checkpoint, "the export", record.bundle.signature.key_id))
        problems += misplaced(origin, signed, trust)
    return problems


def _named(one: ExportedStatement) -> str:
    return one.entry.envelope.signatures[0].key_id


def _signature_problems(one: ExportedStatement, trust: Trust) -> Iterator[str]:
    if one.predicate.party != one.owner:
        yield f"{one.place}: it names {one.predicate.party} as its party"
    if one.role not in one.predicate.ROLES:
        yield f"{one.place}: a {one.role.value} may not state {one.predicate.TYPE}"
    try:
        at = parse_time(one.predicate.recorded_at)
        verify_envelope(one.entry.envelope, trust.key(one.role, one.owner, key_id=_named(one), at=at))
    except CloisterError as error:
        yield f"{one.place}: {error.message}"


def check_claims(record: ExportRecord, trust: Trust) -> Check:
    """The sentences about what an export doesn't prove stand there word for word."""
    held = record.bundle.body.claims_not_made == EXPORT_CLAIMS_NOT_MADE
    problems = [] if held else ["the sentences about what isn't proven differ from this program's"]
    return judged("claims", problems, f"{len(EXPORT_CLAIMS_NOT_MADE)} sentences, word for word")
