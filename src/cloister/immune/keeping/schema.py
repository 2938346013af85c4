"""The tables of a state database, and their version.

Rules kept here:

1. ``baselines``: one row per function and version, never changed but for ``updated_at``. The statistics'
   columns are for whoever asks in SQL; ``profile_json`` is what is read.
2. ``detectors``: of a pattern only its keyed hash (`pattern`); ``is_active`` can't disagree with ``state``;
   ``retry_at`` is when another trial was asked for, of a candidate that failed.
3. ``anchors``, ``marks`` and ``stages``: canonical documents with their signatures, as they were signed.
4. Times of rows are seconds since 1970, UTC.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 3
"""Of the tables; kept as SQLite's ``user_version``."""

APPLICATION: Final = 0x636C696D
"""SQLite's ``application_id``: says whose file it is."""

_STAGES: Final = """
    CREATE TABLE stages (
        function TEXT PRIMARY KEY,
        document BLOB NOT NULL,
        signature BLOB NOT NULL,
        kept_at REAL NOT NULL
    )
    """

TABLES: Final = (
    """
    CREATE TABLE baselines (
        id INTEGER PRIMARY KEY,
        function TEXT NOT NULL,
        module TEXT NOT NULL,
        version INTEGER NOT NULL CHECK (version >= 1),
        sample_count INTEGER NOT NULL CHECK (sample_count >= 1),
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        profile_json TEXT NOT NULL,
        mean REAL NOT NULL,
        std REAL NOT NULL,
        p50 REAL NOT NULL,
        p95 REAL NOT NULL,
        p99 REAL NOT NULL,
        UNIQUE (function, module, version)
    )
    """,
    """
    CREATE TABLE learned (
        function TEXT PRIMARY KEY,
        updated_at REAL NOT NULL,
        state BLOB NOT NULL,
        sha256 TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE detectors (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        function TEXT NOT NULL,
        threshold REAL NOT NULL CHECK (threshold >= 0 AND threshold <= 100),
        signature_hash TEXT NOT NULL UNIQUE CHECK (length(signature_hash) = 64),
        provenance TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        is_active INTEGER NOT NULL CHECK (is_active = (state = 'active')),
        version INTEGER NOT NULL CHECK (version >= 1),
        state TEXT NOT NULL CHECK (state IN ('candidate', 'active', 'rejected', 'expired')),
        reason TEXT NOT NULL,
        verdict_json TEXT,
        retry_at REAL
    )
    """,
    "CREATE INDEX detectors_by_function ON detectors (function, is_active)",
    """
    CREATE TABLE snapshots (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        function TEXT NOT NULL,
        taken_at REAL NOT NULL,
        before TEXT NOT NULL,
        document BLOB NOT NULL,
        sha256 TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE anchors (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        function TEXT NOT NULL,
        document BLOB NOT NULL,
        signature BLOB NOT NULL,
        kept_at REAL NOT NULL
    )
    """,
    "CREATE INDEX anchors_by_function ON anchors (function)",
    """
    CREATE TABLE marks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        function TEXT NOT NULL,
        document BLOB NOT NULL,
        signature BLOB NOT NULL,
        kept_at REAL NOT NULL
    )
    """,
    "CREATE INDEX marks_by_function ON marks (function)",
    """
    CREATE TABLE traces (
        id INTEGER PRIMARY KEY,
        function TEXT NOT NULL,
        at REAL NOT NULL,
        size INTEGER NOT NULL,
        caller TEXT NOT NULL,
        calls INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        teaches INTEGER NOT NULL,
        duration REAL NOT NULL,
        failed INTEGER NOT NULL,
        benign INTEGER NOT NULL
    )
    """,
    "CREATE INDEX traces_by_function ON traces (function, id)",
    _STAGES,
)

SINCE: Final = {1: (_STAGES,), 2: ("ALTER TABLE detectors ADD COLUMN retry_at REAL",)}
"""What an older version has to be given, step by step, to become the next."""

NAMES: Final = frozenset(
    {"anchors", "baselines", "detectors", "learned", "marks", "snapshots", "stages", "traces"}
)
