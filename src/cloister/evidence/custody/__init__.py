"""Chain of custody: audit exports that anyone verifies with public keys, and who read or exported what.

A verifier needs `bundle`, `bounds` and `verify` only; `export` and `access` write, and need the log.
"""

from cloister.evidence.custody.bounds import Outside
from cloister.evidence.custody.bundle import ExportBundle, decode_bundle
from cloister.evidence.custody.verify import (
    EXPORT_CHECK_IDS,
    BundleVerdict,
    check_custody_chain,
    verify_bundle,
    verify_custody_chain,
)

__all__ = [
    "EXPORT_CHECK_IDS",
    "BundleVerdict",
    "ExportBundle",
    "Outside",
    "check_custody_chain",
    "decode_bundle",
    "verify_bundle",
    "verify_custody_chain",
]
