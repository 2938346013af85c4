"""In which order a party's keys signed its log: one after the other, and the present one last.

A former key is believed for what it signed while it was the party's. When that was, no date can tell, since
whoever has the key writes the dates; the order of the log can.

Rules kept here:

1. A key that has given way to another signs nothing behind that place in the log.
2. Nothing stands behind what the pinned present key signed, but what that key signed.
3. A head stands behind the entries that it holds, an export or a receipt behind its log's head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import Checkpoint, note_key_hash
from cloister.evidence.extract import log_owner
from cloister.evidence.predicates.base import Role
from cloister.evidence.trust import Trust


@dataclass(frozen=True, slots=True, order=True)
class SignedPlace:
    """Something that a log's owner signed.

    Attributes:
        size: how many entries the log had then, an entry itself included.
        rank: among what was signed at that size: an entry, then the head, then what was made of the log.
        what: how it is called.
        key_id: the key that signed it.
    """

    size: int
    rank: int
    what: str
    key_id: str


def entry_place(index: int, key_id: str) -> SignedPlace:
    """An entry of the log."""
    return SignedPlace(index + 1, 0, f"entry {index}", key_id)


def head_place(head: Checkpoint, keys: Sequence[PublicKey]) -> tuple[SignedPlace, ...]:
    """A head of the log; nothing where none of the keys signed it."""
    named = {one.key_hash for one in head.signatures if one.name == head.origin}
    signers = [key.key_id for key in keys if note_key_hash(head.origin, key) in named]
    return tuple(SignedPlace(head.size, 1, f"the head of {head.size} entries", one) for one in signers[:1])


def document_place(head: Checkpoint, what: str, key_id: str) -> SignedPlace:
    """What the log's owner made of the log and signed."""
    return SignedPlace(head.size, 2, what, key_id)


def misplaced(origin: str, signed: Iterable[SignedPlace], trust: Trust) -> list[str]:
    """What a key signed after it had given way to another.

    Args:
        origin: the log.
        signed: what its owner signed, each signature verified by the caller.
        trust: says which key the owner is pinned to sign with now.

    Returns:
        One sentence for each.
    """
    present = trust.present(*log_owner(origin))
    given_up: set[str] = set()
    problems: list[str] = []
    last: SignedPlace | None = None
    for one in sorted(set(signed)):
        if last is not None and one.key_id != last.key_id:
            if one.key_id in given_up or (present is not None and last.key_id == present.key_id):
                problems.append(
                    f"{origin}: {one.what} is signed with a key that its owner had given up by {last.what}"
                )
                continue
            given_up.add(last.key_id)
        last = one
    return problems


def by_former(trust: Trust, role: Role, party: str, key_ids: Iterable[str]) -> str:
    """How a check's detail goes on where some were signed with former keys; empty where none was."""
    former = {key.key_id for key in trust.former(role).get(party, ())}
    return ", by a key that it used before" if former.intersection(key_ids) else ""
