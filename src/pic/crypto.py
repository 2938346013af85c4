"""What signs, hashes and redacts: the audit's keys, the key of patterns, the signature of telemetry."""

from cloister.core.redaction import Redactor
from cloister.immune.audit_folder import AuditFolder
from cloister.immune.keeping.pattern import hash_pattern, pattern_key
from cloister.immune.service.signing import NonceBook, is_authentic, prove
from cloister.immune.wrapping.arguments import ArgumentHasher

__all__ = [
    "ArgumentHasher",
    "AuditFolder",
    "NonceBook",
    "Redactor",
    "hash_pattern",
    "is_authentic",
    "pattern_key",
    "prove",
]
