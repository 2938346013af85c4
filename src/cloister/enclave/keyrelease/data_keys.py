"""A keeper's data keys: wrapped, named by dataset and purpose, revoked once.

Rules kept here:

* A data key is in the book only wrapped; id, dataset and purpose are sealed into the wrapping, so that an
  edited book opens nothing else than it did.
* Nothing is deleted or overwritten; a revocation is a time that is set once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cloister.core.canonical import canonicalize
from cloister.core.clock import format_time
from cloister.core.keys import WrappingKey
from cloister.core.sealing import wipe
from cloister.core.symmetric import AES_KEY_BYTES
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease.book_file import BookFile, unknown
from cloister.enclave.keyrelease.policy import KeyPurpose

_CONTEXT: Final = "urn:cloister:data-key:v1"
_KEYS: Final = (
    "SELECT data_key, dataset, purpose, wrapping_id, wrapped, created_at, revoked_at FROM keys"
    " WHERE ? IS NULL OR data_key = ? ORDER BY created_at, rowid"
)
_REVOKE_KEY: Final = "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE data_key = ?"


@dataclass(frozen=True)
class DataKey:
    """A data key as the book has it.

    Attributes:
        data_key: its id.
        dataset: what it opens.
        purpose: what kind of thing that is.
        wrapping_id: which key-encryption key opens it.
        wrapped: the key, wrapped.
        created_at: when it came into the book.
        revoked_at: when it was revoked; None where it wasn't.
    """

    data_key: str
    dataset: str
    purpose: KeyPurpose
    wrapping_id: str
    wrapped: bytes
    created_at: str
    revoked_at: str | None


class KeyShelf(BookFile):
    """The part of a book that keeps the keys."""

    def create_key(self, dataset: str, purpose: KeyPurpose, wrapping: WrappingKey, now: datetime) -> DataKey:
        """Make a new data key; it is never seen unwrapped outside of this call.

        Args:
            dataset: what it will open.
            purpose: what kind of thing that is.
            wrapping: the hospital's key-encryption key.
            now: the time.

        Raises:
            KeyStoreError: the wrapping failed.
            StorageError: it isn't in the book.
        """
        key = bytearray(secrets.token_bytes(AES_KEY_BYTES))
        try:
            return self.wrap_key(key, dataset, purpose, wrapping, now)
        finally:
            wipe(key)

    def wrap_key(
        self,
        key: bytes | bytearray,
        dataset: str,
        purpose: KeyPurpose,
        wrapping: WrappingKey,
        now: datetime,
    ) -> DataKey:
        """Take a data key into the book that is in use already, such as one that sealed a dataset.

        Args:
            key: 32 bytes; the caller wipes them.
            dataset: what it opens.
            purpose: what kind of thing that is.
            wrapping: the hospital's key-encryption key.
            now: the time.

        Raises:
            KeyStoreError: ``key.malformed``, or the wrapping failed.
            StorageError: it isn't in the book.
        """
        data_key = "dk-" + secrets.token_hex(16)
        wrapped = wrapping.wrap(key, _context(data_key, dataset, purpose))
        made = DataKey(
            data_key, dataset, purpose, wrapping.wrapping_id, wrapped, format_time(now), revoked_at=None
        )
        with self._writing() as connection:
            connection.exec_driver_sql(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (data_key, dataset, purpose.value, made.wrapping_id, wrapped, made.created_at),
            )
        return made

    def unwrap(self, found: DataKey, wrapping: WrappingKey) -> bytearray:
        """The key itself, in a buffer that the caller wipes.

        Raises:
            KeyStoreError: ``key.wrapped`` where the book's line was changed, or the key-encryption key is
                another; as the store of that key says.
        """
        return wrapping.unwrap(found.wrapped, _context(found.data_key, found.dataset, found.purpose))

    def key(self, data_key: str) -> DataKey:
        """A key by its id.

        Raises:
            ReleaseError: ``release.unknown``.
        """
        return next(iter(self._keys(data_key)), None) or unknown("key")

    def all_keys(self) -> tuple[DataKey, ...]:
        """All keys, oldest first."""
        return self._keys(None)

    def revoke_key(self, data_key: str, now: datetime) -> None:
        """No further release of this key under any policy; a second time changes nothing.

        Raises:
            ReleaseError: ``release.unknown``.
        """
        self._revoke(_REVOKE_KEY, format_time(now), data_key)

    def _keys(self, data_key: str | None) -> tuple[DataKey, ...]:
        with self._reading() as connection:
            rows = connection.exec_driver_sql(_KEYS, (data_key, data_key)).all()
        try:
            return tuple(DataKey(row[0], row[1], KeyPurpose(row[2]), *row[3:]) for row in rows)
        except ValueError:
            raise ReleaseError("release.book", "The book names a purpose that doesn't exist.") from None


def _context(data_key: str, dataset: str, purpose: KeyPurpose) -> bytes:
    return canonicalize([_CONTEXT, data_key, dataset, purpose.value])
