"""Transactions: begun in the words of the database at hand, by what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine

from cloister.core.database.failures import at_commit, typed_errors

# Execution options: how an engine's transactions begin, and what the one at hand is for.
READING: Final = "cloister_reading"
WRITING: Final = "cloister_writing"
BEGUN: Final = "cloister_begun"
PURPOSE: Final = "cloister_purpose"


def begin(connection: Connection) -> None:
    """Begin a transaction in its engine's words: what SQLAlchemy's event "begin" calls."""
    options = connection.get_execution_options()
    purpose = options.get(PURPOSE, READING)
    if purpose != BEGUN:
        connection.exec_driver_sql(options[purpose])


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A writing transaction: committed when the block ends, rolled back when it raises.

    Raises:
        StorageError: nothing of the block was kept; ``storage.uncertain`` if it may have been.
        sqlalchemy.exc.IntegrityError: a constraint refused a row; nothing was kept.
    """
    with typed_errors(engine), engine.connect() as plain:
        connection = plain.execution_options(**{PURPOSE: WRITING})
        writing = connection.begin()
        try:
            yield connection
        except BaseException:
            writing.rollback()
            raise
        with at_commit(engine):
            writing.commit()


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A reading transaction: everything in the block sees the same state; it waits for no writer.

    Raises:
        StorageError: the file cannot be read.
    """
    with typed_errors(engine), engine.connect() as connection, connection.begin() as reading:
        yield connection
        reading.rollback()
