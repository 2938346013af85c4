"""Straight on the driver: transactions and statements for who writes thousands of times a second.

SQLAlchemy's part of a small transaction takes longer than SQLite's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from cloister.core.database.failures import at_commit, typed_errors
from cloister.core.database.transactions import BEGUN, PURPOSE, WRITING, undo
from cloister.core.forks import in_own_process, leave_to_this_process
from cloister.core.interrupts import interruptible

_ROWS_A_STATEMENT: Final = (64, 8)


class Writer:
    """Writing transactions on one connection, used by one thread at a time.

    Args:
        engine: of `open_database`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: Connection | None = None
        leave_to_this_process(self)

    @interruptible
    def transaction(self) -> Iterator[Connection]:
        """As :func:`~cloister.core.database.transaction`, and as safe.

        Raises:
            StorageError: nothing of the block was kept; ``storage.uncertain`` if it may have been.
            sqlalchemy.exc.IntegrityError: a constraint refused a row; nothing was kept.
        """
        with typed_errors(self._engine):
            connection, self._kept = self._kept, None
            if connection is None:
                connection = self._engine.connect().execution_options(**{PURPOSE: BEGUN})
            try:
                run(connection, self._engine.get_execution_options()[WRITING])
                yield connection
                with at_commit(self._engine):
                    _commit(connection)
            except BaseException as error:
                undo(connection, error)
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
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * count)}"  # noqa: S608 # nosec B608


def _commit(connection: Connection) -> None:
    if connection.in_transaction():
        connection.commit()
        return
    errors = connection.dialect.loaded_dbapi.Error
    try:
        connection.connection.commit()
    except errors as error:
        raise DBAPIError.instance(None, None, error, errors, dialect=connection.dialect) from error
