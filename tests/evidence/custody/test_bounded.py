"""Small files that would cost their reader a machine: exports and receipts crowded with worthless values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.core.parsing import misfits
from cloister.evidence.custody.bundle import MAX_SENTENCES, ExportBundle
from cloister.evidence.receipt import Receipt

MIB = 1024 * 1024
JUDGE = """
import resource, sys
from pathlib import Path
from cloister.evidence.checks import CheckRegistry
from cloister.evidence.artifacts import Demands, find_kind, verify_artifact
from cloister.evidence.trust import Trust
data = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
verdict = verify_artifact(data, Trust([]), Demands(), CheckRegistry, kind=find_kind(data[:4096]))
assert verdict.kind is not None and not verdict.accepted
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def crowd(begin: bytes, part: bytes, end: bytes, size: int = 8 * MIB) -> bytes:
    """A document of this size that repeats a part, with commas between."""
    return begin + b",".join([part] * ((size - len(begin) - len(end)) // (len(part) + 1))) + end


def names(size: int = 8 * MIB) -> bytes:
    return b",".join(b'"t%010d":0' % number for number in range(size // 16))


EXPORT, RECEIPT = b'{"body":{"claims_not_made":[', b'{"body":{"checkpoints":['
STATEMENTS = b'{"body":{"checkpoints":{},"schema":"urn:cloister:receipt:v2","statements":['
CROWDS = {
    "empty lists in an export": crowd(EXPORT, b"[]", b"]}}"),
    "empty objects in an export": crowd(EXPORT, b"{}", b"]}}"),
    "texts in an export": crowd(EXPORT, b'"ab"', b"]}}"),
    "longer texts in an export": crowd(EXPORT, b'"aaaaaaaaaaaaaa"', b"]}}"),
    "numbers in an export": crowd(EXPORT, b"12345678901", b"]}}"),
    "names in an export": b'{"body":{"claims_not_made":[],' + names() + b"}}",
    "empty lists in a receipt": crowd(RECEIPT, b"[]", b"]}}"),
    "numbers in a receipt": crowd(RECEIPT, b"12345678901", b"]}}"),
    "statements in a receipt": crowd(STATEMENTS, b'{"aaaaaaaaaaaaaaaaaa":1}', b"]}}"),
    "names in a receipt": b'{"body":{"checkpoints":{},"schema":"urn:cloister:receipt:v2",' + names() + b"}}",
}


@pytest.mark.parametrize("crowded", CROWDS)
def test_a_crowded_file_of_eight_mebibytes_takes_no_more_than_its_fiftyfold(
    tmp_path: Path, crowded: str
) -> None:
    path = tmp_path / "crowded.json"
    path.write_bytes(CROWDS[crowded])
    ended = subprocess.run(
        [sys.executable, "-c", JUDGE, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(ended.stdout) < 400


def test_names_and_lengths_are_looked_at_before_any_model_is_asked() -> None:
    body = dict.fromkeys(("a", "b"), 0)
    assert misfits(ExportBundle, {"body": body, "signature": {}}) == ["body.schema"]
    assert misfits(Receipt, []) == ["the document"]
    fields = {
        field.alias or name
        for name, field in ExportBundle.model_fields["body"].annotation.model_fields.items()
    }
    whole = {"body": dict.fromkeys(fields, 0), "signature": {"key_id": "k", "sig": "s"}}
    whole["body"]["selection"] = {"job_id": None, "start": None, "end": None}
    assert misfits(ExportBundle, whole) == []
    whole["body"]["claims_not_made"] = ["x"] * (MAX_SENTENCES + 1)
    assert misfits(ExportBundle, whole) == ["body.claims_not_made"]
    whole["body"]["claims_not_made"] = []
    whole["body"]["surplus\n"] = 1
    assert misfits(ExportBundle, whole) == ["body.[withheld]"]
    assert json.dumps(whole)
