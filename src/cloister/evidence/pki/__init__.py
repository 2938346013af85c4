"""Certificates that bind a key to a party and a role: issuing them, revoking them, following a chain."""

from __future__ import annotations

from cloister.evidence.pki.certificates import Certificate, load_certificate, load_pem_certificates
from cloister.evidence.pki.chains import CertificateChain, Credential, establish, load_root, read_chain
from cloister.evidence.pki.revocation import RevocationList, RevocationLists, load_crl

__all__ = [
    "Certificate",
    "CertificateChain",
    "Credential",
    "RevocationList",
    "RevocationLists",
    "establish",
    "load_certificate",
    "load_crl",
    "load_pem_certificates",
    "load_root",
    "read_chain",
]
