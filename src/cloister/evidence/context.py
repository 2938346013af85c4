"""What a check is given: the receipt, its parsed record, the pinned keys, the model file's hash and size."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.core.hashes import Sha256, sha256_hex
from cloister.evidence.errors import EvidenceError
from cloister.evidence.receipt import Receipt, ReceiptBody
from cloister.evidence.record import JobRecord
from cloister.evidence.trust import Trust
from cloister.evidence.verification.acceptance import VerificationPolicy
from cloister.evidence.weights import TensorForm, model_file_weights


@dataclass(frozen=True, slots=True)
class ModelArtifact:
    """The model file the verifying party holds.

    Attributes:
        sha256: SHA-256 of its bytes.
        bytes: its size.
        weights_sha256: hash of the named tensors in it, None if it isn't a model file.
        tensors: name, dtype and shape of each of them, sorted by name.
    """

    sha256: Sha256
    bytes: int
    weights_sha256: Sha256 | None
    tensors: tuple[TensorForm, ...] = ()


def model_artifact(data: bytes) -> ModelArtifact:
    """Describe the model file with these bytes."""
    try:
        weights = model_file_weights(data)
    except EvidenceError:
        return ModelArtifact(sha256_hex(data), len(data), None)
    return ModelArtifact(sha256_hex(data), len(data), weights.sha256, weights.forms)


@dataclass(frozen=True)
class ReceiptContext:
    """Everything a check may look at. Nothing in it is judged; a check judges one aspect of it.

    Attributes:
        receipt: the parsed receipt.
        signed: the bytes its hub signed.
        record: the job's documents and statements.
        trust: the pinned keys.
        model: the model file at hand.
        policy: what the verifying party asks for.
    """

    receipt: Receipt
    signed: bytes
    record: JobRecord
    trust: Trust
    model: ModelArtifact
    policy: VerificationPolicy

    @property
    def body(self) -> ReceiptBody:
        """The receipt's body."""
        return self.receipt.body
