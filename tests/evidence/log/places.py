"""What the log's tests share: entries to log, and edits behind the log's back on either database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias
from unittest.mock import patch

import sqlalchemy

from cloister.core.keys import Signer
from cloister.evidence.envelope import sign_envelope
from cloister.evidence.log import EvidenceLog, LogItem

Place: TypeAlias = Path | str
ORIGIN: Final = "cloister/site/north"
JOB: Final = "job"


def item(signer: Signer, number: int, *, stream: str = JOB) -> LogItem:
    """The n-th entry of a stream, which says so."""
    return LogItem(sign_envelope("text/plain", b"%d" % number, signer), stream, number)


def fill(log: EvidenceLog, signer: Signer, count: int, *, start: int = 0) -> None:
    """Append entries one by one."""
    for number in range(start, start + count):
        one = item(signer, number)
        log.append(one.envelope, stream=one.stream, position=one.position)


def edit(place: Place, statement: str) -> None:
    """Change the tables of the only log at a place; something must change."""
    if isinstance(place, Path):
        with sqlite3.connect(place) as plain:
            changed = plain.execute(statement).rowcount
        plain.close()
    else:
        engine = server(place)
        with engine.begin() as connection:
            (schema,) = schemas(connection)
            connection.exec_driver_sql(f"SET LOCAL search_path = {schema}")
            changed = connection.exec_driver_sql(statement.replace("x'", "'\\x")).rowcount
        engine.dispose()
    assert changed > 0


@contextmanager
def any_place() -> Iterator[None]:
    """Logs of a party whose own software lays statements anywhere, and doesn't look where they lie."""
    with (
        patch("cloister.evidence.log.log.lies_where_stated", lambda *_: True),
        patch("cloister.evidence.log.reading.lies_where_stated", lambda *_: True),
    ):
        yield


def drop_table(place: Place, table: str) -> None:
    """Remove a table of the only log at a place."""
    if isinstance(place, Path):
        with sqlite3.connect(place) as plain:
            plain.execute(f"DROP TABLE {table}")
        plain.close()
        return
    engine = server(place)
    with engine.begin() as connection:
        (schema,) = schemas(connection)
        connection.exec_driver_sql(f"DROP TABLE {schema}.{table}")
    engine.dispose()


def server(url: str) -> sqlalchemy.Engine:
    """A plain engine on a PostgreSQL database."""
    return sqlalchemy.create_engine(sqlalchemy.make_url(url).set(drivername="postgresql+psycopg"))


def schemas(connection: sqlalchemy.Connection) -> list[str]:
    """The schemas of the logs in a database."""
    names = sqlalchemy.inspect(connection).get_schema_names()
    return [name for name in names if name.startswith("cloister_log_")]


def drop_logs(url: str) -> None:
    """Remove every log from a database."""
    engine = server(url)
    with engine.begin() as connection:
        for schema in schemas(connection):
            connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    engine.dispose()
