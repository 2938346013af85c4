"""SQLite files: their owner's alone, with a write-ahead log that survives a loss of power."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

import sqlalchemy
from sqlalchemy import Engine, event

from cloister.core.database.failures import corrupt, engine_name
from cloister.core.database.transactions import READING, WRITING, begin, snapshot
from cloister.core.files import storage_error, sync_directory

# 16 MiB: a page that many transactions change is then moved to the file once for many of them.
_WAL_PAGES: Final = 4096


def sqlite_engine(path: Path, busy_timeout: float) -> Engine:
    """An engine on a file.

    Args:
        path: its folder has to exist; the file is made where there is none.
        busy_timeout: how many seconds a writer waits for another one.

    Raises:
        StorageError: as the operating system says.
    """
    try:
        _prepare_file(path)
    except OSError as error:
        raise storage_error(error, path) from None
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": busy_timeout},
        execution_options={READING: "BEGIN", WRITING: "BEGIN IMMEDIATE"},
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", begin)
    event.listen(engine, "close", _end_transaction)
    return engine


def check_integrity(engine: Engine) -> None:
    """Read every page of a SQLite file and look for damage; takes time in proportion to the file.

    Raises:
        StorageError: ``storage.corrupt``.
    """
    with snapshot(engine) as connection:
        if connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one() != "ok":
            raise corrupt(engine_name(engine))


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


def _end_transaction(connection: sqlite3.Connection, _: object) -> None:
    # SQLite closes a connection only when its last statement is gone, and keeps the transaction until then.
    # A statement that an interrupt cut off lives as long as the interrupt's traceback, or as the garbage is.
    with suppress(sqlite3.Error):
        connection.rollback()
