"""Merkle trees over an append-only list of leaves, as RFC 6962 and RFC 9162 define them.

Pure functions on hashes: nothing here stores, signs or reads a clock.

Rules kept here:

1. A leaf is hashed with prefix 0x00, an inner node with prefix 0x01, so neither can pass for the other.
2. All loops are iterative and bounded by the bits of the tree size; a proof longer than that is refused.
3. A verifying function returns nothing or raises ``evidence.proof_invalid``; it never returns a bool.
4. Stored nodes are roots of complete subtrees only, named by (level, index): the node covers the leaves
   ``index << level`` up to ``(index + 1) << level``. They never change once written.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import TypeAlias

from cloister.evidence.errors import EvidenceError

HASH_SIZE = 32
MAX_TREE_SIZE = 2**62
EMPTY_ROOT = hashlib.sha256(b"").digest()

NodeReader: TypeAlias = Callable[[int, int], bytes]
"""Gives the hash of the complete subtree (level, index)."""


def leaf_hash(data: bytes) -> bytes:
    """Hash one leaf (RFC 9162 section 2.1.1).

    Args:
        data: the leaf's bytes, any length.

    Returns:
        32 bytes.
    """
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash one inner node from its two children, 32 bytes each (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Root of the tree over these leaf hashes; of no leaves, the SHA-256 of nothing.

    Args:
        leaf_hashes: 32-byte leaf hashes in order.

    Returns:
        The 32-byte root (RFC 9162 section 2.1.1).
    """
    tree = CompactRange()
    for leaf in leaf_hashes:
        tree.append(leaf)
    return tree.root()


class CompactRange:
    """The right edge of a growing tree: the roots of its complete subtrees, largest first.

    It holds at most 62 hashes whatever the size of the tree, which is all an append needs.
    """

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if not 0 <= size <= MAX_TREE_SIZE or len(peaks) != size.bit_count():
            raise EvidenceError("evidence.tree_invalid", "The stored edge of the tree doesn't fit its size.")
        self._size = size
        self._peaks = list(peaks)

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    def append(self, leaf: bytes) -> tuple[tuple[int, int, bytes], ...]:
        """Add one leaf hash.

        Args:
            leaf: the 32-byte leaf hash.

        Returns:
            The complete subtrees this leaf finished, as (level, index, hash), the leaf itself first.
        """
        finished = [(0, self._size, leaf)]
        current, level, size = leaf, 0, self._size
        while size & 1:
            current = node_hash(self._peaks.pop(), current)
            level += 1
            size >>= 1
            finished.append((level, self._size >> level, current))
        self._peaks.append(current)
        self._size += 1
        return tuple(finished)

    def root(self) -> bytes:
        """The 32-byte root of the tree as it stands."""
        if not self._peaks:
            return EMPTY_ROOT
        result = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            result = node_hash(peak, result)
        return result


def compact_range_nodes(size: int) -> tuple[tuple[int, int], ...]:
    """Name the complete subtrees that make up a tree of this size, largest first.

    Args:
        size: number of leaves.

    Returns:
        (level, index) pairs, one per set bit of ``size``.
    """
    nodes: list[tuple[int, int]] = []
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            nodes.append((level, start >> level))
            start += 1 << level
    return tuple(nodes)


def subtree_root(start: int, end: int, get: NodeReader) -> bytes:
    """Root over the leaves ``start`` to ``end`` (exclusive), from stored complete subtrees.

    Args:
        start: first leaf; a multiple of the largest power of two below ``end - start``.
        end: one past the last leaf.
        get: reader of stored nodes.

    Returns:
        The 32-byte root of that range (RFC 9162 section 2.1.1, MTH(D[start:end])).
    """
    if end <= start:
        return EMPTY_ROOT
    peaks: list[bytes] = []
    position = start
    for level in range((end - start).bit_length() - 1, -1, -1):
        if (end - start) >> level & 1:
            peaks.append(get(level, position >> level))
            position += 1 << level
    result = peaks[-1]
    for peak in reversed(peaks[:-1]):
        result = node_hash(peak, result)
    return result


def inclusion_proof(index: int, size: int, get: NodeReader) -> tuple[bytes, ...]:
    """The path that proves leaf ``index`` is in the tree of ``size`` leaves.

    Args:
        index: the leaf's position, from 0.
        size: the tree's size at the checkpoint the proof is for.
        get: reader of stored nodes.

    Returns:
        Hashes from the leaf's sibling up (RFC 9162 section 2.1.3.1).

    Raises:
        EvidenceError: ``evidence.out_of_range`` if there is no such leaf.
    """
    if not 0 <= index < size <= MAX_TREE_SIZE:
        raise EvidenceError("evidence.out_of_range", f"There is no entry {index} in a log of {size} entries.")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + _largest_power_of_two_below(end - start)
        if index < split:
            path.append(subtree_root(split, end, get))
            end = split
        else:
            path.append(subtree_root(start, split, get))
            start = split
    path.reverse()
    return tuple(path)


def consistency_proof(old_size: int, new_size: int, get: NodeReader) -> tuple[bytes, ...]:
    """The path that proves the tree of ``new_size`` begins with the tree of ``old_size``.

    Args:
        old_size: size at the earlier checkpoint, 1 or more.
        new_size: size at the later checkpoint.
        get: reader of stored nodes.

    Returns:
        Hashes in the order of RFC 9162 section 2.1.4.1; empty when the sizes are equal.

    Raises:
        EvidenceError: ``evidence.out_of_range`` if the sizes are not 1 <= old <= new.
    """
    if not 0 < old_size <= new_size <= MAX_TREE_SIZE:
        raise EvidenceError(
            "evidence.out_of_range", f"No proof exists from size {old_size} to size {new_size}."
        )
    path: list[bytes] = []
    start, end = 0, new_size
    whole = True
    while old_size != end:
        split = start + _largest_power_of_two_below(end - start)
        if old_size <= split:
            path.append(subtree_root(split, end, get))
            end = split
        else:
            path.append(subtree_root(start, split, get))
            start, whole = split, False
    if not whole:
        path.append(subtree_root(start, end, get))
    path.reverse()
    return tuple(path)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], tree_root: bytes) -> None:
    """Check that a leaf hash is at ``index`` in the tree with this size and root.

    Args:
        leaf: 32-byte leaf hash.
        index: claimed position, from 0.
        size: tree size of the checkpoint.
        proof: 32-byte hashes, sibling first.
        tree_root: 32-byte root of the checkpoint.

    Raises:
        EvidenceError: ``evidence.proof_invalid`` if it isn't proven (RFC 9162 section 2.1.3.2).
    """
    if not 0 <= index < size <= MAX_TREE_SIZE:
        raise _invalid(f"there is no entry {index} in a log of {size} entries")
    _require_hashes(leaf, tree_root, *proof)
    node, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise _invalid("the inclusion proof is too long")
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise _invalid("the inclusion proof is too short")
    _require_equal(computed, tree_root, "the inclusion proof leads to another root")


def verify_consistency(
    old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Check that the newer tree begins with the older one: nothing was rewritten.

    Args:
        old_size: size of the earlier checkpoint, 1 or more.
        new_size: size of the later checkpoint.
        proof: 32-byte hashes.
        old_root: 32-byte root of the earlier checkpoint.
        new_root: 32-byte root of the later checkpoint.

    Raises:
        EvidenceError: ``evidence.proof_invalid`` if it isn't proven (RFC 9162 section 2.1.4.2).
    """
    if not 0 < old_size <= new_size <= MAX_TREE_SIZE:
        raise _invalid(f"no proof exists from size {old_size} to size {new_size}")
    if old_size == new_size:
        if proof:
            raise _invalid("the consistency proof is too long")
        _require_equal(old_root, new_root, "two roots for one size")
        return
    _require_hashes(old_root, new_root, *proof)
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not path:
        raise _invalid("the consistency proof is too short")
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    from_old = from_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _invalid("the consistency proof is too long")
        if node & 1 or node == last:
            from_old, from_new = node_hash(sibling, from_old), node_hash(sibling, from_new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            from_new = node_hash(from_new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise _invalid("the consistency proof is too short")
    _require_equal(from_old, old_root, "the consistency proof leads to another old root")
    _require_equal(from_new, new_root, "the consistency proof leads to another new root")


def _largest_power_of_two_below(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def _require_hashes(*hashes: bytes) -> None:
    if any(len(value) != HASH_SIZE for value in hashes):
        raise _invalid("a hash in the proof is not 32 bytes long")


def _require_equal(computed: bytes, stated: bytes, reason: str) -> None:
    if not hmac.compare_digest(computed, stated):
        raise _invalid(reason)


def _invalid(reason: str) -> EvidenceError:
    return EvidenceError("evidence.proof_invalid", f"The proof doesn't hold: {reason}.")
