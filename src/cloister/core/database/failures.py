"""What a failure of a database means to who called: the same error, whichever database it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloister.core.errors import StorageError
from cloister.core.forks import forked, in_own_process

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_HELD: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_DENIED: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN})
# PostgreSQL, Appendix A "Error Codes": disk full, lock not available and its like, damage, no right.
_NO_SPACE_STATES: Final = ("53100",)
_HELD_STATES: Final = ("55P03", "40001", "40P01", "55006")
_DAMAGED_STATES: Final = ("XX001", "XX002")
_DENIED_STATES: Final = ("42501", "25006", "28")
# Errors of a commit after which it is certain that nothing was kept: SQLite wrote no mark of a commit;
# PostgreSQL refused it by a constraint or for another transaction's sake.
_UNDONE: Final = _HELD | _DENIED | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT}
_UNDONE_STATES: Final = ("23", "40")


def engine_name(engine: Engine) -> str:
    """How messages call an open database."""
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return engine.url.render_as_string(hide_password=True)


@contextmanager
def typed_errors(engine: Engine) -> Iterator[None]:
    """Turn what fails within into a `StorageError`; a broken constraint is passed on as it is.

    Raises:
        StorageError: ``storage.forked`` for another process's engine, before anything is done.
        sqlalchemy.exc.IntegrityError: a constraint refused a row.
    """
    if not in_own_process(engine):
        raise forked(engine_name(engine))
    try:
        yield
    except IntegrityError:
        raise
    except PoolTimeoutError:
        raise StorageError("storage.in_use", f"{engine_name(engine)} is busy.", "Try again.") from None
    except DBAPIError as error:
        raise _storage_error(error.orig, engine_name(engine)) from None
    except sqlite3.Error as error:
        raise _storage_error(error, engine_name(engine)) from None
    except SQLAlchemyError as error:
        raise StorageError(
            "storage.failed", f"The database {engine_name(engine)} failed ({type(error).__name__})."
        ) from None


@contextmanager
def at_commit(engine: Engine) -> Iterator[None]:
    """What fails within may have been committed all the same, unless the error says that it wasn't.

    Raises:
        StorageError: ``storage.uncertain``.
        sqlalchemy.exc.DBAPIError: it is certain that nothing was kept.
    """
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
            f"{engine_name(engine)} didn't say how a commit ended: what was written may be there.",
            "Look whether it is there before you write it again.",
        ) from None


def corrupt(name: str) -> StorageError:
    """The error for a file that is damaged or is something else."""
    return StorageError(
        "storage.corrupt",
        f"{name} is damaged or is not a database.",
        "Restore it from a copy; do not edit it.",
    )


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
        return corrupt(name)
    if primary in _DENIED:
        return _denied(name)
    reason = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return StorageError("storage.failed", f"The database {name} failed ({reason}).")


def _postgresql_error(state: str, name: str) -> StorageError:
    if state in _NO_SPACE_STATES:
        return _no_space(name)
    if state in _HELD_STATES:
        return _in_use(name)
    if state in _DAMAGED_STATES:
        return corrupt(name)
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
