"""What every statement says whoever makes it, and the register of the kinds of statement known here.

Rules kept here:

1. A predicate names its job, its party, its place in that party's chain and the statement before it: a
   missing link is located, and a statement of another job can't be slipped in.
2. A predicate's TYPE carries its version; an unknown type or version is refused, never guessed.
3. A predicate's ROLE says which kind of party may make it: a site's statement under a hub's key is refused.
4. Models are frozen, closed to unknown fields, and refuse NaN and infinity.
5. Text is printable and times exist: a receipt can be shown on a terminal as it is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from cloister.core.clock import parse_time
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256Field
from cloister.evidence.errors import EvidenceError

TYPE_PREFIX: Final = "urn:cloister:predicate:"
DOCUMENT: Final = "x-document"
"""In a field's JSON Schema: the published schema of the document it holds."""

PARTY_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
UUID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
FILE_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
TIME_PATTERN: Final = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$"


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable: no control, format or bidirectional characters, no line breaks")
    return text


def _moment(text: str) -> str:
    try:
        parse_time(text)
    except InputError as error:
        raise ValueError(error.message) from None
    return text


PartyField = Annotated[str, StringConstraints(pattern=PARTY_PATTERN)]
UuidField = Annotated[str, StringConstraints(pattern=UUID_PATTERN)]
TimeField = Annotated[str, StringConstraints(pattern=TIME_PATTERN), AfterValidator(_moment)]
Sha384Field = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{96}$")]
MeasurementField = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{96}|[0-9a-f]{64})$")]
TextField = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)]
RemarkField = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
NameField = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
FileNameField = Annotated[str, StringConstraints(pattern=FILE_NAME_PATTERN)]
Base64Field = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=200_000)]
CountField = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Role(StrEnum):
    """Whom a pinned key speaks for. A key serves one role only."""

    HUB = "hub"
    SITE = "site"
    DEVELOPER = "developer"
    HOSPITAL = "hospital"
    TEE_ROOT = "tee-root"
    ENCLAVE = "enclave"
    WITNESS = "witness"
    AUDITOR = "auditor"
    TSA = "tsa"


class Part(BaseModel):
    """A named piece inside a predicate, as frozen and closed as the predicate itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Predicate(Part):
    """The fields every statement has.

    Attributes:
        job_id: the job the statement belongs to.
        party: who makes it, as named in the trust directory.
        sequence: this party's statements in this job, counted from 0.
        previous: SHA-256 of this party's previous statement (its payload bytes); None for the first.
        recorded_at: when the party wrote it, UTC.
    """

    TYPE: ClassVar[str]
    ROLES: ClassVar[frozenset[Role]]

    job_id: UuidField
    party: PartyField
    sequence: CountField
    previous: Sha256Field | None
    recorded_at: TimeField


P = TypeVar("P", bound=type[Predicate])

_KNOWN: dict[str, type[Predicate]] = {}


def known(predicate: P) -> P:
    """Enter a predicate class into the register of kinds this program can read (a class decorator)."""
    if predicate.TYPE in _KNOWN:
        raise ValueError(f"{predicate.TYPE} is registered twice")
    _KNOWN[predicate.TYPE] = predicate
    return predicate


def predicate_class(predicate_type: str) -> type[Predicate]:
    """Find the model for a predicateType URI.

    Raises:
        EvidenceError: ``evidence.statement_unknown`` for a type or version not known here.
    """
    found = _KNOWN.get(predicate_type)
    if found is None:
        raise EvidenceError(
            "evidence.statement_unknown",
            "A statement is of a type or version this program doesn't know.",
            "Verify with the version of cloister that issued it, or a newer one.",
        )
    return found


def known_types() -> tuple[str, ...]:
    """Every predicateType this program can read, sorted."""
    return tuple(sorted(_KNOWN))
