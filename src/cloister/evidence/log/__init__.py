"""The evidence log: append-only, durable before it answers, one signed head.

Everything here is loaded on first use: reading tiles needs no database library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.evidence.log.asynchronous import AsyncEvidenceLog
    from cloister.evidence.log.group import LogEntry
    from cloister.evidence.log.log import EvidenceLog, LogItem
    from cloister.evidence.log.reading import LogReader
    from cloister.evidence.log.recovery import recover_log, recoverable_size
    from cloister.evidence.log.store import StoredEntry
    from cloister.evidence.log.tiles import export_tiles
    from cloister.evidence.log.tiles_reader import VerifiedTiles, tile_reader, verify_tiles

_ON_FIRST_USE = {
    "AsyncEvidenceLog": "asynchronous",
    "EvidenceLog": "log",
    "LogEntry": "group",
    "LogItem": "log",
    "LogReader": "reading",
    "StoredEntry": "store",
    "VerifiedTiles": "tiles_reader",
    "export_tiles": "tiles",
    "recover_log": "recovery",
    "recoverable_size": "recovery",
    "tile_reader": "tiles_reader",
    "verify_tiles": "tiles_reader",
}

__all__ = [
    "AsyncEvidenceLog",
    "EvidenceLog",
    "LogEntry",
    "LogItem",
    "LogReader",
    "StoredEntry",
    "VerifiedTiles",
    "export_tiles",
    "recover_log",
    "recoverable_size",
    "tile_reader",
    "verify_tiles",
]

__getattr__ = on_first_use(__name__, _ON_FIRST_USE)
