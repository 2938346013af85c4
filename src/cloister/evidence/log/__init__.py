"""The evidence log: append-only, durable before it answers, one signed head."""

from cloister.evidence.log.log import EvidenceLog, LogEntry

__all__ = ["EvidenceLog", "LogEntry"]
