"""What is stated about other parties' logs: the checkpoints of them that a party holds.

A hub states what it holds of each site's log in each round, a site what it holds of the hub's. Who later
shows another past contradicts a statement in somebody else's log.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, StringConstraints, model_validator

from cloister.core.errors import CloisterError
from cloister.core.hashes import Sha256Field
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint
from cloister.evidence.predicates.base import (
    TYPE_PREFIX,
    CountField,
    NameField,
    Part,
    Predicate,
    Role,
    known,
)

MAX_HELD: Final = 32
"""How many logs one statement speaks of, so that it fits into a log's entry."""
MAX_HELD_NOTE_CHARS: Final = 1000

NoteField = Annotated[str, StringConstraints(min_length=1, max_length=MAX_HELD_NOTE_CHARS)]


@lru_cache(maxsize=1024)
def checkpoint_held(note: str) -> Checkpoint:
    """The checkpoint that a held note spells, whose signatures are not judged; several parties hold the same.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed``.
    """
    return parse_checkpoint(note)


class HeldCheckpoint(Part):
    """A checkpoint of another party's log, as that party signed it.

    Attributes:
        origin: the log's name.
        size: how many entries it had.
        root: its Merkle root, in hex.
        note: the checkpoint itself, from which the other three are taken.
    """

    origin: NameField
    size: CountField = Field(gt=0)
    root: Sha256Field
    note: NoteField

    @model_validator(mode="after")
    def _says_what_its_note_says(self) -> Self:
        try:
            checkpoint = checkpoint_held(self.note)
        except CloisterError as error:
            raise ValueError(error.message) from None
        if (checkpoint.origin, checkpoint.size, checkpoint.root.hex()) != (self.origin, self.size, self.root):
            raise ValueError("origin, size and root must be those of the note")
        return self


@known
class CheckpointHeld(Predicate):
    """A party verified and keeps checkpoints of other parties' logs, each consistent with the one before.

    Attributes:
        round: the round in which they came, from 0.
        held: one checkpoint per log; the statement's subjects are their roots.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "checkpoint-held:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB, Role.SITE})

    round: CountField
    held: tuple[HeldCheckpoint, ...] = Field(min_length=1, max_length=MAX_HELD)
