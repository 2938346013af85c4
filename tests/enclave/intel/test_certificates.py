"""Who may issue what: a certificate counts for what its name and its issuer make it, and for nothing more."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloister.core.clock import fixed_clock
from cloister.enclave import AttestationError
from cloister.enclave.attestation.intel import certificates as subject
from cloister.enclave.attestation.intel.certificates import (
    PCK_NAME,
    SGX_EXTENSION,
    TCB_SIGNER_NAME,
    IntelCertificate,
    PckChain,
    load_certificate,
    pem_of,
    platform_of,
    read_chain,
    read_pem,
    verify_chain,
    verify_tcb_signer,
)
from cloister.enclave.attestation.intel.quote import Quote
from tests.enclave.intel.scene import NOW, Scene, vendor

CA_NAME = "Intel SGX PCK Platform CA"
LEAF, AUTHORITY, ROOT = read_pem(Quote.parse(Scene().evidence().report).certificates)
PLATFORM = load_certificate(LEAF).x509.extensions.get_extension_for_oid(SGX_EXTENSION)


def issued(
    name: str,
    *,
    by: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate,
    authority: bool = False,
    path_length: int | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
    algorithm: hashes.HashAlgorithm | None = None,
    **usage: bool,
) -> IntelCertificate:
    """A certificate by an issuer of the simulated vendor, of any name and any use."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    bits = {
        "digital_signature": not authority,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "key_cert_sign": authority,
        "crl_sign": authority,
        "encipher_only": False,
        "decipher_only": False,
        **usage,
    }
    built = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=9))
        .not_valid_after(NOW + timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)
        .add_extension(x509.KeyUsage(**bits), critical=True)
        .add_extension(PLATFORM.value, critical=False)
        .sign(by, algorithm or hashes.SHA256())
    )
    return load_certificate(built.public_bytes(serialization.Encoding.DER))


def root() -> IntelCertificate:
    return load_certificate(ROOT)


def by_root(name: str, **said: object) -> IntelCertificate:
    return issued(name, by=vendor().root.key, issuer=vendor().root.certificate, **said)  # type: ignore[arg-type]


def by_authority(name: str, **said: object) -> IntelCertificate:
    authority = vendor().platform_ca
    return issued(name, by=authority.key, issuer=authority.certificate, **said)  # type: ignore[arg-type]


def chain(leaf: IntelCertificate, authority: IntelCertificate | None = None) -> PckChain:
    found = authority or load_certificate(AUTHORITY)
    return PckChain(leaf, found, root(), root().sha256, platform_of(leaf))


def refused(found: PckChain | IntelCertificate) -> None:
    action = (
        partial(verify_chain, found)
        if isinstance(found, PckChain)
        else partial(verify_tcb_signer, found, root())
    )
    with pytest.raises(AttestationError) as error:
        action()
    assert error.value.code == "attestation.chain"


def test_a_certificate_of_the_right_name_and_use_is_one() -> None:
    verify_chain(chain(by_authority(PCK_NAME)))
    verify_tcb_signer(by_root(TCB_SIGNER_NAME), root())


def test_a_platforms_certificate_under_another_name_is_refused() -> None:
    refused(chain(by_authority("Intel SGX Something Else")))


def test_a_platforms_certificate_that_may_issue_or_not_sign_is_refused() -> None:
    refused(chain(by_authority(PCK_NAME, authority=True)))
    refused(chain(by_authority(PCK_NAME, digital_signature=False)))


def test_an_authority_under_another_name_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for name, right in ((CA_NAME, True), ("Intel SGX Another CA", False)):
        authority = by_root(name, authority=True, path_length=0, key=key)
        found = chain(issued(PCK_NAME, by=key, issuer=authority.x509), authority)
        if right:
            verify_chain(found)
        else:
            refused(found)


@pytest.mark.parametrize(
    "said",
    [
        {"authority": False},
        {"authority": True, "key_cert_sign": False},
        {"authority": True, "crl_sign": False},
    ],
)
def test_an_authority_that_may_not_issue_is_refused(said: dict[str, bool]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    authority = by_root(CA_NAME, key=key, **said)
    refused(chain(issued(PCK_NAME, by=key, issuer=authority.x509), authority))


def test_a_leaf_signed_by_another_key_than_its_issuers_is_refused() -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    refused(chain(issued(PCK_NAME, by=stranger, issuer=vendor().platform_ca.certificate)))


def test_a_tcb_signer_under_another_name_or_of_another_issuer_is_refused() -> None:
    refused(by_root(PCK_NAME))
    refused(by_root(TCB_SIGNER_NAME, authority=True))
    refused(by_authority(TCB_SIGNER_NAME))


def test_other_curves_and_hashes_are_refused() -> None:
    for said in ({"key": ec.generate_private_key(ec.SECP384R1())}, {"algorithm": hashes.SHA512()}):
        with pytest.raises(AttestationError) as error:
            by_authority(PCK_NAME, **said)
        assert error.value.code == "attestation.alg"


def test_what_was_found_right_of_an_authority_is_remembered_for_the_pair_and_no_other() -> None:
    verify_chain(read_chain(b"".join(map(pem_of, (LEAF, AUTHORITY, ROOT)))))
    other = type(vendor()).create(fixed_clock(NOW))
    mixed = PckChain(
        load_certificate(LEAF),
        load_certificate(AUTHORITY),
        load_certificate(other.root_der),
        load_certificate(other.root_der).sha256,
        platform_of(load_certificate(LEAF)),
    )
    refused(mixed)


OTHER_FORMS = {
    "nothing": b"",
    "a zero byte": b"\0",
    "two zero bytes after it": pem_of(LEAF) + b"\0\0",
    "an empty line after it": pem_of(LEAF) + b"\n",
    "other line ends": pem_of(LEAF).replace(b"\n", b"\r\n"),
    "no line end": pem_of(LEAF)[:-1],
    "a space before it": b" " + pem_of(LEAF),
    "another padding": pem_of(LEAF).replace(b"=", b"", 1) if b"=" in pem_of(LEAF) else b"=",
    "empty lines in it": pem_of(LEAF).replace(b"\n", b"\n\n", 2),
}


@pytest.mark.parametrize("text", OTHER_FORMS.values(), ids=OTHER_FORMS.keys())
def test_pem_has_one_form(text: bytes) -> None:
    with pytest.raises(AttestationError):
        read_chain(text)


def der(tag: int, body: bytes) -> bytes:
    return bytes([tag, len(body)]) + body


def test_the_reader_of_intels_extension_takes_lengths_in_their_shortest_form_only() -> None:
    for wrong in (
        b"\x30\x81\x03\x02\x01\x00",
        b"\x30\x80\x02\x01\x00\0\0",
        b"\x30\x82\x00\x03\x02\x01\x00",
        b"\x30\x83\x00\x00\x03\x02\x01\x00",
        b"\x30\x05\x02\x01\x00",
        b"\x30\x03\x02\x01\x00\x00",
    ):
        with pytest.raises(AttestationError):
            subject._whole(wrong, 0x30)
    assert subject._whole(b"\x30\x03\x02\x01\x00", 0x30) == b"\x02\x01\x00"
    name = der(0x06, b"\x01")
    with pytest.raises(AttestationError):
        subject._pairs(der(0x30, name + b"\x05\0") * 2)
    for number in (b"\x02\x00", b"\x02\x01\xff", b"\x02\x02\x00\x01", b"\x02\x04\x00\xff\xff\xff"):
        with pytest.raises(AttestationError):
            subject._number({subject._SGX_OID + b"\x02\x01": number}, 1)
