"""Which roots are trusted, and which of them are simulated.

Rules kept here:

* Hardware vendors' roots are pinned in code, by the SHA-256 of their DER. There is no way to add another.
* A root is simulated if and only if its subject's organisation is ``SIMULATED - NOT HARDWARE``. Such a root
  is never taken for hardware, and a store of simulated roots takes no other.
* No environment variable, file name or default turns a simulated root into a trusted one: a caller must
  build a store with it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from cloister.enclave.attestation.evidence import Tee
from cloister.enclave.errors import AttestationError
from cloister.evidence.hardware_terms import ProductLine

SIMULATED_ORGANISATION = "SIMULATED - NOT HARDWARE"


# SHA-256 of the DER of AMD's ARK certificates, as AMD's key distribution service publishes them.
AMD_ROOTS = {
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": ProductLine.MILAN,
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": ProductLine.GENOA,
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": ProductLine.TURIN,
}


# SHA-256 of the DER of the roots of other vendors, as each publishes its own.
INTEL_ROOT = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
NITRO_ROOT = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
NVIDIA_DEVICE_ROOT = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"

# NVIDIA's reference manifests have a root of their own, which vouches for no device.
NVIDIA_MANIFEST_ROOT = "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"


@dataclass(frozen=True)
class TrustedRoot:
    """A pinned root.

    Attributes:
        sha256: SHA-256 of its DER.
        tees: the kinds of hardware it may vouch for.
        references: the kinds of hardware for which it may vouch for reference values.
        line: AMD's product line, which sets how versions are laid out; Milan for all others.
        simulated: whether it is simulated.
    """

    sha256: str
    tees: frozenset[Tee]
    simulated: bool
    line: ProductLine = ProductLine.MILAN
    references: frozenset[Tee] = frozenset()


def _vendor_roots() -> dict[str, TrustedRoot]:
    amd = (
        TrustedRoot(digest, frozenset({Tee.AMD_SEV_SNP}), simulated=False, line=line)
        for digest, line in AMD_ROOTS.items()
    )
    others = (
        TrustedRoot(INTEL_ROOT, frozenset({Tee.INTEL_TDX, Tee.INTEL_SGX}), simulated=False),
        TrustedRoot(NITRO_ROOT, frozenset({Tee.AWS_NITRO}), simulated=False),
        TrustedRoot(NVIDIA_DEVICE_ROOT, frozenset({Tee.NVIDIA_GPU}), simulated=False),
        TrustedRoot(
            NVIDIA_MANIFEST_ROOT, frozenset(), simulated=False, references=frozenset({Tee.NVIDIA_GPU})
        ),
    )
    return {root.sha256: root for root in (*amd, *others)}


VENDOR_ROOTS: Final[Mapping[str, TrustedRoot]] = MappingProxyType(_vendor_roots())


class TrustStore:
    """Pinned roots, found by the hash of their bytes."""

    def __init__(self, roots: Iterable[TrustedRoot]) -> None:
        self._roots = {root.sha256: root for root in roots}

    @classmethod
    def production(cls) -> "TrustStore":
        """The hardware vendors' roots, and nothing else."""
        return cls(VENDOR_ROOTS.values())

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
            vendor = VENDOR_ROOTS.get(digest)
            pinned.append(_simulated_root(der) if vendor is None else vendor)
        return cls(pinned)

    @property
    def roots(self) -> tuple[TrustedRoot, ...]:
        """The pinned roots."""
        return tuple(self._roots.values())

    def find(self, sha256: str, tee: Tee) -> TrustedRoot | None:
        """The pinned root with this hash of its DER, if it may vouch for this kind of hardware."""
        root = self._roots.get(sha256)
        return root if root is not None and tee in root.tees else None

    def find_reference(self, sha256: str, tee: Tee) -> TrustedRoot | None:
        """The pinned root with this hash of its DER, if it may vouch for this hardware's reference values."""
        root = self._roots.get(sha256)
        return root if root is not None and tee in root.references else None


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
    every = frozenset(Tee)
    return TrustedRoot(hashlib.sha256(der).hexdigest(), every, simulated=True, references=every)


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
