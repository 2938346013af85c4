"""The published JSON Schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from policy_documents import MANIFEST, REQUEST

from cloister.core.documents import load_yaml
from cloister.policy import schemas
from cloister.policy.json_schemas import write_schemas

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "schemas"


def test_the_published_schemas_are_those_of_the_models() -> None:
    published = {name: (PUBLISHED / name).read_bytes() for name in schemas()}
    assert published == schemas(), "run: python -m cloister.policy.json_schemas docs/schemas"


def test_schemas_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    write_schemas(tmp_path / "new" / "folder")
    written = {path.name: path.read_bytes() for path in (tmp_path / "new" / "folder").iterdir()}
    assert written == schemas()


@pytest.mark.parametrize(
    ("name", "fields"), [("manifest.schema.json", MANIFEST), ("request.schema.json", REQUEST)]
)
def test_a_schema_lists_the_documents_fields_and_allows_no_other(
    name: str, fields: dict[str, object]
) -> None:
    schema = json.loads(schemas()[name])
    assert set(schema["properties"]) == set(schema["required"]) == set(fields)
    parts = [schema, *schema["$defs"].values()]
    assert all(part["additionalProperties"] is False for part in parts if part["type"] == "object")


@pytest.mark.parametrize("kind", ["manifest", "request"])
@pytest.mark.parametrize("example", ["tumour", "heart"])
def test_the_examples_have_the_fields_of_the_draft_schemas(example: str, kind: str) -> None:
    written = load_yaml(ROOT / "examples" / example / f"{kind}.yaml")
    assert isinstance(written, dict)
    assert set(written) == set(json.loads(schemas()[f"{kind}-draft.schema.json"])["properties"])
