"""The receipt: one canonical JSON document that carries a job's documents, statements and proofs.

Rules kept here:

1. A receipt is composed from statements only. If a required one is missing, there is no receipt, and the
   error lists what is missing.
2. The hub signs the whole body; every figure in the summary is recomputed from the statements by whoever
   verifies.
3. A receipt has one spelling: the canonical encoding of its own parse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, Literal, cast

from pydantic import FailFast, Field, JsonValue, StringConstraints, ValidationError, WithJsonSchema

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse_canonical
from cloister.core.clock import Clock, format_time
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256, Sha256Field
from cloister.core.keys import Signer
from cloister.core.parsing import misfits, wrong_fields
from cloister.evidence.checkpoint import parse_checkpoint
from cloister.evidence.compliance import CLAIMS_NOT_MADE, COMPLIANCE_STATEMENTS
from cloister.evidence.envelope import Envelope, envelope_from_json, pae
from cloister.evidence.epsilon import EpsilonFigures, epsilon_figures, epsilon_limits
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract, ProvenEntry, decode_proof, log_origin
from cloister.evidence.predicates import BudgetSpend, Role
from cloister.evidence.predicates.base import (
    DOCUMENT,
    FILE_NAME_PATTERN,
    CountField,
    FileNameField,
    NameField,
    Part,
    PartyField,
    TimeField,
    UuidField,
)
from cloister.evidence.record import JobRecord, build_record
from cloister.evidence.requirements import missing_statements
from cloister.evidence.summary import Summary, spending_sites, summarise
from cloister.evidence.witness.links import ConsistencyLink, ConsistencySection

RECEIPT_SCHEMA: Final = "urn:cloister:receipt:v2"
RECEIPT_TYPE: Final = "application/vnd.cloister.receipt+json"
MAX_RECEIPT_BYTES: Final = 32 * 1024 * 1024
"""About 4,000 sites times rounds; reading one takes some hundred megabytes at most."""
MAX_RECEIPT_MEMBERS: Final = MAX_RECEIPT_BYTES // 32
"""Two to three times as many values as a receipt of that size has."""
MAX_STATEMENTS: Final = 1_000_000
MAX_PARTIES: Final = 1024
MAX_CHAINS: Final = 16
MAX_SENTENCES: Final = 64
MAX_TIMESTAMPS: Final = 8
MAX_TIMESTAMP_BYTES: Final = 48 * 1024
_FILE_NAME: Final = re.compile(FILE_NAME_PATTERN)

EnvelopeField = Annotated[JsonValue, WithJsonSchema({DOCUMENT: "envelope.schema.json"})]
NoteField = Annotated[str, WithJsonSchema({DOCUMENT: "checkpoint.schema.json"})]
PemField = Annotated[str, StringConstraints(min_length=1, max_length=64 * 1024)]
PlaceField = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{1,20}/[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
TimestampField = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=64 * 1024)]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The model file a receipt is about.

    Attributes:
        name: its file name: letters, digits, dot, underscore and hyphen, without a folder.
        sha256: SHA-256 of its bytes.
        bytes: its size.
    """

    name: str
    sha256: Sha256
    bytes: int


class ModelSection(Part):
    """The model file, in the receipt."""

    name: FileNameField
    sha256: Sha256Field
    bytes: CountField


class StatementSection(Part):
    """One statement with its place in a log and the proof of it."""

    log: NameField
    index: CountField
    envelope: EnvelopeField
    inclusion: tuple[str, ...] = Field(max_length=62)


class ReceiptBody(Part):
    """All of a receipt but the signature over it."""

    schema_: Literal["urn:cloister:receipt:v2"] = Field(alias="schema")
    receipt_id: UuidField
    job_id: UuidField
    issued_at: TimeField
    issuer: PartyField
    model: ModelSection
    manifests: dict[PartyField, EnvelopeField] = Field(max_length=MAX_PARTIES)
    request: EnvelopeField
    job: dict[str, JsonValue]
    statements: Annotated[tuple[StatementSection, ...], FailFast()] = Field(max_length=MAX_STATEMENTS)
    checkpoints: dict[NameField, NoteField] = Field(max_length=MAX_PARTIES)
    consistency: Annotated[tuple[ConsistencySection, ...], FailFast()] = Field(max_length=MAX_STATEMENTS)
    credentials: dict[PlaceField, Annotated[tuple[PemField, ...], Field(max_length=MAX_CHAINS)]] = Field(
        max_length=MAX_PARTIES
    )
    summary: Summary
    compliance: tuple[str, ...] = Field(max_length=MAX_SENTENCES)
    claims_not_made: tuple[str, ...] = Field(max_length=MAX_SENTENCES)


class ReceiptSignature(Part):
    """The issuing hub's signature."""

    key_id: NameField
    sig: str


class Receipt(Part):
    """A parsed receipt.

    Attributes:
        body: what is said.
        signature: the issuing hub's, over the body.
        timestamps: RFC 3161 responses over the raw signature, base64; whoever holds the receipt may add one.
    """

    body: ReceiptBody
    signature: ReceiptSignature
    timestamps: tuple[TimestampField, ...] = Field(max_length=MAX_TIMESTAMPS)


def signed_bytes(body: JSON) -> bytes:
    """The bytes a hub signs: the pre-authentication encoding of the canonical body."""
    return pae(RECEIPT_TYPE, canonicalize(body))


def parse_receipt(data: bytes) -> JSON:
    """Read a receipt's bytes as the JSON document they are, within the bounds of a receipt.

    Raises:
        InputError: if they aren't the canonical form of a document of such a size.
    """
    return parse_canonical(data, max_bytes=MAX_RECEIPT_BYTES, max_members=MAX_RECEIPT_MEMBERS)


def receipt_from_json(value: JSON, data: bytes) -> Receipt:
    """Read a receipt, without judging it.

    Args:
        value: the parsed document.
        data: the bytes it was parsed from, which are its canonical encoding.

    Returns:
        The receipt. No value of it was coerced, so that it encodes to the same bytes again.

    Raises:
        EvidenceError: ``evidence.receipt_malformed`` for an unknown schema, or wrong or missing fields.
    """
    schema = _schema_of(value)
    if schema != RECEIPT_SCHEMA:
        raise EvidenceError(
            "evidence.receipt_malformed",
            f"The receipt is not of the schema {RECEIPT_SCHEMA}.",
            "Verify with the version of cloister that issued it, or a newer one.",
        )
    misfit = misfits(Receipt, value)
    try:
        if not misfit:
            return Receipt.model_validate_json(data, strict=True)
    except ValidationError as error:
        misfit = [wrong_fields(error)]
    raise EvidenceError("evidence.receipt_malformed", f"The receipt's fields are wrong: {misfit[0]}.")


def _schema_of(value: JSON) -> JSON:
    body = value.get("body") if isinstance(value, dict) else None
    return body.get("schema") if isinstance(body, dict) else None


def signed_part(receipt: Receipt, data: bytes) -> bytes:
    """The bytes the hub signed, cut out of a receipt's canonical bytes.

    Keys are sorted, and ``body`` comes first: what follows it has one spelling, so the body is the rest.

    Args:
        receipt: as parsed from ``data``.
        data: the receipt's canonical bytes.

    Returns:
        What `signed_bytes` gives for the body.

    Raises:
        EvidenceError: ``evidence.receipt_malformed`` if the bytes aren't those of this receipt.
    """
    rest = canonicalize(
        {
            "signature": {"key_id": receipt.signature.key_id, "sig": receipt.signature.sig},
            "timestamps": list(receipt.timestamps),
        }
    )
    head, tail = b'{"body":', b"," + rest[1:]
    if not (data.startswith(head) and data.endswith(tail) and len(data) > len(head) + len(tail)):
        raise EvidenceError("evidence.receipt_malformed", "The receipt is not in canonical form.")
    return pae(RECEIPT_TYPE, data[len(head) : -len(tail)])


def signature_of(receipt: Receipt) -> bytes:
    """The raw signature of a receipt.

    Raises:
        EvidenceError: ``evidence.receipt_malformed`` if it isn't canonical base64.
    """
    try:
        return b64decode(receipt.signature.sig)
    except InputError:
        raise EvidenceError("evidence.receipt_malformed", "The receipt's signature is not base64.") from None


def record_of(body: ReceiptBody) -> JobRecord:
    """Read the documents and statements a receipt carries, without judging them.

    Statements keep the order they have in the receipt.

    Raises:
        EvidenceError: if any of them can't be read.
    """
    by_log: dict[str, list[ProvenEntry]] = {origin: [] for origin in body.checkpoints}
    for one in body.statements:
        if one.log not in by_log:
            raise EvidenceError("evidence.receipt_malformed", "A statement is of a log without a checkpoint.")
        envelope = envelope_from_json(one.envelope)
        by_log[one.log].append(ProvenEntry(one.index, envelope, decode_proof(list(one.inclusion))))
    extracts = [
        LogExtract(origin, parse_checkpoint(note), tuple(by_log[origin]))
        for origin, note in body.checkpoints.items()
    ]
    return build_record(
        issuer=body.issuer,
        job=body.job,
        manifests={site: envelope_from_json(one) for site, one in body.manifests.items()},
        request=envelope_from_json(body.request),
        extracts=extracts,
    )


def compose_receipt(
    *,
    receipt_id: str,
    issuer: str,
    signer: Signer,
    clock: Clock,
    job: dict[str, JSON],
    manifests: Mapping[str, Envelope],
    request: Envelope,
    model: ModelFile,
    extracts: Sequence[LogExtract],
    consistency: Sequence[ConsistencyLink] = (),
    credentials: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> bytes:
    """Compose and sign the receipt of a finished job.

    Args:
        receipt_id: a fresh UUID.
        issuer: the hub's name.
        signer: the hub's key.
        clock: gives the time of issue.
        job: the job as the JSON object every site consented to.
        manifests: the signed manifest of each site.
        request: the signed request.
        model: the released model file.
        extracts: for the hub and each site, what its log holds about the job.
        consistency: for each log, the proofs that it grew from the heads that others hold to the one here.
        credentials: certificate chains of parties whose keys aren't pinned, PEM, leaf first, by role/party.

    Returns:
        The receipt's canonical bytes.

    Raises:
        EvidenceError: ``evidence.statement_missing``, with every missing statement in ``details``;
            ``evidence.receipt_refused`` if a site's epsilon isn't finite, the model's file name isn't a
            plain one, or the receipt would be larger than is read.
        ImportError: if dp-accounting is not installed.
    """
    ordered = sorted(extracts, key=lambda one: one.origin)
    if not _FILE_NAME.fullmatch(model.name):
        raise EvidenceError("evidence.receipt_refused", "The model's file name is not a plain one.")
    record = build_record(issuer=issuer, job=job, manifests=manifests, request=request, extracts=ordered)
    missing = missing_statements(record)
    if log_origin(Role.HUB, issuer) not in record.checkpoints:
        missing = (f"{issuer}: no extract of the hub's own log", *missing)
    if missing:
        raise EvidenceError(
            "evidence.statement_missing",
            "The receipt can't be issued: required statements are missing.",
            "A step that left no statement has to be repeated, or the job ends without a receipt.",
            details=missing,
        )
    summary = summarise(record, {site: _figures(record, site) for site in spending_sites(record)})
    body: dict[str, JSON] = {
        "schema": RECEIPT_SCHEMA,
        "receipt_id": receipt_id,
        "job_id": record.job.job_id,
        "issued_at": format_time(clock()),
        "issuer": issuer,
        "model": {"name": model.name, "sha256": model.sha256, "bytes": model.bytes},
        "manifests": {site: one.as_json() for site, one in manifests.items()},
        "request": request.as_json(),
        "job": job,
        "statements": [_statement(extract.origin, entry) for extract in ordered for entry in extract.entries],
        "checkpoints": {one.origin: one.checkpoint.encode() for one in ordered},
        "consistency": [one.as_json() for one in consistency],
        "credentials": {place: list(chains) for place, chains in credentials.items()},
        "summary": cast(JSON, summary.model_dump(mode="json")),
        "compliance": list(COMPLIANCE_STATEMENTS),
        "claims_not_made": list(CLAIMS_NOT_MADE),
    }
    signature = signer.sign(signed_bytes(body))
    key_id = signer.public_key.key_id
    receipt = canonicalize(
        {"body": body, "signature": {"key_id": key_id, "sig": b64encode(signature)}, "timestamps": []}
    )
    if len(receipt) > MAX_RECEIPT_BYTES - MAX_TIMESTAMPS * 2 * MAX_TIMESTAMP_BYTES:
        raise EvidenceError(
            "evidence.receipt_refused",
            f"The receipt would have {len(receipt)} bytes, more than any verifier reads.",
            "Split the job into several of fewer rounds.",
        )
    return receipt


def _statement(origin: str, entry: ProvenEntry) -> JSON:
    return {
        "log": origin,
        "index": entry.index,
        "envelope": entry.envelope.as_json(),
        "inclusion": [b64encode(one) for one in entry.proof],
    }


def _figures(record: JobRecord, site: str) -> EpsilonFigures:
    if site not in record.manifests:
        raise EvidenceError("evidence.statement_missing", f"{site} spent without a manifest.")
    figures = epsilon_figures(record.by(site, BudgetSpend), epsilon_limits(record, site))
    if not math.isfinite(figures.dataset_total + figures.other + figures.held + figures.dataset_held):
        raise EvidenceError("evidence.receipt_refused", f"The epsilon of {site} is not finite.")
    return figures
