"""Merkle proofs against the vectors of transparency-dev/merkle and the Certificate Transparency tree.

Vectors: transparency-dev/merkle, testdata/{inclusion,consistency}, Apache-2.0. One point of taste differs
there from RFC 9162: consistency between two empty trees is an error in that library, as it is here.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import leaf_hash, node_hash, root, verify_consistency, verify_inclusion
from tests.conftest import SharedData


@pytest.fixture
def vectors(shared_data: SharedData) -> Path:
    return shared_data("crypto-vectors/merkle")


def load(vectors: Path, name: str) -> Any:
    return json.loads((vectors / name).read_text())


def decoded(hashes: list[str | None] | None) -> list[bytes]:
    return [base64.b64decode(one or "") for one in hashes or []]


def test_inclusion_verdicts_agree(vectors: Path) -> None:
    cases = load(vectors, "inclusion.json")
    wrong = []
    for case in cases:
        leaf, expected = decoded([case["leafHash"], case["root"]])
        try:
            verify_inclusion(leaf, case["leafIdx"], case["treeSize"], decoded(case["proof"]), expected)
            accepted = True
        except EvidenceError:
            accepted = False
        if accepted == case["wantErr"]:
            wrong.append(case["source"])
    assert len(cases) > 40
    assert wrong == []


def test_consistency_verdicts_agree(vectors: Path) -> None:
    cases = load(vectors, "consistency.json")
    wrong = []
    for case in cases:
        old, new = decoded([case["root1"], case["root2"]])
        try:
            verify_consistency(case["size1"], case["size2"], decoded(case["proof"]), old, new)
            accepted = True
        except EvidenceError:
            accepted = False
        if accepted == case["wantErr"]:
            wrong.append(case["source"])
    assert len(cases) > 40
    assert wrong == []


def test_the_reference_tree_has_the_known_hashes_and_roots(vectors: Path) -> None:
    tree = load(vectors, "rfc6962_reference_tree.json")
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in tree["leaves_hex"]]
    assert [leaf.hex() for leaf in leaves] == tree["leaf_hashes"]
    assert [root(leaves[:size]).hex() for size in range(9)] == tree["roots_by_size"]


def test_hashing_agrees_with_the_known_answers_without_any_data_file() -> None:
    # transparency-dev/merkle, rfc6962/rfc6962_test.go
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert (
        node_hash(b"N123", b"N456").hex()
        == "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    )
