"""JSON Schemas of every document this room writes and hands over, made from models.

``python -m cloister.evidence.json_schemas docs/schemas`` writes them where other programs find them. A schema
says what a field may hold; that each document has only its canonical spelling, and that hashes, signatures
and proofs agree, is for the verifier to say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, RootModel, StringConstraints, TypeAdapter, WithJsonSchema

from cloister.core.canonical import JSON
from cloister.core.files import write_atomic
from cloister.core.hashes import Sha256Field
from cloister.evidence.checkpoint import MAX_CHECKPOINT_CHARS
from cloister.evidence.custody.bundle import ExportBundle
from cloister.evidence.envelope import MAX_SIGNATURES
from cloister.evidence.extract import MAX_PROOF_HASHES
from cloister.evidence.json_forms import RegulatoryReport, SegmentLine
from cloister.evidence.predicates import known_types, predicate_class
from cloister.evidence.predicates.base import DOCUMENT, TYPE_PREFIX, CountField, NameField, Part
from cloister.evidence.receipt import Receipt
from cloister.evidence.segments.checkpoint import SegmentCheckpointForm

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_BASE64: Final = r"^[A-Za-z0-9+/]*={0,2}$"
_Base64 = Annotated[str, StringConstraints(pattern=_BASE64)]


def _file_of(predicate_type: str) -> str:
    return "predicate-" + predicate_type.removeprefix(TYPE_PREFIX).partition(":")[0] + ".schema.json"


class EnvelopeSignature(Part):
    """A signature over the pre-authentication encoding of payload type and payload."""

    keyid: NameField
    sig: _Base64


class EnvelopeForm(Part):
    """A DSSE envelope: a payload, its type, and the signatures over both."""

    payload: _Base64
    payload_type: str = Field(alias="payloadType")
    signatures: tuple[EnvelopeSignature, ...] = Field(min_length=1, max_length=MAX_SIGNATURES)


class Digest(Part):
    """The hash that names a subject."""

    sha256: Sha256Field


class SubjectForm(Part):
    """A thing that is spoken of, by name and hash."""

    digest: Digest
    name: str


_AnyPredicate = Annotated[
    dict[str, object], WithJsonSchema({"anyOf": [{DOCUMENT: _file_of(one)} for one in known_types()]})
]


class StatementForm(Part):
    """An in-toto Statement v1, the payload of an envelope of type application/vnd.in-toto+json."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate: _AnyPredicate
    predicate_type: Annotated[str, WithJsonSchema({"enum": list(known_types())})] = Field(
        alias="predicateType"
    )
    subject: tuple[SubjectForm, ...] = Field(min_length=1)


class CheckpointText(RootModel[str]):
    """A log's signed head as it stands in JSON: the text of a C2SP signed note (tlog-checkpoint)."""

    root: Annotated[
        str, StringConstraints(pattern=r"^[^\s+]+\n(0|[1-9][0-9]*)\n", max_length=MAX_CHECKPOINT_CHARS)
    ]


class ExtractEntry(Part):
    """An entry of a log: its index, what was logged, and the proof that it is there."""

    envelope: Annotated[dict[str, object], WithJsonSchema({DOCUMENT: "envelope.schema.json"})]
    inclusion: tuple[_Base64, ...] = Field(max_length=MAX_PROOF_HASHES)
    index: CountField


class LogExtractForm(Part):
    """What a party hands over from its log for one job."""

    checkpoint: Annotated[str, WithJsonSchema({DOCUMENT: "checkpoint.schema.json"})]
    entries: tuple[ExtractEntry, ...]
    origin: NameField


_MODELS: Final[dict[str, type[BaseModel]]] = {
    "checkpoint.schema.json": CheckpointText,
    "envelope.schema.json": EnvelopeForm,
    "export-bundle.schema.json": ExportBundle,
    "log-extract.schema.json": LogExtractForm,
    "receipt.schema.json": Receipt,
    "regulatory-report.schema.json": RegulatoryReport,
    "segment-checkpoint.schema.json": SegmentCheckpointForm,
    "segment-line.schema.json": SegmentLine,
    "statement.schema.json": StatementForm,
    **{_file_of(one): predicate_class(one) for one in known_types()},
}


def schemas() -> dict[str, bytes]:
    """The schema of every document: file name and content (JSON Schema 2020-12)."""
    return {name: _schema(name, model) for name, model in _MODELS.items()}


def _schema(name: str, model: type[BaseModel]) -> bytes:
    content: dict[str, JSON] = {"$schema": DIALECT, "$id": name}
    kind = getattr(model, "TYPE", None)
    if kind is not None:
        content["$comment"] = f"predicateType {kind}"
    content.update(TypeAdapter(model).json_schema(by_alias=True, mode="serialization"))
    text = json.dumps(content, indent=2, sort_keys=True)
    return text.replace(f'"{DOCUMENT}":', '"$ref":').encode() + b"\n"


def write_schemas(directory: Path) -> None:
    """Write every schema into a folder.

    Raises:
        StorageError: if it can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in schemas().items():
        write_atomic(directory / name, content, mode=0o644)


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
