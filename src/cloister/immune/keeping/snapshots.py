"""Snapshots of a function's detectors, and the way back to one.

A snapshot is what the table says of one function, as canonical JSON with its hash. Rolling back makes the
table say exactly that again, and takes a snapshot first, so that it can be undone as well. Baselines and
anchors aren't rolled back: their versions stay, and what is normal is approved, not restored.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from typing import Final, cast

from cloister.core.canonical import JSON, canonicalize, parse_canonical
from cloister.core.errors import CloisterError
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.events import Happened, StateEvent
from cloister.immune.keeping.store import StateStore

COLUMNS: Final = (
    "id",
    "function",
    "threshold",
    "signature_hash",
    "provenance",
    "created_at",
    "expires_at",
    "is_active",
    "version",
    "state",
    "reason",
    "verdict_json",
    "retry_at",
)
_NAMES: Final = ", ".join(COLUMNS)
_MARKS: Final = ", ".join("?" * len(COLUMNS))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state that a function's detectors were in.

    Attributes:
        id: its number.
        function: ``module:qualname``.
        taken_at: seconds since 1970.
        before: what was done then.
        sha256: of its content.
    """

    id: int
    function: str
    taken_at: float
    before: str
    sha256: str


def detectors_document(connection: sqlite3.Connection, function: str) -> bytes:
    """What the table says of a function's detectors, as canonical JSON."""
    rows = connection.execute(f"SELECT {_NAMES} FROM detectors WHERE function = ? ORDER BY id", (function,))  # noqa: S608
    return canonicalize([list(row) for row in rows])


def take_snapshot(connection: sqlite3.Connection, function: str, now: float, before: str) -> int:
    """Take a snapshot, within the transaction that then changes something.

    Args:
        connection: of a writing transaction.
        function: ``module:qualname``.
        now: seconds since 1970.
        before: what is going to be done.

    Returns:
        Its number.
    """
    document = detectors_document(connection, function)
    cursor = connection.execute(
        "INSERT INTO snapshots (function, taken_at, before, document, sha256) VALUES (?, ?, ?, ?, ?)",
        (function, now, before, document, hashlib.sha256(document).hexdigest()),
    )
    return cast(int, cursor.lastrowid)


def snapshots_of(store: StateStore, function: str) -> tuple[Snapshot, ...]:
    """The snapshots of a function, newest first.

    Raises:
        ImmuneError: the store can't be used now.
    """
    with store.reading() as connection:
        rows = connection.execute(
            "SELECT id, function, taken_at, before, sha256 FROM snapshots"
            " WHERE function = ? ORDER BY id DESC",
            (function,),
        ).fetchall()
    return tuple(Snapshot(*row) for row in rows)


def roll_back(store: StateStore, function: str, number: int, by: str) -> StateEvent:
    """Make a function's detectors what they were in a snapshot.

    Args:
        store: where both are.
        function: ``module:qualname``.
        number: of one of its snapshots.
        by: who decides.

    Returns:
        What to write down.

    Raises:
        ImmuneError: ``immune.detector_unknown`` where it has no such snapshot; ``immune.state_damaged``
            where it isn't what was taken: nothing is changed.
    """
    now = store.clock()
    with store.deciding() as connection:
        found = connection.execute(
            "SELECT document, sha256 FROM snapshots WHERE id = ? AND function = ?", (number, function)
        ).fetchone()
        if found is None:
            raise ImmuneError(
                "immune.detector_unknown",
                f"{function} has no snapshot {number}.",
                f"See which there are:  pic detectors rollback {function}",
            )
        document, digest = found
        rows = _rows(document, digest)
        undo = take_snapshot(connection, function, now, f"rollback to snapshot {number}")
        connection.execute("DELETE FROM detectors WHERE function = ?", (function,))
        try:
            connection.executemany(f"INSERT INTO detectors ({_NAMES}) VALUES ({_MARKS})", rows)  # noqa: S608
        except sqlite3.Error:
            raise _damaged() from None
    reason = f"its {len(rows)} detectors are those of snapshot {number}; undone by snapshot {undo}"
    return StateEvent(Happened.ROLLED_BACK, function, now, reason, by=by)


def _rows(document: object, digest: object) -> list[list[JSON]]:
    if not isinstance(document, bytes) or hashlib.sha256(document).hexdigest() != digest:
        raise _damaged()
    try:
        rows = parse_canonical(document)
    except CloisterError:
        raise _damaged() from None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise _damaged()
    found = cast("list[list[JSON]]", rows)
    # One that was taken before there were retries has none of them.
    return [[*row, None] if len(row) == len(COLUMNS) - 1 else row for row in found]


def _damaged() -> ImmuneError:
    return ImmuneError(
        "immune.state_damaged",
        "A snapshot isn't what was taken; nothing was changed.",
        "Take an earlier one.",
    )
