"""SQLite files that keep what they were given.

Rules this module keeps:

* Write-ahead log with ``synchronous=FULL``: a transaction that was committed survives a loss of power.
* A writer takes its lock at the start (``BEGIN IMMEDIATE``), so what it read cannot change before it writes.
* The file is its owner's alone (mode 0600).
* A full disk, a held lock, a damaged file arrive as `StorageError`. A broken constraint is passed on as
  SQLAlchemy's `IntegrityError`: only the room that wrote the rule can name it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloister.core.errors import StorageError
from cloister.core.files import storage_error, sync_directory

BUSY_TIMEOUT_SECONDS = 10.0

_BEGIN = "cloister_begin"
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_HELD = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_DENIED = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN})


def open_database(path: Path, *, busy_timeout: float = BUSY_TIMEOUT_SECONDS) -> Engine:
    """Open a database file; an empty one is made where there is none.

    Args:
        path: the file; its folder has to exist.
        busy_timeout: how many seconds a writer waits for another one.

    Returns:
        An engine for `transaction` and `snapshot`; ``dispose()`` closes it.

    Raises:
        StorageError: ``storage.corrupt`` where the file is no database, or as the operating system says.
    """
    try:
        _prepare_file(path)
    except OSError as error:
        raise storage_error(error, path) from None
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": busy_timeout},
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    try:
        with snapshot(engine) as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema")
    except BaseException:
        engine.dispose()
        raise
    return engine


def _prepare_file(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        sync_directory(path.parent)
    except FileExistsError:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_mode & 0o777 != 0o600:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _configure(connection: sqlite3.Connection, _: object) -> None:
    # SQLAlchemy's "begin" event starts transactions; the driver must not start its own.
    connection.isolation_level = None
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError("this file system cannot hold a write-ahead log")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A writing transaction: committed when the block ends, rolled back when it raises.

    Raises:
        StorageError: nothing of the block was kept.
        sqlalchemy.exc.IntegrityError: a constraint refused a row; nothing was kept.
    """
    with _typed_errors(engine), engine.connect() as plain:
        connection = plain.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        with connection.begin():
            yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A reading transaction: everything in the block sees the same state; it waits for no writer.

    Raises:
        StorageError: the file cannot be read.
    """
    with _typed_errors(engine), engine.connect() as connection, connection.begin() as reading:
        yield connection
        reading.rollback()


def check_integrity(engine: Engine) -> None:
    """Read every page and look for damage; takes time in proportion to the file.

    Raises:
        StorageError: ``storage.corrupt``.
    """
    with snapshot(engine) as connection:
        if connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one() != "ok":
            raise _corrupt(_name(engine))


@contextmanager
def _typed_errors(engine: Engine) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except PoolTimeoutError:
        raise StorageError("storage.in_use", f"{_name(engine)} is busy.", "Try again.") from None
    except DBAPIError as error:
        raise _storage_error(error.orig, _name(engine)) from None
    except sqlite3.Error as error:
        raise _storage_error(error, _name(engine)) from None
    except SQLAlchemyError as error:
        raise StorageError(
            "storage.failed", f"The database {_name(engine)} failed ({type(error).__name__})."
        ) from None


def _storage_error(error: BaseException | None, name: str) -> StorageError:
    number = getattr(error, "sqlite_errorcode", None)
    primary = number & 0xFF if isinstance(number, int) else None
    if primary == sqlite3.SQLITE_FULL:
        return StorageError(
            "storage.no_space", f"There is no space left to write {name}.", "Free some space and run again."
        )
    if primary in _HELD:
        return StorageError(
            "storage.in_use", f"{name} is in use by another process.", "Wait for it to end, or stop it."
        )
    if primary in _DAMAGED:
        return _corrupt(name)
    if primary in _DENIED:
        return StorageError("storage.permission", f"{name} may not be opened or written.")
    reason = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return StorageError("storage.failed", f"The database {name} failed ({reason}).")


def _corrupt(name: str) -> StorageError:
    return StorageError(
        "storage.corrupt",
        f"{name} is damaged or is not a database.",
        "Restore it from a copy; do not edit it.",
    )


def _name(engine: Engine) -> str:
    return str(engine.url.database)
