"""The range of a log that an export shows, and the roots of the log that follow from it.

Rules kept here:

1. A root is computed from the entries and from what the proof of the first of them holds; none is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from cloister.evidence.extract import LogExtract
from cloister.evidence.merkle import CompactRange, leaf_hash


@dataclass(frozen=True)
class Range:
    """The gapless range of a log that an export shows.

    Attributes:
        extract: the entries, in the order of the log, and the head.
    """

    extract: LogExtract

    @property
    def size(self) -> int:
        """How many entries the log has."""
        return self.extract.checkpoint.size

    @property
    def first(self) -> int:
        """The first index shown."""
        return self.extract.entries[0].index if self.extract.entries else 0

    @property
    def stop(self) -> int:
        """One past the last index shown."""
        return self.extract.entries[-1].index + 1 if self.extract.entries else 0

    @cached_property
    def gapless(self) -> bool:
        """Whether nothing is missing in it."""
        indices = [one.index for one in self.extract.entries]
        return indices == list(range(self.first, self.stop)) and self.stop <= self.size

    def reaches(self, size: int) -> bool:
        """Whether the root of the log at this size can be told."""
        return self.first <= size <= self.stop or size == self.size

    def roots(self, sizes: Iterable[int]) -> dict[int, bytes]:
        """The log's roots at the sizes that can be told.

        The proof of the first entry holds the complete subtrees before it; the entries shown continue them.
        """
        wanted = {one for one in sizes if self.reaches(one)}
        found = {self.size: self.extract.checkpoint.root} if self.size in wanted else {}
        entries = self.extract.entries
        tree = (
            CompactRange(self.first, _subtrees_before(entries[0].index, self.size, entries[0].proof))
            if (entries)
            else CompactRange()
        )
        for entry in (None, *entries):
            if entry is not None:
                tree.append(leaf_hash(entry.envelope.encode()))
            if tree.size in wanted:
                found.setdefault(tree.size, tree.root())
        return found


def _subtrees_before(index: int, size: int, proof: Sequence[bytes]) -> list[bytes]:
    """The complete subtrees left of a leaf, largest first, as its inclusion proof holds them."""
    node, last = index, size - 1
    found: list[bytes] = []
    for sibling in proof:
        if node & 1 or node == last:
            found.append(sibling)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        node, last = node >> 1, last >> 1
    return found[::-1]
