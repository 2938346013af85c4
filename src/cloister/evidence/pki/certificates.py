"""Certificates: strict reading, and what a signer's certificate binds a key to.

A signer's certificate names its role and party twice, in words that X.509 tools understand: the subject
``O=cloister, OU=<role>, CN=<party>``, which an issuing authority's name constraints apply to, and the URI
``urn:cloister:party:<role>/<party>`` as its only alternative name.

Rules kept here:

1. A certificate has one spelling: strict DER, a signature of whole octets, PEM as this program writes it.
2. Keys and signatures are those of `cloister.core.keys`: Ed25519, ECDSA P-256 and P-384, nothing else.
3. Critical extensions that are not known here refuse the certificate (RFC 5280 section 4.2); an extended key
   usage refuses it too, since it keeps the key for other purposes.
4. Reading judges nothing: who issued it, and when it holds, is decided in `chains`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from cloister.core.errors import KeyStoreError
from cloister.core.keys import ECDSA_P256, ECDSA_P384, ED25519, PublicKey
from cloister.evidence.errors import CertificateError
from cloister.evidence.predicates.base import PARTY_PATTERN, Role

ORGANISATION: Final = "cloister"
PARTY_URI: Final = "urn:cloister:party:"
MAX_CERTIFICATE_BYTES: Final = 8 * 1024
MAX_CHAIN: Final = 3
"""Signer, issuing authority, root."""

ROOT_ROLES: Final = frozenset({Role.TEE_ROOT, Role.TSA})
"""The roles that belong to other people's root certificates; no authority here vouches for those."""

_ASK: Final = "Ask the party for the chain as its authority issued it."
_PARTY = re.compile(PARTY_PATTERN)
_SIGNED_WITH: Final = {
    SignatureAlgorithmOID.ED25519: ED25519,
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: ECDSA_P256,
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: ECDSA_P384,
}
_KNOWN_CRITICAL: Final = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.SubjectAlternativeName,
    x509.NameConstraints,
)

# All that the library raises for what it can't read; it parses most fields when they are first used.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    KeyStoreError,
)


@dataclass(frozen=True)
class Certificate:
    """A certificate that can be read whole; nothing about it is verified.

    Attributes:
        der: its bytes.
        key: the key it certifies.
        signed_with: the algorithm of its own signature, one of `cloister.core.keys.ALGORITHMS`.
        x509: the library's view of it.
    """

    der: bytes = field(repr=False)
    key: PublicKey
    signed_with: str
    x509: x509.Certificate = field(repr=False, compare=False)

    @property
    def pem(self) -> str:
        """The certificate in PEM, in the one form this program writes."""
        return self.x509.public_bytes(serialization.Encoding.PEM).decode("ascii")

    @property
    def serial(self) -> str:
        """The serial number in lower-case hex, without leading zeros."""
        return f"{self.x509.serial_number:x}"

    @cached_property
    def subject(self) -> bytes:
        """The subject's name in DER."""
        return self.x509.subject.public_bytes()

    @cached_property
    def issuer(self) -> bytes:
        """The issuer's name in DER."""
        return self.x509.issuer.public_bytes()

    @cached_property
    def key_identifier(self) -> bytes | None:
        """The identifier of its own key (RFC 5280 section 4.2.1.2), where it states one."""
        found = extension(self, x509.SubjectKeyIdentifier)
        return None if found is None else found.digest

    @cached_property
    def bound_to(self) -> tuple[Role, str]:
        """The role and party that a signer's certificate is for.

        Raises:
            CertificateError: ``evidence.certificate_role`` where it doesn't say so as described above.
        """
        names = extension(self, x509.SubjectAlternativeName)
        general = [] if names is None else list(names)
        uri = general[0] if len(general) == 1 else None
        text = uri.value if isinstance(uri, x509.UniformResourceIdentifier) else ""
        role_name, slash, party = text.removeprefix(PARTY_URI).partition("/")
        roles = {role.value: role for role in Role if role not in ROOT_ROLES}
        if (
            not text.startswith(PARTY_URI)
            or not slash
            or role_name not in roles
            or not _PARTY.fullmatch(party)
        ):
            raise _role("It names no role and party.")
        role = roles[role_name]
        if self.x509.subject != party_name(role, party):
            raise _role("Its subject and its alternative name differ.")
        return role, party

    def verify_issued_by(self, issuer: Certificate) -> None:
        """The issuer's key signed this certificate.

        Raises:
            CertificateError: ``evidence.certificate_signature``.
        """
        good = self.signed_with == issuer.key.algorithm
        try:
            self.x509.verify_directly_issued_by(issuer.x509)
        except (InvalidSignature, ValueError, TypeError):
            good = False
        if not good:
            raise CertificateError(
                "evidence.certificate_signature",
                "A certificate is not signed by the next of its chain.",
                _ASK,
            )


def load_certificate(der: bytes) -> Certificate:
    """Read a certificate strictly.

    Raises:
        CertificateError: ``evidence.certificate_malformed`` or ``evidence.certificate_extension``.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise malformed("it is too long")
    try:
        found = x509.load_der_x509_certificate(der)
        key = PublicKey.of(found.public_key())
        signed_with = _SIGNED_WITH.get(found.signature_algorithm_oid)
        strict = found.public_bytes(serialization.Encoding.DER) == der and whole_signature(
            found.signature, der
        )
        _ = (found.subject, found.issuer, found.not_valid_before_utc, found.not_valid_after_utc)
        extensions = list(found.extensions)
        serial = found.serial_number
    except UNREADABLE:
        raise malformed("it can't be read") from None
    if not strict or found.version is not x509.Version.v3:
        raise malformed("it is not strict DER of version 3")
    if signed_with is None:
        raise malformed("it is signed with an algorithm that isn't used here")
    if serial <= 0:
        raise malformed("its serial number is not positive")
    for one in extensions:
        if one.critical and not isinstance(one.value, _KNOWN_CRITICAL):
            raise CertificateError(
                "evidence.certificate_extension",
                f"A certificate has the critical extension {one.oid.dotted_string}, unknown here.",
            )
        if isinstance(one.value, x509.ExtendedKeyUsage):
            raise usage("its key is kept for other purposes")
    return Certificate(der, key, signed_with, found)


def load_pem_certificates(pem: str | bytes) -> tuple[Certificate, ...]:
    """Read one to three certificates in PEM, one after the other and nothing between.

    Raises:
        CertificateError: as `load_certificate`, and for another number or spelling.
    """
    data = pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
    if len(data) > 2 * MAX_CHAIN * MAX_CERTIFICATE_BYTES:
        raise malformed("the chain is too long")
    if not 1 <= data.count(b"-----BEGIN") <= MAX_CHAIN:
        raise malformed(f"a chain has from one to {MAX_CHAIN} certificates")
    try:
        loaded = x509.load_pem_x509_certificates(data)
        parts = [one.public_bytes(serialization.Encoding.DER) for one in loaded]
    except UNREADABLE:
        raise malformed("it can't be read") from None
    certificates = tuple(load_certificate(der) for der in parts)
    if "".join(one.pem for one in certificates).encode("ascii") != data:
        raise malformed("its PEM is not in the one form in which it is written")
    return certificates


def extension(
    certificate: Certificate, kind: type[x509.extensions.ExtensionTypeVar]
) -> x509.extensions.ExtensionTypeVar | None:
    """The value of an extension, or None."""
    try:
        return certificate.x509.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def is_critical(certificate: Certificate, kind: type[x509.ExtensionType]) -> bool:
    """Whether an extension is there and critical."""
    try:
        return certificate.x509.extensions.get_extension_for_class(kind).critical
    except x509.ExtensionNotFound:
        return False


def party_name(role: Role, party: str) -> x509.Name:
    """The subject of a signer's certificate."""
    return x509.Name([*role_name(role), x509.NameAttribute(NameOID.COMMON_NAME, party)])


def role_name(role: Role) -> x509.Name:
    """What an issuing authority is constrained to: every name below it is of this role."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.value),
        ]
    )


def party_uri(role: Role, party: str) -> str:
    """The alternative name of a signer's certificate."""
    return f"{PARTY_URI}{role.value}/{party}"


def whole_signature(signature: bytes, der: bytes) -> bool:
    """The signature, which ends the bytes, is a BIT STRING of whole octets.

    The byte before it counts unused bits. It is not signed, and the library takes other values than 0 where
    the last bits happen to be zero: one certificate would have several byte forms.
    """
    return der.endswith(b"\0" + signature)


def malformed(reason: str) -> CertificateError:
    """The refusal of bytes that are no certificate."""
    return CertificateError(
        "evidence.certificate_malformed", f"This is no certificate used here: {reason}.", _ASK
    )


def usage(reason: str) -> CertificateError:
    """The refusal of a key for what it is not for."""
    return CertificateError(
        "evidence.certificate_usage", f"A certificate is not for this use: {reason}.", _ASK
    )


def _role(reason: str) -> CertificateError:
    return CertificateError(
        "evidence.certificate_role", f"A certificate binds its key to nobody: {reason}", _ASK
    )
