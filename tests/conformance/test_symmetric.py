"""HMAC-SHA256 (RFC 4231) and AES-256-GCM: vectors that travel with the project, and Wycheproof's attacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.errors import KeyStoreError, SignatureInvalid
from cloister.core.symmetric import (
    decrypt_aes_256_gcm,
    encrypt_aes_256_gcm,
    hmac_sha256,
    pseudonym,
    verify_hmac_sha256,
)

# RFC 4231 sections 4.2 to 4.4, 4.7 and 4.8 (4.6 is a truncated tag, which is not used here): key, data, tag.
RFC_4231 = [
    (
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        b"\xaa" * 20,
        b"\xdd" * 50,
        "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
    ),
    (
        bytes(range(1, 26)),
        b"\xcd" * 50,
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        b"\xaa" * 131,
        b"This is a test using a larger than block-size key and a larger than block-size data. "
        b"The key needs to be hashed before being used by the HMAC algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
]

# The GCM submission to NIST (McGrew and Viega, 2005), test cases 13, 14 and 16.
GCM = [
    ("00" * 32, "00" * 12, "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    ("00" * 32, "00" * 12, "00" * 16, "", "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
    (
        "feffe9928665731c6d6a8f9467308308" * 2,
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
]


@pytest.mark.parametrize(("key", "data", "tag"), RFC_4231)
def test_tags_of_the_rfc_are_made_and_verify_and_one_changed_bit_does_not(
    key: bytes, data: bytes, tag: str
) -> None:
    expected = bytes.fromhex(tag)
    assert hmac_sha256(key, data) == expected
    assert hmac_sha256(bytearray(key), data) == expected
    verify_hmac_sha256(key, data, expected)
    wrong = [expected[:16], expected + b"\0", b"", bytes([expected[0] ^ 1]) + expected[1:]]
    for tampered in wrong:
        with pytest.raises(SignatureInvalid) as refused:
            verify_hmac_sha256(key, data, tampered)
        assert refused.value.code == "signature.tag"


@pytest.mark.parametrize(("key", "nonce", "plain", "associated", "sealed"), GCM)
def test_the_vectors_of_gcms_authors_are_made_and_read(
    key: str, nonce: str, plain: str, associated: str, sealed: str
) -> None:
    secret, number, text, more, expected = (
        bytes.fromhex(part) for part in (key, nonce, plain, associated, sealed)
    )
    assert encrypt_aes_256_gcm(secret, number, text, more) == expected
    assert decrypt_aes_256_gcm(secret, number, expected, more) == text
    for position in range(len(expected)):
        changed = bytearray(expected)
        changed[position] ^= 1
        with pytest.raises(SignatureInvalid):
            decrypt_aes_256_gcm(secret, number, bytes(changed), more)


@pytest.mark.parametrize(("key", "nonce"), [(16, 12), (24, 12), (32, 8), (32, 16), (0, 12)])
def test_other_sizes_of_keys_and_nonces_are_refused(key: int, nonce: int) -> None:
    with pytest.raises(KeyStoreError):
        encrypt_aes_256_gcm(bytes(key), bytes(nonce), b"", b"")
    with pytest.raises(KeyStoreError):
        decrypt_aes_256_gcm(bytes(key), bytes(nonce), bytes(16), b"")


def test_wycheproof_hmac(shared_data: Callable[[str], Path]) -> None:
    vectors = json.loads(shared_data("crypto-vectors/wycheproof/hmac_sha256_test.json").read_text())
    tried = {"valid": 0, "invalid": 0}
    for group in vectors["testGroups"]:
        for case in group["tests"]:
            key, message, tag = (bytes.fromhex(case[part]) for part in ("key", "msg", "tag"))
            try:
                verify_hmac_sha256(key, message, tag)
                accepted = True
            except SignatureInvalid:
                accepted = False
            # A truncated tag is a valid case of Wycheproof's, and never one of ours.
            assert accepted == (case["result"] == "valid" and group["tagSize"] == 256), case["tcId"]
            if group["tagSize"] == 128 and case["result"] == "valid":
                assert hmac_sha256(key, message)[:16] == tag
            tried[case["result"]] += 1
    assert min(tried.values()) > 20


def test_wycheproof_aes_gcm(shared_data: Callable[[str], Path]) -> None:
    vectors = json.loads(shared_data("crypto-vectors/wycheproof/aes_gcm_test.json").read_text())
    tried = {"valid": 0, "invalid": 0, "other size": 0}
    for group in vectors["testGroups"]:
        usable = group["keySize"] == 256 and group["ivSize"] == 96
        for case in group["tests"]:
            key, nonce, plain, associated, ciphertext, tag = (
                bytes.fromhex(case[part]) for part in ("key", "iv", "msg", "aad", "ct", "tag")
            )
            if not usable:
                with pytest.raises(KeyStoreError):
                    decrypt_aes_256_gcm(key, nonce, ciphertext + tag, associated)
                tried["other size"] += 1
                continue
            if case["result"] == "valid":
                assert decrypt_aes_256_gcm(key, nonce, ciphertext + tag, associated) == plain
                assert encrypt_aes_256_gcm(key, nonce, plain, associated) == ciphertext + tag
            else:
                with pytest.raises(SignatureInvalid):
                    decrypt_aes_256_gcm(key, nonce, ciphertext + tag, associated)
            tried[case["result"]] += 1
    assert min(tried.values()) > 10


@pytest.mark.parametrize(("key", "data", "tag"), [one for one in RFC_4231 if len(one[0]) >= 32])
def test_a_pseudonym_is_the_hmac_of_the_identifier(key: bytes, data: bytes, tag: str) -> None:
    assert pseudonym(key, data.decode("ascii")) == tag


def test_a_pseudonym_under_another_key_is_another_one() -> None:
    assert pseudonym(b"a" * 32, "Müller, 1970-01-01") != pseudonym(b"b" * 32, "Müller, 1970-01-01")


@pytest.mark.parametrize("key", [b"", b"Jefe", b"k" * 31])
def test_a_pseudonym_under_a_key_that_could_be_guessed_is_refused(key: bytes) -> None:
    with pytest.raises(KeyStoreError) as refused:
        pseudonym(key, "N-0001")
    assert refused.value.code == "key.malformed"
