"""How a segment is written down: JSON Lines, each line chained to the one before and tagged.

A line is a canonical JSON object (RFC 8785) whose last two members are its proof::

    {"at":"...","event":{...},"kind":"entry","n":7,"tag":"<64 digits>","tip":"<64 digits>"}

In an encrypted segment ``event`` is a base64 string: nonce, ciphertext and tag of AES-256-GCM. ``tag`` is an
HMAC-SHA256 over the tip of the line before and this line's bytes up to that member, under a key that is used
for this line only. ``tip`` is the SHA-256 of the tip before and this line's bytes up to itself.

Rules kept here:

1. ``n`` is the number of the line in its file, from 1. Line 1 opens the segment, line 2 signs it.
2. A segment's name says which process on which boot wrote it, and which of its segments it is; no two
   processes share one, and a process number that is used again is told apart by a random part.
3. Nothing is written that a reader of bounded lines couldn't read again.
"""

from __future__ import annotations

import hashlib
import re
from binascii import hexlify
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cloister.core.canonical import JSON, canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256Field
from cloister.core.parsing import parse_model
from cloister.evidence.errors import SegmentError
from cloister.evidence.predicates.base import Base64Field, CountField, PartyField

SEGMENT_SCHEMA: Final = "urn:cloister:segment:v1"
SUFFIX: Final = ".jsonl"
MAX_EVENT_BYTES: Final = 64 * 1024
MAX_EVENT_DEPTH: Final = 32
MAX_LINE_BYTES: Final = 96 * 1024
BEFORE_THE_FIRST: Final = hashlib.sha256(SEGMENT_SCHEMA.encode()).digest()
"""What the first line's hash is chained to."""

ID_PATTERN: Final = (
    r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[1-9][0-9]{0,9}\.[0-9a-f]{16}\.[1-9][0-9]{0,8}$"
)
_ID = re.compile(ID_PATTERN.removeprefix("^").removesuffix("$"))
_TAG_MEMBER, _TIP_MEMBER, _END = b',"tag":"', b'","tip":"', b'"}'
TIP_BYTES: Final = len(_TIP_MEMBER) + 64 + len(_END)
"""How many bytes of a line follow what the chain covers."""
TAG_BYTES: Final = len(_TAG_MEMBER) + 64
"""How many bytes before those follow what the tag covers."""
_PROOF = re.compile(rb',"tag":"[0-9a-f]{64}","tip":"[0-9a-f]{64}"\}')

SegmentField = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
KeyIdField = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class Kind(StrEnum):
    """What a line is."""

    OPEN = "open"
    ENTRY = "entry"
    MARK = "mark"


class Cipher(StrEnum):
    """How a segment's events are kept."""

    NONE = "none"
    AES_256_GCM = "aes-256-gcm"


@dataclass(frozen=True, slots=True)
class SegmentId:
    """A segment's name.

    Attributes:
        boot: the kernel's identity of the boot, a UUID.
        pid: the process's number.
        process: 16 random hexadecimal digits, drawn once by each writer in each process.
        number: which of that writer's segments, from 1.
    """

    boot: str
    pid: int
    process: str
    number: int

    def __str__(self) -> str:
        return f"{self.boot}.{self.pid}.{self.process}.{self.number}"

    @property
    def file_name(self) -> str:
        """The name of the segment's file."""
        return f"{self}{SUFFIX}"

    @classmethod
    def parse(cls, text: str) -> SegmentId:
        """Read a segment's name.

        Raises:
            SegmentError: ``evidence.segment_malformed``.
        """
        if not _ID.fullmatch(text):
            raise SegmentError("evidence.segment_malformed", "This is not the name of a segment.")
        boot, pid, process, number = text.split(".")
        return cls(boot, int(pid), process, int(number))


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Link(_Model):
    """A place in another segment, by which removing or shortening that segment is noticed.

    Attributes:
        segment: its name.
        lines: how many of its lines were durable.
        head: the hash of the last of them.
    """

    segment: SegmentField
    lines: CountField
    head: Sha256Field


class Sealed(_Model):
    """A segment's secrets, encrypted to somebody who doesn't write it.

    Attributes:
        key: the id of the key they are sealed to.
        box: HPKE ciphertext, base64.
    """

    key: KeyIdField
    box: Base64Field


class Header(_Model):
    """What a segment says of itself in its first line.

    Attributes:
        boot, pid, process, number: the parts of its name.
        cipher: how its events are kept.
        heartbeat: at most so many seconds pass between two signed marks while the process lives.
        key: the id of the key that signs its checkpoints.
        lost: how many entries were taken and never became durable, which no earlier segment of this process
            says.
        parent: for the first segment of a forked process, where its parent stood.
        previous: for a later segment of a process, where the one before ended.
        schema_: the format's version.
        secrets: what readers of tags and events need, sealed.
        stream: what the stream is called.
        uptime: microseconds since the boot.
    """

    boot: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")]
    cipher: Cipher
    heartbeat: Annotated[int, Field(ge=1, le=3600)]
    key: KeyIdField
    lost: CountField
    number: Annotated[int, Field(ge=1, le=999_999_999)]
    parent: Link | None
    pid: Annotated[int, Field(ge=1, le=9_999_999_999)]
    previous: Link | None
    process: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    schema_: Literal["urn:cloister:segment:v1"] = Field(alias="schema")
    secrets: Sealed
    stream: PartyField
    uptime: CountField

    @property
    def id(self) -> SegmentId:
        """The segment's name."""
        return SegmentId(self.boot, self.pid, self.process, self.number)


def opening(at: str, header: Header) -> bytes:
    """The first line, without its proof and closing brace."""
    body: JSON = {
        "at": at,
        "kind": Kind.OPEN.value,
        "n": 1,
        "open": header.model_dump(mode="json", by_alias=True),
    }
    return canonicalize(body)[:-1]


def parse_opening(line: bytes) -> tuple[str, Header]:
    """Read a first line: when the segment was opened, and its header.

    Raises:
        SegmentError: ``evidence.segment_malformed``.
    """
    members = parse_line(line)
    try:
        header = parse_model(Header, members.get("open"), "a segment's header")
    except InputError as error:
        raise malformed(error.message) from None
    at = members.get("at")
    expected = {"at", "kind", "n", "open", "tag", "tip"}
    if (
        set(members) != expected
        or members["kind"] != Kind.OPEN
        or members["n"] != 1
        or not isinstance(at, str)
    ):
        raise malformed("it doesn't open with a header")
    SegmentId.parse(str(header.id))
    return at, header


def parse_line(line: bytes) -> dict[str, JSON]:
    """A line's members.

    Raises:
        SegmentError: ``evidence.segment_malformed`` if it is not one canonical JSON object of bounded size
            that ends in its proof.
    """
    try:
        members = parse_canonical(line, max_bytes=MAX_LINE_BYTES, max_depth=MAX_EVENT_DEPTH + 2)
    except InputError as error:
        raise malformed(error.message) from None
    if not isinstance(members, dict):
        raise malformed("a line is not an object")
    if not _PROOF.fullmatch(line[-TAG_BYTES - TIP_BYTES :]):
        raise malformed("a line doesn't end in its proof")
    return members


def tag_member(tag: bytes) -> bytes:
    """What follows a line's content; the chain covers it."""
    return _TAG_MEMBER + hexlify(tag)


def tip_member(tip: bytes) -> bytes:
    """What ends a line, without its line feed."""
    return _TIP_MEMBER + hexlify(tip) + _END


def malformed(reason: str) -> SegmentError:
    """A segment that isn't one."""
    return SegmentError("evidence.segment_malformed", f"This is not a segment: {reason.rstrip('.')}.")
