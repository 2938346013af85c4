"""When one checkpoint of a log may follow another: the one rule that everybody who holds checkpoints keeps.

Pure functions. Rules kept here:

1. A log only grows: a checkpoint smaller than the one held shows that the log was rolled back.
2. It keeps its past: the newer tree is proven to begin with the older one, and one size has one root.
3. The first checkpoint of a log is taken as it is, if it holds anything and its signature is good.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.merkle import verify_consistency


def require_successor(held: Checkpoint | None, offered: Checkpoint, proof: Sequence[bytes]) -> None:
    """Check that a checkpoint continues the one held of the same log.

    Args:
        held: the newest checkpoint held of the log, None if there is none yet.
        offered: the checkpoint that came, its signature already checked.
        proof: the consistency proof that came with it; empty where nothing is held, or nothing was added.

    Raises:
        LogError: ``evidence.log_rolled_back`` if it is smaller than the one held.
        EvidenceError: ``evidence.log_inconsistent`` if it isn't proven to continue it, or is of an empty log.
    """
    origin = offered.origin
    if offered.size == 0:
        raise EvidenceError("evidence.log_inconsistent", f"The checkpoint of {origin} is of an empty log.")
    if held is None:
        if proof:
            raise _inconsistent(f"A proof came with the first checkpoint of {origin}.")
        return
    if held.origin != origin:
        raise _inconsistent(f"A checkpoint of {origin} can't follow one of {held.origin}.")
    if offered.size < held.size:
        raise rolled_back(origin, offered.size, held.size)
    if offered.size == held.size and offered.root != held.root:
        raise EvidenceError(
            "evidence.log_inconsistent",
            f"{origin} has shown two heads over {held.size} entries, with different roots.",
            "Keep both checkpoints: the log signed both, and together they prove that it showed two pasts.",
        )
    try:
        verify_consistency(held.size, offered.size, proof, held.root, offered.root)
    except EvidenceError as error:
        raise _inconsistent(
            f"{origin} at {offered.size} entries isn't proven to begin with what it was at {held.size}: "
            f"{error.message}"
        ) from error


def rolled_back(origin: str, size: int, held: int) -> LogError:
    """The error for a log that is smaller than somebody has seen it."""
    return LogError(
        "evidence.log_rolled_back",
        f"{origin} has {size} entries, but a checkpoint that it signed earlier has {held}.",
        "An older copy was restored. Restore the newest one; nothing may be added to this one.",
    )


def _inconsistent(message: str) -> EvidenceError:
    return EvidenceError(
        "evidence.log_inconsistent",
        message,
        "Ask the log's owner for the proof. If there is none, the log has two pasts; who holds it can tell.",
    )
