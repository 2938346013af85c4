"""A log's checkpoint with the proof that it continues an older one: what logs show to those who hold them.

The text form is the request body of c2sp.org/tlog-witness, ``add-checkpoint``: a line ``old <size>``, a line
of base64 per hash of the consistency proof, an empty line, the checkpoint. It has one spelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cloister.core.canonical import b64decode, b64encode
from cloister.core.errors import InputError
from cloister.evidence.checkpoint import MAX_CHECKPOINT_CHARS, Checkpoint, parse_checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import HASH_SIZE

MAX_CONTINUATION_HASHES: Final = 63
MAX_CONTINUATION_BYTES: Final = MAX_CHECKPOINT_CHARS + 64 * (MAX_CONTINUATION_HASHES + 2)
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Continuation:
    """A checkpoint with its way from an older one.

    Attributes:
        old_size: the size from which the proof leads, 0 where the witness holds nothing.
        proof: the consistency proof's 32-byte hashes.
        checkpoint: the log's newest.
    """

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint

    def encode(self) -> str:
        """Its only spelling."""
        hashes = "".join(f"{b64encode(one)}\n" for one in self.proof)
        return f"old {self.old_size}\n{hashes}\n{self.checkpoint.encode()}"


def parse_continuation(text: str) -> Continuation:
    """Read a checkpoint with its proof, without judging them.

    Args:
        text: the request.

    Returns:
        The request.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed`` for any other spelling.
    """
    if len(text) > MAX_CONTINUATION_BYTES:
        raise _malformed("it is too long")
    head, separator, note = text.partition("\n\n")
    first, *hashes = head.split("\n")
    old = _OLD.fullmatch(first)
    if not separator or old is None or len(hashes) > MAX_CONTINUATION_HASHES:
        raise _malformed("it doesn't begin with the old size and the proof")
    try:
        proof = tuple(b64decode(one) for one in hashes)
    except InputError:
        raise _malformed("the proof is not canonical base64") from None
    if any(len(one) != HASH_SIZE for one in proof):
        raise _malformed("a hash of the proof is not 32 bytes long")
    return Continuation(int(old[1]), proof, parse_checkpoint(note))


def _malformed(reason: str) -> EvidenceError:
    return EvidenceError("evidence.checkpoint_malformed", f"This is no checkpoint with its proof: {reason}.")
