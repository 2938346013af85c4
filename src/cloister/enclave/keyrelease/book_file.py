"""The file of a keeper's book: its tables, and how it is made, opened and closed.

A book of an earlier version gets the tables that it lacks when it is opened; one of a later is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Self

from cloister.core.errors import StorageError
from cloister.core.files import storage_error
from cloister.enclave.errors import ReleaseError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine

VERSION: Final = 2
_VERSIONS: Final = (
    (
        "CREATE TABLE keys (data_key TEXT PRIMARY KEY, dataset TEXT NOT NULL, purpose TEXT NOT NULL,"
        " wrapping_id TEXT NOT NULL, wrapped BLOB NOT NULL, created_at TEXT NOT NULL,"
        " revoked_at TEXT) STRICT",
        "CREATE TABLE policies (policy_id TEXT PRIMARY KEY, data_key TEXT NOT NULL REFERENCES keys,"
        " envelope BLOB NOT NULL, admitted_at TEXT NOT NULL, revoked_at TEXT) STRICT",
        "CREATE TABLE releases (policy_id TEXT NOT NULL REFERENCES policies, number INTEGER NOT NULL,"
        " nonce BLOB NOT NULL UNIQUE, enclave_key TEXT NOT NULL, evidence BLOB NOT NULL,"
        " counted_at TEXT NOT NULL, PRIMARY KEY (policy_id, number)) STRICT",
    ),
    (
        "CREATE TABLE refusals (policy_id TEXT NOT NULL REFERENCES policies, code TEXT NOT NULL,"
        " made INTEGER NOT NULL, PRIMARY KEY (policy_id, code)) STRICT",
    ),
)
"""What each version has added."""


class BookFile:
    """Made by `create`, reached by `open`; safe to share between threads, and between processes by its file.

    Args:
        engine: the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new book in a file of mode 0600, whose folder has to exist.

        Raises:
            StorageError: ``storage.exists``, or as the operating system says.
        """
        from cloister.core.database import open_database

        if path.exists():
            raise storage_error(FileExistsError(17, ""), path)
        engine = open_database(path)
        _fill(engine, 0)
        return cls(engine)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The book in a file.

        Raises:
            StorageError: ``storage.failed`` where there is none, ``storage.corrupt``.
            ReleaseError: ``release.book`` where it is something else.
        """
        from cloister.core.database import open_database, snapshot

        if not path.is_file():
            raise StorageError(
                "storage.failed", f"There is no book of data keys at {path}.", "Make it with its first key."
            )
        engine = open_database(path)
        with snapshot(engine) as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            empty = not connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one()
        if not 0 <= version <= VERSION or (version == 0 and not empty):
            engine.dispose()
            raise ReleaseError("release.book", f"{path} is no book of data keys, or of another version.")
        if (
            version < VERSION
        ):  # an earlier program's, or whoever made it was stopped before its first transaction
            _fill(engine, version)
        return cls(engine)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def _writing(self) -> AbstractContextManager[Connection]:
        from cloister.core.database import transaction

        return transaction(self._engine)

    def _reading(self) -> AbstractContextManager[Connection]:
        from cloister.core.database import snapshot

        return snapshot(self._engine)

    def _revoke(self, statement: str, revoked_at: str, name: str) -> None:
        with self._writing() as connection:
            found = connection.exec_driver_sql(statement, (revoked_at, name)).rowcount
        if not found:
            unknown("key or policy")


def unknown(what: str) -> NoReturn:
    """Refuse what the book doesn't have.

    Raises:
        ReleaseError: ``release.unknown``.
    """
    raise ReleaseError("release.unknown", f"The book has no such {what}.")


def _fill(engine: Engine, version: int) -> None:
    from cloister.core.database import transaction

    with transaction(engine) as connection:
        if connection.exec_driver_sql("PRAGMA user_version").scalar_one() != version:
            return  # another process was faster
        for added in _VERSIONS[version:]:
            for statement in added:
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
