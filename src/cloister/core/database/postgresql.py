"""PostgreSQL: schemas of a server, each with one writer at a time by its advisory lock."""

from __future__ import annotations

import hashlib
import re
from typing import Final

import sqlalchemy
from sqlalchemy import Engine, event
from sqlalchemy.exc import ArgumentError

from cloister.core.database.transactions import READING, WRITING, begin
from cloister.core.errors import StorageError

CONNECT_TIMEOUT_SECONDS: Final = 10

_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_DRIVERS: Final = frozenset({"postgresql", "postgres", "postgresql+psycopg"})


def postgresql_engine(place: str, schema: str, busy_timeout: float) -> Engine:
    """An engine on a schema of a server.

    Args:
        place: the database's URL.
        schema: its name; one writer at a time works in it.
        busy_timeout: how many seconds a writer waits for another one.

    Raises:
        StorageError: ``storage.failed`` for an improper URL or name, or without the driver.
    """
    if not _SCHEMA.fullmatch(schema):
        raise StorageError(
            "storage.failed", "A schema's name has lower-case letters, digits and underscores."
        )
    try:
        url = sqlalchemy.make_url(place)
    except ArgumentError:
        raise _no_url() from None
    if url.drivername not in _DRIVERS:
        raise _no_url()
    key = int.from_bytes(hashlib.sha256(f"cloister/{schema}".encode()).digest()[:8], "big", signed=True)
    settings = f"-csearch_path={schema} -clock_timeout={int(busy_timeout * 1000)} -csynchronous_commit=on"
    try:
        engine = sqlalchemy.create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={"options": settings, "connect_timeout": CONNECT_TIMEOUT_SECONDS},
            execution_options={
                READING: "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
                WRITING: f"SELECT pg_advisory_xact_lock({key})",
            },
        )
    except ModuleNotFoundError:
        raise StorageError(
            "storage.failed",
            "PostgreSQL needs the package psycopg, which is not installed.",
            "Run: pip install '.[postgres]'",
        ) from None
    event.listen(engine, "begin", begin)
    return engine


def _no_url() -> StorageError:
    return StorageError(
        "storage.failed",
        "A database is named by a file or by the URL of a PostgreSQL database.",
        "Write it as postgresql://user@host/database.",
    )
