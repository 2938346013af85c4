"""The certificates of Intel's provisioning service: PCK certificates, TCB signers, and who issued them.

Rules kept here:

* PEM has one form: ``pem_of(der) == text``, so that no character of a quote is outside the reading of it.
  After the last certificate one zero byte may stand, which Intel's library leaves there.
* Certificates are strict DER, keys P-256, signatures ECDSA with SHA-256.
* The root is trusted by the hash of its bytes. What is between is trusted for the name it was issued under:
  a PCK authority issues PCK certificates, and only the TCB signer, under the root itself, signs TCB info.
* An authority's signature is verified once for each pair of certificates; validity and revocation each time.

Profile and extensions: Intel SGX PCK Certificate and Certificate Revocation List Profile Specification.
"""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from cloister.enclave.errors import AttestationError
from cloister.evidence.pki.certificates import UNREADABLE, whole_signature

PCK_NAME: Final = "Intel SGX PCK Certificate"
PCK_AUTHORITIES: Final = frozenset({"Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"})
TCB_SIGNER_NAME: Final = "Intel SGX TCB Signing"
SGX_EXTENSION: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
SHA256: Final = ec.ECDSA(hashes.SHA256())

_BEGIN = b"-----BEGIN CERTIFICATE-----\n"
_END = b"-----END CERTIFICATE-----\n"
_LINE = 64
_MAX_CERTIFICATE_BYTES = 8 * 1024
_SGX_OID = bytes.fromhex("2a864886f84d010d01")
_COMPONENTS = 16
_PCESVN = 17
_SEQUENCE, _OBJECT, _INTEGER, _OCTETS = 0x30, 0x06, 0x02, 0x04


@dataclass(frozen=True)
class IntelCertificate:
    """A certificate of strict form; nothing about it is verified. Equal bytes are equal certificates.

    Attributes:
        der: its bytes.
        x509: as the library reads it.
        name: the common name of its subject.
        key: its P-256 key.
        key_info: that key's SubjectPublicKeyInfo.
        valid_from: when its validity begins.
        valid_until: when it ends.
    """

    der: bytes
    x509: x509.Certificate = field(compare=False, repr=False)
    name: str = field(compare=False)
    key: ec.EllipticCurvePublicKey = field(compare=False, repr=False)
    key_info: bytes = field(compare=False, repr=False)
    valid_from: datetime = field(compare=False)
    valid_until: datetime = field(compare=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes."""
        return hashlib.sha256(self.der).hexdigest()


@dataclass(frozen=True)
class Platform:
    """What a PCK certificate says of the platform it was issued for.

    Attributes:
        components: the versions of 16 components, 0 to 255 each.
        pcesvn: version of the provisioning certification enclave.
        pceid: which such enclave, in hex.
        fmspc: family, model and kind of the platform, in hex.
    """

    components: tuple[int, ...]
    pcesvn: int
    pceid: str
    fmspc: str


@dataclass(frozen=True)
class PckChain:
    """A parsed chain; nothing about it is verified yet."""

    leaf: IntelCertificate
    authority: IntelCertificate
    root: IntelCertificate
    root_sha256: str
    platform: Platform


def read_pem(text: bytes) -> tuple[bytes, ...]:
    """The DER of each certificate of a PEM text in its one form.

    Raises:
        AttestationError: attestation.malformed.
    """
    parts = text.removesuffix(b"\0").split(_END)
    if parts.pop():
        raise _malformed()
    try:
        found = tuple(binascii.a2b_base64(part.removeprefix(_BEGIN)) for part in parts)
    except ValueError:
        raise _malformed() from None
    if any(pem_of(der) != part + _END for der, part in zip(found, parts, strict=True)):
        raise _malformed()
    return found


def pem_of(der: bytes) -> bytes:
    """A certificate in PEM, lines of 64 characters."""
    text = binascii.b2a_base64(der, newline=False)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return _BEGIN + b"\n".join(lines) + b"\n" + _END


@lru_cache(maxsize=256)
def load_certificate(der: bytes) -> IntelCertificate:
    """Read one certificate strictly; what was read is kept under its bytes.

    Raises:
        AttestationError: attestation.malformed, or attestation.alg for another kind of key or signature.
    """
    try:
        found = x509.load_der_x509_certificate(der[: _MAX_CERTIFICATE_BYTES + 1])
        same = found.public_bytes(serialization.Encoding.DER) == der and whole_signature(found.signature, der)
        key, algorithm = found.public_key(), found.signature_hash_algorithm
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        _ = (found.issuer, found.extensions)
        known = found.version is x509.Version.v3 and found.serial_number > 0
        known = known and all(
            not one.critical or isinstance(one.value, x509.BasicConstraints | x509.KeyUsage)
            for one in found.extensions
        )
    except UNREADABLE:
        raise _malformed() from None
    if not same or not known or len(names) != 1:
        raise _malformed()
    if (
        not isinstance(key, ec.EllipticCurvePublicKey)
        or not isinstance(key.curve, ec.SECP256R1)
        or not isinstance(algorithm, hashes.SHA256)
    ):
        raise AttestationError(
            "attestation.alg", "A certificate is signed with an algorithm or key that is not allowed."
        )
    return IntelCertificate(
        x509=found,
        der=der,
        name=str(names[0].value),
        key=key,
        key_info=key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        valid_from=found.not_valid_before_utc,
        valid_until=found.not_valid_after_utc,
    )


def read_chain(text: bytes) -> PckChain:
    """Read a quote's certificates: the platform's first, the root last.

    Raises:
        AttestationError: attestation.malformed or attestation.alg.
    """
    ders = read_pem(text)
    if len(ders) != 3:
        raise AttestationError(
            "attestation.malformed", "The chain has another length than three certificates."
        )
    leaf, authority, root = (load_certificate(der) for der in ders)
    return PckChain(leaf, authority, root, root.sha256, platform_of(leaf))


def verify_chain(chain: PckChain) -> None:
    """Follow a chain from the platform's certificate to its root, whose bytes the caller holds to be pinned.

    Raises:
        AttestationError: attestation.chain.
    """
    if chain.leaf.name != PCK_NAME or chain.authority.name not in PCK_AUTHORITIES:
        raise _not_issued()
    verify_authority(chain.authority, chain.root)
    _require_end_entity(chain.leaf)
    _require_issuer(chain.leaf, chain.authority, depth=0)
    _verify_signed(chain.leaf, chain.authority)


@lru_cache(maxsize=64)
def verify_authority(certificate: IntelCertificate, root: IntelCertificate) -> None:
    """An authority was issued by a root; what was found right is remembered for the pair.

    Raises:
        AttestationError: attestation.chain.
    """
    _require_issuer(root, root, depth=1)
    _require_issuer(certificate, root, depth=1)
    _require_authority(certificate, depth=0)
    _verify_signed(certificate, root)


@lru_cache(maxsize=64)
def verify_tcb_signer(certificate: IntelCertificate, root: IntelCertificate) -> None:
    """A certificate is the TCB signer's, issued by a root itself.

    Raises:
        AttestationError: attestation.chain.
    """
    if certificate.name != TCB_SIGNER_NAME:
        raise _not_issued()
    _require_end_entity(certificate)
    _require_issuer(certificate, root, depth=0)
    _verify_signed(certificate, root)


def verify_validity(chain: PckChain, now: datetime) -> None:
    """Hold every certificate's validity against a time.

    Raises:
        AttestationError: attestation.expired or attestation.not_yet_valid.
    """
    for certificate in (chain.leaf, chain.authority, chain.root):
        if now < certificate.valid_from:
            raise AttestationError("attestation.not_yet_valid", "A certificate's validity has not begun.")
        if now > certificate.valid_until:
            raise AttestationError("attestation.expired", "A certificate's validity has ended.")


def verify_raw(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    """Whether r and s, 32 bytes each, are a key's ECDSA signature with SHA-256."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), signed, SHA256)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=256)
def platform_of(leaf: IntelCertificate) -> Platform:
    """Read Intel's extension of a PCK certificate.

    Raises:
        AttestationError: attestation.malformed.
    """
    try:
        extension = leaf.x509.extensions.get_extension_for_oid(SGX_EXTENSION).value
        if not isinstance(extension, x509.UnrecognizedExtension):
            raise _malformed()
        fields = dict(_pairs(_whole(extension.value, _SEQUENCE)))
        tcb = dict(_pairs(_value(fields, _SGX_OID + b"\x02", _SEQUENCE)))
        components = [_number(tcb, index) for index in range(1, _COMPONENTS + 1)]
        pceid = _value(fields, _SGX_OID + b"\x03", _OCTETS)
        fmspc = _value(fields, _SGX_OID + b"\x04", _OCTETS)
    except (x509.ExtensionNotFound, IndexError):
        raise _malformed() from None
    if max(components) > 255 or len(pceid) != 2 or len(fmspc) != 6:
        raise _malformed()
    return Platform(tuple(components), _number(tcb, _PCESVN), pceid.hex(), fmspc.hex())


def _require_issuer(certificate: IntelCertificate, issuer: IntelCertificate, depth: int) -> None:
    if certificate.x509.issuer != issuer.x509.subject:
        raise _not_issued()
    _require_authority(issuer, depth)


def _require_authority(issuer: IntelCertificate, depth: int) -> None:
    """The certificate may issue, with at most ``depth`` authorities below it."""
    try:
        constraints = issuer.x509.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.x509.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise _not_issued() from None
    deep = constraints.path_length is None or constraints.path_length >= depth
    if not constraints.ca or not usage.key_cert_sign or not usage.crl_sign or not deep:
        raise _not_issued()


def _require_end_entity(certificate: IntelCertificate) -> None:
    try:
        constraints = certificate.x509.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.x509.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise _not_issued() from None
    if constraints.ca or usage.key_cert_sign or not usage.digital_signature:
        raise _not_issued()


def _verify_signed(certificate: IntelCertificate, issuer: IntelCertificate) -> None:
    try:
        issuer.key.verify(certificate.x509.signature, certificate.x509.tbs_certificate_bytes, SHA256)
    except InvalidSignature:
        raise _not_issued() from None


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the DER element at a place; lengths in their shortest form only."""
    tag, size, start = data[at], data[at + 1], at + 2
    if size > 0x82 or size == 0x80:
        raise _malformed()
    if size > 0x80:
        count = size - 0x80
        size = int.from_bytes(data[start : start + count], "big")
        start += count
        if size < (0x80 if count == 1 else 0x100):
            raise _malformed()
    if start + size > len(data):
        raise _malformed()
    return tag, start, start + size


def _whole(data: bytes, tag: int) -> bytes:
    found, start, end = _element(data, 0)
    if found != tag or end != len(data):
        raise _malformed()
    return data[start:end]


def _pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    """The entries of a SEQUENCE OF SEQUENCE { OBJECT IDENTIFIER, value }, each value with tag and length."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data):
        tag, start, end = _element(data, at)
        name_tag, name_start, name_end = _element(data, start)
        if tag != _SEQUENCE or name_tag != _OBJECT or name_end > end:
            raise _malformed()
        found.append((data[name_start:name_end], data[name_end:end]))
        at = end
    if len({name for name, _ in found}) != len(found):
        raise _malformed()
    return found


def _value(fields: dict[bytes, bytes], name: bytes, tag: int) -> bytes:
    if name not in fields:
        raise _malformed()
    return _whole(fields[name], tag)


def _number(tcb: dict[bytes, bytes], index: int) -> int:
    value = _value(tcb, _SGX_OID + bytes([2, index]), _INTEGER)
    number = int.from_bytes(value, "big", signed=True)
    if not value or not 0 <= number <= 0xFFFF or len(value) > 1 + number.bit_length() // 8:
        raise _malformed()
    return number


def _malformed() -> AttestationError:
    return AttestationError("attestation.malformed", "A certificate is not strict DER of a known kind.")


def _not_issued() -> AttestationError:
    return AttestationError("attestation.chain", "A certificate was not issued by the next of its chain.")
