"""What a document of collateral is, whom it is about, and from when until when it holds.

Rules kept here:

* A kind is told by content: a set of Intel's is JSON, a manifest of NVIDIA's is XML, a revocation list and an
  OCSP answer are two structures of DER. What is of no kind, or of another than was said, is refused.
* Intel's sets and NVIDIA's manifests bring their signers' certificates and are verified whole, up to a pinned
  root. A revocation list or an OCSP answer brings none: it is verified by certificates that are handed in
  beside it (`issuers`), and without them only its form and dates are read. `Signature` says which of the two;
  nothing is said to be verified that wasn't.
* ``ranks`` orders documents about the same subject: no part of a newer document is older. Whose list or
  answer it is belongs to the subject by its verified key, so that nobody's document competes with another's
  by bearing its name; one that isn't verified competes with none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from cloister.enclave.attestation.collateral import CollateralDates, CollateralDocument, CollateralKind
from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES, Tee
from cloister.enclave.attestation.issuers import Issuers, Signer
from cloister.enclave.attestation.revocation_list import kind_of_list, read_list
from cloister.enclave.attestation.trust import TrustStore
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError
from cloister.evidence.pki.certificates import UNREADABLE

_NOBODY: Final = Issuers(())
_OCSP_BY_NUMBER = "OCSP answer on certificate"
_XML_STARTS = (b"<?xml", b"<SoftwareIdentity", b"<ns0:SoftwareIdentity", b"<swid:SoftwareIdentity")


class Signature(StrEnum):
    """What is known of a document's signature."""

    VERIFIED = "verified"
    CHECKED_WHEN_USED = "checked-when-used"


@dataclass(frozen=True)
class CollateralFacts:
    """What a document says of itself.

    Attributes:
        document: the document.
        subject: what it is about; a newer document about the same replaces it.
        ranks: numbers of which none may fall from a document to the next about the same subject.
        dates: from when each part is, and until when.
        valid_from: from when all of it holds; None where it doesn't say.
        valid_until: until when; None where it doesn't say.
        signature: what is known of its signature.
        simulated: whether a simulated root vouches for it.
    """

    document: CollateralDocument
    subject: str
    ranks: tuple[int, ...]
    dates: tuple[CollateralDates, ...]
    valid_from: datetime | None
    valid_until: datetime | None
    signature: Signature
    simulated: bool = False

    def holds_at(self, now: datetime) -> bool:
        """Whether nothing in it says that it doesn't hold at a time."""
        begun = self.valid_from is None or self.valid_from <= now
        return begun and (self.valid_until is None or now <= self.valid_until)

    def older_than(self, other: CollateralFacts) -> bool:
        """Whether any part of it is older than that of another document about the same subject."""
        same = (self.document.kind, self.subject) == (other.document.kind, other.subject)
        return same and any(mine < theirs for mine, theirs in zip(self.ranks, other.ranks, strict=False))


def recognise(data: bytes) -> CollateralDocument:
    """Tell a document's kind by its content.

    Args:
        data: at most 1 MiB.

    Raises:
        AttestationError: attestation.collateral for what is of no kind.
    """
    if len(data) <= MAX_EVIDENCE_BYTES:
        start = data[:200].removeprefix(b"\xef\xbb\xbf").lstrip()
        if start.startswith(b"{"):
            return CollateralDocument(CollateralKind.INTEL_DCAP, data)
        if start.startswith(_XML_STARTS):
            return CollateralDocument(CollateralKind.NVIDIA_RIM, data)
        listed = _crl(data)
        if listed is not None:
            return CollateralDocument(kind_of_list(listed.issuer.public_bytes()), data)
        if _ocsp(data) is not None:
            return CollateralDocument(CollateralKind.NVIDIA_OCSP, data)
    raise _refused("it is of no kind that is known here")


def examine(document: CollateralDocument, trust: TrustStore, issuers: Issuers = _NOBODY) -> CollateralFacts:
    """Read a document as what its kind says, and verify what can be verified without evidence.

    Args:
        document: at most 1 MiB.
        trust: pinned roots.
        issuers: certificates at hand, one of which may have signed a list or an answer.

    Raises:
        AttestationError: attestation.collateral for what isn't of its form or not signed by its issuer;
            attestation.untrusted_root for Intel's collateral under another root.
    """
    if len(document.data) > MAX_EVIDENCE_BYTES:
        raise _refused("it is too large")
    return _EXAMINERS[document.kind](document, trust, issuers)


def _intel(document: CollateralDocument, trust: TrustStore, issuers: Issuers) -> CollateralFacts:
    del issuers
    from cloister.enclave.attestation.intel.dcap import read_collateral

    found = read_collateral(document.data)
    root = trust.find(found.root_sha256, found.tee)
    if root is None:
        raise AttestationError(
            "attestation.untrusted_root", "The collateral's certificates don't end at a trusted root."
        )
    info = found.tcb_info
    dated = (info, found.qe_identity, found.pck_crl, found.root_crl)
    return CollateralFacts(
        document=document,
        subject=f"{info.id} {info.fmspc} {info.pceid} {found.pck_authority.name} {found.root_sha256[:8]}",
        ranks=(
            info.evaluation,
            found.qe_identity.evaluation,
            *(int(one.issued_at.timestamp()) for one in dated),
        ),
        dates=found.dates,
        valid_from=found.valid_from,
        valid_until=found.valid_until,
        signature=Signature.VERIFIED,
        simulated=root.simulated,
    )


def _list(document: CollateralDocument, trust: TrustStore, issuers: Issuers) -> CollateralFacts:
    """AMD's and AWS's: whoever signed it is at hand, or nothing but its form and dates is known."""
    found = read_list(document)
    if kind_of_list(found.issuer) is not document.kind:
        raise _refused("it is another vendor's list")
    signer = issuers.of_list(found, trust)
    names = _crl(document.data)
    if names is None:
        raise _refused("it is no revocation list")
    common = names.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(common) != 1:
        raise _refused("it doesn't say whose list it is")
    return _dated(
        document,
        subject=f"revoked by {common[0].value!s}",
        signer=signer,
        numbers=(_number(names),),
        issued_at=found.issued_at,
        next_update=found.next_update,
    )


def _number(found: x509.CertificateRevocationList) -> int:
    try:
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, *UNREADABLE):
        return 0


def _nvidia_answer(document: CollateralDocument, trust: TrustStore, issuers: Issuers) -> CollateralFacts:
    found = _ocsp(document.data)
    if found is None or found.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise _refused("it is no OCSP answer, or one that answers nothing")
    try:
        serial, issued_at, next_update = found.serial_number, found.this_update_utc, found.next_update_utc
    except UNREADABLE:
        raise _refused("it answers for more than one certificate, or can't be read") from None
    return _dated(
        document,
        subject=f"{_OCSP_BY_NUMBER} {serial:x}",
        signer=issuers.of_answer(document, trust),
        numbers=(),
        issued_at=issued_at,
        next_update=next_update,
    )


def _nvidia_manifest(document: CollateralDocument, trust: TrustStore, issuers: Issuers) -> CollateralFacts:
    """A reference manifest carries its signer's certificates; it holds for as long as they do."""
    del issuers
    from cloister.enclave.attestation.nvidia.manifest import read_manifest

    found = read_manifest(document, VerifiedFacts())
    root = trust.find_reference(found.chain.root_sha256, Tee.NVIDIA_GPU)
    if root is None:
        raise AttestationError(
            "attestation.untrusted_root", "The manifest's certificates don't end at a trusted root."
        )
    return CollateralFacts(
        document=document,
        subject=f"reference manifest {found.product} {found.version}",
        ranks=(int(found.dates.issued_at.timestamp()),),
        dates=(found.dates,),
        valid_from=found.dates.issued_at,
        valid_until=found.dates.next_update,
        signature=Signature.VERIFIED,
        simulated=root.simulated,
    )


_Examiner = Callable[[CollateralDocument, TrustStore, Issuers], CollateralFacts]
_EXAMINERS: Final[Mapping[CollateralKind, _Examiner]] = MappingProxyType(
    {
        CollateralKind.AMD_CRL: _list,
        CollateralKind.AWS_CRL: _list,
        CollateralKind.INTEL_DCAP: _intel,
        CollateralKind.NVIDIA_OCSP: _nvidia_answer,
        CollateralKind.NVIDIA_RIM: _nvidia_manifest,
    }
)


def _dated(
    document: CollateralDocument,
    *,
    subject: str,
    signer: Signer | None,
    numbers: tuple[int, ...],
    issued_at: datetime,
    next_update: datetime | None,
) -> CollateralFacts:
    whose = "not verified" if signer is None else f"key {signer.key_sha256[:16]}"
    return CollateralFacts(
        document=document,
        subject=f"{subject} ({whose})",
        ranks=() if signer is None else (*numbers, int(issued_at.timestamp())),
        dates=(CollateralDates(document.sha256, subject, issued_at, next_update),),
        valid_from=issued_at,
        valid_until=next_update,
        signature=Signature.CHECKED_WHEN_USED if signer is None else Signature.VERIFIED,
        simulated=signer is not None and signer.simulated,
    )


def _crl(data: bytes) -> x509.CertificateRevocationList | None:
    try:
        found = x509.load_der_x509_crl(data)
        return found if found.public_bytes(serialization.Encoding.DER) == data else None
    except UNREADABLE:
        return None


def _ocsp(data: bytes) -> ocsp.OCSPResponse | None:
    try:
        found = ocsp.load_der_ocsp_response(data)
        return found if found.public_bytes(serialization.Encoding.DER) == data else None
    except UNREADABLE:
        return None


def _refused(reason: str) -> AttestationError:
    return AttestationError("attestation.collateral", f"The document can't serve as collateral: {reason}.")
