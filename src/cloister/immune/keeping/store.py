"""The state database: one SQLite file that several threads and processes of a service share.

Plain ``sqlite3``, since this room stands in any Python service: it is loaded in milliseconds, needs nothing
that must be installed, and lives through a fork, which a server with worker processes does after it was set
up. Rules kept here:

1. The file is its owner's alone (mode 0600), with a write-ahead log: readers don't wait for the writer.
2. A killed process leaves a file that opens, with whole transactions only. What an operator decides is
   synchronised to disk; what is learned may lose its last seconds to a loss of power.
3. Whoever is on the way of a call waits a twentieth of a second for another writer at most, and then does
   without.
4. A file that is damaged, before it is opened or later, is renamed (``.damaged-<time>``) and a new one is
   begun. As long as it lies there under that name it is an `Alarm` of every process of the folder.
5. No connection crosses a fork: it is closed before, and opened again by parent and child when they need it
   ("How To Corrupt An SQLite Database File", section 2.6). What is in memory only is copied by the fork.
6. An interrupt leaves no transaction open and no lock held (`cloister.core.interrupts`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final
from weakref import WeakSet

from cloister.core.interrupts import interruptible
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.events import Alarm
from cloister.immune.keeping.files import damaged_files, file_locked, identity, put_aside
from cloister.immune.keeping.opening import is_damage, open_and_read, open_file, open_memory, unusable

NAME: Final = "immune.db"
BRIEF_WAIT: Final = 0.05
OPERATOR_WAIT: Final = 10.0
"""Seconds that a writer waits for another one: on the way of a call, and for a person."""

_STORES: Final[WeakSet[StateStore]] = WeakSet()
_REGISTERING: Final = threading.Lock()


class StateStore:
    """A connection to the state, safe for threads, across a fork, and beside other processes.

    Args:
        path: the file, made where there is none, in a folder that exists; None keeps everything in memory.
        clock: seconds since 1970; names what is put aside, and is what the tables' times come from.

    Raises:
        ImmuneError: ``immune.state_unusable`` for a file of another version or that may not be opened. A
            damaged file raises nothing: see `alarms`.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = path, clock
        self._lock = threading.RLock()
        self._alarms: list[Alarm] = []
        self._opened = self._written = 0
        self._within = False
        self._identity: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        with _REGISTERING:
            _STORES.add(self)
        with self._lock:
            self._current()
        self.look_for_damage()

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What is damaged and nobody has acknowledged; what was approved before may be gone."""
        return tuple(self._alarms)

    def look_for_damage(self) -> None:
        """Take over what lies beside the database, put aside by any process, and what was acknowledged."""
        if self.path is None:
            return
        left = damaged_files(self.path.parent)
        with self._lock:
            told = {one.put_aside for one in self._alarms}
            kept = [one for one in self._alarms if not one.put_aside or one.put_aside in left]
            now = self.clock()
            self._alarms = kept + [Alarm("state_damaged", one, now) for one in left if one not in told]

    def put_aside(self, path: Path) -> None:
        """Put a file of the state's folder aside that isn't what was written there, with an alarm."""
        try:
            self._put_aside(path)
        except OSError as error:
            self.raise_alarm(
                Alarm("folder_unusable", "", self.clock(), f"{path.name}: {type(error).__name__}")
            )

    def raise_alarm(self, alarm: Alarm) -> None:
        """Add what was found before this store was opened."""
        self._alarms.append(alarm)

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction that sees one state and waits for no writer.

        Raises:
            ImmuneError: ``immune.state_damaged`` or ``immune.state_unusable``.
        """
        return self._transaction("BEGIN", BRIEF_WAIT)

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """A writing transaction on the way of a call: a brief wait, and no wait for the disk.

        Raises:
            ImmuneError: ``immune.state_damaged``, or ``immune.state_unusable`` where another process writes.
        """
        return self._transaction("BEGIN IMMEDIATE", BRIEF_WAIT)

    def deciding(self) -> AbstractContextManager[sqlite3.Connection]:
        """A writing transaction for an operator's decision: on disk when it ends.

        Raises:
            ImmuneError: ``immune.state_damaged`` or ``immune.state_unusable``.
        """
        return self._transaction("BEGIN IMMEDIATE", OPERATOR_WAIT, synchronous="FULL")

    def generation(self) -> tuple[int, int, int]:
        """A value that differs whenever anybody has written since: for who keeps a copy in memory.

        Raises:
            ImmuneError: as `reading`.
        """
        with self._lock, self._damage_put_aside():
            connection = self._current()
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            return self._opened, version, self._written

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._let_go()

    @interruptible
    def _transaction(
        self, begin: str, wait: float, *, synchronous: str = "NORMAL"
    ) -> Iterator[sqlite3.Connection]:
        with self._lock, self._damage_put_aside():
            connection = self._current()
            if self._within:
                raise RuntimeError("a transaction of the immune state inside another one")
            try:
                self._within = True
                if connection.in_transaction:
                    # An interrupt came when another one had it rolled back.
                    connection.execute("ROLLBACK")
                connection.execute(f"PRAGMA busy_timeout={int(wait * 1000)}")
                connection.execute(f"PRAGMA synchronous={synchronous}")
                connection.execute(begin)
                yield connection
                self._written += begin != "BEGIN"
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise
            finally:
                self._within = False

    @contextmanager
    def _damage_put_aside(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            if not is_damage(error):
                raise unusable(self.path, error) from None
            self._begin_anew()
            raise ImmuneError(
                "immune.state_damaged",
                "The state database is damaged; it was put aside and a new one was begun.",
                "The immune system observes only, until detectors are promoted and baselines approved again.",
            ) from None

    def _current(self) -> sqlite3.Connection:
        """The connection, to the file that has the name now: another process may have put ours aside."""
        if self._connection is not None and self.path is not None and identity(self.path) != self._identity:
            self._let_go()
        if self._connection is None:
            self._opened += 1
            self._connection = self._open()
        return self._connection

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _begin_anew(self) -> None:
        self._let_go()
        try:
            if self.path is not None:
                with file_locked(self.path):
                    if identity(self.path) == self._identity:
                        self._put_aside(self.path)
        except OSError as error:
            raise unusable(self.path, error) from None

    def _put_aside(self, path: Path) -> None:
        self._alarms.append(Alarm("state_damaged", put_aside(path, self.clock()), self.clock()))

    def _open(self) -> sqlite3.Connection:
        if self.path is None:
            return open_memory()
        try:
            with file_locked(self.path):
                try:
                    known = self._identity is not None and identity(self.path) == self._identity
                    connection = open_file(self.path) if known else open_and_read(self.path)
                except sqlite3.Error as error:
                    if not is_damage(error):
                        raise
                    self._put_aside(self.path)
                    connection = open_and_read(self.path)
                self._identity = identity(self.path)
        except (sqlite3.Error, OSError) as error:
            raise unusable(self.path, error) from None
        return connection


def open_state(directory: Path | None, clock: Callable[[], float] = time.time) -> StateStore:
    """Open the state in a folder, whatever is wrong with it: for who runs inside of somebody's service.

    Args:
        directory: made where there is none (mode 0700); None keeps everything in memory.
        clock: seconds since 1970.

    Returns:
        The store; one in memory, with an `Alarm`, where the folder's can't be used.
    """
    if directory is None:
        return StateStore(None, clock)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return StateStore(directory / NAME, clock)
    except (ImmuneError, OSError):
        store = StateStore(None, clock)
        store.raise_alarm(Alarm("state_unusable", "", clock()))
        return store


_HELD: Final[list[StateStore]] = []


def _before_fork() -> None:
    _REGISTERING.acquire()
    for store in sorted(_STORES, key=id):
        store._lock.acquire()
        _HELD.append(store)
        if store.path is not None:
            store._let_go()


def _after_fork() -> None:
    while _HELD:
        _HELD.pop()._lock.release()
    _REGISTERING.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
