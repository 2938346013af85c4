"""AMD's certificate chains: VCEK or VLEK, issued by ASK or ASVK, issued by ARK.

Rules kept here:

* Certificates are strict DER, read by this package alone: see `cloister.enclave.attestation.der`.
* The root is trusted by the hash of its bytes; what evidence brings along trusts nothing.
* Signatures are RSASSA-PSS with SHA-384, a salt of 48 bytes and 4096-bit keys (AMD's own), or ECDSA P-384
  with SHA-384 (the simulator's); the endorsed key is P-384.
* Product line and layout come from the pinned root, never from what the report says of its CPU.

Extensions: AMD, VCEK Certificate and KDS Interface Specification (publication 57230), table 8.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import product

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from cloister.enclave.attestation.amd.report import KEY_VCEK, KEY_VLEK, SnpReport, Tcb, milan_tcb, turin_tcb
from cloister.enclave.attestation.der import (
    BASIC_CONSTRAINTS,
    KEY_USAGE,
    Certificate,
    NotDer,
    Signed,
    read_certificate,
)
from cloister.enclave.errors import AttestationError
from cloister.evidence.hardware_terms import ProductLine

AMD = "1.3.6.1.4.1.3704.1"
OID_BOOT_LOADER = f"{AMD}.3.1"
OID_TEE = f"{AMD}.3.2"
OID_SNP = f"{AMD}.3.3"
OID_MICROCODE = f"{AMD}.3.8"
OID_FMC = f"{AMD}.3.9"
OID_HARDWARE_ID = f"{AMD}.4"
OID_PROVIDER_ID = f"{AMD}.5"

CHAIN_LENGTH = 3
PSS_SALT_BYTES = 48
RSA_BITS = 4096
_MAX_CERTIFICATE_BYTES = 8 * 1024
_REMEMBERED = 128
"""Certificates and signatures: a few issuers to a product line, and a key to a machine."""


def _pss(hash_null: bytes, mask_null: bytes, trailer: bytes) -> bytes:
    """RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes (RFC 4055), as one spelling of it."""
    sha384 = bytes.fromhex("0609608648016503040202")
    mask = bytes.fromhex("06092a864886f70d010108") + _tlv(0x30, sha384 + mask_null)
    parameters = (
        _tlv(0xA0, _tlv(0x30, sha384 + hash_null))
        + _tlv(0xA1, _tlv(0x30, mask))
        + _tlv(0xA2, bytes((0x02, 0x01, PSS_SALT_BYTES)))
        + trailer
    )
    return _tlv(0x30, bytes.fromhex("06092a864886f70d01010a") + _tlv(0x30, parameters))


def _tlv(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


# AMD's own certificates spell it in two ways: with the default trailer field, and without.
PSS_SHA384 = frozenset(
    _pss(*parts) for parts in product((b"", b"\5\0"), (b"", b"\5\0"), (b"", bytes.fromhex("a303020101")))
)
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")


@dataclass(frozen=True)
class Endorsement:
    """What a VCEK or VLEK certificate says of the platform it was issued for.

    Attributes:
        tcb: the component versions the key was derived for.
        hardware_id: the chip's id (VCEK only).
        provider: whether a cloud provider's key was endorsed (VLEK).
    """

    tcb: Tcb
    hardware_id: bytes | None
    provider: bool


@dataclass(frozen=True)
class Chain:
    """A parsed chain; nothing about it is verified yet."""

    leaf: Certificate
    intermediate: Certificate
    root: Certificate
    root_sha256: str
    endorsement: Endorsement


def parse_chain(chain: tuple[bytes, ...]) -> Chain:
    """Read a chain of three DER certificates, the endorsed key's first.

    Raises:
        AttestationError: attestation.malformed.
    """
    if len(chain) != CHAIN_LENGTH:
        raise AttestationError(
            "attestation.malformed", "The chain has another length than three certificates."
        )
    leaf, intermediate, root = (_read(certificate) for certificate in chain)
    return Chain(leaf, intermediate, root, hashlib.sha256(chain[2]).hexdigest(), _endorsement(leaf))


def verify_chain(chain: Chain) -> None:
    """Follow a chain from the endorsed key to its root, whose bytes the caller holds to be pinned.

    Raises:
        AttestationError: attestation.alg or attestation.chain.
    """
    issued = ((chain.intermediate, chain.root, 1), (chain.leaf, chain.intermediate, 0))
    for certificate, issuer, below in issued:
        deep_enough = issuer.path_length is None or issuer.path_length >= below
        if certificate.issuer != issuer.subject or not issuer.authority or not deep_enough:
            raise AttestationError(
                "attestation.chain", "A certificate was not issued by the next of its chain."
            )
        verify_issued(certificate.signed, issuer)


def verify_validity(chain: Chain, now: datetime) -> None:
    """Hold every certificate's validity against a time.

    Raises:
        AttestationError: attestation.expired or attestation.not_yet_valid.
    """
    for certificate in (chain.leaf, chain.intermediate, chain.root):
        if now < certificate.not_before:
            raise AttestationError("attestation.not_yet_valid", "A certificate's validity has not begun.")
        if now > certificate.not_after:
            raise AttestationError("attestation.expired", "A certificate's validity has ended.")


def verify_report_signature(report: SnpReport, signed: bytes, chain: Chain) -> None:
    """Check the report's signature under the endorsed key.

    Args:
        report: the parsed report.
        signed: the bytes as received that the signature covers.
        chain: the verified chain.

    Raises:
        AttestationError: attestation.alg or attestation.signature.
    """
    key = _load_key(chain.leaf.public_key)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise AttestationError("attestation.alg", "The endorsed key is not a P-384 key.")
    try:
        key.verify(report.signature_der(), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise AttestationError(
            "attestation.signature", "The report is not signed by the endorsed key."
        ) from None


def reported_tcb(report: SnpReport, line: ProductLine) -> Tcb:
    """The component versions a report states, unpacked as its product line lays them out."""
    return turin_tcb(report.reported_tcb) if line is ProductLine.TURIN else milan_tcb(report.reported_tcb)


def verify_endorsed_version(report: SnpReport, chain: Chain, line: ProductLine) -> None:
    """The key was derived for exactly the versions the report states.

    Raises:
        AttestationError: attestation.tcb_mismatch.
    """
    if reported_tcb(report, line) != chain.endorsement.tcb:
        raise AttestationError(
            "attestation.tcb_mismatch", "Report and endorsement disagree on the platform's version."
        )


def verify_endorsed_chip(report: SnpReport, chain: Chain) -> None:
    """The key is of the kind the report names, and a chip's key belongs to the chip the report names.

    Raises:
        AttestationError: attestation.chip_id.
    """
    endorsement = chain.endorsement
    expected = KEY_VLEK if endorsement.provider else KEY_VCEK
    right = report.signing_key == expected
    if report.chip_id_masked:
        right = right and not any(report.chip_id)
    elif endorsement.hardware_id is not None:
        right = right and report.chip_id == endorsement.hardware_id.ljust(len(report.chip_id), b"\0")
    if not right:
        raise AttestationError("attestation.chip_id", "Report and endorsement name different chips.")


def verify_issued(signed: Signed, issuer: Certificate) -> None:
    """The issuer signed a certificate or a revocation list. That a signature is good is remembered: a
    relying party sees the same machines in every round, and their issuers for years.

    Whether the root is trusted, and whether anything holds now, is asked anew each time.

    Raises:
        AttestationError: attestation.alg or attestation.chain.
    """
    _remembered(signed, issuer.public_key)


@lru_cache(maxsize=_REMEMBERED)
def _remembered(signed: Signed, public_key: bytes) -> None:
    verify_vendor_signature(_load_key(public_key), signed.algorithm, signed.signature, signed.body)


def verify_vendor_signature(key: PublicKeyTypes, algorithm: bytes, signature: bytes, signed: bytes) -> None:
    """Check a signature that a vendor's key made, as AMD's are: RSASSA-PSS or ECDSA, with SHA-384.

    Args:
        key: the issuer's.
        algorithm: the AlgorithmIdentifier beside the signature, in DER; one of a few, byte for byte.
        signature: as the certificate carries it.
        signed: the bytes it covers.

    Raises:
        AttestationError: attestation.alg or attestation.chain.
    """
    try:
        if isinstance(key, rsa.RSAPublicKey) and key.key_size == RSA_BITS and algorithm in PSS_SHA384:
            pss = padding.PSS(padding.MGF1(hashes.SHA384()), PSS_SALT_BYTES)
            key.verify(signature, signed, pss, hashes.SHA384())
        elif (
            isinstance(key, ec.EllipticCurvePublicKey)
            and isinstance(key.curve, ec.SECP384R1)
            and algorithm == ECDSA_SHA384
        ):
            key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))
        else:
            raise AttestationError(
                "attestation.alg", "A certificate is signed with an algorithm or key that is not allowed."
            )
    except InvalidSignature:
        raise AttestationError(
            "attestation.chain", "A certificate is not signed by the next of its chain."
        ) from None


# What is kept is the reading of a certificate's bytes, never a judgement on them.
@lru_cache(maxsize=_REMEMBERED)
def _read(der: bytes) -> Certificate:
    try:
        certificate = read_certificate(der[: _MAX_CERTIFICATE_BYTES + 1])
    except NotDer:
        certificate = None
    if certificate is None or any(
        extension.critical and oid not in (BASIC_CONSTRAINTS, KEY_USAGE)
        for oid, extension in certificate.extensions.items()
    ):
        raise AttestationError("attestation.malformed", "A certificate is not strict DER of a known kind.")
    return certificate


@lru_cache(maxsize=_REMEMBERED)
def _load_key(public_key: bytes) -> PublicKeyTypes:
    try:
        return serialization.load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        raise AttestationError("attestation.alg", "A certificate's key is of no kind that is used.") from None


def _endorsement(leaf: Certificate) -> Endorsement:
    values = {oid: extension.value for oid, extension in leaf.extensions.items() if oid.startswith(f"{AMD}.")}
    if BASIC_CONSTRAINTS in leaf.extensions:
        raise _no_endorsement()
    provider, hardware_id = OID_PROVIDER_ID in values, values.get(OID_HARDWARE_ID)
    if provider == (hardware_id is not None):
        raise _no_endorsement()
    tcb = Tcb(
        boot_loader=_version(values.get(OID_BOOT_LOADER)),
        tee=_version(values.get(OID_TEE)),
        snp=_version(values.get(OID_SNP)),
        microcode=_version(values.get(OID_MICROCODE)),
        fmc=_version(values[OID_FMC]) if OID_FMC in values else 0,
    )
    return Endorsement(tcb, hardware_id, provider)


def _version(der: bytes | None) -> int:
    """A component version: DER INTEGER from 0 to 255."""
    if der is None or len(der) not in (3, 4) or der[0] != 0x02 or der[1] != len(der) - 2:
        raise _no_endorsement()
    value = int.from_bytes(der[2:], "big", signed=True)
    if not 0 <= value <= 255 or (len(der) == 4 and value < 128):
        raise _no_endorsement()
    return value


def _no_endorsement() -> AttestationError:
    return AttestationError("attestation.malformed", "The leaf certificate is not a sound VCEK or VLEK.")
