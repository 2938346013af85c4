"""What a party hands over from its log for one job: envelopes, their inclusion proofs, and the signed head.

An extract needs no access to the log: whoever holds the party's public key can check it, and hand it on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

from cloister.core.canonical import JSON, b64decode, b64encode
from cloister.core.errors import InputError
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint
from cloister.evidence.envelope import Envelope, envelope_from_json
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import leaf_hash, verify_inclusion
from cloister.evidence.predicates.base import PARTY_PATTERN, Role

ORIGIN_PREFIX: Final = "cloister/"
MAX_PROOF_HASHES: Final = 62
HASH_CHARS: Final = 44
LOG_STREAMS: Final = UUID("b7b0a5f4-6f0c-5a55-8a37-6f4f2c1d9a10")
"""The UUID namespace (RFC 9562 section 5.5) of the streams that belong to a log itself and to no job."""
LOG_STREAM_VERSION: Final = 5
"""The UUID version of such streams, which no job's id may have."""

_PARTY = re.compile(PARTY_PATTERN)


def log_origin(role: Role, party: str) -> str:
    """The name of a party's log, as its checkpoints and receipts carry it.

    Args:
        role: hub or site; nobody else keeps a log of statements.
        party: the party's name.

    Returns:
        For example ``cloister/site/north``.

    Raises:
        EvidenceError: ``evidence.statement_refused`` for another role or an improper name.
    """
    if role not in (Role.HUB, Role.SITE) or not _PARTY.fullmatch(party):
        raise EvidenceError(
            "evidence.statement_refused", "Only a hub or a site with a proper name keeps a log."
        )
    return f"{ORIGIN_PREFIX}{role.value}/{party}"


def log_owner(origin: str) -> tuple[Role, str]:
    """The role and party whose log this is; the inverse of :func:`log_origin`.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed`` if it is no log of ours.
    """
    for role in (Role.HUB, Role.SITE):
        party = origin.removeprefix(f"{ORIGIN_PREFIX}{role.value}/")
        if party != origin and _PARTY.fullmatch(party):
            return role, party
    raise EvidenceError(
        "evidence.checkpoint_malformed", "The log's name is not cloister/<hub or site>/<party>."
    )


def log_stream(origin: str) -> str:
    """The stream of a log's own statements: access, export, incident and what else belongs to no job.

    It is written like a job's stream, by the log's owner, and is never closed.

    Args:
        origin: the log's name, such as ``cloister/site/north``.

    Returns:
        The stream id, a UUID that follows from the name, so that no job can be given it by chance.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed`` if it is no log of ours.
    """
    log_owner(origin)
    return str(uuid5(LOG_STREAMS, origin))


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """An entry of a log with the proof that it is there.

    Attributes:
        index: its position in the log, from 0.
        envelope: what was logged.
        proof: 32-byte hashes, for the size of the extract's checkpoint.
    """

    index: int
    envelope: Envelope
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LogExtract:
    """One job's entries of one log.

    Attributes:
        origin: the log's name.
        checkpoint: the log's head that the proofs lead to.
        entries: in the order of the log.
    """

    origin: str
    checkpoint: Checkpoint
    entries: tuple[ProvenEntry, ...]

    def as_json(self) -> dict[str, JSON]:
        """The extract as a JSON object, for another machine."""
        return {
            "checkpoint": self.checkpoint.encode(),
            "entries": [
                {
                    "envelope": entry.envelope.as_json(),
                    "inclusion": [b64encode(one) for one in entry.proof],
                    "index": entry.index,
                }
                for entry in self.entries
            ],
            "origin": self.origin,
        }


def verify_entry(entry: ProvenEntry, checkpoint: Checkpoint) -> None:
    """Check that an entry is in the log at the checkpoint.

    Raises:
        EvidenceError: ``evidence.proof_invalid``.
    """
    leaf = leaf_hash(entry.envelope.encode())
    verify_inclusion(leaf, entry.index, checkpoint.size, entry.proof, checkpoint.root)


def decode_proof(hashes: list[str]) -> tuple[bytes, ...]:
    """Read an inclusion proof written as base64 hashes.

    Raises:
        EvidenceError: ``evidence.proof_invalid`` if it is too long or not canonical base64.
    """
    if len(hashes) > MAX_PROOF_HASHES:
        raise EvidenceError("evidence.proof_invalid", "The inclusion proof is too long.")
    try:
        return tuple(_decode_hash(one) if len(one) == HASH_CHARS else b64decode(one) for one in hashes)
    except InputError:
        raise EvidenceError(
            "evidence.proof_invalid", "The inclusion proof is not canonical base64."
        ) from None


@lru_cache(maxsize=4096)
def _decode_hash(text: str) -> bytes:
    # The proofs of one log share most of their hashes.
    return b64decode(text)


def extract_from_json(value: JSON) -> LogExtract:
    """Read an extract another machine sent, without judging it.

    Raises:
        EvidenceError: if it is not exactly an extract.
    """
    if not isinstance(value, dict) or value.keys() != {"checkpoint", "entries", "origin"}:
        raise _malformed()
    origin, note, entries = value["origin"], value["checkpoint"], value["entries"]
    if not isinstance(origin, str) or not isinstance(note, str) or not isinstance(entries, list):
        raise _malformed()
    return LogExtract(origin, parse_checkpoint(note), tuple(_entry(one) for one in entries))


def _entry(value: JSON) -> ProvenEntry:
    if not isinstance(value, dict) or value.keys() != {"envelope", "inclusion", "index"}:
        raise _malformed()
    index, hashes = value["index"], value["inclusion"]
    if type(index) is not int or index < 0 or not isinstance(hashes, list):
        raise _malformed()
    texts = [one for one in hashes if isinstance(one, str)]
    if len(texts) != len(hashes):
        raise _malformed()
    return ProvenEntry(index, envelope_from_json(value["envelope"]), decode_proof(texts))


def _malformed() -> EvidenceError:
    return EvidenceError("evidence.receipt_malformed", "This is not an extract of a log.")
