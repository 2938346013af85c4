"""The file of a budget ledger: how it begins whole, how entries get into it, how damage to it is told.

Rules kept here:

1. A ledger appears under its name with its header in it, or not at all. It is built as a hidden draft beside
   its place, under a lock on the folder, and linked to its name.
2. A draft that nobody is building is what a killed process left; the next one to make or open that ledger
   removes it. Whoever holds the folder's lock knows that nobody is.
3. What SQLite calls corrupt, or a file put in another's place, arrives as ``ledger.corrupt``.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from cloister.core.canonical import canonicalize
from cloister.core.database import open_database, transaction
from cloister.core.errors import StorageError
from cloister.core.files import storage_error, sync_directory
from cloister.core.hashes import Sha256
from cloister.core.interrupts import interruptible
from cloister.privacy.errors import LedgerError
from cloister.privacy.ledger_entries import GENESIS, entry_hash

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

_SCHEMA: Final = (
    "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, previous TEXT NOT NULL, body BLOB NOT NULL,"
    " hash TEXT NOT NULL) STRICT"
)
_INSERT: Final = "INSERT INTO entries (sequence, previous, body, hash) VALUES (?, ?, ?, ?)"
_DRAFT_ENDING: Final = re.compile(r"[0-9a-f]{16}(-wal|-shm|-journal)?")


def begin_file(path: Path, header: dict[str, JSON]) -> None:
    """Make a ledger's file with its header.

    Args:
        path: Where; its folder exists, the file does not.
        header: Entry 0.

    Raises:
        LedgerError: ``ledger.exists``.
        StorageError: The file can't be written; nothing is left behind.
    """
    with _folder_locked(path, fcntl.LOCK_EX):
        _remove_drafts(path)
        try:
            draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            engine = open_database(draft)
            try:
                with transaction(engine) as connection:
                    connection.exec_driver_sql(_SCHEMA)
                    append_entry(connection, 0, GENESIS, header)
            finally:
                engine.dispose()
            _publish(draft, path)
        finally:
            _remove_drafts(path)


def clear_drafts(path: Path) -> None:
    """Remove what killed processes left of making this ledger, unless someone is making it right now."""
    with suppress(StorageError), _folder_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
        _remove_drafts(path)


def append_entry(connection: Connection, sequence: int, previous: Sha256, body: dict[str, JSON]) -> Sha256:
    """Write an entry within a transaction and return its hash."""
    data = canonicalize(body)
    digest = entry_hash(sequence, previous, data)
    statement = _INSERT if connection.dialect.name == "sqlite" else _INSERT.replace("?", "%s")
    connection.exec_driver_sql(statement, (sequence, previous, data, digest))
    return digest


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one put in its place; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def damaged(name: str) -> LedgerError:
    """Return the refusal of a ledger that doesn't hold together."""
    return LedgerError(
        "ledger.corrupt",
        f"The budget ledger {name} was damaged, shortened or edited.",
        "Restore it from the newest copy whose head stands in a statement; never start a new one.",
    )


@contextmanager
def closed_on_damage(name: str) -> Iterator[None]:
    """Turn what the database calls corrupt into the ledger's own refusal."""
    try:
        yield
    except StorageError as error:
        if error.code == "storage.corrupt":
            raise damaged(name) from None
        raise


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        raise LedgerError(
            "ledger.exists",
            f"There is a budget ledger at {path.name} already.",
            "Open it; a ledger is never replaced.",
        ) from None
    except OSError as error:
        raise storage_error(error, path) from None
    sync_directory(path.parent)


@interruptible
def _folder_locked(path: Path, how: int) -> Iterator[None]:
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(error, path) from None
    try:
        try:
            fcntl.flock(folder, how)
        except OSError as error:
            raise storage_error(error, path) from None
        yield
    finally:
        os.close(folder)


def _remove_drafts(path: Path) -> None:
    beginning = f".{path.name}."
    for file in path.parent.iterdir():
        if file.name.startswith(beginning) and _DRAFT_ENDING.fullmatch(file.name.removeprefix(beginning)):
            with suppress(OSError):
                file.unlink()
