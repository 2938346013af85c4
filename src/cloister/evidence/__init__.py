"""The evidence room: statements, the log they stand in, receipts, and the verifier that needs nothing else.

The log and its writer need SQLAlchemy and are loaded on first use, so that a verifier gets by without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.envelope import Envelope, sign_envelope, verify_envelope
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract, extract_from_json, log_origin
from cloister.evidence.predicates import Predicate, Role
from cloister.evidence.statement import Statement, Subject, decode_statement, open_statement
from cloister.evidence.trust import Trust, TrustEntry, write_trust

if TYPE_CHECKING:
    from cloister.evidence.log import AsyncEvidenceLog, EvidenceLog, LogEntry, LogItem, LogReader
    from cloister.evidence.writer import StatementWriter, WrittenStatement

_ON_FIRST_USE = {
    "AsyncEvidenceLog": "log",
    "EvidenceLog": "log",
    "LogEntry": "log",
    "LogItem": "log",
    "LogReader": "log",
    "StatementWriter": "writer",
    "WrittenStatement": "writer",
}

__all__ = [
    "AsyncEvidenceLog",
    "Checkpoint",
    "Envelope",
    "EvidenceError",
    "EvidenceLog",
    "LogEntry",
    "LogExtract",
    "LogItem",
    "LogReader",
    "Predicate",
    "Role",
    "Statement",
    "StatementWriter",
    "Subject",
    "Trust",
    "TrustEntry",
    "WrittenStatement",
    "decode_statement",
    "extract_from_json",
    "log_origin",
    "open_statement",
    "sign_envelope",
    "verify_envelope",
    "write_trust",
]

__getattr__ = on_first_use(__name__, _ON_FIRST_USE)
