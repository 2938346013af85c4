"""What is left of a party's log that was refused, judged by the checkpoints that are held of it.

Rules kept here:

1. Only a checkpoint that the party signed says how far a log is good.
2. The party's log stays as and where it is; a person puts the new one in its place.
3. The new log states who had it made and why, before it is there under its name: the old one can take nothing
   any more. In a database it is there before; where it lacks that statement, it wasn't finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.core.clock import Clock
from cloister.core.database import database_name
from cloister.core.errors import InputError
from cloister.core.files import sync_directory
from cloister.evidence.checkpoint import Checkpoint, verify_checkpoint
from cloister.evidence.custody.access import AccessRecord, Actor
from cloister.evidence.errors import LogError
from cloister.evidence.log import recover_log, recoverable_size
from cloister.evidence.witness.book import read_note
from cloister.workflow.party import Party


@dataclass(frozen=True, slots=True)
class Recovered:
    """How far a log is good.

    Attributes:
        origin: The log's name.
        held: The size of the largest checkpoint held of it.
        good: The size of the largest one that its entries lead to.
        moved_to: How messages call the new log; None where none was asked for.
    """

    origin: str
    held: int
    good: int
    moved_to: str | None


def recover(party: Party, notes: Sequence[Path], target: str | None, actor: Actor, clock: Clock) -> Recovered:
    """Find how far a party's log is good, and move that much to a new log where one is asked for.

    Args:
        party: Whose log.
        notes: Files with checkpoints of it, besides those that the workspace knows of.
        target: A file that isn't there, or the URL of another PostgreSQL database; None to move nothing.
        actor: Who asks, and why.
        clock: Gives the time.

    Raises:
        InputError: A file can't be read, or no checkpoint is held of the log.
        EvidenceError: A checkpoint isn't one, or isn't of this log.
        SignatureInvalid: A checkpoint isn't what the log signed.
        LogError: The log is missing, its entries lead to no checkpoint that is held, or the target is taken.
        StorageError: The new log, or who had it made, can't be written; then no new log is there.
    """
    held = [*map(read_note, notes), *party.held_checkpoints()]
    for one in held:
        verify_checkpoint(one, party.origin, *party.keys)
    if not held:
        raise InputError(
            "input.missing_file",
            f"No checkpoint of {party.origin} is known here, and nothing else says which entries are good.",
            "Get one from a witness or from another party of a job, and name its file with --held.",
        )
    place = party.places.database or party.folder / "log.sqlite"
    good = recoverable_size(place, origin=party.origin, checkpoints=held)
    moved_to = None
    if target is not None:
        if not good:
            raise LogError(
                "evidence.log_mismatch",
                f"The entries of {party.origin} lead to none of the checkpoints that are held of it.",
                "Look for another copy of the log, or for an earlier checkpoint.",
            )
        sizes = ((one, recoverable_size(place, origin=one.origin, checkpoints=[one])) for one in held)
        head = next(one for one, size in sizes if size == good)
        where = target if "://" in target else Path(target)
        _move(party, place, where, head, (actor, clock))
        moved_to = database_name(where)
    return Recovered(party.origin, max(one.size for one in held), good, moved_to)


def _move(
    party: Party, place: Path | str, target: Path | str, head: Checkpoint, asked: tuple[Actor, Clock]
) -> None:
    """Make the new log, under a hidden name until it states who asked for it."""
    if isinstance(target, str):
        _recover_to(party, place, target, head, asked)
        return
    if target.exists():
        raise LogError(
            "evidence.log_exists", f"Something is at {target} already.", "Name a file that isn't there."
        )
    draft = target.with_name(f".{target.name}.unfinished")
    try:
        _recover_to(party, place, draft, head, asked)
        draft.rename(target)
    finally:
        for leftover in target.parent.glob(f"{draft.name}*"):
            leftover.unlink()
    sync_directory(target.parent)


def _recover_to(
    party: Party, place: Path | str, target: Path | str, head: Checkpoint, asked: tuple[Actor, Clock]
) -> None:
    actor, clock = asked
    with recover_log(place, target, checkpoint=head, signer=party.signer) as log:
        record = AccessRecord(log, party.signer, clock)
        record.state_access(actor, "export", f"the first {head.size} entries, moved to this new log")
