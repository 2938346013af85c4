"""Whether a log is the newest copy of itself: held against the checkpoints of it that others keep.

An older copy of a log, restored from a backup, is sound in itself. Only somebody who has seen it later can
tell. Rules kept here:

1. Every checkpoint that is held of a log is the past of the log as it is now; a log that is smaller than one
   of them, or has another past, is refused, whoever holds the checkpoint.
2. A note counts only with the log's own signature; one that claims to be this log's and isn't is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import Checkpoint, verify_checkpoint
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.merkle import verify_consistency
from cloister.evidence.witness.rules import rolled_back


def require_newest(
    head: Checkpoint,
    prove: Callable[[int, int], tuple[bytes, ...]],
    held: Iterable[Checkpoint],
    *keys: PublicKey,
) -> None:
    """Check a log's head against every checkpoint that is held of the log.

    Args:
        head: the log's head as it is now.
        prove: gives the consistency proof from an older to a newer size of this log.
        held: checkpoints of this log, from wherever.
        keys: the log's keys, its owner's former ones among them.

    Raises:
        LogError: ``evidence.log_rolled_back``, naming both sizes.
        EvidenceError: ``evidence.checkpoint_unsigned`` if one of them isn't the log's.
        SignatureInvalid: if one of them isn't what the log signed.
    """
    distinct = {(one.size, one.root, one.signatures): one for one in held}
    for one in sorted(distinct.values(), key=lambda one: one.size, reverse=True):
        verify_checkpoint(one, head.origin, *keys)
        if one.size > head.size:
            raise rolled_back(head.origin, head.size, one.size)
        if one.size == 0:
            continue
        try:
            verify_consistency(one.size, head.size, prove(one.size, head.size), one.root, head.root)
        except EvidenceError as error:
            raise LogError(
                "evidence.log_rolled_back",
                f"{head.origin} has {head.size} entries, and the first {one.size} of them are not those of a "
                f"checkpoint that it signed earlier.",
                "An older copy was restored and written on. Restore the newest one.",
            ) from error
