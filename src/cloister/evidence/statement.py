"""in-toto Statement v1: what is stated (a predicate) about what (subjects named by hash).

Rules kept here:

1. A statement has one encoding, canonical JSON. Decoding refuses bytes that differ from the re-encoding of
   what was understood: no coerced type, no dropped field, no second spelling.
2. A predicate of an unknown type or version is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from pydantic import ValidationError
from pydantic_core import from_json

from cloister.core.canonical import JSON, canonicalize
from cloister.core.errors import CloisterError
from cloister.core.hashes import Sha256, is_sha256
from cloister.core.keys import Signer
from cloister.evidence.envelope import Envelope, sign_envelope
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import Predicate, predicate_class

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_STATEMENT_BYTES: Final = 48 * 1024
"""In its envelope, in base64, a longer one would fit into no entry of a log."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A thing a statement is about.

    Attributes:
        name: what people call it.
        sha256: its SHA-256, 64 hex digits.
    """

    name: str
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Statement:
    """A predicate about subjects (in-toto attestation framework, Statement v1).

    Attributes:
        subjects: at least one.
        predicate: what is stated.
    """

    subjects: tuple[Subject, ...]
    predicate: Predicate

    def encode(self) -> bytes:
        """The statement's only encoding, as canonical JSON."""
        return canonicalize(
            {
                "_type": STATEMENT_TYPE,
                "predicate": self.predicate.model_dump(mode="json"),
                "predicateType": self.predicate.TYPE,
                "subject": [{"digest": {"sha256": one.sha256}, "name": one.name} for one in self.subjects],
            }
        )


def sign_statement(statement: Statement, signer: Signer) -> Envelope:
    """Put a statement into an envelope signed by its party's key."""
    return sign_envelope(PAYLOAD_TYPE, statement.encode(), signer)


def decode_statement(payload: bytes) -> Statement:
    """Read a statement from its canonical bytes.

    Args:
        payload: the payload of an envelope.

    Returns:
        The statement.

    Raises:
        EvidenceError: ``evidence.statement_malformed`` or ``evidence.statement_unknown``.
    """
    value = _read(payload)
    if not isinstance(value, dict) or value.keys() != {"_type", "predicate", "predicateType", "subject"}:
        raise _malformed("it doesn't have exactly the fields of a Statement")
    if value["_type"] != STATEMENT_TYPE:
        raise EvidenceError("evidence.statement_unknown", "This is not an in-toto Statement v1.")
    predicate_type = value["predicateType"]
    if not isinstance(predicate_type, str):
        raise _malformed("its predicateType is not text")
    kind = predicate_class(predicate_type)
    try:
        predicate = kind.model_validate(value["predicate"])
    except ValidationError as error:
        fields = sorted(
            {".".join(str(part) for part in one["loc"]) for one in error.errors(include_input=False)}
        )
        raise _malformed(f"these fields of {predicate_type} are wrong: {', '.join(fields)}") from None
    statement = Statement(_subjects(value["subject"]), predicate)
    try:
        encoded = statement.encode()
    except CloisterError as error:
        raise _malformed(error.message) from error
    if encoded != payload:
        raise _malformed("it is not in canonical form")
    return statement


def _read(payload: bytes) -> JSON:
    """Read JSON fast; what isn't strict in it doesn't encode to the same bytes again, and is refused then."""
    if len(payload) > MAX_STATEMENT_BYTES:
        raise _malformed(f"it has {len(payload)} bytes; at most {MAX_STATEMENT_BYTES} are read")
    try:
        return cast(JSON, from_json(payload, allow_inf_nan=False, cache_strings="keys"))
    except ValueError:
        raise _malformed("it is not JSON") from None


def open_statement(envelope: Envelope) -> Statement:
    """Read the statement in an envelope, without judging its signature.

    Raises:
        EvidenceError: if the envelope holds something else than a statement.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise _malformed("the envelope's payload is of another type")
    return decode_statement(envelope.payload)


def _subjects(value: JSON) -> tuple[Subject, ...]:
    if not isinstance(value, list) or not value:
        raise _malformed("it names no subject")
    return tuple(_subject(one) for one in value)


def _subject(value: JSON) -> Subject:
    if not isinstance(value, dict):
        raise _malformed("a subject is not an object")
    name, digest = value.get("name"), value.get("digest")
    if not isinstance(name, str) or not name.isprintable() or not isinstance(digest, dict):
        raise _malformed("a subject has no printable name or no digest")
    sha256 = digest.get("sha256")
    if not isinstance(sha256, str) or not is_sha256(sha256):
        raise _malformed("a subject has no SHA-256")
    return Subject(name, Sha256(sha256))


def require_subjects(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """Check subjects before they are stated.

    Raises:
        EvidenceError: ``evidence.statement_malformed`` if there are none, or one has no proper hash or name.
    """
    if not subjects or not all(is_sha256(one.sha256) and one.name.isprintable() for one in subjects):
        raise _malformed("it needs at least one subject, each with a printable name and a SHA-256")
    return tuple(subjects)


def _malformed(reason: str) -> EvidenceError:
    return EvidenceError(
        "evidence.statement_malformed", f"This is not a canonical statement: {reason.rstrip('.')}."
    )
