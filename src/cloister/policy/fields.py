"""What a single field of a manifest or a request may hold.

Rules kept here:

- Nothing is coerced: a number in quotes isn't a number, and ``true`` isn't 1.
- Text is printable, so that a signed document can be shown on a terminal or a page as it is.
- A list names each thing once.
- Sizes are bounded: a document is read by people.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, date, datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from cloister.core.clock import format_time
from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey

LARGEST_INTEGER = 2**53 - 1
LONGEST_LIST = 1000

ItemT = TypeVar("ItemT", bound=Hashable)


class Section(BaseModel):
    """A frozen part of a document; an unknown, missing or wrongly typed field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable text without line breaks or outer spaces")
    return text


def _time(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be an RFC 3339 time such as 2026-01-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("must state its time zone, such as 2026-01-01T00:00:00Z")
    try:
        return format_time(moment.astimezone(UTC))
    except OverflowError:
        raise ValueError("must lie between the years 1 and 9999 in UTC") from None


def _day(text: str) -> str:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a date such as 1989-01-31") from None
    if day.isoformat() != text:
        raise ValueError("must be a date such as 1989-01-31")
    return text


def _public_key(pem: str) -> str:
    try:
        key = PublicKey.from_pem(pem)
    except CloisterError:
        raise ValueError("must be an Ed25519 public key in PEM") from None
    if key.pem != pem:
        raise ValueError("must be the PEM encoding as this software writes it")
    return pem


def unique(items: tuple[ItemT, ...]) -> tuple[ItemT, ...]:
    """Return a list as it is if it names nothing twice.

    Raises:
        ValueError: It names something twice.
    """
    if len(set(items)) != len(items):
        raise ValueError("names something twice")
    return items


Text = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
ParameterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
DocumentId = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
]
Version = Annotated[
    str,
    StringConstraints(
        max_length=64,
        pattern=r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
        r"(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$",
    ),
]
Measurement = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{96}$")]
PublicKeyPem = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_public_key)]
Timestamp = Annotated[
    str,
    StringConstraints(max_length=40),
    AfterValidator(_time),
    Field(json_schema_extra={"format": "date-time"}),
]
Day = Annotated[str, AfterValidator(_day), Field(json_schema_extra={"format": "date"})]
Epsilon = Annotated[float, Field(gt=0, le=1000)]
Delta = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=LARGEST_INTEGER)]
Words = Annotated[
    tuple[Slug, ...], Field(min_length=1, max_length=LONGEST_LIST, strict=False), AfterValidator(unique)
]
WordsOrNone = Annotated[
    tuple[Slug, ...], Field(max_length=LONGEST_LIST, strict=False), AfterValidator(unique)
]
Sentences = Annotated[
    tuple[Text, ...], Field(min_length=1, max_length=LONGEST_LIST, strict=False), AfterValidator(unique)
]
Measurements = Annotated[
    tuple[Measurement, ...],
    Field(min_length=1, max_length=LONGEST_LIST, strict=False),
    AfterValidator(unique),
]
