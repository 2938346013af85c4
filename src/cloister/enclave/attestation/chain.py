"""AMD's certificate chains: VCEK or VLEK, issued by ASK or ASVK, issued by ARK.

Rules kept here:

* Certificates are strict DER: ``re-encode(parse(x)) == x``, no trailing byte.
* The root is trusted by the hash of its bytes; what evidence brings along trusts nothing.
* Signatures are RSASSA-PSS with SHA-384 and 4096-bit keys (AMD's own), or ECDSA P-384 with SHA-384 (the
  simulator's); the endorsed key is P-384.
* Product line and layout come from the pinned root, never from what the report says of its CPU.

Extensions: AMD, VCEK Certificate and KDS Interface Specification (publication 57230), table 8.
"""

import hashlib
import warnings
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.utils import CryptographyDeprecationWarning

from cloister.enclave.attestation.snp import KEY_VCEK, KEY_VLEK, SnpReport, Tcb, milan_tcb, turin_tcb
from cloister.enclave.attestation.trust import ProductLine, TrustedRoot, TrustStore
from cloister.enclave.errors import AttestationError
from cloister.evidence.pki.certificates import UNREADABLE, whole_signature

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

# Every VCEK and VLEK carries serial number 0; the library warns of it on each load.
warnings.filterwarnings(
    "ignore", message="Parsed a serial number which wasn't positive", category=CryptographyDeprecationWarning
)


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

    leaf: x509.Certificate
    intermediate: x509.Certificate
    root: x509.Certificate
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
    leaf, intermediate, root = (load_certificate(der) for der in chain)
    return Chain(leaf, intermediate, root, hashlib.sha256(chain[2]).hexdigest(), _endorsement(leaf))


def load_certificate(der: bytes) -> x509.Certificate:
    """Read one certificate strictly.

    Raises:
        AttestationError: attestation.malformed.
    """
    try:
        certificate = x509.load_der_x509_certificate(der[: _MAX_CERTIFICATE_BYTES + 1])
        same = certificate.public_bytes(serialization.Encoding.DER) == der and whole_signature(
            certificate.signature, der
        )
        _read_all_fields(certificate)
    except UNREADABLE:
        same = False
    if not same:
        raise AttestationError("attestation.malformed", "A certificate is not strict DER of a known kind.")
    return certificate


def verify_chain(chain: Chain, trust: TrustStore) -> TrustedRoot:
    """Follow a chain to a pinned root.

    Args:
        chain: parsed certificates.
        trust: pinned roots.

    Returns:
        The root it ends at.

    Raises:
        AttestationError: attestation.untrusted_root, attestation.algorithm or attestation.chain.
    """
    root = trust.find(chain.root_sha256)
    if root is None:
        raise AttestationError("attestation.untrusted_root", "The chain does not end at a trusted root.")
    for certificate, issuer in ((chain.intermediate, chain.root), (chain.leaf, chain.intermediate)):
        if certificate.issuer != issuer.subject or not _is_authority(issuer):
            raise AttestationError(
                "attestation.chain", "A certificate was not issued by the next of its chain."
            )
        _verify_issued(certificate, issuer)
    return root


def verify_validity(chain: Chain, now: datetime) -> None:
    """Hold every certificate's validity against a time.

    Raises:
        AttestationError: attestation.expired or attestation.not_yet_valid.
    """
    for certificate in (chain.leaf, chain.intermediate, chain.root):
        if now < certificate.not_valid_before_utc:
            raise AttestationError("attestation.not_yet_valid", "A certificate's validity has not begun.")
        if now > certificate.not_valid_after_utc:
            raise AttestationError("attestation.expired", "A certificate's validity has ended.")


def verify_report_signature(report: SnpReport, signed: bytes, chain: Chain) -> None:
    """Check the report's signature under the endorsed key.

    Args:
        report: the parsed report.
        signed: the bytes as received that the signature covers.
        chain: the verified chain.

    Raises:
        AttestationError: attestation.algorithm or attestation.signature.
    """
    key = chain.leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise AttestationError("attestation.algorithm", "The endorsed key is not a P-384 key.")
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


def _read_all_fields(certificate: x509.Certificate) -> None:
    certificate.public_key()
    _ = (
        certificate.subject,
        certificate.issuer,
        certificate.extensions,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.signature_hash_algorithm,
        certificate.signature_algorithm_parameters,
    )


def _verify_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    parameters = certificate.signature_algorithm_parameters
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA384):
        raise _algorithm()
    verify_vendor_signature(
        issuer.public_key(), parameters, certificate.signature, certificate.tbs_certificate_bytes
    )


def verify_vendor_signature(key: PublicKeyTypes, parameters: object, signature: bytes, signed: bytes) -> None:
    """Check a signature that a vendor's key made, as AMD's are: RSASSA-PSS or ECDSA, with SHA-384.

    Args:
        key: the issuer's.
        parameters: what the signature says of its algorithm; the key's size, the hash and the salt are fixed.
        signature: as the certificate carries it.
        signed: the bytes it covers.

    Raises:
        AttestationError: attestation.algorithm or attestation.chain.
    """
    try:
        if isinstance(key, rsa.RSAPublicKey) and isinstance(parameters, padding.PSS):
            if key.key_size != RSA_BITS:
                raise _algorithm()
            pss = padding.PSS(padding.MGF1(hashes.SHA384()), PSS_SALT_BYTES)
            key.verify(signature, signed, pss, hashes.SHA384())
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
            if not isinstance(key.curve, ec.SECP384R1):
                raise _algorithm()
            key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))
        else:
            raise _algorithm()
    except InvalidSignature:
        raise AttestationError(
            "attestation.chain", "A certificate is not signed by the next of its chain."
        ) from None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign


def _endorsement(leaf: x509.Certificate) -> Endorsement:
    extensions = {extension.oid.dotted_string: extension.value for extension in leaf.extensions}
    values = {
        oid: value.value
        for oid, value in extensions.items()
        if oid.startswith(f"{AMD}.") and isinstance(value, x509.UnrecognizedExtension)
    }
    if x509.oid.ExtensionOID.BASIC_CONSTRAINTS.dotted_string in extensions:
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


def _algorithm() -> AttestationError:
    return AttestationError(
        "attestation.algorithm", "A certificate is signed with an algorithm or key that is not allowed."
    )


def _no_endorsement() -> AttestationError:
    return AttestationError("attestation.malformed", "The leaf certificate is not a sound VCEK or VLEK.")
