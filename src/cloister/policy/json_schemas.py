"""JSON Schemas of the policy documents, made from the models themselves.

``python -m cloister.policy.json_schemas docs/schemas`` writes them where other programs find them.
A schema says what a field may hold; rules that join several fields (a purpose both allowed and
prohibited, a range that ends before it starts) are the models' own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from cloister.core.files import write_atomic
from cloister.policy.draft import ManifestDraft, RequestDraft
from cloister.policy.manifest import ProtocolManifest
from cloister.policy.request import TrainingRequest

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_MODELS: dict[str, type[BaseModel]] = {
    "manifest.schema.json": ProtocolManifest,
    "manifest-draft.schema.json": ManifestDraft,
    "request.schema.json": TrainingRequest,
    "request-draft.schema.json": RequestDraft,
}


def schemas() -> dict[str, bytes]:
    """Return the schema of every policy document: file name and content (JSON Schema 2020-12)."""
    return {
        name: json.dumps({"$schema": DIALECT, **model.model_json_schema()}, indent=2, sort_keys=True).encode()
        + b"\n"
        for name, model in _MODELS.items()
    }


def write_schemas(directory: Path) -> None:
    """Write every schema into a folder.

    Raises:
        StorageError: It can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in schemas().items():
        write_atomic(directory / name, content, mode=0o644)


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
