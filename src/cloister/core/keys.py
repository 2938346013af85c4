"""Signing keys and the port behind which they are kept.

Rules this module keeps:

* Ed25519 (RFC 8032) only, for now; a key names its algorithm, so that another can stand beside it later.
* A key is known by the hash of its SubjectPublicKeyInfo, not by a name somebody gave it.
* Public keys of small order and non-canonical encodings are refused: under such a key one signature fits
  many messages.
* Private keys leave a store only as a `Signer`, which signs and shows its public key, and nothing else.
* A file store keeps keys as PKCS#8 PEM, mode 0600 in a folder 0700; it never overwrites a key and refuses one
  that others could read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloister.core.errors import KeyStoreError, SignatureInvalid, StorageError
from cloister.core.files import storage_error, write_new

ED25519 = "ed25519"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAX_PEM = 16 * 1024
_P = 2**255 - 19
_ORDER_EIGHT = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
# The y coordinates of the eight points whose order divides the cofactor.
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_EIGHT, _P - _ORDER_EIGHT})


@dataclass(frozen=True)
class PublicKey:
    """A public key: what a party is known by.

    Attributes:
        pem: SubjectPublicKeyInfo in PEM (RFC 8410), in the one form this program writes.
        key_id: ``sha256:`` and the hex SHA-256 of the SubjectPublicKeyInfo in DER.
        algorithm: the signature algorithm's name, ``ed25519``.
    """

    pem: str
    key_id: str
    algorithm: str
    _key: Ed25519PublicKey = field(repr=False, compare=False)

    @classmethod
    def from_pem(cls, pem: bytes | str) -> PublicKey:
        """Read a public key in PEM.

        Raises:
            KeyStoreError: ``key.malformed`` for anything but a sound Ed25519 public key.
        """
        data = pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
        if len(data) > _MAX_PEM:
            raise _malformed("public")
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _malformed("public") from None
        if not isinstance(key, Ed25519PublicKey):
            raise _malformed("public")
        return cls._of(key)

    @classmethod
    def from_raw(cls, raw: bytes) -> PublicKey:
        """Read a public key as its 32 bytes (RFC 8032 section 5.1.5).

        Raises:
            KeyStoreError: ``key.malformed``.
        """
        try:
            return cls._of(Ed25519PublicKey.from_public_bytes(raw))
        except ValueError:
            raise _malformed("public") from None

    @classmethod
    def _of(cls, key: Ed25519PublicKey) -> PublicKey:
        y = int.from_bytes(key.public_bytes_raw(), "little") & (2**255 - 1)
        if y >= _P or y in _SMALL_ORDER_Y:
            raise _malformed("public")
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = key.public_bytes(serialization.Encoding.PEM, spki).decode("ascii")
        der = key.public_bytes(serialization.Encoding.DER, spki)
        return cls(pem, "sha256:" + hashlib.sha256(der).hexdigest(), ED25519, key)

    @property
    def raw(self) -> bytes:
        """The key's 32 bytes."""
        return self._key.public_bytes_raw()

    @property
    def der(self) -> bytes:
        """The SubjectPublicKeyInfo in DER."""
        return self._key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature over a message; silence means it is good.

        Raises:
            SignatureInvalid: ``signature.invalid``.
        """
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise SignatureInvalid(
                "signature.invalid", f"The signature does not verify under key {self.key_id}."
            ) from None

    def __reduce__(self) -> tuple[object, ...]:
        return PublicKey.from_raw, (self.raw,)


class Signer(Protocol):
    """A private key that can sign and cannot be looked at."""

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Sign a message; an Ed25519 signature has 64 bytes."""
        ...


class KeyStore(Protocol):
    """Where private keys live: a folder, memory, later a hardware module."""

    def generate(self, name: str) -> Signer:
        """Make a new key; a taken name is refused with ``key.exists``."""
        ...

    def load(self, name: str) -> Signer:
        """The key of this name; ``key.missing`` where there is none."""
        ...

    def names(self) -> tuple[str, ...]:
        """The names of all keys, sorted."""
        ...


class _Ed25519Signer:
    """A private key held in this process's memory."""

    __slots__ = ("_private", "_public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self._public = PublicKey.from_raw(private.public_key().public_bytes_raw())

    @property
    def public_key(self) -> PublicKey:
        return self._public

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"<signer {self._public.key_id}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signer is never copied out of its process")


class EphemeralKeyStore:
    """Keys in memory only, gone with the process: for simulations and tests."""

    def __init__(self) -> None:
        self._signers: dict[str, Signer] = {}

    def generate(self, name: str) -> Signer:
        """Make a new key.

        Raises:
            KeyStoreError: ``key.exists`` or ``key.name``.
        """
        _check_name(name)
        if name in self._signers:
            raise _exists(name)
        signer = _Ed25519Signer(Ed25519PrivateKey.generate())
        self._signers[name] = signer
        return signer

    def load(self, name: str) -> Signer:
        """The key of this name.

        Raises:
            KeyStoreError: ``key.missing`` or ``key.name``.
        """
        _check_name(name)
        try:
            return self._signers[name]
        except KeyError:
            raise _missing(name) from None

    def names(self) -> tuple[str, ...]:
        """The names of all keys, sorted."""
        return tuple(sorted(self._signers))


class FileKeyStore:
    """Keys as PEM files in a folder that only its owner may enter.

    Args:
        directory: the folder; made with mode 0700 where it is missing.

    Raises:
        KeyStoreError: ``key.permissions`` where others may enter the folder or it belongs to somebody else.
        StorageError: the folder cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = directory.stat()
        except OSError as error:
            raise storage_error(error, directory) from None
        if found.st_mode & 0o077 or found.st_uid != os.geteuid():
            raise KeyStoreError(
                "key.permissions",
                f"Others could enter the key folder {directory}.",
                f"Own it and run: chmod 700 {directory}",
            )

    def generate(self, name: str) -> Signer:
        """Make a new key and keep it; it is on disk before this returns.

        Raises:
            KeyStoreError: ``key.exists`` or ``key.name``.
            StorageError: the key could not be written; there is none.
        """
        path = self._path(name)
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            write_new(path, pem, mode=0o600)
        except StorageError as error:
            if error.code == "storage.exists":
                raise _exists(name) from None
            raise
        return _Ed25519Signer(private)

    def load(self, name: str) -> Signer:
        """The key of this name.

        Raises:
            KeyStoreError: ``key.missing``, ``key.permissions``, ``key.malformed`` or ``key.name``.
        """
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _missing(name) from None
        except OSError:
            raise KeyStoreError("key.permissions", f"The key file {path} cannot be opened.") from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise KeyStoreError("key.permissions", f"The key file {path} is not a plain file.")
            if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                raise KeyStoreError(
                    "key.permissions",
                    f"Others could read the key file {path}.",
                    f"Treat the key as lost, or own it and run: chmod 600 {path}",
                )
            pem = os.read(descriptor, _MAX_PEM)
        finally:
            os.close(descriptor)
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _malformed("private") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise _malformed("private")
        return _Ed25519Signer(private)

    def names(self) -> tuple[str, ...]:
        """The names of all keys, sorted."""
        return tuple(
            sorted(path.stem for path in self._directory.glob("*.pem") if _NAME.fullmatch(path.stem))
        )

    def _path(self, name: str) -> Path:
        _check_name(name)
        return self._directory / f"{name}.pem"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise KeyStoreError(
            "key.name",
            "A key's name has characters that are not allowed.",
            "Use up to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
        )


def _missing(name: str) -> KeyStoreError:
    return KeyStoreError("key.missing", f"There is no key named {name}.", "Generate it first.")


def _exists(name: str) -> KeyStoreError:
    return KeyStoreError("key.exists", f"A key named {name} exists already and is kept.", "Use another name.")


def _malformed(half: str) -> KeyStoreError:
    return KeyStoreError(
        "key.malformed", f"This is not a sound Ed25519 {half} key in PEM.", "Use the file as it was written."
    )
