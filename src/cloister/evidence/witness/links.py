"""Links from the checkpoints that parties held during a job to the log heads in the job's receipt.

Each link is an RFC 9162 consistency proof: it shows that the log in the receipt begins with the log as
somebody else held it at the time. A past that was rewritten in between has no such proof.

Rules kept here:

1. Every checkpoint held in any extract has its link, once, in the order of log, size and root.
2. Composing judges nothing: who verifies a receipt decides whether each link leads where it should.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from pydantic import Field

from cloister.core.canonical import JSON, b64decode, b64encode
from cloister.core.errors import InputError
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import MAX_PROOF_HASHES, LogExtract
from cloister.evidence.merkle import verify_consistency
from cloister.evidence.predicates.base import CountField, NameField, Part, Predicate
from cloister.evidence.predicates.log import held_checkpoints, may_hold
from cloister.evidence.predicates.outcome import JobClosed
from cloister.evidence.statement import open_statement

Prove: TypeAlias = Callable[[str, int, int], tuple[bytes, ...]]
"""Gives the consistency proof of the log with this origin from the old to the new size."""

HeldLog: TypeAlias = tuple[str, int, str]
"""A log's name, its size and its root in hex: what somebody says they held."""

_CLOSED: Final = JobClosed.TYPE.encode("ascii")


@dataclass(frozen=True, slots=True)
class ConsistencyLink:
    """The proof that a log, as the receipt has it, begins with the log as somebody held it.

    Attributes:
        origin: the log's name.
        size: how many entries it had when held.
        root: its 32-byte Merkle root then.
        proof: 32-byte hashes that lead from there to the receipt's checkpoint of that log.
    """

    origin: str
    size: int
    root: bytes
    proof: tuple[bytes, ...]

    def as_json(self) -> dict[str, JSON]:
        """The link as it stands in a receipt."""
        return {
            "origin": self.origin,
            "size": self.size,
            "root": b64encode(self.root),
            "proof": [b64encode(one) for one in self.proof],
        }


class ConsistencySection(Part):
    """A link in a receipt; root and hashes are base64."""

    origin: NameField
    size: CountField = Field(gt=0)
    root: str = Field(max_length=100)
    proof: tuple[str, ...] = Field(max_length=2 * MAX_PROOF_HASHES)

    def link(self) -> ConsistencyLink:
        """The link it stands for.

        Raises:
            EvidenceError: ``evidence.proof_invalid`` if a hash isn't canonical base64.
        """
        try:
            return ConsistencyLink(
                self.origin, self.size, b64decode(self.root), tuple(b64decode(one) for one in self.proof)
            )
        except InputError:
            raise EvidenceError("evidence.proof_invalid", "A consistency proof is not base64.") from None


def consistency_links(extract_of: Mapping[str, LogExtract], prove: Prove) -> list[ConsistencyLink]:
    """The links of one job's receipt.

    Args:
        extract_of: what each log holds about the job, by the log's name.
        prove: gives consistency proofs of these logs.

    Returns:
        One link for each checkpoint of these logs that any of their statements says is held, those in which
        the hub's ending was shown among them.

    Raises:
        EvidenceError: ``evidence.out_of_range`` if a log is shorter than somebody held it.
    """
    held = {one for extract in extract_of.values() for one in _held_in(extract)}
    return [
        ConsistencyLink(
            origin, size, bytes.fromhex(root), prove(origin, size, extract_of[origin].checkpoint.size)
        )
        for origin, size, root in sorted(held)
        if origin in extract_of
    ]


def verify_link(link: ConsistencyLink, checkpoint: Checkpoint) -> None:
    """Check that a link leads from what was held to a checkpoint of the same log.

    Raises:
        EvidenceError: ``evidence.proof_invalid``.
    """
    if link.origin != checkpoint.origin:
        raise EvidenceError("evidence.proof_invalid", "A consistency proof is of another log.")
    verify_consistency(link.size, checkpoint.size, link.proof, link.root, checkpoint.root)


def held_in(predicate: Predicate) -> Iterator[HeldLog]:
    """What a statement says its party held of other logs; that in which the hub's ending was shown, too."""
    yield from ((one.origin, one.size, one.root) for one in held_checkpoints(predicate))
    if isinstance(predicate, JobClosed) and predicate.hub_ending is not None:
        ending = predicate.hub_ending
        yield ending.origin, ending.size, ending.root


def _held_in(extract: LogExtract) -> Iterator[HeldLog]:
    for entry in extract.entries:
        if _CLOSED in entry.envelope.payload or may_hold(entry.envelope.payload):
            yield from held_in(open_statement(entry.envelope).predicate)
