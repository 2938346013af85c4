"""Databases that keep what they were given: SQLite files, and PostgreSQL by URL.

Rules this module keeps:

* A transaction that was committed survives a loss of power: SQLite's write-ahead log with
  ``synchronous=FULL``, PostgreSQL's ``synchronous_commit`` on.
* One writer at a time: it takes its lock at the start (``BEGIN IMMEDIATE``; in PostgreSQL an advisory lock of
  the schema), so what it read cannot change before it writes.
* A reader sees one state throughout, and waits for no writer.
* A transaction that failed left nothing behind. Where nobody can say so, since the failure struck the commit
  itself and its answer is lost, the error is ``storage.uncertain``, and its own.
* A connection serves the process that opened it: a forked child is refused (:mod:`cloister.core.forks`).
* A file is its owner's alone (mode 0600). No password is in any message.
* A full disk, a held lock, a damaged file arrive as `StorageError`. A broken constraint is passed on as
  SQLAlchemy's `IntegrityError`: only the room that wrote the rule can name it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloister.core.errors import StorageError
from cloister.core.files import storage_error, sync_directory
from cloister.core.forks import (
    forked,
    in_own_process,
    leave_to_this_process,
    serve_this_process,
)

BUSY_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 10

# Execution options: how an engine's transactions begin, and what the one at hand is for.
_READING = "cloister_reading"
_WRITING = "cloister_writing"
_BEGUN = "cloister_begun"
_PURPOSE = "cloister_purpose"
_ROWS_A_STATEMENT = (64, 8)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_HELD = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_DENIED = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN})
# 16 MiB: a page that many transactions change is then moved to the file once for many of them.
_WAL_PAGES = 4096
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
# PostgreSQL, Appendix A "Error Codes": disk full, lock not available and its like, damage, no right.
_NO_SPACE_STATES = ("53100",)
_HELD_STATES = ("55P03", "40001", "40P01", "55006")
_DAMAGED_STATES = ("XX001", "XX002")
_DENIED_STATES = ("42501", "25006", "28")
# Errors of a commit after which it is certain that nothing was kept: SQLite wrote no mark of a commit;
# PostgreSQL refused it by a constraint or for another transaction's sake.
_UNDONE = _HELD | _DENIED | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT}
_UNDONE_STATES = ("23", "40")


def open_database(
    place: Path | str, *, schema: str = "public", busy_timeout: float = BUSY_TIMEOUT_SECONDS
) -> Engine:
    """Open a database.

    Args:
        place: a SQLite file, whose folder has to exist, made where there is none; or, as a string, the URL of
            a PostgreSQL database, ``postgresql://user@host/database``.
        schema: the PostgreSQL schema that holds the tables; a SQLite file is a schema by itself.
        busy_timeout: how many seconds a writer waits for another one.

    Returns:
        An engine for `transaction` and `snapshot`; ``dispose()`` closes it.

    Raises:
        StorageError: ``storage.corrupt`` where the file is no database, or as the operating system or the
            server says.
    """
    engine = (
        _sqlite_engine(place, busy_timeout)
        if isinstance(place, Path)
        else _postgresql_engine(place, schema, busy_timeout)
    )
    serve_this_process(engine)
    try:
        with snapshot(engine) as connection:
            connection.exec_driver_sql(
                "SELECT count(*) FROM sqlite_schema" if isinstance(place, Path) else "SELECT 1"
            )
    except BaseException:
        engine.dispose()
        raise
    return engine


def database_name(place: Path | str) -> str:
    """How messages call a database: a file's path, a URL without its password."""
    if isinstance(place, Path):
        return str(place)
    try:
        return sqlalchemy.make_url(place).render_as_string(hide_password=True)
    except ArgumentError:
        return "the database named"


def _sqlite_engine(path: Path, busy_timeout: float) -> Engine:
    try:
        _prepare_file(path)
    except OSError as error:
        raise storage_error(error, path) from None
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": busy_timeout},
        execution_options={_READING: "BEGIN", _WRITING: "BEGIN IMMEDIATE"},
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _postgresql_engine(place: str, schema: str, busy_timeout: float) -> Engine:
    if not _SCHEMA.fullmatch(schema):
        raise StorageError(
            "storage.failed", "A schema's name has lower-case letters, digits and underscores."
        )
    try:
        url = sqlalchemy.make_url(place)
    except ArgumentError:
        raise _no_url() from None
    if url.drivername not in _POSTGRESQL:
        raise _no_url()
    key = int.from_bytes(hashlib.sha256(f"cloister/{schema}".encode()).digest()[:8], "big", signed=True)
    settings = f"-csearch_path={schema} -clock_timeout={int(busy_timeout * 1000)} -csynchronous_commit=on"
    try:
        engine = sqlalchemy.create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={"options": settings, "connect_timeout": CONNECT_TIMEOUT_SECONDS},
            execution_options={
                _READING: "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
                _WRITING: f"SELECT pg_advisory_xact_lock({key})",
            },
        )
    except ModuleNotFoundError:
        raise StorageError(
            "storage.failed",
            "PostgreSQL needs the package psycopg, which is not installed.",
            "Run: pip install 'cloister[postgres]'",
        ) from None
    event.listen(engine, "begin", _begin)
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
    connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    purpose = options.get(_PURPOSE, _READING)
    if purpose != _BEGUN:
        connection.exec_driver_sql(options[purpose])


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A writing transaction: committed when the block ends, rolled back when it raises.

    Raises:
        StorageError: nothing of the block was kept; ``storage.uncertain`` if it may have been.
        sqlalchemy.exc.IntegrityError: a constraint refused a row; nothing was kept.
    """
    with _typed_errors(engine), engine.connect() as plain:
        connection = plain.execution_options(**{_PURPOSE: _WRITING})
        writing = connection.begin()
        try:
            yield connection
        except BaseException:
            writing.rollback()
            raise
        with _at_commit(engine):
            writing.commit()


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A reading transaction: everything in the block sees the same state; it waits for no writer.

    Raises:
        StorageError: the file cannot be read.
    """
    with _typed_errors(engine), engine.connect() as connection, connection.begin() as reading:
        yield connection
        reading.rollback()


class Writer:
    """Writing transactions on one connection, begun and ended straight on the driver.

    For who writes thousands of times a second: SQLAlchemy's part of a small transaction takes longer than
    SQLite's. It is used by one thread at a time.

    Args:
        engine: of `open_database`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: Connection | None = None
        leave_to_this_process(self)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """As :func:`transaction`, and as safe.

        Raises:
            StorageError: nothing of the block was kept; ``storage.uncertain`` if it may have been.
            sqlalchemy.exc.IntegrityError: a constraint refused a row; nothing was kept.
        """
        with _typed_errors(self._engine):
            connection, self._kept = self._kept, None
            if connection is None:
                connection = self._engine.connect().execution_options(**{_PURPOSE: _BEGUN})
            try:
                run(connection, self._engine.get_execution_options()[_WRITING])
                yield connection
                with _at_commit(self._engine):
                    _commit(connection)
            except BaseException:
                # Who is given the connection next gets it rolled back, or another if it is broken.
                connection.close()
                raise
            self._kept = connection

    def close(self) -> None:
        """Let go of the connection; the next transaction takes another."""
        if not in_own_process(self._engine):
            return
        connection, self._kept = self._kept, None
        if connection is not None:
            connection.close()


def run(connection: Connection, statement: str, values: Sequence[object] = ()) -> int:
    """Run a statement within the caller's transaction, straight on the driver.

    Args:
        connection: of a writing transaction.
        statement: in the driver's own spelling of parameters, ``?`` or ``%s``.
        values: the parameters.

    Returns:
        How many rows were changed.

    Raises:
        sqlalchemy.exc.IntegrityError: a constraint refused a row.
        sqlalchemy.exc.DBAPIError: another failure; the transaction turns it into a `StorageError`.
    """
    driver, errors = connection.connection, connection.dialect.loaded_dbapi.Error
    try:
        cursor = driver.cursor()
        try:
            cursor.execute(statement, tuple(values))
            changed: int = cursor.rowcount
        finally:
            cursor.close()
    except errors as error:
        raise DBAPIError.instance(None, None, error, errors, dialect=connection.dialect) from error
    return changed


def insert_rows(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    """Add many rows with few statements, straight on the driver.

    Each statement lets other threads run and has to win the interpreter back, which takes longer than a row.

    Args:
        connection: of a writing transaction.
        table: its name, the program's own.
        columns: their names, the program's own.
        rows: a value a column each.

    Raises:
        sqlalchemy.exc.IntegrityError: a constraint refused a row.
        sqlalchemy.exc.DBAPIError: another failure; the transaction turns it into a `StorageError`.
    """
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    start = 0
    for count in (*_ROWS_A_STATEMENT, 1):
        statement = _insert_statement(table, tuple(columns), mark, count)
        while len(rows) - start >= count:
            run(connection, statement, [*chain.from_iterable(rows[start : start + count])])
            start += count


@cache
def _insert_statement(table: str, columns: tuple[str, ...], mark: str, count: int) -> str:
    row = f"({', '.join([mark] * len(columns))})"
    # The names come from the program, never from outside.
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * count)}"  # noqa: S608


def _commit(connection: Connection) -> None:
    if connection.in_transaction():
        connection.commit()
        return
    errors = connection.dialect.loaded_dbapi.Error
    try:
        connection.connection.commit()
    except errors as error:
        raise DBAPIError.instance(None, None, error, errors, dialect=connection.dialect) from error


def check_integrity(engine: Engine) -> None:
    """Read every page of a SQLite file and look for damage; takes time in proportion to the file.

    Raises:
        StorageError: ``storage.corrupt``.
    """
    with snapshot(engine) as connection:
        if connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one() != "ok":
            raise _corrupt(_name(engine))


@contextmanager
def _at_commit(engine: Engine) -> Iterator[None]:
    """What fails within may have been committed all the same, unless the error says that it wasn't."""
    try:
        yield
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        number = getattr(error.orig, "sqlite_errorcode", None)
        undone = isinstance(state, str) and state.startswith(_UNDONE_STATES)
        if undone or (isinstance(number, int) and number & 0xFF in _UNDONE):
            raise
        # The server may be gone, and with it what the other connections lead to.
        engine.dispose()
        raise StorageError(
            "storage.uncertain",
            f"{_name(engine)} didn't say how a commit ended: what was written may be there.",
            "Look whether it is there before you write it again.",
        ) from None


@contextmanager
def _typed_errors(engine: Engine) -> Iterator[None]:
    if not in_own_process(engine):
        raise forked(_name(engine))
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
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return _postgresql_error(state, name)
    number = getattr(error, "sqlite_errorcode", None)
    primary = number & 0xFF if isinstance(number, int) else None
    if primary == sqlite3.SQLITE_FULL:
        return _no_space(name)
    if primary in _HELD:
        return _in_use(name)
    if primary in _DAMAGED:
        return _corrupt(name)
    if primary in _DENIED:
        return _denied(name)
    reason = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return StorageError("storage.failed", f"The database {name} failed ({reason}).")


def _no_url() -> StorageError:
    return StorageError(
        "storage.failed",
        "A database is named by a file or by the URL of a PostgreSQL database.",
        "Write it as postgresql://user@host/database.",
    )


def _postgresql_error(state: str, name: str) -> StorageError:
    if state in _NO_SPACE_STATES:
        return _no_space(name)
    if state in _HELD_STATES:
        return _in_use(name)
    if state in _DAMAGED_STATES:
        return _corrupt(name)
    if state.startswith(_DENIED_STATES):
        return _denied(name)
    return StorageError("storage.failed", f"The database {name} failed (SQLSTATE {state}).")


def _no_space(name: str) -> StorageError:
    return StorageError(
        "storage.no_space", f"There is no space left to write {name}.", "Free some space and run again."
    )


def _in_use(name: str) -> StorageError:
    return StorageError(
        "storage.in_use", f"{name} is in use by another process.", "Wait for it to end, or stop it."
    )


def _denied(name: str) -> StorageError:
    return StorageError("storage.permission", f"{name} may not be opened or written.")


def _corrupt(name: str) -> StorageError:
    return StorageError(
        "storage.corrupt",
        f"{name} is damaged or is not a database.",
        "Restore it from a copy; do not edit it.",
    )


def _name(engine: Engine) -> str:
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return engine.url.render_as_string(hide_password=True)
