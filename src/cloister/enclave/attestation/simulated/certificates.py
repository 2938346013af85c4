"""Certificates of simulated hardware, every name labelled; signed with the hash that fits the curve."""

from __future__ import annotations

import os
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloister.enclave.attestation.trust import SIMULATED_ORGANISATION

_HASH = hashes.SHA384()


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new P-384 key."""
    return ec.generate_private_key(ec.SECP384R1())


def certificate_der(certificate: x509.Certificate) -> bytes:
    """A certificate's DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def simulated_name(common_name: str, unit: str | None = None) -> x509.Name:
    """A name whose organisation says that it is simulated.

    Args:
        common_name: cut after 64 characters.
        unit: the organisational unit, if the vendor's own names have one.
    """
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, SIMULATED_ORGANISATION),
            *([] if unit is None else [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)]),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def issued(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    validity: tuple[datetime, datetime],
    extensions: tuple[tuple[x509.ExtensionType, bool], ...],
) -> x509.Certificate:
    """A certificate, signed with ECDSA: on P-256 with SHA-256, on P-384 with SHA-384.

    Args:
        subject: whose key it is.
        key: the key.
        issuer: who signs.
        issuer_key: with which key.
        validity: from when until when.
        extensions: each with whether it is critical.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(int.from_bytes(os.urandom(16), "big") | 1)
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256() if issuer_key.curve.key_size == 256 else _HASH)


def revocation_list(
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    validity: tuple[datetime, datetime],
    serials: tuple[int, ...] = (),
) -> bytes:
    """A list of revoked certificates in DER, signed with ECDSA P-384 and SHA-384.

    Args:
        issuer: whose list.
        key: the issuer's.
        validity: from when until when.
        serials: of the certificates that are revoked.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(validity[0])
        .next_update(validity[1])
        .add_extension(x509.CRLNumber(int(validity[0].timestamp())), critical=False)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(validity[0])
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(key, _HASH).public_bytes(serialization.Encoding.DER)


def authority(path_length: int | None) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    """Extensions of an authority, with at most so many issuers below it, None for any number."""
    return (
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (key_usage(signs=False), True),
    )


def key_usage(*, signs: bool) -> x509.KeyUsage:
    """The usage of a key that signs evidence, or else of one that signs certificates."""
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )
