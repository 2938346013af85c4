"""A table as a run without protection hands it to a sealed worker: over the pipe, without a key.

A run that was started with ``--insecure`` has no key to ask for. Its worker is sealed like any other, and
gets the records as they are. Rules kept here:

1. The plaintext is that of `cloister.enclave.sealed.table`, to the byte, behind a header of another format:
   neither kind of table is taken for the other.
2. It is read into a buffer that is ours, held against the declared schema and committed to again before
   anything else looks at it. No hash of the cells names it: the dataset's commitment, which is salted, does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import ValidationError

from cloister.core.canonical import canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.enclave.errors import SealedError
from cloister.enclave.sealed.memory import LockedBuffer
from cloister.enclave.sealed.table import OpenedTable, checked_table, table_cells, table_shape
from cloister.health.data import SiteData
from cloister.health.encrypted_table import MAX_HEADER_BYTES, TableShape
from cloister.health.schema import TableSchema

PLAIN_SCHEMA: Final = "urn:cloister:plain-table:v1"


class PlainTableHeader(TableShape):
    """What is public about a plain table."""

    format: Literal["urn:cloister:plain-table:v1"]


@dataclass(frozen=True)
class PlainTable:
    """A table that no key protects: what is public about it, and its cells."""

    public: PlainTableHeader
    cells: bytes

    @property
    def header(self) -> bytes:
        """The header's canonical JSON."""
        return canonicalize(self.public.model_dump(mode="json"))


def plain_table(data: SiteData, schema: TableSchema) -> PlainTable:
    """Lay out one site's records for a sealed worker that has no key.

    Args:
        data: the records, as validated against the schema.
        schema: what is declared of them.
    """
    header = PlainTableHeader(**table_shape(data, schema).model_dump(), format=PLAIN_SCHEMA)
    return PlainTable(header, table_cells(data))


def open_plain_table(header: bytes, size: int, read_into: Callable[[memoryview], bool]) -> OpenedTable:
    """Read a plain table into a buffer of our own and hold it against its declared schema.

    Args:
        header: the header's bytes.
        size: how many bytes of cells come.
        read_into: fills a view with them.

    Raises:
        SealedError: ``sealed.dataset`` where it has another form or size.
        HealthError: the records are not what is declared; the message has no value of theirs.
    """
    try:
        value = parse_canonical(header, max_bytes=MAX_HEADER_BYTES, max_depth=8)
        public = PlainTableHeader.model_validate(value)
    except (InputError, ValidationError):
        raise SealedError("sealed.dataset", "The plain table has no header of the agreed form.") from None
    if public.plain_bytes != size:
        raise SealedError("sealed.dataset", "The plain table has another size than its header says.")
    buffer = LockedBuffer(size)
    if not read_into(buffer.view):
        buffer.wipe()
        raise SealedError("sealed.dataset", "The plain table is cut off.")
    try:
        return checked_table(public, buffer)
    except BaseException:
        buffer.wipe()
        raise
