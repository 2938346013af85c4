"""Opening a state database: is it sound, is it ours, is it of this version."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.files import make_private
from cloister.immune.keeping.schema import APPLICATION, NAMES, SINCE, TABLES, VERSION

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_WAIT_MILLISECONDS: Final = 10_000


def open_memory() -> sqlite3.Connection:
    """A state that lives as long as the process."""
    connection = _connect(":memory:")
    _prepare(connection)
    return connection


def open_and_read(path: Path) -> sqlite3.Connection:
    """Open a state database for the first time in a process: every page is read once.

    Raises:
        sqlite3.Error, ImmuneError, OSError: as `open_file`.
    """
    connection = open_file(path)
    try:
        _answers(connection, "PRAGMA quick_check(1)", "ok", sqlite3.SQLITE_CORRUPT)
    except BaseException:
        connection.close()
        raise
    return connection


def open_file(path: Path) -> sqlite3.Connection:
    """Open a state database, made where there is none.

    Args:
        path: in a folder that exists.

    Raises:
        sqlite3.Error: it can't be opened; `is_damage` says whether it is damaged.
        ImmuneError: ``immune.state_unusable``: it is of another version or another program's.
        OSError: the file system refuses.
    """
    make_private(path)
    connection = _connect(str(path))
    try:
        connection.execute(f"PRAGMA busy_timeout={_WAIT_MILLISECONDS}")
        _answers(connection, "PRAGMA journal_mode=WAL", "wal", sqlite3.SQLITE_CANTOPEN)
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is damaged or no database."""
    number = getattr(error, "sqlite_errorcode", None)
    return isinstance(number, int) and number & 0xFF in _DAMAGED


def unusable(path: Path | None, error: Exception) -> ImmuneError:
    """The error for a state that can't be used now, for another reason than damage."""
    reason = getattr(error, "sqlite_errorname", None) or type(error).__name__
    place = path.name if path is not None else "in memory"
    return ImmuneError(
        "immune.state_unusable",
        f"The state database {place} can't be used now ({reason}).",
        "Look at the folder's owner and free space, and whether another program holds the file.",
    )


def _connect(name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file; look at the version of any other."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _require_tables(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _require_tables(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version == 0 and not names:
        for statement in TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        return
    if application == APPLICATION:
        while version in SINCE:
            for statement in SINCE[version]:
                connection.execute(statement)
            version += 1
            connection.execute(f"PRAGMA user_version={version}")
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version != VERSION or application != APPLICATION:
        raise ImmuneError(
            "immune.state_unusable",
            "The state database is of another version, or another program's.",
            "Use the version of cloister that wrote it, or name another folder.",
        )
    if not names >= NAMES:
        raise _failure(sqlite3.SQLITE_CORRUPT)


def _answers(connection: sqlite3.Connection, question: str, wanted: str, otherwise: int) -> None:
    (answer,) = connection.execute(question).fetchone()
    if answer != wanted:
        raise _failure(otherwise)


def _failure(number: int) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError()
    error.sqlite_errorcode = number
    return error
