"""A witness: it cosigns a log's checkpoints as long as the log shows it one past.

Rules kept here (c2sp.org/tlog-witness, "add-checkpoint"):

1. It signs for logs it was told of, whose keys it has, and for no other.
2. A request starts at the size it holds of that log; otherwise it says which size that is.
3. It never signs a checkpoint that is smaller than, or contradicts, the one it holds.
4. It keeps the checkpoint before it signs: after a crash it has rather seen too much than signed two pasts.
5. What it holds already it cosigns again whenever it is asked: a cosigned note that was lost is no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from cloister.core.keys import PublicKey, Signer
from cloister.evidence.checkpoint import Checkpoint, cosign, verify_checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import EMPTY_ROOT
from cloister.evidence.witness.book import CheckpointBook
from cloister.evidence.witness.continuation import Continuation


class Witness:
    """One witness.

    Args:
        name: under which it cosigns; its party name in a trust directory.
        signer: its Ed25519 key.
        book: the checkpoints it has seen.
        logs: the keys of each log it follows, by the log's name.
    """

    def __init__(
        self, name: str, signer: Signer, book: CheckpointBook, logs: Mapping[str, Sequence[PublicKey]]
    ) -> None:
        self._name = name
        self._signer = signer
        self._book = book
        self._logs = dict(logs)

    @property
    def name(self) -> str:
        """Under which it cosigns."""
        return self._name

    @property
    def public_key(self) -> PublicKey:
        """The key it cosigns with."""
        return self._signer.public_key

    def follows(self, origin: str, key: PublicKey) -> bool:
        """Whether it was told of this log, and of this key of it."""
        return key in self._logs.get(origin, ())

    def require_ready(self, at: datetime) -> None:
        """Make sure that it can cosign and keep what it sees.

        Raises:
            EvidenceError: ``evidence.witness_refused`` if its key can't cosign.
            KeyStoreError: its key can't be used.
            StorageError: it can't keep what it sees.
        """
        # Nothing is in an empty log, so this cosignature would say nothing; it is thrown away.
        cosign(Checkpoint(self._name, 0, EMPTY_ROOT, (), ()), self._name, self._signer, at)
        self._book.require_writable()

    def held_size(self, origin: str) -> int:
        """From which size of a log a request has to start; 0 if it has seen nothing of it."""
        held = self._book.newest(origin)
        return held.size if held else 0

    def add_checkpoint(self, request: Continuation, at: datetime) -> Checkpoint:
        """Cosign a checkpoint that continues what this witness has seen of the log.

        Args:
            request: the checkpoint and its proof.
            at: the time, which the cosignature states.

        Returns:
            The checkpoint with this witness's line added.

        Raises:
            EvidenceError: ``evidence.witness_refused`` for a log it doesn't follow;
                ``evidence.witness_stale`` if the request starts at another size;
                ``evidence.log_rolled_back`` for an older checkpoint; ``evidence.log_inconsistent`` for
                another past, or where the proof doesn't hold, and then both checkpoints are kept.
            SignatureInvalid: the checkpoint isn't what the log signed.
            StorageError: it can't be kept; then it isn't signed.
        """
        checkpoint = request.checkpoint
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            raise EvidenceError(
                "evidence.witness_refused",
                f"{self._name} doesn't follow {checkpoint.origin}.",
                "Give the witness the log's public key.",
            )
        verify_checkpoint(checkpoint, checkpoint.origin, *keys)
        newest = self._book.newest(checkpoint.origin)
        held = newest.size if newest else 0
        if newest is not None and (newest.size, newest.root) == (checkpoint.size, checkpoint.root):
            return cosign(checkpoint, self._name, self._signer, at)
        if request.old_size != held and checkpoint.size >= held:
            raise EvidenceError(
                "evidence.witness_stale",
                f"{self._name} holds {checkpoint.origin} at {held} entries, the proof starts at "
                f"{request.old_size}.",
                f"Make the proof from size {held}.",
            )
        self._book.hold(checkpoint, request.proof, *keys)
        return cosign(checkpoint, self._name, self._signer, at)
