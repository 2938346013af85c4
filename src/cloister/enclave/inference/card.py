"""Which model an enclave serves, in public, and how large what it is asked and answers can be.

Rules kept here:

* The card names the model file by a hash that is taken from the file itself, never by what somebody says. Of
  a model in a sealed package it names the package and its developer's key instead: a hash of the weights
  could be tried against guesses.
* A query's plaintext is padded to a power of two, at least 4 KiB. One query holds at most a mebibyte of rows,
  or one row where that is larger, and no more rows than an answer of 4 MiB holds: what one client asks at a
  time stays small for all others. A client with more rows asks several times.
* An answer's size follows from the query's and the card alone.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from cloister.core.canonical import JSON, canonicalize
from cloister.core.hashes import Sha256, Sha256Field, sha256_hex
from cloister.enclave.inference.refusals import malformed

SMALLEST_BUCKET: Final = 4096
USUAL_BUCKET: Final = 1024 * 1024
LARGEST_BUCKET: Final = 4 * 1024 * 1024
MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
MAX_FEATURES: Final = 1_000_000
INPUT_HEAD: Final = struct.Struct(">32sII")
OUTPUT_HEAD: Final = struct.Struct(">BII")
_CARD: Final = "urn:cloister:model-card:v2"
_FLOAT_BYTES: Final = 4


class PackageName(BaseModel):
    """Which sealed package a model is in.

    Attributes:
        image_sha256: SHA-256 of the whole image.
        developer: id of the key that signed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_sha256: Sha256Field
    developer: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class ModelCard(BaseModel):
    """Which model an enclave serves; public, and bound into its evidence.

    Attributes:
        model_sha256: SHA-256 of the model file; None where it came in a package.
        package: the package it came in; None where it came as it is.
        architecture: the model's registered name.
        parameters: the architecture's own public parameters.
        features: numbers in a row.
        classes: probabilities in an answer's row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model_sha256: Sha256Field | None = None
    package: PackageName | None = None
    architecture: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    parameters: Annotated[dict[str, JsonValue], Field(max_length=50)]
    features: Annotated[int, Field(ge=1, le=MAX_FEATURES, strict=True)]
    classes: Annotated[int, Field(ge=2, le=10_000, strict=True)]

    @model_validator(mode="after")
    def _names_one(self) -> ModelCard:
        if (self.model_sha256 is None) == (self.package is None):
            raise ValueError("names a model file or a package")
        return self

    @property
    def artifact_sha256(self) -> Sha256:
        """SHA-256 of what the provider was given: the model file, or the package."""
        return Sha256(self.model_sha256 or (self.package.image_sha256 if self.package else ""))

    def as_json(self) -> dict[str, JSON]:
        """The card as plain JSON values."""
        return {"schema": _CARD, **self.model_dump(mode="json")}

    @property
    def sha256(self) -> Sha256:
        """What evidence binds in the place of a job."""
        return sha256_hex(canonicalize(self.as_json()))

    @classmethod
    def from_json(cls, value: JSON) -> ModelCard:
        """Read what ``as_json`` gave; InferenceError ``inference.malformed`` for anything else."""
        if not isinstance(value, dict) or value.get("schema") != _CARD:
            raise malformed()
        try:
            card = cls.model_validate({name: one for name, one in value.items() if name != "schema"})
        except ValidationError:
            raise malformed() from None
        if card.as_json() != value:
            raise malformed()
        return card

    @property
    def largest_bucket(self) -> int:
        """The largest plaintext of a query, in bytes."""
        return max(USUAL_BUCKET, padded_size(INPUT_HEAD.size + _FLOAT_BYTES * self.features))

    @property
    def most_rows(self) -> int:
        """The most rows of one query; at least one."""
        return self.rows_in(self.largest_bucket)

    def rows_in(self, bucket: int) -> int:
        """The most rows that a query of this bucket can ask for; at least one."""
        held = (bucket - INPUT_HEAD.size) // (_FLOAT_BYTES * self.features)
        answered = (MAX_OUTPUT_BYTES - OUTPUT_HEAD.size) // (_FLOAT_BYTES * self.classes)
        return max(1, min(held, answered))

    def output_bytes(self, bucket: int) -> int:
        """Size of an answer's plaintext to a query of this bucket."""
        return OUTPUT_HEAD.size + self.rows_in(bucket) * self.classes * _FLOAT_BYTES


@dataclass(frozen=True)
class ModelDescription:
    """Which model a file's weights belong to; public.

    Attributes:
        architecture: its registered name.
        parameters: the architecture's own public parameters.
        features: numbers in a row.
        classes: probabilities in an answer's row.
    """

    architecture: str
    parameters: Mapping[str, JSON]
    features: int
    classes: int = 2

    def as_json(self) -> dict[str, JSON]:
        """The description as plain JSON values."""
        return {
            "architecture": self.architecture,
            "parameters": dict(self.parameters),
            "features": self.features,
            "classes": self.classes,
        }


def card_of(description: JSON, model: bytes) -> ModelCard:
    """The card of a model file; it names the file by its own hash, which nobody else says.

    Args:
        description: what `ModelDescription.as_json` gave.
        model: the file.

    Raises:
        InferenceError: ``inference.malformed``.
    """
    return _card(description, {"model_sha256": sha256_hex(model), "package": None})


def card_of_package(description: JSON, package: PackageName) -> ModelCard:
    """The card of a model in a sealed package.

    Args:
        description: what the package's developer signed: what `ModelDescription.as_json` gave.
        package: which it is, as it was checked.

    Raises:
        InferenceError: ``inference.malformed``.
    """
    return _card(description, {"model_sha256": None, "package": package.model_dump(mode="json")})


def _card(description: JSON, named: dict[str, JSON]) -> ModelCard:
    if not isinstance(description, dict) or {"schema", *named} & description.keys():
        raise malformed()
    return ModelCard.from_json({**description, "schema": _CARD, **named})


def padded_size(size: int) -> int:
    """The bucket for so many bytes: the next power of two, at least 4 KiB."""
    return max(SMALLEST_BUCKET, 1 << (max(1, size) - 1).bit_length())
