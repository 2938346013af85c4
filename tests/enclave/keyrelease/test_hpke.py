"""Sealing to an enclave's key: the standard's vector, an independent computation, and what must not open."""

from __future__ import annotations

import hashlib
import hmac
import pickle

import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease import EnclaveKey, enclave_key_id, seal_to
from cloister.enclave.keyrelease.hpke import OVERHEAD_BYTES, PUBLIC_BYTES

SUITE_ID = b"HPKE" + bytes.fromhex("647a00010002")
"""ML-KEM-768 with X25519, HKDF-SHA256, AES-256-GCM (RFC 9180 section 7; the KEM as IANA has it)."""


def test_the_librarys_hpke_opens_the_vector_of_rfc_9180_appendix_a_1_1() -> None:
    private = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
    )
    enc = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
    sealed = bytes.fromhex(
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    )
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
    opened = openssl.hpke._decrypt_with_aad(
        suite, enc + sealed, private, b"Ode on a Grecian Urn", bytes.fromhex("436f756e742d30")
    )
    assert opened == b"Beauty is truth, truth beauty"


def test_what_is_sealed_opens_by_the_specifications_steps_computed_apart() -> None:
    """X-Wing (draft-connolly-cfrg-xwing-kem section 5.4) under RFC 9180's key schedule, in other hands."""
    key = EnclaveKey()
    mlkem, x25519 = _with_known_halves(key)
    sealed = seal_to(key.public_bytes, b"thirty-two bytes of a data key..", b"what it is for")
    kem_text, ephemeral = sealed[:1088], sealed[1088:1120]
    shared = hashlib.sha3_256(
        mlkem.decapsulate(kem_text)
        + x25519.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        + ephemeral
        + x25519.public_key().public_bytes_raw()
        + b"\\.//^\\"
    ).digest()
    context = b"\x00" + _extract(b"", b"psk_id_hash", b"") + _extract(b"", b"info_hash", b"what it is for")
    secret = _extract(shared, b"secret", b"")
    opened = AESGCM(_expand(secret, b"key", context, 32)).decrypt(
        _expand(secret, b"base_nonce", context, 12), sealed[1120:], b""
    )
    assert opened == b"thirty-two bytes of a data key.."


@given(plaintext=st.binary(max_size=100), info=st.binary(max_size=50))
def test_what_is_sealed_opens_and_is_as_long_as_said(plaintext: bytes, info: bytes) -> None:
    sealed = seal_to(KEY.public_bytes, plaintext, info)
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES
    assert bytes(KEY.open(sealed, info)) == plaintext


@given(place=st.integers(0, OVERHEAD_BYTES + 31), bit=st.integers(0, 7))
def test_no_changed_bit_opens(place: int, bit: int) -> None:
    sealed = bytearray(seal_to(KEY.public_bytes, bytes(32), b""))
    sealed[place] ^= 1 << bit
    with pytest.raises(ReleaseError):
        KEY.open(bytes(sealed), b"")


def test_the_ignored_bit_of_an_x25519_point_is_bound_too() -> None:
    sealed = bytearray(seal_to(KEY.public_bytes, bytes(32), b""))
    sealed[1119] ^= 0x80
    with pytest.raises(ReleaseError):
        KEY.open(bytes(sealed), b"")


def test_another_key_opens_nothing() -> None:
    with pytest.raises(ReleaseError):
        EnclaveKey().open(seal_to(KEY.public_bytes, b"secret", b""), b"")


@given(st.binary(max_size=1500))
def test_garbage_opens_nothing_and_raises_nothing_else(data: bytes) -> None:
    with pytest.raises(ReleaseError):
        KEY.open(data, b"")


@pytest.mark.parametrize(
    "public",
    [
        b"",
        bytes(PUBLIC_BYTES - 1),
        bytes(PUBLIC_BYTES),
        b"\xff" * PUBLIC_BYTES,
    ],
    ids=["none", "short", "an X25519 point of small order", "ML-KEM coefficients out of range"],
)
def test_bytes_that_are_no_sound_public_key_are_sealed_to_by_nobody(public: bytes) -> None:
    with pytest.raises(ReleaseError) as caught:
        seal_to(public, b"secret", b"")
    assert caught.value.code == "release.malformed"


def test_a_key_is_known_by_its_hash_and_never_leaves_its_process() -> None:
    assert len(KEY.public_bytes) == PUBLIC_BYTES
    assert KEY.key_id == enclave_key_id(KEY.public_bytes)
    assert EnclaveKey().key_id != KEY.key_id
    with pytest.raises(TypeError):
        pickle.dumps(KEY)


KEY = EnclaveKey()


def _with_known_halves(key: EnclaveKey) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """The library gives a hybrid key's halves to nobody, so the test makes a key of halves that it keeps."""
    mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    key._private = MLKEM768X25519PrivateKey(mlkem, x25519)
    key._public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return mlkem, x25519


def _extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE_ID + label + ikm, "sha256")


def _expand(secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + SUITE_ID + label + info
    return hmac.digest(secret, labelled + b"\x01", "sha256")[:length]
