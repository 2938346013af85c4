"""What is stated about other parties' logs: the checkpoints of them that a party holds.

A hub states what it holds of each site's log in each round; a site says in its statement of a released update
what it holds of the hub's. Who later shows another past contradicts a statement in somebody else's log.

`held_checkpoints` is the only way to what a statement says its party holds: a reader that looked at one kind
of statement alone would miss what another says.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cache, lru_cache
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from cloister.core.errors import CloisterError
from cloister.core.hashes import Sha256, Sha256Field
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates.base import (
    TYPE_PREFIX,
    CountField,
    NameField,
    Part,
    Predicate,
    Role,
    known,
    known_types,
    predicate_class,
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


def to_be_held(checkpoint: Checkpoint) -> HeldCheckpoint:
    """A checkpoint in the form in which it is stated to be held.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed`` if it can't be stated: it is of an empty log, or
            longer than a statement has room for.
    """
    try:
        return HeldCheckpoint(
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=Sha256(checkpoint.root.hex()),
            note=checkpoint.encode(),
        )
    except ValidationError:
        raise EvidenceError(
            "evidence.checkpoint_malformed",
            "It can't be stated to be held: it is of an empty log, or its note is longer than "
            f"{MAX_HELD_NOTE_CHARS} characters.",
        ) from None


class Holding(Predicate):
    """A statement that says, among other things, which checkpoints of other parties' logs its party holds.

    Each was verified, continues the one held before, and is kept.

    Attributes:
        round: the round in which they came, from 0.
    """

    round: CountField

    @property
    @abstractmethod
    def checkpoints(self) -> tuple[HeldCheckpoint, ...]:
        """What is held, one checkpoint per log."""


@known
class CheckpointHeld(Holding):
    """The hub verified and keeps checkpoints of sites' logs, each consistent with the one before.

    Attributes:
        round: the round in which they came, from 0.
        held: one checkpoint per log; the statement's subjects are their roots.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "checkpoint-held:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB})

    held: tuple[HeldCheckpoint, ...] = Field(min_length=1, max_length=MAX_HELD)

    @property
    def checkpoints(self) -> tuple[HeldCheckpoint, ...]:
        """What is held, one checkpoint per log."""
        return self.held


def held_checkpoints(predicate: Predicate) -> tuple[HeldCheckpoint, ...]:
    """The checkpoints of other parties' logs that a statement says its party holds; mostly none."""
    return predicate.checkpoints if isinstance(predicate, Holding) else ()


def may_hold(payload: bytes) -> bool:
    """Whether a statement with this payload has to be read to see if it says that checkpoints are held."""
    return any(one in payload for one in _holding_types())


@cache
def _holding_types() -> tuple[bytes, ...]:
    kinds = (predicate_class(one) for one in known_types())
    return tuple(kind.TYPE.encode("ascii") for kind in kinds if issubclass(kind, Holding))
