"""Where a budget ledger is kept: a SQLite file, or a schema of its own in a PostgreSQL database.

Rules kept here:

1. One table of numbered entries; rows are added and never changed. Nothing here judges what it reads.
2. A ledger appears with its header in it, or not at all: a file is linked to its name when it is whole, a
   schema is made in one transaction with its header.
3. Several ledgers may share a PostgreSQL database: a schema is named by who holds the dataset and by the
   dataset's name.
4. A file that was put in the place of an open one is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy import Connection, Engine, inspect

from cloister.core.database import database_name, open_database, snapshot, transaction
from cloister.core.hashes import Sha256
from cloister.core.interrupts import interruptible
from cloister.privacy.errors import LedgerError
from cloister.privacy.ledger_entries import GENESIS
from cloister.privacy.ledger_file import (
    append_entry,
    begin_file,
    clear_drafts,
    closed_on_damage,
    damaged,
    file_identity,
)

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

Place: TypeAlias = Path | str
"""A SQLite file, or the URL of a PostgreSQL database."""

EntryRow: TypeAlias = tuple[int, Sha256, bytes, Sha256]
"""Number, hash before, body, hash."""

_TABLE: Final = (
    "CREATE TABLE entries (sequence BIGINT PRIMARY KEY, previous TEXT NOT NULL, body BYTEA NOT NULL,"
    " hash TEXT NOT NULL)"
)
_HAS_TABLE: Final = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'entries'"
_FROM: Final = "SELECT sequence, previous, body, hash FROM entries WHERE sequence >= ? ORDER BY sequence"


class LedgerStore:
    """One ledger's entries. Made by :meth:`create`, reached by :meth:`open`.

    Args:
        engine: The database.
        name: How messages call it; no password is in it.
        path: The file; None in PostgreSQL.
    """

    def __init__(self, engine: Engine, name: str, path: Path | None) -> None:
        self._engine = engine
        self._path = path
        self._identity = file_identity(path) if path else None
        self._from = _FROM if path else _FROM.replace("?", "%s")
        self.name = name

    @staticmethod
    def create(place: Place, holder: str, dataset: str, header: dict[str, JSON]) -> None:
        """Make a ledger with its header.

        Args:
            place: Where.
            holder: Whose dataset it is; names the schema in PostgreSQL.
            dataset: The dataset's name.
            header: Entry 0.

        Raises:
            LedgerError: ``ledger.exists``.
            StorageError: It can't be written; nothing is left behind.
        """
        if isinstance(place, Path):
            begin_file(place, header)
            return
        schema = _schema(holder, dataset)
        engine = open_database(place, schema=schema)
        try:
            with transaction(engine) as connection:
                if inspect(connection).has_schema(schema):
                    raise LedgerError(
                        "ledger.exists",
                        f"There is a budget ledger of {dataset} in that database already.",
                        "Open it; a ledger is never replaced.",
                    )
                connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
                connection.exec_driver_sql(_TABLE)
                append_entry(connection, 0, GENESIS, header)
        finally:
            engine.dispose()

    @classmethod
    def open(cls, place: Place, holder: str, dataset: str) -> LedgerStore:
        """Reach a ledger that is there.

        Raises:
            LedgerError: ``ledger.missing`` or ``ledger.corrupt``.
            StorageError: It can't be read now.
        """
        if isinstance(place, Path):
            if not place.is_file():
                raise _missing(place.name)
            clear_drafts(place)
            with closed_on_damage(place.name):
                return cls(open_database(place), place.name, place)
        schema = _schema(holder, dataset)
        engine = open_database(place, schema=schema)
        try:
            with snapshot(engine) as connection:
                there = inspect(connection).has_schema(schema)
        except BaseException:
            engine.dispose()
            raise
        if not there:
            engine.dispose()
            raise _missing(dataset)
        return cls(engine, f"{dataset} in {database_name(place)}", None)

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state.

        Raises:
            LedgerError: ``ledger.corrupt``.
        """
        return self._opened(snapshot)

    def writing(self) -> AbstractContextManager[Connection]:
        """A writing transaction, one at a time over all processes.

        Raises:
            LedgerError: ``ledger.corrupt``.
        """
        return self._opened(transaction)

    @interruptible
    def _opened(self, access: Callable[[Engine], AbstractContextManager[Connection]]) -> Iterator[Connection]:
        with closed_on_damage(self.name):
            if self._path and file_identity(self._path) != self._identity:
                raise damaged(self.name)
            with access(self._engine) as connection:
                yield connection

    def has_table(self, connection: Connection) -> bool:
        """Return whether the table of entries is there."""
        if self._path is None:
            return inspect(connection).has_table("entries")
        return bool(connection.exec_driver_sql(_HAS_TABLE).scalar_one())

    def rows(self, connection: Connection, first: int) -> Sequence[EntryRow]:
        """Return the entries from a number on, in order, as they lie there."""
        return [
            (sequence, previous, bytes(body) if isinstance(body, memoryview) else body, digest)
            for sequence, previous, body, digest in connection.exec_driver_sql(self._from, (first,)).all()
        ]

    def append(
        self, connection: Connection, sequence: int, previous: Sha256, body: dict[str, JSON]
    ) -> Sha256:
        """Write an entry within a writing transaction and return its hash."""
        return append_entry(connection, sequence, previous, body)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def _schema(holder: str, dataset: str) -> str:
    return "cloister_ledger_" + hashlib.sha256(f"{holder}\n{dataset}".encode()).hexdigest()[:32]


def _missing(name: str) -> LedgerError:
    return LedgerError(
        "ledger.missing",
        f"There is no budget ledger at {name}.",
        "Make one when the dataset is registered; a lost ledger means the budget counts as spent.",
    )
