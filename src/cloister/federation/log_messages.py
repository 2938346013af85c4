"""How hub and sites spell what they show each other of their logs; see ``exchange`` for what it is for.

A message is bounded and has one spelling. Reading one judges nothing: what is in it counts only as far as it
verifies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract, extract_from_json
from cloister.evidence.merkle import MAX_TREE_SIZE
from cloister.evidence.witness.continuation import MAX_CONTINUATION_HASHES, Continuation, parse_continuation
from cloister.federation.errors import FederationError

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HubLog:
    """What a task says about logs.

    Attributes:
        checkpoint: the hub's newest.
        proofs: consistency proofs to it, by the size of an older one that some site holds.
        held: the newest checkpoint of each site's log that the hub holds; of a site that isn't named, none.
    """

    checkpoint: Checkpoint
    proofs: Mapping[int, tuple[bytes, ...]]
    held: Mapping[str, Checkpoint]

    def encode(self) -> bytes:
        """Its only spelling, canonical JSON."""
        return canonicalize(
            {
                "checkpoint": self.checkpoint.encode(),
                "held": {site: one.encode() for site, one in self.held.items()},
                "proofs": _proofs_json(self.proofs),
            }
        )


def decode_hub_log(data: bytes) -> HubLog:
    """Read what a task says about logs, without judging it.

    Raises:
        FederationError: `federation.bad_task`.
    """
    try:
        value = parse_canonical(data, max_bytes=MAX_MESSAGE_BYTES)
        if not isinstance(value, dict) or value.keys() != {"checkpoint", "held", "proofs"}:
            raise bad_task()
        note, held, proofs = value["checkpoint"], value["held"], value["proofs"]
        if not isinstance(note, str) or not isinstance(held, dict) or not isinstance(proofs, dict):
            raise bad_task()
        return HubLog(
            parse_checkpoint(note),
            _proofs(proofs),
            {site: parse_checkpoint(_text(one)) for site, one in held.items()},
        )
    except (InputError, EvidenceError) as error:
        raise bad_task() from error


@dataclass(frozen=True, slots=True)
class ShownEnding:
    """How the hub ended a job, as it shows it to the sites.

    Attributes:
        extract: the hub's newest checkpoint, and its closing statement with the proof that it is in there.
        proofs: consistency proofs to the checkpoint, by the size of an older one that some site holds.
    """

    extract: LogExtract
    proofs: Mapping[int, tuple[bytes, ...]]

    def encode(self) -> bytes:
        """Its only spelling, canonical JSON."""
        return canonicalize({"extract": self.extract.as_json(), "proofs": _proofs_json(self.proofs)})


def decode_ending(data: bytes) -> ShownEnding:
    """Read how the hub says it ended a job, without judging it.

    Raises:
        FederationError: `federation.bad_task`.
    """
    try:
        value = parse_canonical(data, max_bytes=MAX_MESSAGE_BYTES)
        if not isinstance(value, dict) or value.keys() != {"extract", "proofs"}:
            raise bad_task()
        proofs = value["proofs"]
        if not isinstance(proofs, dict):
            raise bad_task()
        return ShownEnding(extract_from_json(value["extract"]), _proofs(proofs))
    except (InputError, EvidenceError) as error:
        raise bad_task() from error


def decode_continuation(data: bytes, origin: str) -> Continuation:
    """Read a log's checkpoint with the proof from an older one, without judging either.

    Raises:
        EvidenceError: It isn't one, or is another log's.
    """
    try:
        shown = parse_continuation(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise EvidenceError("evidence.checkpoint_malformed", "It is not text.") from None
    if shown.checkpoint.origin != origin:
        raise EvidenceError("evidence.checkpoint_unsigned", "The checkpoint is another log's.")
    return shown


def _proofs_json(proofs: Mapping[int, tuple[bytes, ...]]) -> dict[str, JSON]:
    return {str(size): [b64encode(one) for one in proof] for size, proof in proofs.items()}


def _proofs(value: dict[str, JSON]) -> dict[int, tuple[bytes, ...]]:
    return {_size(size): _proof(proof) for size, proof in value.items()}


def _text(value: JSON) -> str:
    if not isinstance(value, str):
        raise bad_task()
    return value


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19 or str(int(text)) != text:
        raise bad_task()
    if int(text) > MAX_TREE_SIZE:
        raise bad_task()
    return int(text)


def _proof(value: JSON) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > MAX_CONTINUATION_HASHES:
        raise bad_task()
    texts = [one for one in value if isinstance(one, str)]
    if len(texts) != len(value):
        raise bad_task()
    return tuple(b64decode(one) for one in texts)


def bad_task() -> FederationError:
    """Return the error for whatever of this a task shows wrongly."""
    return FederationError("federation.bad_task", "a task doesn't show the hub's log as it has to")
