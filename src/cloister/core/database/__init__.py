"""Databases that keep what they were given: SQLite files, and PostgreSQL by URL.

Rules this package keeps:

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

from cloister.core.database.opening import database_name, open_database
from cloister.core.database.sqlite import check_integrity
from cloister.core.database.transactions import snapshot, transaction
from cloister.core.database.writer import Writer, insert_rows, run

__all__ = [
    "Writer",
    "check_integrity",
    "database_name",
    "insert_rows",
    "open_database",
    "run",
    "snapshot",
    "transaction",
]
