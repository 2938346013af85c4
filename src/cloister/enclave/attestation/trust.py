"""Which roots are trusted, and which of them are simulated.

Rules kept here:

* Hardware vendors' roots are pinned in code, by the SHA-256 of their DER. There is no way to add another.
* A root is simulated if and only if its subject's organisation is ``SIMULATED - NOT HARDWARE``. Such a root
  is never taken for hardware, and a store of simulated roots takes no other.
* No environment variable, file name or default turns a simulated root into a trusted one: a caller must
  build a store with it.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from cloister.enclave.errors import AttestationError

SIMULATED_ORGANISATION = "SIMULATED - NOT HARDWARE"


class ProductLine(StrEnum):
    """AMD EPYC generations with roots of their own; Bergamo and Siena use Genoa's."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


# SHA-256 of the DER of AMD's ARK certificates, as AMD's key distribution service publishes them.
AMD_ROOTS = {
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": ProductLine.MILAN,
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": ProductLine.GENOA,
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": ProductLine.TURIN,
}


@dataclass(frozen=True)
class TrustedRoot:
    """A pinned root: the layout its product line uses, and whether it is simulated."""

    sha256: str
    line: ProductLine
    simulated: bool


class TrustStore:
    """Pinned roots, found by the hash of their bytes."""

    def __init__(self, roots: Iterable[TrustedRoot]) -> None:
        self._roots = {root.sha256: root for root in roots}

    @classmethod
    def production(cls) -> "TrustStore":
        """The hardware vendors' roots, and nothing else."""
        return cls(TrustedRoot(digest, line, simulated=False) for digest, line in AMD_ROOTS.items())

    @classmethod
    def simulated(cls, *roots: bytes) -> "TrustStore":
        """Simulated roots, and nothing else.

        Args:
            roots: DER certificates that say they are simulated.

        Raises:
            AttestationError: attestation.trust_store for a root that doesn't.
        """
        return cls(_simulated_root(der) for der in roots)

    @classmethod
    def from_certificates(cls, roots: Iterable[bytes]) -> "TrustStore":
        """The store a trust directory's root certificates make.

        Args:
            roots: DER or PEM certificates, each either a pinned vendor's or labelled as simulated.

        Raises:
            AttestationError: attestation.trust_store for any other.
        """
        pinned: list[TrustedRoot] = []
        for certificate in roots:
            der = _as_der(certificate)
            digest = hashlib.sha256(der).hexdigest()
            line = AMD_ROOTS.get(digest)
            pinned.append(
                _simulated_root(der) if line is None else TrustedRoot(digest, line, simulated=False)
            )
        return cls(pinned)

    def find(self, sha256: str) -> TrustedRoot | None:
        """The pinned root with this hash of its DER, if there is one."""
        return self._roots.get(sha256)


def certificate_pem(der: bytes) -> bytes:
    """A DER certificate as the PEM that trust directories keep.

    Raises:
        AttestationError: attestation.trust_store when it isn't a certificate.
    """
    return _load(der).public_bytes(serialization.Encoding.PEM)


def _simulated_root(der: bytes) -> TrustedRoot:
    organisations = _load(der).subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if [name.value for name in organisations] != [SIMULATED_ORGANISATION]:
        raise AttestationError(
            "attestation.trust_store",
            "A root is neither a pinned vendor's nor labelled as simulated.",
            "Remove it from the trusted roots.",
        )
    return TrustedRoot(hashlib.sha256(der).hexdigest(), ProductLine.MILAN, simulated=True)


def _as_der(certificate: bytes) -> bytes:
    if not certificate.lstrip().startswith(b"-----BEGIN"):
        return certificate
    try:
        return x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    except ValueError:
        raise _unreadable() from None


def _load(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        raise _unreadable() from None


def _unreadable() -> AttestationError:
    return AttestationError("attestation.trust_store", "A root is not a certificate.")
