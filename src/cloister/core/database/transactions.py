"""Transactions: begun in the words of the database at hand, by what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, Engine

from cloister.core.database.failures import at_commit, typed_errors
from cloister.core.interrupts import interruptible

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


def undo(connection: Connection, error: BaseException) -> None:
    """Give a connection back whose transaction isn't kept.

    Args:
        connection: its transaction is rolled back. After an interrupt nobody knows what SQLAlchemy had begun,
            not even itself, which then asserts: the connection to the database is closed.
        error: what ended the transaction.

    Raises:
        BaseException: the interrupt that an assertion of SQLAlchemy's took the place of.
    """
    if isinstance(error, AssertionError) or not isinstance(error, Exception):
        connection.invalidate()
    connection.close()
    before = error.__context__
    if isinstance(error, AssertionError) and before is not None and not isinstance(before, Exception):
        raise before


@interruptible
def transaction(engine: Engine) -> Iterator[Connection]:
    """A writing transaction: committed when the block ends, rolled back when it raises.

    Raises:
        StorageError: nothing of the block was kept; ``storage.uncertain`` if it may have been.
        sqlalchemy.exc.IntegrityError: a constraint refused a row; nothing was kept.
    """
    with typed_errors(engine):
        connection = engine.connect()
        try:
            writing = connection.execution_options(**{PURPOSE: WRITING}).begin()
            yield connection
            with at_commit(engine):
                writing.commit()
        except BaseException as error:
            undo(connection, error)
            raise
        connection.close()


@interruptible
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A reading transaction: everything in the block sees the same state; it waits for no writer.

    Raises:
        StorageError: the file cannot be read.
    """
    with typed_errors(engine), engine.connect() as connection, connection.begin() as reading:
        yield connection
        reading.rollback()
