"""Chains of P-384 certificates to a pinned root: AWS Nitro's, NVIDIA's devices' and manifests'.

Rules kept here:

* Certificates are strict DER of version 3: ``re-encode(parse(x)) == x``, a signature of whole octets, no
  trailing byte.
* ECDSA P-384 with SHA-384 only, in every certificate. Critical extensions that aren't known here refuse it.
* Issuers are authorities (basic constraints, key usage, path length); the first certificate is none, and its
  key is kept for no other purpose (no extended key usage).
* The root is trusted by the hash of its bytes, which the caller looks up; what evidence brings trusts
  nothing.
* What was verified before is recalled by the hashes of all certificates up to the root. Path length and
  validity are looked at anew.

Source: RFC 5280 sections 4.1, 4.2.1.3, 4.2.1.9, 6.1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import SignatureAlgorithmOID

from cloister.enclave.attestation.der import INTEGER, SEQUENCE, Reader, explicit
from cloister.enclave.attestation.revocation_list import RevocationList
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError
from cloister.evidence.pki.certificates import UNREADABLE, whole_signature

P384_BYTES: Final = 48
SIGNATURE_BYTES: Final = 2 * P384_BYTES
_MAX_CERTIFICATE_BYTES = 8 * 1024
_SHA384 = ec.ECDSA(hashes.SHA384())
_ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
_KNOWN_CRITICAL = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)


@dataclass(frozen=True)
class ChainCertificate:
    """A certificate that was read strictly; nothing about it is verified.

    Attributes:
        der: its bytes.
        sha256: SHA-256 of them.
        x509: the library's view of it.
        key: the P-384 key it certifies.
        subject: the subject's name in DER, as it stands there.
        issuer: the issuer's.
        authority: whether it may issue certificates.
        signs_lists: whether it may sign revocation lists.
        path_length: how many issuers may stand between it and the chain's first certificate, None for any.
        purposes: whether it keeps its key for purposes of its own (extended key usage).
        not_before: from when it is valid.
        not_after: until when.
    """

    der: bytes = field(repr=False)
    sha256: bytes = field(repr=False)
    x509: x509.Certificate = field(repr=False, compare=False)
    key: ec.EllipticCurvePublicKey = field(repr=False, compare=False)
    subject: bytes = field(repr=False)
    issuer: bytes = field(repr=False)
    authority: bool
    signs_lists: bool
    path_length: int | None
    purposes: bool
    not_before: datetime
    not_after: datetime

    @property
    def lifetime(self) -> timedelta:
        """How long it is valid in all."""
        return self.not_after - self.not_before

    def verify_signature(self, signature: bytes, signed: bytes) -> None:
        """Check an ECDSA signature with SHA-384 under its key.

        Args:
            signature: 96 bytes, r and s, big endian.
            signed: the bytes as received that it covers.

        Raises:
            AttestationError: attestation.malformed or attestation.signature.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise AttestationError("attestation.malformed", "A signature has another length than 96 bytes.")
        r, s = (int.from_bytes(part, "big") for part in (signature[:P384_BYTES], signature[P384_BYTES:]))
        try:
            self.key.verify(encode_dss_signature(r, s), signed, _SHA384)
        except InvalidSignature:
            raise AttestationError(
                "attestation.signature", "The evidence is not signed by the endorsed key."
            ) from None

    def verify_valid_at(self, now: datetime) -> None:
        """Hold its validity against a time.

        Raises:
            AttestationError: attestation.expired or attestation.not_yet_valid.
        """
        if now < self.not_before:
            raise AttestationError("attestation.not_yet_valid", "A certificate's validity has not begun.")
        if now > self.not_after:
            raise AttestationError("attestation.expired", "A certificate's validity has ended.")

    def verify_issued_by(self, issuer: ChainCertificate) -> None:
        """The issuer's key signed this certificate, under the issuer's name.

        Raises:
            AttestationError: attestation.chain.
        """
        if self.issuer != issuer.subject or not issuer.authority:
            raise _broken("A certificate was not issued by the next of its chain.")
        try:
            issuer.key.verify(self.x509.signature, self.x509.tbs_certificate_bytes, _SHA384)
        except InvalidSignature:
            raise _broken("A certificate is not signed by the next of its chain.") from None


class P384Chain:
    """A parsed chain; `verify` and `verify_validity` are for the caller, after it looked up the root.

    Args:
        certificates: DER, the endorsed key's first, the root last; at least two.
        facts: what was verified before.

    Raises:
        AttestationError: attestation.malformed, attestation.alg or attestation.chain.
    """

    def __init__(self, certificates: tuple[bytes, ...], facts: VerifiedFacts) -> None:
        if len(certificates) < 2:
            raise AttestationError("attestation.malformed", "A chain has fewer than two certificates.")
        self._facts = facts
        self._digests = tuple(hashlib.sha256(der).digest() for der in certificates)
        self._verified_from, known = self._recall()
        read = tuple(load_certificate(der) for der in certificates[: self._verified_from])
        self.certificates = read + known
        """All certificates, the endorsed key's first."""
        self.leaf = self.certificates[0]
        if self.leaf.authority or self.leaf.purposes:
            raise _broken("The endorsed key is an authority's, or kept for other purposes.")

    @property
    def root_sha256(self) -> str:
        """SHA-256 of the last certificate's DER."""
        return self._digests[-1].hex()

    def verify(self) -> None:
        """Follow the chain from the endorsed key to its root, whose bytes the caller holds to be pinned.

        Raises:
            AttestationError: attestation.chain.
        """
        for between, issuer in enumerate(self.certificates[1:]):
            if issuer.path_length is not None and issuer.path_length < between:
                raise _broken("More issuers stand between than a certificate allows.")
        links = list(pairwise(self.certificates))
        for position in reversed(range(min(self._verified_from, len(links)))):
            certificate, issuer = links[position]
            certificate.verify_issued_by(issuer)
            self._facts.keep(self._key(position), _Verified(self.certificates[position:]))

    def verify_validity(self, now: datetime) -> None:
        """Hold every certificate's validity against a time.

        Raises:
            AttestationError: attestation.expired or attestation.not_yet_valid.
        """
        for certificate in self.certificates:
            certificate.verify_valid_at(now)

    def _key(self, start: int) -> bytes:
        return b"chain" + b"".join(self._digests[start:])

    def _recall(self) -> tuple[int, tuple[ChainCertificate, ...]]:
        """Where the part of the chain begins that was verified before, and that part."""
        for start in range(len(self._digests) - 1):
            found = self._facts.recall(self._key(start), _Verified)
            if found is not None:
                return start, found.certificates
        return len(self._digests), ()


@dataclass(frozen=True)
class _Verified:
    certificates: tuple[ChainCertificate, ...]


# A cloud has a few authorities, and a machine one certificate for hours: what is kept is the reading of their
# bytes, never a judgement on them.
@lru_cache(maxsize=256)
def load_certificate(der: bytes) -> ChainCertificate:
    """Read one certificate strictly; what was read is kept under its bytes.

    Raises:
        AttestationError: attestation.malformed; attestation.alg for another key or signature than P-384's;
            attestation.chain for an unknown critical extension.
    """
    try:
        if len(der) > _MAX_CERTIFICATE_BYTES:
            raise _unreadable()
        found = x509.load_der_x509_certificate(der)
        strict = (
            found.version is x509.Version.v3
            and found.public_bytes(serialization.Encoding.DER) == der
            and whole_signature(found.signature, der)
        )
        key, signed_with = found.public_key(), found.signature_algorithm_oid
        issuer, subject = _names(found.tbs_certificate_bytes)
        extensions = list(found.extensions)
        not_before, not_after = found.not_valid_before_utc, found.not_valid_after_utc
    except UNREADABLE:
        raise _unreadable() from None
    if not strict:
        raise _unreadable()
    if (
        not isinstance(key, ec.EllipticCurvePublicKey)
        or not isinstance(key.curve, ec.SECP384R1)
        or signed_with != SignatureAlgorithmOID.ECDSA_WITH_SHA384
    ):
        raise AttestationError("attestation.alg", "A certificate's key or signature is not P-384's.")
    if any(one.critical and not isinstance(one.value, _KNOWN_CRITICAL) for one in extensions):
        raise _broken("A certificate has a critical extension that is unknown here.")
    values = [one.value for one in extensions]
    constraints = next((one for one in values if isinstance(one, x509.BasicConstraints)), None)
    usage = next((one for one in values if isinstance(one, x509.KeyUsage)), None)
    return ChainCertificate(
        der=der,
        sha256=hashlib.sha256(der).digest(),
        x509=found,
        key=key,
        subject=subject,
        issuer=issuer,
        authority=constraints is not None and constraints.ca and usage is not None and usage.key_cert_sign,
        signs_lists=usage is not None and usage.crl_sign,
        path_length=None if constraints is None else constraints.path_length,
        purposes=any(isinstance(one, x509.ExtendedKeyUsage) for one in values)
        or (usage is not None and not usage.digital_signature),
        not_before=not_before,
        not_after=not_after,
    )


def _names(body: bytes) -> tuple[bytes, bytes]:
    """Issuer and subject as they stand in a certificate's body: names are equal if their bytes are, and the
    library would take them apart and put them together again for that."""
    reader = Reader(body).inside(SEQUENCE)
    for tag in (explicit(0), INTEGER, SEQUENCE):
        reader.element(tag)
    issuer = reader.element(SEQUENCE)[1]
    reader.element(SEQUENCE)
    return issuer, reader.element(SEQUENCE)[1]


def verify_list(listed: RevocationList, issuer: ChainCertificate, facts: VerifiedFacts) -> None:
    """An issuer, which may sign lists, signed a revocation list.

    Args:
        listed: bears the issuer's name.
        issuer: verified, or about to be.
        facts: what was verified before.

    Raises:
        AttestationError: attestation.collateral.
    """
    key = b"crl" + bytes.fromhex(listed.document.sha256) + issuer.sha256
    if facts.recall(key, _SignedList) is not None:
        return
    genuine = listed.signed.algorithm == _ECDSA_SHA384 and issuer.signs_lists
    try:
        issuer.key.verify(listed.signed.signature, listed.signed.body, _SHA384)
    except InvalidSignature:
        genuine = False
    if not genuine:
        raise AttestationError(
            "attestation.collateral", "A revocation list is not signed by the authority it names."
        )
    facts.keep(key, _SignedList())


@dataclass(frozen=True)
class _SignedList:
    """That an issuer signed a list."""


def _unreadable() -> AttestationError:
    return AttestationError("attestation.malformed", "A certificate is not strict DER of a known kind.")


def _broken(message: str) -> AttestationError:
    return AttestationError("attestation.chain", message)
