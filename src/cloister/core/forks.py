"""Databases across a fork: the child leaves its parent's connections alone.

SQLite's locks belong to the process that took them, and a server's session to the process that opened it. A
child that writes through an inherited connection is told that its entries are durable while they go into a
file that nobody reads any more. One that merely closes it can end its parent's session with a server; for a
file, SQLite forbids it ("How To Corrupt An SQLite Database File", section 2.6).

Rules kept here:

1. An engine serves the process that opened it. In another one every transaction is refused, before any lock.
2. What a child inherits is neither used nor closed there, not even when the interpreter ends.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final
from weakref import WeakSet

from sqlalchemy import Engine

from cloister.core.errors import StorageError

_PROCESS: Final = "cloister_process"
_ENGINES: Final[WeakSet[Engine]] = WeakSet()
_HOLDERS: Final[WeakSet[object]] = WeakSet()


def serve_this_process(engine: Engine) -> None:
    """Mark an engine as this process's."""
    engine.update_execution_options(**{_PROCESS: os.getpid()})
    _ENGINES.add(engine)


def leave_to_this_process(holder: object) -> None:
    """Name an object that keeps a connection out of its engine's pool; children leave it alone as well."""
    _HOLDERS.add(holder)


def in_own_process(engine: Engine) -> bool:
    """Whether this is the process that opened the engine."""
    return bool(engine.get_execution_options()[_PROCESS] == os.getpid())


def forked(name: str) -> StorageError:
    """The error for a database that a parent opened.

    Args:
        name: how messages call it.
    """
    return StorageError(
        "storage.forked",
        f"{name} was opened by another process, from which this one was forked.",
        "Open it again in this process, or start the process without a fork.",
    )


def _after_fork() -> None:
    for holder in list(_HOLDERS):
        _never_destroy(holder)
    for engine in list(_ENGINES):
        _never_destroy(engine.pool)
        engine.dispose(close=False)


def _never_destroy(one: object) -> None:
    # A reference that nobody gives back: no destructor runs, not even when the interpreter ends.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


os.register_at_fork(after_in_child=_after_fork)
