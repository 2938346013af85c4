"""Certificates at hand that may have signed a revocation list or an OCSP answer, which bring none themselves.

Rules kept here:

* A certificate vouches for nothing by being at hand: it must lead to a pinned root of its vendor, through
  certificates that are at hand too.
* AMD's lists are signed by the pinned root itself; AWS's by the root or an authority below it; NVIDIA's
  answers by who issued the certificate they are about, or by a responder that this issuer named.
* Only signatures are looked at. When a certificate or document holds is asked where the document is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives import serialization

from cloister.enclave.attestation.collateral import CollateralDocument, CollateralKind
from cloister.enclave.attestation.der import NotDer, read_certificate
from cloister.enclave.attestation.evidence import Tee
from cloister.enclave.attestation.p384_chain import ChainCertificate, load_certificate, verify_list
from cloister.enclave.attestation.revocation_list import RevocationList
from cloister.enclave.attestation.trust import TrustedRoot, TrustStore
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError

_MAX_STEPS: Final = 6
_FindRoot = Callable[[str], TrustedRoot | None]


@dataclass(frozen=True)
class Signer:
    """Who signed a document.

    Attributes:
        key_sha256: SHA-256 of the issuer's SubjectPublicKeyInfo.
        simulated: whether a simulated root vouches for it.
    """

    key_sha256: str
    simulated: bool


@dataclass(frozen=True)
class Issuers:
    """Certificates at hand.

    Attributes:
        certificates: DER, in any order; what is no certificate of a vendor's is passed over.
    """

    certificates: tuple[bytes, ...]

    def beside(self, others: Iterable[bytes]) -> Issuers:
        """These and others."""
        return Issuers(tuple(dict.fromkeys((*self.certificates, *others))))

    def of_list(self, listed: RevocationList, trust: TrustStore) -> Signer | None:
        """Who signed a list; None where nobody at hand did.

        Args:
            listed: of AMD's or AWS's.
            trust: pinned roots.
        """
        if listed.document.kind is CollateralKind.AMD_CRL:
            return self._of_amd(listed, trust)
        for issuer in self._p384:
            root = self._root_of(issuer, lambda digest: trust.find(digest, Tee.AWS_NITRO))
            if root is None or issuer.subject != listed.issuer:
                continue
            try:
                verify_list(listed, issuer, self._facts)
            except AttestationError:
                continue
            return _signer(issuer, root)
        return None

    def of_answer(self, document: CollateralDocument, trust: TrustStore) -> Signer | None:
        """Who answers for a certificate; None where nobody at hand does.

        Args:
            document: an OCSP answer of NVIDIA's.
            trust: pinned roots.
        """
        from cloister.enclave.attestation.nvidia.ocsp import answers_for

        def find(digest: str) -> TrustedRoot | None:
            return trust.find(digest, Tee.NVIDIA_GPU) or trust.find_reference(digest, Tee.NVIDIA_GPU)

        for issuer in self._p384:
            root = self._root_of(issuer, find)
            if root is not None and answers_for(document, issuer, self._facts):
                return _signer(issuer, root)
        return None

    @cached_property
    def _facts(self) -> VerifiedFacts:
        return VerifiedFacts()

    @cached_property
    def _p384(self) -> tuple[ChainCertificate, ...]:
        found = []
        for der in self.certificates:
            try:
                found.append(load_certificate(der))
            except AttestationError:
                continue
        return tuple(one for one in found if one.authority)

    def _root_of(self, certificate: ChainCertificate, find: _FindRoot) -> TrustedRoot | None:
        """The pinned root that a certificate leads to, if it leads to one."""
        for _ in range(_MAX_STEPS):
            root = find(certificate.sha256.hex())
            if root is not None:
                return root
            above = next((one for one in self._p384 if _issued(certificate, one)), None)
            if above is None:
                return None
            certificate = above
        return None

    def _of_amd(self, listed: RevocationList, trust: TrustStore) -> Signer | None:
        from cloister.enclave.attestation.amd.revocation import verify_signed

        for der in self.certificates:
            root = trust.find(hashlib.sha256(der).hexdigest(), Tee.AMD_SEV_SNP)
            if root is None:
                continue
            try:
                certificate = read_certificate(der)
                if certificate.subject != listed.issuer:
                    continue
                verify_signed(listed, certificate)
            except (AttestationError, NotDer):
                continue
            return Signer(hashlib.sha256(certificate.public_key).hexdigest(), root.simulated)
        return None


def _issued(certificate: ChainCertificate, issuer: ChainCertificate) -> bool:
    if certificate.issuer != issuer.subject or certificate.sha256 == issuer.sha256:
        return False
    try:
        certificate.verify_issued_by(issuer)
    except AttestationError:
        return False
    return True


def _signer(issuer: ChainCertificate, root: TrustedRoot) -> Signer:
    info = issuer.key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Signer(hashlib.sha256(info).hexdigest(), root.simulated)
