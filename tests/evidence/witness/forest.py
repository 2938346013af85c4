"""A log without storage: leaves in memory, heads and proofs of any size, and forks of its past."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence.checkpoint import Checkpoint, sign_checkpoint
from cloister.evidence.merkle import consistency_proof, leaf_hash, root
from cloister.evidence.witness.continuation import Continuation

ORIGIN = "cloister/site/north"
AT = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)


@dataclass
class Tree:
    """A log's leaves and its key."""

    origin: str = ORIGIN
    leaves: list[bytes] = field(default_factory=lambda: [leaf_hash(bytes([one])) for one in range(40)])
    signer: Signer = field(default_factory=lambda: EphemeralKeyStore().generate("log"))

    def head(self, size: int) -> Checkpoint:
        return sign_checkpoint(self.origin, size, root(self.leaves[:size]), self.signer)

    def proof(self, old: int, new: int) -> tuple[bytes, ...]:
        def node(level: int, index: int) -> bytes:
            return root(self.leaves[index << level : (index + 1) << level])

        return consistency_proof(old, new, node) if old else ()

    def request(self, old: int, new: int) -> Continuation:
        return Continuation(old, self.proof(old, new), self.head(new))

    def forked(self, at: int) -> Tree:
        """The same log with another entry at one place."""
        other = [*self.leaves[:at], leaf_hash(b"rewritten"), *self.leaves[at + 1 :]]
        return Tree(self.origin, other, self.signer)
