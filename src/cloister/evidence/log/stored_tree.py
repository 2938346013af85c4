"""The tree of a log as its database holds it: what it answers is verified to lead to a head.

What an answer needs is fetched in one query, and is as much as the tree is high, however long the log is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

from sqlalchemy import Connection

from cloister.core.errors import CloisterError
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.log.store import log_mismatch, read_nodes
from cloister.evidence.merkle import (
    CompactRange,
    NodeReader,
    compact_range_nodes,
    consistency_proof,
    inclusion_proof,
    subtree_root,
    verify_consistency,
    verify_inclusion,
)

_NOTHING: Final = bytes(32)
_NOT_TO_HEAD: Final = "its stored tree doesn't lead to its signed head"
T = TypeVar("T")


@contextmanager
def blamed_on(log: str, reason: str) -> Iterator[None]:
    """What fails within is the log's fault.

    Args:
        log: the log's place.
        reason: what doesn't fit.

    Raises:
        LogError: ``evidence.log_mismatch``.
    """
    try:
        yield
    except CloisterError as error:
        raise log_mismatch(log, reason) from error


class StoredTree:
    """The tree as one transaction sees it. Sizes and positions are within the head's; the caller saw to that.

    Every method raises `LogError` ``evidence.log_mismatch`` where the tree was altered or a part is gone.

    Args:
        connection: the transaction.
        log: the log's place, as messages call it.
    """

    def __init__(self, connection: Connection, log: str) -> None:
        self._connection = connection
        self._log = log

    def edge(self, size: int) -> CompactRange:
        """The right edge of the tree at a size: stored nodes, not verified to lead anywhere."""
        places = compact_range_nodes(size)
        return CompactRange(size, self._planned(lambda get: [get(*place) for place in places]))

    def edge_at(self, head: Checkpoint) -> CompactRange:
        """The right edge of the tree, which leads to this head."""
        tree = self.edge(head.size)
        if tree.root() != head.root:
            raise log_mismatch(self._log, _NOT_TO_HEAD)
        return tree

    def root_at(self, size: int, head: Checkpoint) -> bytes:
        """The root at a size, proven to be how the log under the head began."""
        if size == head.size:
            return head.root
        if size == 0:
            return CompactRange().root()
        return self._consistent(size, head.size, head.root)[1]

    def consistency(self, old_size: int, new_size: int, head: Checkpoint) -> tuple[bytes, ...]:
        """The proof that the log at one size begins with what it was at a smaller one."""
        return self._consistent(old_size, new_size, self.root_at(new_size, head))[0]

    def inclusion(self, index: int, size: int, head: Checkpoint) -> tuple[bytes, ...]:
        """The proof that the leaf at a position is in the log as it was at a size."""

        def build(get: NodeReader) -> tuple[bytes, tuple[bytes, ...]]:
            proof = inclusion_proof(index, size, get)
            return get(0, index), proof

        leaf, proof = self._planned(build)
        root = self.root_at(size, head)
        with blamed_on(self._log, _NOT_TO_HEAD):
            verify_inclusion(leaf, index, size, proof, root)
        return proof

    def paths(self, indices: Sequence[int], size: int) -> list[tuple[bytes, ...]]:
        """Inclusion proofs for several positions; who has the leaves verifies them."""
        return self._planned(lambda get: [inclusion_proof(index, size, get) for index in indices])

    def subtrees(self, level: int, start: int, end: int, head: Checkpoint) -> tuple[bytes, ...]:
        """The roots of complete subtrees of one height side by side, from ``start`` up to ``end``."""
        places = compact_range_nodes(start << level)
        before = self._planned(lambda get: [get(*place) for place in places])
        found = self._planned(lambda get: [get(level, at) for at in range(start, end)])
        # Complete subtrees are to the tree above them what leaves are to the whole.
        tree = CompactRange(start, before)
        for one in found:
            tree.append(one)
        if tree.root() != self.root_at(end << level, head):
            raise log_mismatch(self._log, _NOT_TO_HEAD)
        return tuple(found)

    def require(self, nodes: dict[tuple[int, int], bytes]) -> None:
        """Require stored nodes, named by (level, index), to be these."""
        if read_nodes(self._connection, nodes) != nodes:
            raise log_mismatch(self._log, "a part of its tree was altered or is gone")

    def _consistent(self, old_size: int, new_size: int, new_root: bytes) -> tuple[tuple[bytes, ...], bytes]:
        """A verified consistency proof, and the older root."""

        def build(get: NodeReader) -> tuple[tuple[bytes, ...], bytes]:
            proof = consistency_proof(old_size, new_size, get)
            return proof, subtree_root(0, old_size, get)

        proof, old_root = self._planned(build)
        with blamed_on(self._log, _NOT_TO_HEAD):
            verify_consistency(old_size, new_size, proof, old_root, new_root)
        return proof, old_root

    def _planned(self, build: Callable[[NodeReader], T]) -> T:
        """Run ``build`` twice: to learn which nodes it reads, then, with all of them fetched, for good."""
        wanted: dict[tuple[int, int], None] = {}

        def note_down(level: int, index: int) -> bytes:
            wanted[level, index] = None
            return _NOTHING

        build(note_down)
        found = read_nodes(self._connection, wanted)
        if len(found) != len(wanted) or any(len(one) != len(_NOTHING) for one in found.values()):
            raise log_mismatch(self._log, "a part of its tree is gone")
        return build(lambda level, index: found[level, index])
