"""A site's table as it goes into a sealed worker: encrypted by whoever keeps it, opened only there.

The header is public (see `cloister.health.encrypted_table`). The plaintext is fixed by it to the byte: the
commitment's secret salt, where there is one, the values [records, columns] as little-endian binary64 in
row-major order, the labels as signed 64-bit integers, the subjects' numbers likewise where there are any.
Rules kept here:

1. The key of a table is derived from the data key and 32 random bytes of the header (HKDF-SHA-256), so that
   one data key serves many tables and no nonce comes twice.
2. The plaintext is cut into segments, each encrypted with AES-256-GCM under the nonce "number of the segment,
   whether it is the last" (STREAM, Hoang et al. 2015, section 4); the header's hash is authenticated with
   each. Segments that are lost, doubled, moved or cut off don't open.
3. It is opened segment by segment into a buffer that is ours. Before anything else looks at it, it is held
   against the declared schema, its persons are counted and its commitment is computed again: a header that
   says something else of the records opens nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.enclave.errors import SealedError
from cloister.enclave.sealed.memory import LockedBuffer
from cloister.health.commitment import dataset_sha256
from cloister.health.data import SiteData
from cloister.health.encrypted_table import (
    SEGMENT_BYTES,
    TABLE_SCHEMA,
    TAG_BYTES,
    EncryptedTable,
    TableHeader,
    TableShape,
    read_table_header,
    segments_of,
)
from cloister.health.schema import Float64Array, Int64Array, TableSchema
from cloister.health.subjects import Subjects

DATA_KEY_BYTES: Final = 32
_CELL: Final = 8


@dataclass(frozen=True, eq=False)
class OpenedTable:
    """A table's plaintext, as views into a buffer; nothing else holds it."""

    header: TableShape
    buffer: LockedBuffer
    raw: Float64Array
    labels: Int64Array
    subjects: Int64Array | None


def encrypt_table(
    data: SiteData, schema: TableSchema, key: bytes | bytearray, *, data_key: str
) -> EncryptedTable:
    """Encrypt one site's records for a sealed worker.

    Args:
        data: the records, as validated against the schema.
        schema: what is declared of them.
        key: the data key, 32 bytes.
        data_key: its id.

    Raises:
        SealedError: ``sealed.dataset`` for a key of another length.
    """
    _require_key(key)
    shape = table_shape(data, schema).model_dump()
    header = TableHeader(**shape, format=TABLE_SCHEMA, data_key=data_key, salt=os.urandom(32).hex())
    plain = table_cells(data)
    written = header.encode()
    cipher, associated = _cipher(key, header), hashlib.sha256(written).digest()
    segments = [
        cipher.encrypt(nonce, plain[start:end], associated) for start, end, nonce in _plan(header.plain_bytes)
    ]
    return EncryptedTable(written, b"".join(segments))


def table_shape(data: SiteData, schema: TableSchema) -> TableShape:
    """What is public of a site's records.

    Args:
        data: the records.
        schema: what is declared of them.
    """
    return TableShape(
        site=data.name,
        declared=schema,
        subject=data.subject,
        records=data.records,
        subjects=data.subject_count,
        salted=bool(data.salt.content),
        dataset_sha256=data.dataset_sha256,
    )


def table_cells(data: SiteData) -> bytes:
    """A table's plaintext, in its one form."""
    arrays = ((data.raw, "<f8"), (data.labels, "<i8"), (data.subjects, "<i8"))
    cells = (np.ascontiguousarray(array, dtype=kind).tobytes() for array, kind in arrays if array is not None)
    return b"".join((data.salt.content, *cells))


def open_table(
    header: bytes, key: bytes | bytearray | memoryview, read_into: Callable[[memoryview], bool]
) -> OpenedTable:
    """Decrypt a table into a buffer of our own and hold it against its declared schema.

    Args:
        header: the header's bytes.
        key: the data key.
        read_into: fills a view with the next bytes of the segments.

    Returns:
        The table. Nothing of it was copied.

    Raises:
        SealedError: ``sealed.dataset`` where it does not open, or is of other records than its header says.
        HealthError: the records are not what is declared; the message has no value of theirs.
    """
    public = read_table_header(header)
    _require_key(key)
    cipher, associated = _cipher(key, public), hashlib.sha256(header).digest()
    buffer = LockedBuffer(public.plain_bytes)
    view = buffer.view
    try:
        for start, end, nonce in _plan(public.plain_bytes):
            segment = bytearray(end - start + TAG_BYTES)
            _require(read_into(memoryview(segment)), "is cut off")
            cipher.decrypt_into(nonce, segment, associated, view[start:end])
        table = checked_table(public, buffer)
    except InvalidTag:
        buffer.wipe()
        raise _refused("does not open with this key") from None
    except BaseException:
        buffer.wipe()
        raise
    return table


def checked_table(public: TableShape, buffer: LockedBuffer) -> OpenedTable:
    """Look at plaintext as a table, and hold it against all that is said of it.

    Args:
        public: what the table is said to be.
        buffer: holds its plaintext; not copied.

    Raises:
        SealedError: ``sealed.dataset``: it is of other records, or of another number of persons.
        HealthError: the records are not what is declared; the message has no value of theirs.
    """
    columns, records = len(public.declared.columns), public.records
    salt, values, cells = public.salt_bytes, records * columns, _CELL * records
    raw = np.frombuffer(buffer.view, dtype="<f8", count=values, offset=salt).reshape(records, columns)
    labels = np.frombuffer(buffer.view, dtype="<i8", count=records, offset=salt + _CELL * values)
    subjects = None
    if public.subject is not None:
        at = salt + _CELL * values + cells
        numbers = np.frombuffer(buffer.view, dtype="<i8", count=records, offset=at)
        subjects = Subjects(public.subject, numbers)
    schema = public.declared
    schema.validate_table(raw, labels, what=f"site {public.site}")
    secret = bytes(buffer.view[:salt])
    committed = dataset_sha256(schema, raw, labels, salt=secret, subjects=subjects)
    counted = None if subjects is None else subjects.count
    if (committed, counted) != (public.dataset_sha256, public.subjects):
        raise _refused("holds other records than its header says")
    return OpenedTable(public, buffer, raw, labels, None if subjects is None else subjects.numbers)


def _plan(size: int) -> Iterator[tuple[int, int, bytes]]:
    count = segments_of(size)
    for number in range(count):
        last = number == count - 1
        yield (
            number * SEGMENT_BYTES,
            min(size, (number + 1) * SEGMENT_BYTES),
            number.to_bytes(11, "big") + bytes([last]),
        )


def _cipher(key: bytes | bytearray | memoryview, header: TableHeader) -> AESGCM:
    derive = HKDF(SHA256(), 32, bytes.fromhex(header.salt), TABLE_SCHEMA.encode())
    return AESGCM(derive.derive(bytes(key) if isinstance(key, memoryview) else key))


def _require_key(key: bytes | bytearray | memoryview) -> None:
    if len(key) != DATA_KEY_BYTES:
        raise SealedError("sealed.dataset", f"A data key has {DATA_KEY_BYTES} bytes.")


def _require(holds: bool, why: str) -> None:  # noqa: FBT001
    if not holds:
        raise _refused(why)


def _refused(why: str) -> SealedError:
    return SealedError("sealed.dataset", f"The encrypted table {why}.")
