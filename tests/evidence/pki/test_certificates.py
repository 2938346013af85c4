"""Certificates and chains have one spelling; whatever else comes in is a typed refusal."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.keys import ALGORITHMS, ECDSA_P256
from cloister.evidence.errors import CertificateError
from cloister.evidence.pki import (
    RevocationLists,
    establish,
    load_certificate,
    load_crl,
    load_root,
    read_chain,
)
from cloister.evidence.pki.certificates import party_name
from cloister.evidence.predicates import Role
from tests.conftest import START
from tests.evidence.pki.scene import DAY, LATER, Scene

SCENE = Scene()


def code_of(pem: str | bytes) -> str:
    with pytest.raises(CertificateError) as caught:
        read_chain(pem)
    return caught.value.code


def armoured(der: bytes) -> str:
    body = base64.b64encode(der).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


def test_a_chain_has_one_spelling() -> None:
    good = SCENE.chain()
    assert armoured(SCENE.site.der) == SCENE.site.pem
    assert read_chain(good.encode()) == read_chain(good)
    for other in (
        "",
        good + "\n",
        "\n" + good,
        good[:-1],
        good.replace("\n", "\r\n"),
        "site\n" + good,
        SCENE.site.pem + "note\n" + SCENE.ca.pem,
        SCENE.site_key.public_key.pem,
        good + SCENE.site_key.public_key.pem,
        SCENE.site.pem + SCENE.ca.pem + SCENE.root.pem + SCENE.root.pem,
        good.replace("CERTIFICATE", "X509 CERTIFICATE"),
        good.encode().replace(b"-----BEGIN", b"\xff-----BEGIN", 1),
        "-----BEGIN CERTIFICATE-----\n" + "A" * 100_000,
    ):
        assert code_of(other) == "evidence.certificate_malformed"


def test_trailing_bytes_and_stray_bits_in_a_certificate_are_refused() -> None:
    der = SCENE.site.der
    unused = bytearray(der)
    position = der.rindex(b"\0" + SCENE.site.x509.signature)
    unused[position] = 1
    for other in (der + b"\0", der[:-1], bytes(unused), b"\x30\x83\x00" + der[2:]):
        with pytest.raises(CertificateError) as caught:
            load_certificate(other)
        assert caught.value.code == "evidence.certificate_malformed"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_negative_serial_number_is_refused() -> None:
    made = (SCENE.issue("north", SCENE.site_key) for _ in range(100))
    long = next(one for one in made if one.x509.serial_number >> 152)
    serial = long.x509.serial_number.to_bytes(20, "big")
    negative = long.der.replace(serial, bytes([0x80]) + serial[1:])
    with pytest.raises(CertificateError) as caught:
        load_certificate(negative)
    assert caught.value.code == "evidence.certificate_malformed"
    assert "serial" in caught.value.message


def test_every_changed_byte_of_a_certificate_is_refused() -> None:
    root = load_root(SCENE.root.pem.encode())
    accepted = []
    for position in range(len(SCENE.site.der)):
        changed = bytearray(SCENE.site.der)
        changed[position] ^= 1
        try:
            chain = read_chain(armoured(bytes(changed)) + SCENE.ca.pem)
            establish(chain, [root], RevocationLists()).require_valid(LATER)
        except CertificateError:
            continue
        accepted.append(position)
    assert accepted == []


def test_keys_of_other_algorithms_are_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = party_name(Role.SITE, "north")
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + DAY)
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(CertificateError) as caught:
        load_certificate(made.public_bytes(serialization.Encoding.DER))
    assert caught.value.code == "evidence.certificate_malformed"


@given(st.binary(max_size=2000))
def test_any_bytes_give_a_typed_refusal(data: bytes) -> None:
    for refuse in (load_certificate, load_crl, read_chain, load_root):
        with pytest.raises(CertificateError):
            refuse(data)


@settings(max_examples=200)
@given(
    source=st.sampled_from(["site", "crl"]), data=st.data(), cut=st.booleans(), extra=st.binary(max_size=40)
)
def test_certificates_and_lists_with_spliced_bytes_give_a_typed_answer(
    source: str, data: st.DataObject, cut: bool, extra: bytes
) -> None:
    good = SCENE.site.der if source == "site" else SCENE.crl()
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, min(len(good), start + 40))) if cut else start
    spliced = good[:start] + extra + good[stop:]
    try:
        if source == "site":
            assert load_certificate(spliced).der == spliced
        else:
            load_crl(spliced)
    except CertificateError:
        pass


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_openssl_accepts_what_is_issued_and_refuses_what_the_constraints_forbid(
    algorithm: str, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on this machine")
    scene = Scene(algorithm)
    for name, certificate in (("root", scene.root), ("ca", scene.ca), ("site", scene.site)):
        (tmp_path / f"{name}.pem").write_text(certificate.pem)
    (tmp_path / "ca.crl").write_bytes(scene.crl())
    command = ["openssl", "verify", "-x509_strict", "-attime", str(int(LATER.timestamp()))]
    command += ["-CAfile", "root.pem", "-untrusted", "ca.pem"]
    run = subprocess.run([*command, "site.pem"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == "site.pem: OK\n", run.stderr
    with_list = [*command, "-CRLfile", "ca.crl", "-crl_check", "site.pem"]
    run = subprocess.run(with_list, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == "site.pem: OK\n", run.stderr


def test_a_certificate_says_in_short_what_it_is() -> None:
    scene = Scene(ECDSA_P256)
    assert scene.site.signed_with == ECDSA_P256
    assert scene.site.bound_to == (Role.SITE, "north")
    assert int(scene.site.serial, 16) == scene.site.x509.serial_number
    assert scene.site_key.public_key == scene.site.key
