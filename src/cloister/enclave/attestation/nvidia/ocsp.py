"""OCSP answers that were fetched before: whether NVIDIA revoked a certificate.

Certificates of devices live until the year 9999, so these answers are the only way to hear of a revocation.
The verifier fetches nothing; answers come to it as files.

Rules kept here:

* An answer counts if the certificate's own issuer signed it, or a responder that this issuer named for the
  purpose (extended key usage OCSPSigning).
* "Good" needs more: the responder's certificate is valid at the time of evaluation, the answer isn't from
  later than that, and it holds until its next update, and for seven days at most; one that states none, for a
  day. "Good" that is out of date, and "unknown", are no answer.
* "Revoked" refuses, however old or early the answer is and whether or not its responder's certificate has
  ended since: a revocation isn't undone by waiting. Only one that says "on hold" is undone, by a later answer
  that isn't; of answers of one time the worse counts.

Source: RFC 6960 sections 2.2, 3.2, 4.2.1, 4.2.2; RFC 5280 section 5.3.1 (a hold may be lifted).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from cloister.enclave.attestation.collateral import CollateralDates, CollateralDocument
from cloister.enclave.attestation.p384_chain import ChainCertificate, load_certificate
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError
from cloister.evidence.pki.certificates import UNREADABLE

LONGEST: Final = timedelta(days=7)
WITHOUT_NEXT_UPDATE: Final = timedelta(days=1)
CLOCK_SKEW: Final = timedelta(minutes=5)
MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_SINGLE = 16
_MAX_CERTIFICATES = 4
_WORSE = {
    ocsp.OCSPCertStatus.GOOD: 0,
    ocsp.OCSPCertStatus.UNKNOWN: 1,
    ocsp.OCSPCertStatus.REVOKED: 2,
}
_LATEST = datetime.max.replace(tzinfo=UTC)
_HASHES = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha384": hashlib.sha384}


class Standing(StrEnum):
    """What is known of a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class _Single:
    hash_name: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial_number: int
    status: ocsp.OCSPCertStatus
    on_hold: bool
    this_update: datetime
    next_update: datetime | None

    @property
    def revoked(self) -> bool:
        """Whether it says that the certificate is revoked, or on hold."""
        return self.status is ocsp.OCSPCertStatus.REVOKED

    @property
    def rank(self) -> tuple[bool, datetime, int]:
        """Greater for the answer that counts: one that revokes for good, the later, the worse."""
        return (self.revoked and not self.on_hold, self.this_update, _WORSE[self.status])


@dataclass(frozen=True)
class _Answer:
    document: CollateralDocument = field(repr=False)
    singles: tuple[_Single, ...]
    response: ocsp.OCSPResponse = field(repr=False, compare=False)
    responders: tuple[ChainCertificate, ...]


@dataclass(frozen=True)
class _SignedBy:
    delegate: ChainCertificate | None


@dataclass(frozen=True)
class Inquiry:
    """What the answers at hand say of one certificate.

    Attributes:
        standing: what is known.
        document: the answer that says so, if there is one.
        dates: from when and until when it holds.
    """

    standing: Standing
    document: CollateralDocument | None = None
    dates: CollateralDates | None = None


def inquire(
    certificate: ChainCertificate,
    issuer: ChainCertificate,
    documents: Iterable[CollateralDocument],
    now: datetime,
    facts: VerifiedFacts,
) -> Inquiry:
    """Look up what the answers at hand say of a certificate.

    Args:
        certificate: verified, as is its issuer.
        issuer: who issued it.
        documents: OCSP responses in DER; those that aren't, or aren't about it, or aren't signed as they must
            be, are passed over.
        now: the time of evaluation.
        facts: what was verified before.
    """
    found: tuple[_Single, _Answer] | None = None
    for document in documents:
        answer = _read(document, facts)
        if answer is None:
            continue
        for single in answer.singles:
            if (
                single.serial_number == certificate.x509.serial_number
                and _names(single, issuer)
                and (found is None or single.rank > found[0].rank)
                and _counts(single, answer, issuer, now, facts)
            ):
                found = (single, answer)
    if found is None:
        return Inquiry(Standing.UNKNOWN)
    single, answer = found
    until = _holds_until(single)
    standing = Standing.UNKNOWN
    if single.revoked:
        standing = Standing.REVOKED
    elif single.status is ocsp.OCSPCertStatus.GOOD:
        standing = Standing.GOOD if now <= until else Standing.STALE
    dates = CollateralDates(answer.document.sha256, "OCSP answer", single.this_update, until)
    return Inquiry(standing, answer.document, dates)


def answers_for(document: CollateralDocument, issuer: ChainCertificate, facts: VerifiedFacts) -> bool:
    """Whether a document is an answer about certificates of an issuer, signed as it must be.

    Args:
        document: an OCSP response in DER.
        issuer: verified.
        facts: what was verified before.
    """
    answer = _read(document, facts)
    if answer is None or not all(_names(single, issuer) for single in answer.singles):
        return False
    return _signer(answer, issuer, facts) is not None


def _counts(
    single: _Single, answer: _Answer, issuer: ChainCertificate, now: datetime, facts: VerifiedFacts
) -> bool:
    begun = single.this_update - now <= CLOCK_SKEW
    signer = _signer(answer, issuer, facts) if begun or single.revoked else None
    if signer is None:
        return False
    delegate = signer.delegate
    return single.revoked or delegate is None or delegate.not_before <= now <= delegate.not_after


def _read(document: CollateralDocument, facts: VerifiedFacts) -> _Answer | None:
    key = b"ocsp" + bytes.fromhex(document.sha256)
    known = facts.recall(key, _Answer)
    if known is not None:
        return known
    if len(document.data) > MAX_ANSWER_BYTES:
        return None
    try:
        answer = _parse(document)
    except (*UNREADABLE, AttestationError):
        return None
    facts.keep(key, answer)
    return answer


def _parse(document: CollateralDocument) -> _Answer:
    response = ocsp.load_der_ocsp_response(document.data)
    if response.public_bytes(serialization.Encoding.DER) != document.data:
        raise ValueError("not strict DER")
    if b"\0" + response.signature not in document.data:
        raise ValueError("a signature that isn't of whole octets")
    if response.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise ValueError("signed with another algorithm")
    ders = [one.public_bytes(serialization.Encoding.DER) for one in response.certificates]
    parts = list(response.responses)
    if len(ders) > _MAX_CERTIFICATES or len(parts) > _MAX_SINGLE:
        raise ValueError("too much in it")
    if any(one.critical for one in response.extensions):
        raise ValueError("a critical extension")
    singles = tuple(
        _Single(
            one.hash_algorithm.name,
            one.issuer_name_hash,
            one.issuer_key_hash,
            one.serial_number,
            one.certificate_status,
            one.revocation_reason is x509.ReasonFlags.certificate_hold,
            one.this_update_utc,
            one.next_update_utc,
        )
        for one in parts
    )
    return _Answer(document, singles, response, tuple(load_certificate(der) for der in ders))


def _names(single: _Single, issuer: ChainCertificate) -> bool:
    """The certificate id names this issuer, by its name and key (RFC 6960 section 4.1.1)."""
    digest = _HASHES.get(single.hash_name)
    if digest is None:
        return False
    return (
        digest(issuer.subject).digest() == single.issuer_name_hash
        and digest(_key_bits(issuer)).digest() == single.issuer_key_hash
    )


def _key_bits(certificate: ChainCertificate) -> bytes:
    return certificate.key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


def _signer(answer: _Answer, issuer: ChainCertificate, facts: VerifiedFacts) -> _SignedBy | None:
    """Who signed an answer, of those who may: whether they still may is for the caller."""
    key = b"ocsp-signed" + bytes.fromhex(answer.document.sha256) + issuer.sha256
    signer = facts.recall(key, _SignedBy)
    if signer is None:
        signer = next((one for one in _signers(answer, issuer) if _verifies(answer, one, issuer)), None)
        if signer is not None:
            facts.keep(key, signer)
    return signer


def _signers(answer: _Answer, issuer: ChainCertificate) -> Iterable[_SignedBy]:
    """Who may have signed: the issuer, or certificates of the answer with the responder's name or key."""
    for candidate in (issuer, *answer.responders):
        named = answer.response.responder_name
        known = (
            named.public_bytes() == candidate.subject
            if named is not None
            # RFC 6960 section 4.2.1 names SHA-1 for this id; it picks a certificate and trusts none.
            else hashlib.sha1(_key_bits(candidate)).digest() == answer.response.responder_key_hash  # noqa: S324 # nosec B324
        )
        if known:
            yield _SignedBy(None if candidate is issuer else candidate)


def _verifies(answer: _Answer, signer: _SignedBy, issuer: ChainCertificate) -> bool:
    key = issuer.key
    if signer.delegate is not None:
        if not _may_answer(signer.delegate, issuer):
            return False
        key = signer.delegate.key
    try:
        key.verify(answer.response.signature, answer.response.tbs_response_bytes, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def _may_answer(delegate: ChainCertificate, issuer: ChainCertificate) -> bool:
    try:
        delegate.verify_issued_by(issuer)
        usage = delegate.x509.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (AttestationError, x509.ExtensionNotFound):
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage and not delegate.authority


def _holds_until(single: _Single) -> datetime:
    longest = WITHOUT_NEXT_UPDATE if single.next_update is None else LONGEST
    left = _LATEST - single.this_update
    bound = single.this_update + min(longest, left)
    return bound if single.next_update is None else min(single.next_update, bound)
