"""The Merkle tree agrees with the recursive definition of RFC 9162 and accepts only exact proofs."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import (
    EMPTY_ROOT,
    CompactRange,
    compact_range_nodes,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

sizes = st.integers(min_value=1, max_value=130)


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH as RFC 9162 section 2.1.1 writes it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(defined_root(leaves[:split]), defined_root(leaves[split:]))


class Tree:
    """A tree with every finished subtree kept."""

    def __init__(self, size: int) -> None:
        self.leaves = [leaf_hash(b"leaf %d" % number) for number in range(size)]
        self.nodes: dict[tuple[int, int], bytes] = {}
        edge = CompactRange()
        for leaf in self.leaves:
            for level, index, value in edge.append(leaf):
                assert (level, index) not in self.nodes
                self.nodes[level, index] = value
        self.edge = edge

    def get(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


@given(st.integers(min_value=0, max_value=130))
def test_the_root_is_the_one_the_rfc_defines(size: int) -> None:
    tree = Tree(size)
    assert tree.edge.root() == root(tree.leaves) == defined_root(tree.leaves)


@given(sizes)
def test_an_edge_restored_from_stored_nodes_grows_like_the_original(size: int) -> None:
    tree = Tree(size)
    restored = CompactRange(size, [tree.get(*place) for place in compact_range_nodes(size)])
    extra = leaf_hash(b"one more")
    assert restored.append(extra) == tree.edge.append(extra)
    assert restored.root() == tree.edge.root()


def test_an_edge_that_does_not_fit_its_size_is_refused() -> None:
    with pytest.raises(EvidenceError, match="edge"):
        CompactRange(3, [EMPTY_ROOT])


@given(st.data())
def test_each_leaf_is_proven_in_every_tree_that_holds_it(data: st.DataObject) -> None:
    tree = Tree(data.draw(sizes))
    size = data.draw(st.integers(1, len(tree.leaves)))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, tree.get)
    verify_inclusion(tree.leaves[index], index, size, proof, defined_root(tree.leaves[:size]))


@given(st.data())
def test_a_proof_serves_no_other_leaf_place_or_size(data: st.DataObject) -> None:
    tree = Tree(data.draw(st.integers(2, 70)))
    size = len(tree.leaves)
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda number: number != index))
    proof = inclusion_proof(index, size, tree.get)
    head = tree.edge.root()
    wrong = [
        (tree.leaves[other], index, size, proof),
        (tree.leaves[index], other, size, proof),
        (tree.leaves[index], size, size, proof),
        (tree.leaves[index], -1, size, proof),
        (tree.leaves[index], index, size, (*proof, EMPTY_ROOT)),
        (tree.leaves[index], index, size, proof[:-1]),
        (tree.leaves[index], index, size, (proof[0][:-1], *proof[1:])),
    ]
    for leaf, place, of_size, path in wrong:
        with pytest.raises(EvidenceError) as caught:
            verify_inclusion(leaf, place, of_size, path, head)
        assert caught.value.code == "evidence.proof_invalid"


@given(st.data())
def test_every_older_tree_is_proven_to_be_the_beginning_of_a_newer_one(data: st.DataObject) -> None:
    new = data.draw(sizes)
    old = data.draw(st.integers(1, new))
    tree = Tree(new)
    proof = consistency_proof(old, new, tree.get)
    old_root, new_root = defined_root(tree.leaves[:old]), tree.edge.root()
    verify_consistency(old, new, proof, old_root, new_root)
    rewritten = defined_root([leaf_hash(b"rewritten"), *tree.leaves[1:old]])
    with pytest.raises(EvidenceError):
        verify_consistency(old, new, proof, rewritten, new_root)
    with pytest.raises(EvidenceError):
        verify_consistency(old, new, (*proof, EMPTY_ROOT), old_root, new_root)
    if proof:
        with pytest.raises(EvidenceError):
            verify_consistency(old, new, proof[:-1], old_root, new_root)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 3), (3, 2), (0, 2**63)])
def test_no_proof_is_made_for_a_place_outside_the_log(index: int, size: int) -> None:
    with pytest.raises(EvidenceError, match=r"(?i)no entry"):
        inclusion_proof(index, size, lambda level, place: EMPTY_ROOT)


@pytest.mark.parametrize(("old", "new"), [(0, 1), (2, 1), (-1, 3), (1, 2**63)])
def test_no_consistency_is_proven_between_impossible_sizes(old: int, new: int) -> None:
    with pytest.raises(EvidenceError, match=r"(?i)no proof"):
        consistency_proof(old, new, lambda level, place: EMPTY_ROOT)
    with pytest.raises(EvidenceError, match=r"(?i)no proof"):
        verify_consistency(old, new, (), EMPTY_ROOT, EMPTY_ROOT)
