"""Making certificates and revocation lists, with any key store behind the signature.

Rules kept here:

1. What is issued here is what `chains` accepts: the shapes are written down once, in this file, and tested
   against that one and against another implementation.
2. An authority vouches for the roles it is constrained to, within its own validity, and for a short time.
3. Pure: keys, names, times and serial numbers come in; certificates go out. `book` keeps what was issued.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from cloister.core.keys import ECDSA_P256, ED25519, PublicKey, Signer
from cloister.core.keys.store import PrivateKey, new_private_key
from cloister.evidence.errors import CertificateError
from cloister.evidence.pki.certificates import (
    ORGANISATION,
    ROOT_ROLES,
    Certificate,
    extension,
    load_certificate,
    party_name,
    party_uri,
    role_name,
)
from cloister.evidence.predicates.base import Role

ROOT_LIFETIME: Final = timedelta(days=3652)
CA_LIFETIME: Final = timedelta(days=730)
SIGNER_LIFETIME: Final = timedelta(days=30)
MAX_SIGNER_LIFETIME: Final = timedelta(days=397)

_SECOND: Final = timedelta(seconds=1)
_MAX_NAME: Final = 64


class Reason(Enum):
    """Why a certificate is revoked (RFC 5280 section 5.3.1)."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    CA_COMPROMISE = "ca-compromise"
    AFFILIATION_CHANGED = "affiliation-changed"
    SUPERSEDED = "superseded"
    CESSATION = "cessation"


_FLAGS: Final = {
    Reason.KEY_COMPROMISE: x509.ReasonFlags.key_compromise,
    Reason.CA_COMPROMISE: x509.ReasonFlags.ca_compromise,
    Reason.AFFILIATION_CHANGED: x509.ReasonFlags.affiliation_changed,
    Reason.SUPERSEDED: x509.ReasonFlags.superseded,
    Reason.CESSATION: x509.ReasonFlags.cessation_of_operation,
}


@dataclass(frozen=True)
class Revocation:
    """One entry of a revocation list.

    Attributes:
        serial: the certificate's serial number.
        revoked_at: from when on it is refused.
        reason: why; a compromised key is refused for all times.
    """

    serial: int
    revoked_at: datetime
    reason: Reason


def issue_root(
    signer: Signer, name: str, *, at: datetime, lifetime: timedelta = ROOT_LIFETIME
) -> Certificate:
    """Make a self-signed root. Its key signs authorities and their revocations, and stays offline.

    Args:
        signer: the root's key.
        name: what people call it, up to 64 printable characters.
        at: from when on it holds.
        lifetime: how long.

    Raises:
        CertificateError: ``evidence.pki_refused``.
    """
    subject = _authority_name(name)
    builder = _builder(subject, subject, signer.public_key, signer.public_key, at, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = builder.add_extension(_key_usage(issuing=True), critical=True)
    return _sign_certificate(builder, signer)


def issue_authority(
    signer: Signer,
    root: Certificate,
    key: PublicKey,
    name: str,
    roles: Iterable[Role],
    *,
    at: datetime,
    lifetime: timedelta = CA_LIFETIME,
) -> Certificate:
    """Make an issuing authority: no authority below it, and only parties of the roles given.

    Args:
        signer: the root's key.
        root: the root's certificate.
        key: the authority's public key.
        name: what people call it.
        roles: at least one, of those that sign evidence.
        at: from when on it holds.
        lifetime: how long; within the root's.

    Raises:
        CertificateError: ``evidence.pki_refused``.
    """
    wanted = tuple(dict.fromkeys(roles))
    if not wanted or ROOT_ROLES.intersection(wanted):
        raise _refused(
            "an authority is for at least one role, and for none whose files are root certificates"
        )
    if key.key_id == signer.public_key.key_id:
        raise _refused("an authority has a key of its own")
    subject = _authority_name(name)
    if subject == root.x509.subject:
        raise _refused("an authority has a name of its own")
    _require_issuer(signer, root, at, lifetime)
    builder = _builder(subject, root.x509.subject, key, signer.public_key, at, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(issuing=True), critical=True)
    subtrees = [x509.DirectoryName(role_name(role)) for role in wanted]
    builder = builder.add_extension(x509.NameConstraints(subtrees, None), critical=True)
    return _sign_certificate(builder, signer)


def issue_signer(
    signer: Signer,
    authority: Certificate,
    key: PublicKey,
    role: Role,
    party: str,
    *,
    at: datetime,
    lifetime: timedelta = SIGNER_LIFETIME,
) -> Certificate:
    """Bind a key to a party in a role, for a short time.

    Args:
        signer: the authority's key.
        authority: its certificate.
        key: the party's public key; that the party holds the private half is for the authority to ask.
        role: one that the authority is constrained to.
        party: the party's name.
        at: from when on it holds.
        lifetime: how long; within the authority's and `MAX_SIGNER_LIFETIME`.

    Raises:
        CertificateError: ``evidence.pki_refused``.
    """
    if lifetime > MAX_SIGNER_LIFETIME:
        raise _refused(f"a signer's certificate holds for {MAX_SIGNER_LIFETIME.days} days at most")
    if role not in roles_of(authority):
        raise _refused(f"this authority may not vouch for a {role.value}")
    if key.key_id == signer.public_key.key_id:
        raise _refused("a party has a key of its own")
    _require_issuer(signer, authority, at, lifetime)
    try:
        subject = party_name(role, party)
    except ValueError:
        raise _refused("a party's name is too long or improper") from None
    builder = _builder(subject, authority.x509.subject, key, signer.public_key, at, lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(issuing=False), critical=True)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(party_uri(role, party))])
    builder = builder.add_extension(names, critical=False)
    issued = _sign_certificate(builder, signer)
    try:
        _ = issued.bound_to
    except CertificateError:
        raise _refused("a party's name is too long or improper") from None
    return issued


def issue_crl(
    signer: Signer,
    authority: Certificate,
    revoked: Sequence[Revocation],
    *,
    number: int,
    at: datetime,
    next_update: datetime,
) -> bytes:
    """Make an authority's complete revocation list.

    Args:
        signer: the authority's or root's key.
        authority: its certificate.
        revoked: every certificate that it ever revoked.
        number: larger than of any list before.
        at: when it is made.
        next_update: until when it may be used.

    Returns:
        The list in DER.

    Raises:
        CertificateError: ``evidence.pki_refused``.
    """
    if signer.public_key != authority.key:
        raise _refused("the key is not the authority's")
    if next_update <= at:
        raise _refused("a revocation list is for a time to come")
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.x509.subject)
        .last_update(_whole(at))
        .next_update(_whole(next_update))
        .add_extension(_authority_identifier(signer.public_key), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for one in revoked:
        entry = (
            x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(_whole(one.revoked_at))
        )
        if one.reason in _FLAGS:
            entry = entry.add_extension(x509.CRLReason(_FLAGS[one.reason]), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    shape, digest = _stand_in(signer.public_key.algorithm)
    draft = builder.sign(shape, digest)
    return _signed_by(signer, draft.tbs_certlist_bytes, draft.public_bytes(serialization.Encoding.DER))


def roles_of(authority: Certificate) -> tuple[Role, ...]:
    """The roles that an authority is constrained to."""
    found = extension(authority, x509.NameConstraints)
    permitted = [] if found is None else found.permitted_subtrees or []
    names = [one.value for one in permitted if isinstance(one, x509.DirectoryName)]
    return tuple(role for role in Role if role not in ROOT_ROLES and role_name(role) in names)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PublicKey,
    issuer_key: PublicKey,
    at: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    if lifetime < _SECOND:
        raise _refused("a certificate holds for some time")
    begin = _whole(at)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.library_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.library_key()), critical=False)
        .add_extension(_authority_identifier(issuer_key), critical=False)
    )


def _require_issuer(signer: Signer, authority: Certificate, at: datetime, lifetime: timedelta) -> None:
    if signer.public_key != authority.key:
        raise _refused("the key is not the authority's")
    begin = _whole(at)
    own = authority.x509
    if begin < own.not_valid_before_utc or begin + lifetime > own.not_valid_after_utc:
        raise _refused("the certificate would hold when its authority's own doesn't")


def _sign_certificate(builder: x509.CertificateBuilder, signer: Signer) -> Certificate:
    shape, digest = _stand_in(signer.public_key.algorithm)
    draft = builder.sign(shape, digest)
    der = draft.public_bytes(serialization.Encoding.DER)
    return load_certificate(_signed_by(signer, draft.tbs_certificate_bytes, der))


def _stand_in(algorithm: str) -> tuple[PrivateKey, hashes.SHA256 | hashes.SHA384 | None]:
    """A key thrown away at once: the library writes what is to be signed only while it signs.

    The bytes to be signed name the algorithm, which is the same, and no key but those given.
    """
    if algorithm == ED25519:
        return new_private_key(algorithm), None
    return new_private_key(algorithm), hashes.SHA256() if algorithm == ECDSA_P256 else hashes.SHA384()


def _signed_by(signer: Signer, content: bytes, draft: bytes) -> bytes:
    """Put the signer's signature over the content in place of the draft's (RFC 5280 section 4.1.1)."""
    start = draft.index(content) + len(content)
    algorithm = draft[start : start + 2 + draft[start + 1]]
    signature = signer.sign(content)
    return _sequence(content + algorithm + _tlv(0x03, b"\0" + signature))


def _sequence(body: bytes) -> bytes:
    return _tlv(0x30, body)


def _tlv(tag: int, body: bytes) -> bytes:
    """Tag, length, value in DER (ITU-T X.690 section 8.1.3)."""
    length = len(body)
    if length < 0x80:
        return bytes([tag, length]) + body
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def _key_usage(*, issuing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issuing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issuing,
        crl_sign=issuing,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(key: PublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.library_key())


def _authority_name(name: str) -> x509.Name:
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        raise _refused(f"an authority's name has from 1 to {_MAX_NAME} printable characters")
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _whole(moment: datetime) -> datetime:
    """X.509 times have whole seconds (RFC 5280 section 4.1.2.5)."""
    return moment.replace(microsecond=0)


def _refused(reason: str) -> CertificateError:
    return CertificateError(
        "evidence.pki_refused", f"The authority doesn't issue this: {reason}.", "See: cloister pki --help"
    )
