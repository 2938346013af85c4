"""The evidence log: append-only, durable before it answers, one signed head."""

from cloister.evidence.log.asynchronous import AsyncEvidenceLog
from cloister.evidence.log.group import LogEntry
from cloister.evidence.log.log import MAX_ENTRY_BYTES, EvidenceLog, LogItem
from cloister.evidence.log.reading import LogReader
from cloister.evidence.log.store import StoredEntry

__all__ = [
    "MAX_ENTRY_BYTES",
    "AsyncEvidenceLog",
    "EvidenceLog",
    "LogEntry",
    "LogItem",
    "LogReader",
    "StoredEntry",
]
