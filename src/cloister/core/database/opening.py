"""Opening a database by a file or a URL, and what messages call it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy
from sqlalchemy import Engine
from sqlalchemy.exc import ArgumentError

from cloister.core.database.postgresql import postgresql_engine
from cloister.core.database.sqlite import sqlite_engine
from cloister.core.database.transactions import snapshot
from cloister.core.forks import serve_this_process

BUSY_TIMEOUT_SECONDS: Final = 10.0


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
        sqlite_engine(place, busy_timeout)
        if isinstance(place, Path)
        else postgresql_engine(place, schema, busy_timeout)
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
