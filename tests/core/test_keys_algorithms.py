"""The three signature algorithms, each in one encoding, and keys encrypted with a passphrase."""

from __future__ import annotations

import base64
import hashlib
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.core.errors import KeyStoreError, SignatureInvalid
from cloister.core.keys import (
    ALGORITHMS,
    ECDSA_P256,
    ECDSA_P384,
    ED25519,
    EphemeralKeyStore,
    FileKeyStore,
    KeyStore,
    PublicKey,
    secret_file,
)

# SubjectPublicKeyInfo up to the point (RFC 5480 section 2): id-ecPublicKey with the named curve P-256.
P256_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


@pytest.fixture(params=["file", "encrypted", "ephemeral"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    if request.param == "ephemeral":
        return EphemeralKeyStore()
    return FileKeyStore(tmp_path, passphrase=(lambda: b"correct") if request.param == "encrypted" else None)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_of_each_algorithm_signs_and_is_found_again(algorithm: str, store: KeyStore) -> None:
    made = store.generate("key", algorithm)
    key, found = made.public_key, store.load("key")
    assert key == found.public_key
    assert key.algorithm == algorithm
    signature = found.sign(b"message")
    key.verify(signature, b"message")
    for wrong in (signature[:-1], signature + b"\0", b"", bytes(len(signature))):
        with pytest.raises(SignatureInvalid):
            key.verify(wrong, b"message")
    with pytest.raises(SignatureInvalid):
        key.verify(signature, b"other")
    for again in (PublicKey.from_pem(key.pem), PublicKey.from_der(key.der), pickle.loads(pickle.dumps(key))):
        assert again == key
        again.verify(signature, b"message")
    assert key.key_id == "sha256:" + hashlib.sha256(key.der).hexdigest()


def test_an_algorithm_that_is_not_known_makes_no_key(store: KeyStore) -> None:
    for algorithm in ("rsa", "ED25519", "", "ecdsa-p256-sha384"):
        with pytest.raises(KeyStoreError) as refused:
            store.generate("key", algorithm)
        assert refused.value.code == "key.algorithm"
    assert store.names() == ()


@pytest.mark.parametrize("algorithm", [ECDSA_P256, ECDSA_P384])
def test_only_an_ed25519_key_has_a_raw_form(algorithm: str) -> None:
    with pytest.raises(KeyStoreError):
        _ = EphemeralKeyStore().generate("key", algorithm).public_key.raw


def test_a_signature_made_with_another_hash_is_refused() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = PublicKey.of(private.public_key())
    key.verify(private.sign(b"m", ec.ECDSA(hashes.SHA256())), b"m")
    with pytest.raises(SignatureInvalid):
        key.verify(private.sign(b"m", ec.ECDSA(hashes.SHA384())), b"m")


def test_a_key_in_another_encoding_of_itself_is_refused() -> None:
    """One key has one id: compressed points and long lengths are other bytes for the same key."""
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    short = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    good = P256_HEAD + point
    assert PublicKey.from_der(good).algorithm == ECDSA_P256
    compressed = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + short
    long_form = b"\x30\x81\x59" + good[2:]
    for other in (compressed, long_form, good + b"\0", good[:-1]):
        refuse_both(other)


def test_explicit_parameters_are_refused() -> None:
    """P-256 written out (RFC 3279 section 2.3.5) is the same curve, or one just beside it."""
    point = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )
    generator = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    generator += "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    prime = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"
    order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
    a = "ffffffff00000001000000000000000000000000fffffffffffffffffffffffc"
    b = "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"

    def tlv(tag: int, body: bytes) -> bytes:
        head = bytes([len(body)]) if len(body) < 128 else bytes([0x82]) + len(body).to_bytes(2, "big")
        return bytes([tag]) + head + body

    hexed = bytes.fromhex
    field = tlv(0x30, tlv(6, hexed("2a8648ce3d0101")) + tlv(2, b"\0" + hexed(prime)))
    curve = tlv(0x30, tlv(4, hexed(a)) + tlv(4, hexed(b)))
    parameters = tlv(
        0x30,
        tlv(2, b"\1")
        + field
        + curve
        + tlv(4, b"\4" + hexed(generator))
        + tlv(2, b"\0" + hexed(order))
        + tlv(2, b"\1"),
    )
    algorithm = tlv(0x30, tlv(6, hexed("2a8648ce3d0201")) + parameters)
    refuse_both(tlv(0x30, algorithm + tlv(3, b"\0" + point)))


def test_a_point_off_its_curve_is_refused() -> None:
    point = bytearray(
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )
    point[-1] ^= 1
    refuse_both(P256_HEAD + bytes(point))
    refuse_both(P256_HEAD + b"\4" + bytes(64))


def refuse_both(der: bytes) -> None:
    body = base64.encodebytes(der).decode()
    for refuse in (
        lambda: PublicKey.from_der(der),
        lambda: PublicKey.from_pem(f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"),
    ):
        with pytest.raises(KeyStoreError) as refused:
            refuse()
        assert refused.value.code == "key.malformed"


def test_a_passphrase_keeps_the_private_key_unreadable_without_it(tmp_path: Path) -> None:
    made = FileKeyStore(tmp_path, passphrase=lambda: b"correct").generate("site")
    written = (tmp_path / "site.pem").read_bytes()
    assert written.startswith(b"scrypt 131072 8 1 ")
    assert b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in written
    assert FileKeyStore(tmp_path, passphrase=lambda: b"correct").load("site").public_key == made.public_key
    for store in (FileKeyStore(tmp_path, passphrase=lambda: b"wrong"), FileKeyStore(tmp_path)):
        with pytest.raises(KeyStoreError) as refused:
            store.load("site")
        assert refused.value.code == "key.passphrase"
        assert "correct" not in str(refused.value) + refused.value.hint


def test_a_clear_key_is_refused_where_a_passphrase_is_asked(tmp_path: Path) -> None:
    FileKeyStore(tmp_path).generate("site")
    with pytest.raises(KeyStoreError) as refused:
        FileKeyStore(tmp_path, passphrase=lambda: b"correct").load("site")
    assert refused.value.code == "key.passphrase"


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n", b"x" * 100])
def test_a_damaged_encrypted_key_is_a_typed_error(tmp_path: Path, damage: bytes) -> None:
    store = FileKeyStore(tmp_path, passphrase=lambda: b"correct")
    store.generate("site")
    (tmp_path / "site.pem").write_bytes(damage)
    with pytest.raises(KeyStoreError) as refused:
        store.load("site")
    assert refused.value.code in {"key.malformed", "key.passphrase"}


def test_a_secret_is_read_from_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(b"pass phrase \n")
    path.chmod(0o600)
    assert secret_file(path)() == b"pass phrase "
    path.chmod(0o640)
    with pytest.raises(KeyStoreError) as refused:
        secret_file(path)()
    assert refused.value.code == "key.permissions"
    assert "pass phrase" not in str(refused.value)
    path.chmod(0o600)
    for content in (b"", b"\n", b"x" * 2000):
        path.write_bytes(content)
        with pytest.raises(KeyStoreError) as refused:
            secret_file(path)()
        assert refused.value.code == "key.secret"
    with pytest.raises(KeyStoreError) as refused:
        secret_file(tmp_path / "nowhere")()
    assert refused.value.code == "key.secret"


def test_ed25519_is_what_a_store_makes_unasked(store: KeyStore) -> None:
    assert store.generate("key").public_key.algorithm == ED25519
