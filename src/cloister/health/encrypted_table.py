"""An encrypted table as everybody may hold it: what is public of it, and its ciphertext. Not opened here.

A file of it is 8 bytes of magic, the header's length as u32 big endian, the header (RFC 8785), the segments.
`cloister.enclave.sealed.table` makes and opens the segments. Rules kept here:

1. The header says all that a node has to know of records that it can't read, and nothing else of them: the
   declared schema, whose records they are, how many, of how many persons, the commitment.
2. It is authenticated with each segment and fixes the plaintext to the byte; the worker that opens the table
   counts and commits again, and refuses where anything differs.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cloister.core.canonical import canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256Field
from cloister.core.inside import read_inside
from cloister.health.commitment import SALT_BYTES
from cloister.health.errors import HealthError
from cloister.health.schema import TableSchema

TABLE_SCHEMA: Final = "urn:cloister:encrypted-table:v2"
SUFFIX: Final = ".sealed"
SEGMENT_BYTES: Final = 4 * 1024 * 1024
TAG_BYTES: Final = 16
MAX_HEADER_BYTES: Final = 4 * 1024 * 1024
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
_MAGIC: Final = b"CLTABLE2"
_HEAD: Final = struct.Struct(">8sI")
_CELL: Final = 8
_FEATURE: Final = 4
_Count = Annotated[int, Field(strict=True, ge=1, le=2**31)]


class TableShape(BaseModel):
    """What is public about a table, and fixes its plaintext to the byte.

    Attributes:
        site: whose records they are.
        declared: columns with bounds, label with classes.
        subject: the column that says whose record each is; None where that is not declared.
        records: how many there are.
        subjects: of how many persons; None where that is not declared.
        salted: whether the commitment has a secret salt, which is then part of the plaintext.
        dataset_sha256: the commitment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Annotated[str, Field(min_length=1, max_length=120)]
    declared: TableSchema
    subject: Annotated[str, Field(min_length=1, max_length=120)] | None
    records: _Count
    subjects: _Count | None
    salted: Annotated[bool, Field(strict=True)]
    dataset_sha256: Sha256Field

    @model_validator(mode="after")
    def _counted_where_declared(self) -> Self:
        if (self.subject is None) is not (self.subjects is None) or (self.subjects or 0) > self.records:
            raise ValueError("subjects are counted where they are declared, and are no more than records")
        return self

    @property
    def salt_bytes(self) -> int:
        """Size of the commitment's salt in the plaintext."""
        return SALT_BYTES if self.salted else 0

    @property
    def plain_bytes(self) -> int:
        """Size of the plaintext: salt, values, labels, subjects."""
        cells = len(self.declared.columns) + 1 + (self.subject is not None)
        return self.salt_bytes + _CELL * self.records * cells

    @property
    def opened_bytes(self) -> int:
        """What there is to overwrite where it was opened: the plaintext, and its features as float32."""
        return self.plain_bytes + _FEATURE * self.records * len(self.declared.feature_names)


class TableHeader(TableShape):
    """What is public about an encrypted table.

    Attributes:
        format: the format's name and version.
        data_key: id of the key that opens it, in its hospital's book.
        salt: what its own key is derived with, 64 hex digits; public.
    """

    format: Literal["urn:cloister:encrypted-table:v2"]
    data_key: Annotated[str, Field(pattern=r"^dk-[0-9a-f]{32}$")]
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def cipher_bytes(self) -> int:
        """Size of all segments, tags included."""
        return self.plain_bytes + TAG_BYTES * segments_of(self.plain_bytes)

    def encode(self) -> bytes:
        """The RFC 8785 form: what is authenticated."""
        return canonicalize(self.model_dump(mode="json"))


@dataclass(frozen=True)
class EncryptedTable:
    """An encrypted table: its header's canonical JSON, and its segments one after the other."""

    header: bytes
    segments: bytes

    @property
    def sha256(self) -> str:
        """What names it: the hash of header and segments."""
        return hashlib.sha256(hashlib.sha256(self.header).digest() + self.segments).hexdigest()

    @cached_property
    def public(self) -> TableHeader:
        """The header, read."""
        return read_table_header(self.header)

    def encode(self) -> bytes:
        """The content of its file."""
        return _HEAD.pack(_MAGIC, len(self.header)) + self.header + self.segments


def segments_of(size: int) -> int:
    """Into how many segments a plaintext of so many bytes is cut; nothing at all is one."""
    return max(1, -(-size // SEGMENT_BYTES))


def read_table_header(written: bytes) -> TableHeader:
    """Read a header strictly.

    Raises:
        HealthError: ``health.encrypted_table``.
    """
    try:
        value = parse_canonical(written, max_bytes=MAX_HEADER_BYTES, max_depth=8)
        header = TableHeader.model_validate(value)
    except (InputError, ValidationError):
        raise _malformed("its header is of another form") from None
    if header.encode() != written:
        raise _malformed("its header is not in its one form")
    return header


def decode_encrypted_table(content: bytes) -> EncryptedTable:
    """Read the content of an encrypted table's file, without opening it.

    Raises:
        HealthError: ``health.encrypted_table``.
    """
    if len(content) < _HEAD.size:
        raise _malformed("it ends too early")
    magic, length = _HEAD.unpack_from(content)
    if magic != _MAGIC or not 0 < length <= min(MAX_HEADER_BYTES, len(content) - _HEAD.size):
        raise _malformed("it doesn't begin as one does")
    start = _HEAD.size + length
    table = EncryptedTable(content[_HEAD.size : start], content[start:])
    if table.public.cipher_bytes != len(table.segments):
        raise _malformed("it has another size than its header says")
    return table


def read_encrypted_table(folder: Path, name: str) -> EncryptedTable:
    """Read an encrypted table from its file, without opening it.

    Args:
        folder: the folder that it must lie in.
        name: its relative path there.

    Raises:
        HealthError: ``health.encrypted_table``.
        InputError: it is missing, unreadable, too large or leaves the folder.
    """
    return decode_encrypted_table(read_inside(folder, name, MAX_FILE_BYTES))


def _malformed(reason: str) -> HealthError:
    return HealthError(
        "health.encrypted_table",
        f"This is no encrypted table: {reason}.",
        "Use the file as cloister table seal has written it.",
    )
