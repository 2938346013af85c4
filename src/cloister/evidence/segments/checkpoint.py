"""A segment's checkpoint: so many lines, ending in this hash, signed; what is kept outside the process.

A mark in the segment is the same without its name and length, which follow from where it stands.

A chain alone can't show that its end was cut off. A checkpoint held by somebody else can. Rules kept here:

1. A checkpoint has one spelling, a canonical JSON object on one line.
2. The signed bytes begin with the checkpoint's own name and version: no statement, note or other document
   under the same key can be taken for one.
3. It names its segment: one of another process or another segment proves nothing here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse_canonical
from cloister.core.errors import CloisterError, InputError
from cloister.core.hashes import Sha256Field
from cloister.core.keys import PublicKey, Signer
from cloister.core.parsing import parse_model
from cloister.evidence.errors import SegmentError
from cloister.evidence.predicates.base import Base64Field, CountField, TimeField
from cloister.evidence.segments.layout import Kind, SegmentField, parse_line

CHECKPOINT_SCHEMA: Final = "urn:cloister:segment-checkpoint:v1"
MAX_CHECKPOINT_BYTES: Final = 4096
MAX_HELD_BYTES: Final = 256 * 1024 * 1024
MAX_UNREADABLE: Final = 10_000
_MARK_LINE = frozenset({"at", "kind", "mark", "n", "tag", "tip"})
_MARK = frozenset({"head", "sig", "state", "uptime"})


class State(StrEnum):
    """What a segment was when it was signed."""

    RUNNING = "running"
    CLOSED = "closed"


class SegmentCheckpointForm(BaseModel):
    """A checkpoint as it is written, one line of JSON; those held outside are a file of such lines."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    at: TimeField
    head: Sha256Field
    lines: Annotated[CountField, Field(ge=1)]
    schema_: Literal["urn:cloister:segment-checkpoint:v1"] = Field(alias="schema")
    segment: SegmentField
    sig: Base64Field
    state: State
    uptime: CountField


@dataclass(frozen=True, slots=True)
class SegmentCheckpoint:
    """The signed state of a segment.

    Attributes:
        segment: its name.
        lines: how many lines it had before the line that carries this checkpoint.
        head: the hash of the last of them.
        state: whether it was to go on.
        at: the writer's clock.
        uptime: microseconds since the boot, which nobody can set back.
        signature: the writer's, over all of the above.
    """

    segment: str
    lines: int
    head: bytes
    state: State
    at: str
    uptime: int
    signature: bytes

    def signed(self) -> bytes:
        """The bytes that are signed."""
        return f"{CHECKPOINT_SCHEMA}\n".encode() + canonicalize(self._members())

    def encode(self) -> bytes:
        """The checkpoint's only spelling, one line of JSON without its line end."""
        return canonicalize({**self._members(), "sig": b64encode(self.signature)})

    def verify(self, key: PublicKey) -> None:
        """Check the signature.

        Raises:
            SignatureInvalid: ``signature.invalid``.
        """
        key.verify(self.signature, self.signed())

    def _members(self) -> dict[str, JSON]:
        return {
            "at": self.at,
            "head": self.head.hex(),
            "lines": self.lines,
            "schema": CHECKPOINT_SCHEMA,
            "segment": self.segment,
            "state": self.state.value,
            "uptime": self.uptime,
        }


def sign_segment(
    segment: str, lines: int, head: bytes, state: State, at: str, uptime: int, signer: Signer
) -> SegmentCheckpoint:
    """Sign what a segment is now."""
    unsigned = SegmentCheckpoint(segment, lines, head, state, at, uptime, b"")
    return SegmentCheckpoint(segment, lines, head, state, at, uptime, signer.sign(unsigned.signed()))


def parse_segment_checkpoint(line: bytes) -> SegmentCheckpoint:
    """Read a checkpoint, without judging its signature.

    Raises:
        SegmentError: ``evidence.segment_malformed`` for any other spelling.
    """
    try:
        value = parse_canonical(line, max_bytes=MAX_CHECKPOINT_BYTES, max_depth=2)
        document = parse_model(SegmentCheckpointForm, value, "a segment's checkpoint")
        signature = b64decode(document.sig)
    except InputError as error:
        raise SegmentError(
            "evidence.segment_malformed", f"A held checkpoint can't be read: {error}"
        ) from None
    return SegmentCheckpoint(
        document.segment,
        document.lines,
        bytes.fromhex(document.head),
        document.state,
        document.at,
        document.uptime,
        signature,
    )


def parse_mark(line: bytes, number: int, before: bytes, segment: str) -> SegmentCheckpoint | None:
    """The checkpoint that a segment's line is, without judging its signature; None where it is none.

    Args:
        line: the whole line.
        number: where it stands.
        before: the hash of the line before.
        segment: the segment's name.
    """
    try:
        members = parse_line(line)
        mark = members.get("mark")
        if not isinstance(mark, dict) or set(members) != _MARK_LINE or set(mark) != _MARK:
            return None
        at, head, sig, state, uptime = members["at"], mark["head"], mark["sig"], mark["state"], mark["uptime"]
        if members["kind"] != Kind.MARK or members["n"] != number or head != before.hex():
            return None
        if not isinstance(at, str) or not isinstance(sig, str) or type(uptime) is not int or uptime < 0:
            return None
        return SegmentCheckpoint(segment, number - 1, before, State(str(state)), at, uptime, b64decode(sig))
    except (CloisterError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class HeldCheckpoints:
    """What somebody holds of segments.

    Attributes:
        checkpoints: those that can be read, in their order.
        unreadable: how many lines are no checkpoint: a hand-over that was cut, or anything else.
    """

    checkpoints: tuple[SegmentCheckpoint, ...]
    unreadable: int

    def __iter__(self) -> Iterator[SegmentCheckpoint]:
        return iter(self.checkpoints)

    def __len__(self) -> int:
        return len(self.checkpoints)


def parse_held(data: bytes) -> HeldCheckpoints:
    """Read the checkpoints that somebody holds, one on each line, in any order and of any segments.

    A line that is no checkpoint takes nothing from the others; it is counted. Empty lines stand between what
    two writers handed over. A last line without an end is what a stopped copy leaves behind; it isn't read.

    Raises:
        SegmentError: ``evidence.segment_malformed`` for more than is read, or more than 10,000 lines that
            are none.
    """
    if len(data) > MAX_HELD_BYTES:
        raise SegmentError("evidence.segment_malformed", "The held checkpoints are larger than is read.")
    found: list[SegmentCheckpoint] = []
    unreadable = 0
    for line in io.BytesIO(data):
        if line == b"\n" or not line.endswith(b"\n"):
            continue
        try:
            found.append(parse_segment_checkpoint(line[:-1]))
        except SegmentError:
            unreadable += 1
            if unreadable > MAX_UNREADABLE:
                raise SegmentError(
                    "evidence.segment_malformed", "The held checkpoints are mostly none."
                ) from None
    return HeldCheckpoints(tuple(found), unreadable)
