"""Keys: kept by their owner alone, never overwritten, known by their hash."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import KeyStoreError, SignatureInvalid, StorageError
from cloister.core.keys import EphemeralKeyStore, FileKeyStore, KeyStore, PublicKey, Signer


@pytest.fixture(params=["file", "ephemeral"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    return FileKeyStore(tmp_path / "keys") if request.param == "file" else EphemeralKeyStore()


def pem_of(private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_a_generated_key_signs_and_is_found_again(store: KeyStore) -> None:
    made = store.generate("hospital-a")
    found = store.load("hospital-a")
    assert made.public_key == found.public_key
    found.public_key.verify(made.sign(b"message"), b"message")
    assert len(made.sign(b"")) == 64
    assert store.names() == ("hospital-a",)


def test_two_keys_differ_and_do_not_verify_for_each_other(store: KeyStore) -> None:
    one, two = store.generate("one"), store.generate("two")
    assert one.public_key.key_id != two.public_key.key_id
    assert store.names() == ("one", "two")
    with pytest.raises(SignatureInvalid) as refused:
        two.public_key.verify(one.sign(b"m"), b"m")
    assert refused.value.code == "signature.invalid"


def test_a_key_is_never_overwritten(store: KeyStore) -> None:
    first = store.generate("site").public_key
    with pytest.raises(KeyStoreError) as refused:
        store.generate("site")
    assert refused.value.code == "key.exists"
    assert store.load("site").public_key == first


def test_a_missing_key_is_said_to_be_missing(store: KeyStore) -> None:
    with pytest.raises(KeyStoreError) as refused:
        store.load("nobody")
    assert refused.value.code == "key.missing"


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a b", "a\0", "a\n", "n" * 101, "é"]
)
def test_a_name_that_could_be_a_path_is_refused(name: str, store: KeyStore) -> None:
    for use in (store.generate, store.load):
        with pytest.raises(KeyStoreError) as refused:
            use(name)
        assert refused.value.code == "key.name"


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_signature_fits_its_message_only(message: bytes, other: bytes) -> None:
    signer = EphemeralKeyStore().generate("signer")
    signature = signer.sign(message)
    signer.public_key.verify(signature, message)
    if other != message:
        with pytest.raises(SignatureInvalid):
            signer.public_key.verify(signature, other)


@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_a_signature_of_another_length_is_invalid(length: int, signer: Signer) -> None:
    with pytest.raises(SignatureInvalid):
        signer.public_key.verify(b"\1" * length, b"message")


def test_a_public_key_is_known_by_the_hash_of_its_der(signer: Signer) -> None:
    key = signer.public_key
    assert key.algorithm == "ed25519"
    assert key.key_id == "sha256:" + hashlib.sha256(key.der).hexdigest()
    assert key.der.endswith(key.raw)
    for again in (
        PublicKey.from_pem(key.pem),
        PublicKey.from_pem(key.pem.encode()),
        PublicKey.from_raw(key.raw),
    ):
        assert again == key
        assert hash(again) == hash(key)
        assert again.pem == key.pem
    assert pickle.loads(pickle.dumps(key)) == key


@pytest.mark.parametrize(
    "pem", ["", "x", b"\xff", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "A" * 20000]
)
def test_what_is_no_public_key_is_refused(pem: str | bytes) -> None:
    with pytest.raises(KeyStoreError) as refused:
        PublicKey.from_pem(pem)
    assert refused.value.code == "key.malformed"


@pytest.mark.parametrize(
    "private",
    [
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
        x25519.X25519PrivateKey.generate(),
        ed448.Ed448PrivateKey.generate(),
    ],
    ids=["secp256k1", "P-521", "RSA", "X25519", "Ed448"],
)
def test_a_public_key_of_another_algorithm_is_refused(private: rsa.RSAPrivateKey) -> None:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public = private.public_key()
    for refuse in (
        lambda: PublicKey.from_pem(public.public_bytes(serialization.Encoding.PEM, spki)),
        lambda: PublicKey.from_der(public.public_bytes(serialization.Encoding.DER, spki)),
    ):
        with pytest.raises(KeyStoreError) as refused:
            refuse()
        assert refused.value.code == "key.malformed"


def test_a_signer_shows_nothing_and_cannot_be_copied_out(signer: Signer) -> None:
    assert repr(signer) == f"<signer {signer.public_key.key_id}>"
    with pytest.raises(TypeError):
        pickle.dumps(signer)


def test_a_file_store_keeps_private_keys_for_the_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        FileKeyStore(tmp_path / "deep" / "keys").generate("site")
    finally:
        os.umask(old)
    assert (tmp_path / "deep" / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep" / "keys" / "site.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_key_file_others_could_use_is_refused(mode: int, tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    store.generate("site")
    (tmp_path / "keys" / "site.pem").chmod(mode)
    with pytest.raises(KeyStoreError) as refused:
        store.load("site")
    assert refused.value.code == "key.permissions"
    assert "chmod 600" in refused.value.hint


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o701, 0o777])
def test_a_key_folder_others_could_enter_is_refused(mode: int, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys").chmod(mode)
    with pytest.raises(KeyStoreError) as refused:
        FileKeyStore(tmp_path / "keys")
    assert refused.value.code == "key.permissions"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_key_that_is_no_plain_file_is_refused(kind: str, tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    store.generate("real")
    path = tmp_path / "keys" / "site.pem"
    make: dict[str, Callable[[], None]] = {
        "link": lambda: path.symlink_to("real.pem"),
        "folder": lambda: path.mkdir(mode=0o700),
        "pipe": lambda: os.mkfifo(path, 0o600),
    }
    make[kind]()
    with pytest.raises(KeyStoreError) as refused:
        store.load("site")
    assert refused.value.code == "key.permissions"


@pytest.mark.parametrize("kind", ["empty", "text", "public", "other algorithm", "encrypted", "cut"])
def test_a_key_file_with_something_else_in_it_is_refused(kind: str, tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "keys")
    private = ed25519.Ed25519PrivateKey.generate()
    content = {
        "empty": b"",
        "text": b"not a key",
        "public": store.generate("other").public_key.pem.encode(),
        "other algorithm": pem_of(ec.generate_private_key(ec.SECP256K1())),
        "encrypted": private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        ),
        "cut": pem_of(private)[:60],
    }[kind]
    path = tmp_path / "keys" / "site.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyStoreError) as refused:
        store.load("site")
    assert refused.value.code == ("key.passphrase" if kind == "encrypted" else "key.malformed")


def test_a_key_that_cannot_be_written_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileKeyStore(tmp_path / "keys")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError) as refused:
        store.generate("site")
    monkeypatch.undo()
    assert refused.value.code == "storage.no_space"
    assert store.names() == ()
    assert list((tmp_path / "keys").iterdir()) == []


def test_a_store_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"")
    with pytest.raises(StorageError) as refused:
        FileKeyStore(tmp_path / "keys")
    assert refused.value.code == "storage.exists"
