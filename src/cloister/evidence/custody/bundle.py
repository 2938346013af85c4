"""The audit export: one canonical JSON document with the entries of logs that an auditor asked for.

It holds the entries of one job, or of a span of time, with their inclusion proofs under each log's signed
head, and for each log the export made from it before, with all that its own stream states since: a chain of
custody.

Rules kept here:

1. A bundle has one spelling: the canonical encoding of its own parse. The exporting party signs its body.
2. A span of time is a gapless range of a log. That other entries lie before or after it is dated by the log's
   owner; what others saw of the log, and when, goes with it and bounds the range (see `bounds`).
3. The log's own stream goes with it from the export before up to the statement about this one, so that an
   export in between can't be hidden without giving two statements of that stream one number.
4. A bundle carries the sentences about what it doesn't prove; the verifier compares them verbatim.
5. Reading judges nothing; `verify` does. All of it is bounded before it is read.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, cast

from pydantic import FailFast, Field, JsonValue, StringConstraints, ValidationError

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256Field, sha256_hex
from cloister.core.parsing import misfits, wrong_fields
from cloister.evidence.checkpoint import parse_checkpoint
from cloister.evidence.envelope import envelope_from_json, pae
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract, ProvenEntry, decode_proof
from cloister.evidence.predicates import ExportSelection
from cloister.evidence.predicates.base import (
    CountField,
    NameField,
    Part,
    PartyField,
    TimeField,
    UuidField,
)
from cloister.evidence.statement import Subject

EXPORT_SCHEMA: Final = "urn:cloister:audit-export:v2"
EXPORT_TYPE: Final = "application/vnd.cloister.audit-export+json"
MAX_BUNDLE_BYTES: Final = 256 * 1024 * 1024
MAX_LOGS: Final = 1024
MAX_CHAINS: Final = 16
MAX_ENTRIES: Final = 100_000
MAX_BOUNDS: Final = 64
MAX_SENTENCES: Final = 64

EXPORT_CLAIMS_NOT_MADE: Final = (
    "That what a statement says is so: it is its party's word, signed, and was not altered since.",
    "That a party stated everything it did: an export shows what was stated.",
    "That the times are right: each party's own clock gave them. Which entries lie outside a period is shown "
    "only as far as others saw the log then; the check of the period says who did, or that nobody did.",
    "That a party kept a single chain for a job: two would show in an export of all the log holds.",
    "That nobody was shown another log of the same name: compare the log's head with one that a witness, "
    "the hub or another site holds.",
    "That no export was made after this one, or stated beside the log's own chain: two statements of that "
    "chain with one number would show in an export of all the log holds.",
    "That the named recipient got this export, or that nobody else did.",
    "That any law is complied with: which duties apply, and whether they are met, is for people to judge.",
)
"""Sentences every export carries word for word."""

PemChain = Annotated[str, StringConstraints(min_length=1, max_length=64 * 1024)]


class ExportedEntry(Part):
    """One entry of a log with the proof that it is there."""

    index: CountField
    envelope: JsonValue
    inclusion: tuple[str, ...] = Field(max_length=62)


class IndexRange(Part):
    """The entries ``start`` up to but without ``end``."""

    start: CountField
    end: CountField


class Sighting(Part):
    """Where another party states that it held a head of this log.

    Attributes:
        log: the other party's log, which is in the export too.
        entry: its statement (checkpoint-held or update-released), proven under the head of that log.
    """

    log: NameField
    entry: ExportedEntry


Entries = Annotated[tuple[ExportedEntry, ...], FailFast()]


class ExportedLog(Part):
    """What one log gave.

    Attributes:
        checkpoint: the log's signed head that the proofs lead to, as a C2SP note.
        previous: SHA-256 of the export made from this log before; None for the first.
        own: the log's own stream, from the statement about that export (for the first, from the stream's
            beginning) to the statement that this export was asked for.
        span: for a span of time, the indices of the entries in it; None for a job.
        entries: a job's entries; or those of the span, with a neighbour on either side and whatever else
            nobody but the log's owner dates outside of the span.
        heads: earlier heads of this log with the cosignatures of witnesses, which say when they saw it.
        sightings: statements of other parties that they held a head of this log.
    """

    checkpoint: str = Field(max_length=64 * 1024)
    previous: Sha256Field | None
    own: Entries = Field(max_length=MAX_ENTRIES)
    span: IndexRange | None
    entries: Entries = Field(max_length=MAX_ENTRIES)
    heads: tuple[Annotated[str, StringConstraints(max_length=64 * 1024)], ...] = Field(max_length=MAX_BOUNDS)
    sightings: tuple[Sighting, ...] = Field(max_length=MAX_BOUNDS)


class ExportBody(Part):
    """All of an export but the signature over it.

    Attributes:
        schema_: names this form and its version.
        export_id: a UUID.
        exported_at: when, by the exporter's clock.
        exporter_role: whether a hub or a site exports.
        exporter: the party that exports and signs; its own log is among ``logs``.
        recipient: for whom the export was made.
        selection: one job, or a span of time.
        logs: what each log gave, by the log's name.
        credentials: certificate chains in PEM by ``<role>/<party>``, where keys aren't pinned.
        claims_not_made: what an export doesn't prove, word for word.
    """

    schema_: Literal["urn:cloister:audit-export:v2"] = Field(alias="schema")
    export_id: UuidField
    exported_at: TimeField
    exporter_role: Literal["hub", "site"]
    exporter: PartyField
    recipient: NameField
    selection: ExportSelection
    logs: dict[NameField, ExportedLog] = Field(min_length=1, max_length=MAX_LOGS)
    credentials: dict[NameField, Annotated[tuple[PemChain, ...], Field(max_length=MAX_CHAINS)]] = Field(
        max_length=MAX_LOGS
    )
    claims_not_made: tuple[str, ...] = Field(max_length=MAX_SENTENCES)


class ExportSignature(Part):
    """The exporting party's signature."""

    key_id: NameField
    sig: str = Field(max_length=1024)


class ExportBundle(Part):
    """A parsed export."""

    body: ExportBody
    signature: ExportSignature


def asked_subject(export_id: str) -> Subject:
    """What the statement that an export was asked for is about, beside the log."""
    return Subject(f"audit export {export_id}", sha256_hex(export_id.encode()))


def signed_bytes(body: JSON) -> bytes:
    """The bytes an exporter signs: the pre-authentication encoding of the canonical body."""
    return pae(EXPORT_TYPE, canonicalize(body))


def read_bundle(value: JSON, data: bytes) -> ExportBundle:
    """Read an export from parsed JSON, without judging it.

    Args:
        value: the parsed document.
        data: the bytes it was parsed from, which must be what the bundle encodes to.

    Returns:
        The bundle.

    Raises:
        EvidenceError: ``evidence.export_malformed`` for an unknown schema, or wrong or missing fields.
    """
    misfit = misfits(ExportBundle, value)
    if misfit:
        raise _malformed(f"these fields are wrong: {misfit[0]}")
    try:
        bundle = ExportBundle.model_validate(value)
    except ValidationError as error:
        raise _malformed(f"these fields are wrong: {wrong_fields(error)}") from None
    if encode_bundle(bundle) != data:
        raise _malformed("it holds values of the wrong type")
    return bundle


def decode_bundle(data: bytes) -> ExportBundle:
    """Read an export from its canonical bytes, without judging it.

    Raises:
        InputError: if it is not canonical JSON, or too large.
        EvidenceError: ``evidence.export_malformed`` for an unknown schema, or wrong or missing fields.
    """
    return read_bundle(parse_canonical(data, max_bytes=MAX_BUNDLE_BYTES), data)


def encode_bundle(bundle: ExportBundle) -> bytes:
    """The bundle's only spelling."""
    return canonicalize(bundle.model_dump(mode="json", by_alias=True))


def signature_of(bundle: ExportBundle) -> bytes:
    """The raw signature of an export.

    Raises:
        EvidenceError: ``evidence.export_malformed`` if it isn't canonical base64.
    """
    try:
        return b64decode(bundle.signature.sig)
    except InputError:
        raise _malformed("its signature is not canonical base64") from None


def log_extract(origin: str, log: ExportedLog) -> LogExtract:
    """What one log gave, as an extract with parsed envelopes, proofs and head.

    Raises:
        EvidenceError: if any of them can't be read.
    """
    return LogExtract(origin, parse_checkpoint(log.checkpoint), tuple(map(proven_entry, log.entries)))


def proven_entry(entry: ExportedEntry) -> ProvenEntry:
    """An exported entry with its envelope and proof parsed.

    Raises:
        EvidenceError: if they can't be.
    """
    envelope = envelope_from_json(entry.envelope)
    return ProvenEntry(entry.index, envelope, decode_proof(list(entry.inclusion)))


def exported_entry(entry: ProvenEntry) -> ExportedEntry:
    """An entry as an export carries it."""
    return ExportedEntry(
        index=entry.index,
        envelope=cast(JsonValue, entry.envelope.as_json()),
        inclusion=tuple(b64encode(one) for one in entry.proof),
    )


def _malformed(reason: str) -> EvidenceError:
    return EvidenceError("evidence.export_malformed", f"This is not an audit export: {reason.rstrip('.')}.")
