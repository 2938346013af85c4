"""Detectors in their table: how one is found there, and what it recognises beside the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.detector import Detector, detector_of
from cloister.immune.keeping.snapshots import COLUMNS
from cloister.immune.keeping.store import StateStore

_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM detectors"  # noqa: S608 - names of this package
_LARGEST: Final = 2**63 - 1
_ANY_DUE: Final = "SELECT 1 FROM detectors WHERE state <> 'expired' AND expires_at <= ? LIMIT 1"
_GIVEN: Final = "SELECT 1 FROM sqlite_sequence WHERE name = 'detectors' AND seq >= ?"


def detectors_in(store: StateStore, function: str | None = None) -> tuple[Detector, ...]:
    """See `DetectorRegistry.detectors`; for who has no key of patterns."""
    where, values = ("", ()) if function is None else (" WHERE function = ?", (function,))
    with store.reading() as connection:
        rows = connection.execute(f"{_SELECT}{where} ORDER BY id", values).fetchall()
    return tuple(one for row in rows if (one := detector_of(row)) is not None)


def detector_by_number(connection: sqlite3.Connection, number: int) -> Detector:
    """A detector by its number.

    Raises:
        ImmuneError: ``immune.detector_unknown``; it says where there was one.
    """
    may_be = 0 < number <= _LARGEST
    found = _one(connection, "id = ?", number) if may_be else None
    if found is None:
        was = may_be and connection.execute(_GIVEN, (number,)).fetchone() is not None
        raise ImmuneError(
            "immune.detector_unknown",
            f"Detector {number} isn't there any more: a rollback took it away, or it ended long ago."
            if was
            else f"There is no detector {number}.",
            "See: pic detectors list",
        )
    return found


def detector_by_hash(connection: sqlite3.Connection, signature: str) -> Detector | None:
    """The detector of a pattern, whatever became of it; None where there is none that can be read."""
    return _one(connection, "signature_hash = ?", signature)


def recognising(
    connection: sqlite3.Connection, signature: str, weaker: Sequence[str], now: float
) -> Detector | None:
    """The detector of a pattern, whatever became of it, or one of a weaker pattern that waits or applies.

    Args:
        connection: of a transaction.
        signature: hash of the pattern.
        weaker: hashes of the weaker ones of its feature.
        now: seconds since 1970; whose time is up recognises nothing.
    """
    known = detector_by_hash(connection, signature)
    if known is not None and not known.is_over(now):
        return known
    rows = connection.execute(
        f"{_SELECT} WHERE state IN ('candidate', 'active') AND signature_hash IN ({_marks(weaker)})"
        " ORDER BY id",
        weaker,
    ).fetchall()
    found = (one for row in rows if (one := detector_of(row)) is not None)
    return next((one for one in found if not one.is_over(now)), None)


def replace_stronger(connection: sqlite3.Connection, stronger: Sequence[str], by: int) -> list[int]:
    """End the candidates of stronger patterns, in a writing transaction.

    Args:
        connection: of the transaction.
        stronger: hashes of the patterns.
        by: number of the detector that recognises what they would.

    Returns:
        Their numbers.
    """
    condition = f" WHERE state = 'candidate' AND signature_hash IN ({_marks(stronger)}) ORDER BY id"
    numbers = [int(row[0]) for row in connection.execute(_SELECT + condition, stronger)]
    connection.executemany(
        "UPDATE detectors SET version = version + 1, state = 'expired', reason = ?, verdict_json = NULL,"
        " retry_at = NULL WHERE id = ?",
        [(f"detector {by} recognises what it would", one) for one in numbers],
    )
    return numbers


def expire_before(connection: sqlite3.Connection, now: float) -> list[Detector]:
    """End all whose time is up, in a writing transaction.

    Args:
        connection: of the transaction.
        now: seconds since 1970.

    Returns:
        Those that ended, as they were.
    """
    due = connection.execute(f"{_SELECT} WHERE state <> 'expired' AND expires_at <= ?", (now,)).fetchall()
    connection.execute(
        "UPDATE detectors SET version = version + 1, state = 'expired', is_active = 0,"
        " reason = 'its time is up', verdict_json = NULL, retry_at = NULL"
        " WHERE state <> 'expired' AND expires_at <= ?",
        (now,),
    )
    return [one for row in due if (one := detector_of(row)) is not None]


def is_any_due(connection: sqlite3.Connection, now: float) -> bool:
    """Whether any detector's time is up and nobody has swept it up yet; seconds since 1970."""
    return connection.execute(_ANY_DUE, (now,)).fetchone() is not None


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _one(connection: sqlite3.Connection, condition: str, value: str | int) -> Detector | None:
    row = connection.execute(f"{_SELECT} WHERE {condition}", (value,)).fetchone()
    return None if row is None else detector_of(row)
