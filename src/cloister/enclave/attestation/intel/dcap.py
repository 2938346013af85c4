"""Intel's collateral: one set of documents that belong together, verified once, held against each time.

A document of kind ``intel-dcap`` is a JSON object with nine strings, as DCAP's libraries hand it on: TCB info
and QE identity with their signatures and issuers, the PCK revocation list with its issuers, the root's
revocation list. Rules kept here:

* TCB info and QE identity are verified over the bytes in which Intel wrote them, never over a re-encoding.
  Where a string holds the service's whole answer, the signed object is sliced out of it.
* Each issuer chain ends at one root, the same for all. Whether that root is trusted is asked at each use.
* What a set says is remembered under its bytes; whether it holds at a time is asked each time. A set holds
  from when the last of its parts was issued until the first of them, or of the certificates behind it, ends.
* A revocation list's extensions are known ones: no list of changes, none for part of the certificates.
* Reading a set asks nobody whether its signers are revoked. A set that names its own signer is still a set:
  its lists are signed by the root and its authority, and would be lost with it.
* A certificate counts as revoked if any list at hand of its issuer names it: of whichever set, for SGX or
  TDX, older or newer than the set that rates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from pydantic import ValidationError

from cloister.core.canonical import parse
from cloister.core.errors import InputError
from cloister.core.hashes import sha256_hex
from cloister.enclave.attestation.collateral import CollateralDates
from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES, Tee
from cloister.enclave.attestation.intel.certificates import (
    PCK_AUTHORITIES,
    IntelCertificate,
    PckChain,
    load_certificate,
    read_pem,
    verify_authority,
    verify_raw,
    verify_tcb_signer,
)
from cloister.enclave.attestation.intel.tcb import QeIdentity, TcbInfo
from cloister.enclave.errors import AttestationError
from cloister.evidence.pki.certificates import UNREADABLE

KEYS: Final = frozenset(
    {
        "tcb_info",
        "tcb_info_signature",
        "tcb_info_issuer_chain",
        "qe_identity",
        "qe_identity_signature",
        "qe_identity_issuer_chain",
        "pck_crl",
        "pck_crl_issuer_chain",
        "root_ca_crl",
    }
)
_TEES = {"SGX": (Tee.INTEL_SGX, "QE"), "TDX": (Tee.INTEL_TDX, "TD_QE")}
_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}")
_WHOLE_ANSWER = r'\{{"{name}":(\{{.*\}}),"signature":"([0-9a-fA-F]{{128}})"\}}'
_MAX_DEPTH = 12

_T = TypeVar("_T", TcbInfo, QeIdentity)


@dataclass(frozen=True)
class RevocationList:
    """A list that its issuer signed.

    Attributes:
        number: grows with each list of the issuer.
        issued_at: when it was issued.
        next_update: until when it may be used.
        serials: of the certificates that are revoked.
    """

    number: int
    issued_at: datetime
    next_update: datetime
    serials: frozenset[int]


@dataclass(frozen=True)
class DcapCollateral:
    """A set whose signatures hold; whether its root is trusted, and whether it holds now, is still to ask.

    Attributes:
        tee: the kind of hardware it is for.
        root_sha256: SHA-256 of the root's bytes.
        signers: serial numbers of the certificates, issued by the root, that signed TCB info and QE identity.
        tcb_info: how current platforms are.
        qe_identity: which quoting enclave is Intel's.
        pck_authority: who issued the platforms' certificates that the PCK list is about.
        pck_crl: revoked certificates of platforms.
        root_crl: revoked authorities and TCB signers.
        dates: from when each part is, and until when.
        valid_from: from when the set holds as a whole.
        valid_until: until when.
    """

    tee: Tee
    root_sha256: str
    signers: frozenset[int]
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    pck_authority: IntelCertificate
    pck_crl: RevocationList
    root_crl: RevocationList
    dates: tuple[CollateralDates, ...]
    valid_from: datetime
    valid_until: datetime

    @property
    def issued_at(self) -> datetime:
        """When the oldest was issued of the parts that Intel renews every month: all but the root's list."""
        return min(self.tcb_info.issued_at, self.qe_identity.issued_at, self.pck_crl.issued_at)

    @property
    def evaluation(self) -> int:
        """The lower of the two evaluations that TCB info and QE identity come from."""
        return min(self.tcb_info.evaluation, self.qe_identity.evaluation)

    @property
    def age_rank(self) -> tuple[int, datetime]:
        """Greater for the newer of two sets."""
        return (self.evaluation, self.issued_at)

    def holds_at(self, now: datetime) -> bool:
        """Whether every part of it, and every certificate behind it, holds at a time."""
        return self.valid_from <= now <= self.valid_until


@lru_cache(maxsize=256)
def sound_collateral(data: bytes) -> DcapCollateral | None:
    """A set, or None where it isn't one; either is remembered under its bytes."""
    try:
        return read_collateral(data)
    except AttestationError:
        return None


def read_collateral(data: bytes) -> DcapCollateral:
    """Read a set and verify every signature in it.

    Args:
        data: a JSON object, at most 1 MiB.

    Raises:
        AttestationError: attestation.collateral.
    """
    try:
        parts = _strings(data)
        root, tcb_signer = _chain(parts["tcb_info_issuer_chain"])
        qe_root, qe_signer = _chain(parts["qe_identity_issuer_chain"])
        crl_root, authority = _chain(parts["pck_crl_issuer_chain"])
        if not root == qe_root == crl_root or authority.name not in PCK_AUTHORITIES:
            raise _unsound("its issuers don't belong together")
        for signer in (tcb_signer, qe_signer):
            verify_tcb_signer(signer, root)
        verify_authority(authority, root)
        info = _signed(TcbInfo, parts, "tcb_info", "tcbInfo", tcb_signer)
        identity = _signed(QeIdentity, parts, "qe_identity", "enclaveIdentity", qe_signer)
        pck_crl = _revocation_list(parts["pck_crl"], authority)
        root_crl = _revocation_list(parts["root_ca_crl"], root)
    except AttestationError as error:
        if error.code == "attestation.collateral":
            raise
        raise _unsound(error.message.removesuffix(".").lower()) from None
    tee, enclave = _TEES[info.id]
    if identity.id != enclave:
        raise _unsound("TCB info and QE identity are for different kinds of hardware")
    certificates = {tcb_signer, qe_signer, authority, root}
    dated: tuple[TcbInfo | QeIdentity | RevocationList, ...] = (info, identity, pck_crl, root_crl)
    digest = sha256_hex(data)
    named = zip(
        (f"TCB info {info.id} {info.fmspc}", "QE identity", "PCK CRL", "root CRL"), dated, strict=True
    )
    return DcapCollateral(
        tee=tee,
        root_sha256=root.sha256,
        signers=frozenset(one.x509.serial_number for one in (tcb_signer, qe_signer)),
        tcb_info=info,
        qe_identity=identity,
        pck_authority=authority,
        pck_crl=pck_crl,
        root_crl=root_crl,
        dates=tuple(CollateralDates(digest, what, one.issued_at, one.next_update) for what, one in named),
        valid_from=max(*(one.issued_at for one in dated), *(one.valid_from for one in certificates)),
        valid_until=min(*(one.next_update for one in dated), *(one.valid_until for one in certificates)),
    )


def revokes_signer_of(found: DcapCollateral, other: DcapCollateral) -> bool:
    """Whether a set's root list, out of date or not, names who signed another set, or the same one."""
    return found.root_sha256 == other.root_sha256 and bool(other.signers & found.root_crl.serials)


def names_as_revoked(found: DcapCollateral, chain: PckChain) -> bool:
    """Whether a set's lists, out of date or not, name a platform's certificate or its authority."""
    if found.root_sha256 != chain.root_sha256:
        return False
    return chain.authority.x509.serial_number in found.root_crl.serials or (
        same_authority(found.pck_authority, chain.authority)
        and chain.leaf.x509.serial_number in found.pck_crl.serials
    )


def same_authority(one: IntelCertificate, other: IntelCertificate) -> bool:
    """Whether two certificates are of one authority: of one name and key."""
    return one.name == other.name and one.key_info == other.key_info


def _strings(data: bytes) -> dict[str, str]:
    try:
        value = parse(data, max_bytes=MAX_EVIDENCE_BYTES, max_depth=2)
    except InputError:
        raise _unsound("it is not JSON") from None
    if not isinstance(value, dict) or value.keys() != KEYS:
        raise _unsound("it doesn't hold the nine parts of a set")
    strings = {name: part for name, part in value.items() if isinstance(part, str)}
    if len(strings) != len(KEYS):
        raise _unsound("it doesn't hold the nine parts of a set")
    return strings


def _chain(text: str) -> tuple[IntelCertificate, IntelCertificate]:
    """The root and the certificate below it; services end such a text with or without an empty line."""
    try:
        written = text.encode("ascii")
    except UnicodeEncodeError:
        raise _unsound("an issuer chain isn't PEM") from None
    found = [load_certificate(der) for der in read_pem(written.rstrip(b"\n") + b"\n")]
    if len(found) != 2:
        raise _unsound("an issuer chain has another length than two certificates")
    return found[1], found[0]


def _signed(kind: type[_T], parts: dict[str, str], name: str, member: str, signer: IntelCertificate) -> _T:
    text, signature = parts[name], parts[f"{name}_signature"]
    whole = re.fullmatch(_WHOLE_ANSWER.format(name=member), text, re.DOTALL)
    if whole is not None:
        text = whole[1]
        if whole[2].lower() != signature.lower():
            raise _unsound("a signature is given twice and differs")
    signed = text.encode("utf-8", "surrogatepass")
    if not _SIGNATURE.fullmatch(signature) or not verify_raw(signer.key, bytes.fromhex(signature), signed):
        raise _unsound(f"{name} is not signed by its issuer")
    try:
        return kind.model_validate(parse(signed, max_bytes=MAX_EVIDENCE_BYTES, max_depth=_MAX_DEPTH))
    except (InputError, ValidationError):
        raise _unsound(f"{name} is of a form that isn't known here") from None


def _revocation_list(text: str, issuer: IntelCertificate) -> RevocationList:
    try:
        der = bytes.fromhex(text)
        found = x509.load_der_x509_crl(der)
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        known = all(
            isinstance(one.value, x509.CRLNumber | x509.AuthorityKeyIdentifier) for one in found.extensions
        )
        serials = frozenset(one.serial_number for one in found)
        plain = all(isinstance(ext.value, x509.CRLReason) for one in found for ext in one.extensions)
        same = text.lower() == der.hex() and found.public_bytes(serialization.Encoding.DER) == der
        right = (
            same
            and known
            and plain
            and found.issuer == issuer.x509.subject
            and isinstance(found.signature_hash_algorithm, hashes.SHA256)
            and found.is_signature_valid(issuer.key)
        )
        issued_at, next_update = found.last_update_utc, found.next_update_utc
    except (*UNREADABLE, x509.ExtensionNotFound):
        raise _unsound("a revocation list can't be read") from None
    if not right or next_update is None:
        raise _unsound("a revocation list is not of its exact form, or not signed by its issuer")
    return RevocationList(number, issued_at, next_update, serials)


def _unsound(reason: str) -> AttestationError:
    return AttestationError(
        "attestation.collateral", f"Intel's collateral is not what its issuer signed: {reason}."
    )
