"""Evidence without the bytes behind a quote's end, which is what its hash is over.

A quoting service rounds its buffers up, and genuine quotes of Intel carry zeros or text behind their end.
Those bytes are whoever's that carried the quote. Were they hashed, one quote would have as many hashes as
anybody likes, and a stranger's text would stand under a verifier's signature. Every other kind of evidence is
refused with so much as one byte more. A firmware's event log stays: what it says beside the digests that its
replay needs is signed by nobody either, so one quote may still come with several logs, and with or without.

A hash of evidence names it; it is never what tells a replay, for which there is the nonce.
"""

from __future__ import annotations

from dataclasses import replace

from cloister.core.hashes import sha256_hex
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.errors import AttestationError


def trimmed(evidence: Evidence) -> Evidence:
    """Evidence whose quote ends where its lengths say.

    Args:
        evidence: of any kind; a quote that can't be read is left as it is.
    """
    if evidence.tee not in (Tee.INTEL_TDX, Tee.INTEL_SGX):
        return evidence
    from cloister.enclave.attestation.intel.quote import Quote

    try:
        length = Quote.parse(evidence.report).length
    except AttestationError:
        return evidence
    return replace(evidence, report=evidence.report[:length])


def evidence_sha256(evidence: Evidence) -> str:
    """SHA-256 over the canonical form of evidence without the bytes behind a quote's end."""
    return sha256_hex(trimmed(evidence).encode())
