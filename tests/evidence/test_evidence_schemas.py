"""The published JSON Schemas of what this room writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.core.canonical import JSON, parse
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence.custody import verify_bundle
from cloister.evidence.json_schemas import schemas, write_schemas
from cloister.evidence.predicates import known_types
from cloister.evidence.regulation import RegulationId, assess
from cloister.evidence.segments import Cipher, FileSink, OpeningKey, SegmentWriter
from cloister.policy import schemas as policy_schemas
from tests.evidence.custody.house import House
from tests.evidence.synthetic import HUB, SyntheticJob

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas"


def accepts(name: str, document: object) -> bool:
    """Whether a published schema, with those it refers to, accepts a document (by an independent library)."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    referencing = pytest.importorskip("referencing", reason="referencing is not installed")
    contents = {file: json.loads(text) for file, text in schemas().items()}
    registry = referencing.Registry().with_contents(contents.items())
    validator = jsonschema.Draft202012Validator(contents[name], registry=registry)
    return bool(validator.is_valid(document))


def test_the_published_schemas_are_those_of_the_models() -> None:
    published = {path.name: path.read_bytes() for path in PUBLISHED.glob("*.json")}
    ours = {name: content for name, content in published.items() if name not in policy_schemas()}
    assert ours == schemas(), "run: python -m cloister.evidence.json_schemas docs/schemas"


def test_every_kind_of_statement_has_a_schema_that_names_its_type() -> None:
    comments = {json.loads(text).get("$comment") for text in schemas().values()}
    assert {f"predicateType {kind}" for kind in known_types()} <= comments


def test_schemas_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    write_schemas(tmp_path / "new")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == schemas()


def test_a_genuine_receipt_and_its_parts_fit_their_schemas(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    receipt = json.loads(honest_receipt)
    assert accepts("receipt.schema.json", receipt)
    for entry in honest_job.extracts[HUB].entries:
        assert accepts("envelope.schema.json", entry.envelope.as_json())
        statement = parse(entry.envelope.payload)
        assert isinstance(statement, dict)
        assert accepts("statement.schema.json", statement)
        name = str(statement["predicateType"]).split(":")[-2]
        assert accepts(f"predicate-{name}.schema.json", statement["predicate"])
    assert accepts("log-extract.schema.json", honest_job.extracts[HUB].as_json())
    assert accepts("checkpoint.schema.json", honest_job.extracts[HUB].checkpoint.encode())


def test_a_receipt_with_another_field_or_a_broken_envelope_does_not_fit(honest_receipt: bytes) -> None:
    receipt: dict[str, dict[str, JSON]] = json.loads(honest_receipt)
    assert not accepts("receipt.schema.json", {**receipt, "more": 1})
    without_signatures = {"payload": "", "payloadType": "x", "signatures": []}
    broken = {**receipt["body"], "request": without_signatures}
    assert not accepts("receipt.schema.json", {**receipt, "body": broken})


@pytest.mark.parametrize("cipher", Cipher)
def test_each_line_of_a_segment_and_each_checkpoint_held_of_it_fit_their_schemas(
    cipher: Cipher, tmp_path: Path
) -> None:
    (tmp_path / "segments").mkdir()
    signer, held = EphemeralKeyStore().generate("worker"), tmp_path / "held.jsonl"
    sealing = OpeningKey.generate().sealing_key
    sink = FileSink(held)
    with SegmentWriter(tmp_path / "segments", "immune", signer, sealing, sinks=[sink], cipher=cipher) as one:
        one.append_durable({"call": 1})
    sink.close()
    (segment,) = (tmp_path / "segments").glob("*.jsonl")
    lines = [json.loads(line) for line in segment.read_bytes().splitlines()]
    assert {line["kind"] for line in lines} == {"open", "entry", "mark"}
    for line in lines:
        assert accepts("segment-line.schema.json", line)
        assert not accepts("segment-line.schema.json", {**line, "more": 1})
    notes = [json.loads(line) for line in held.read_bytes().splitlines() if line]
    assert notes
    assert all(accepts("segment-checkpoint.schema.json", note) for note in notes)


def test_a_regulatory_report_fits_its_schema(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.job()
        verdict = verify_bundle(house.export(house.of_job()), house.trust)
    report = assess(verdict, RegulationId.GDPR, "pinned").as_json()
    assert accepts("regulatory-report.schema.json", json.loads(json.dumps(report)))
    assert not accepts("regulatory-report.schema.json", report | {"compliant": True})
