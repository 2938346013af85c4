"""Keys as files.

Rules this module keeps:

* PKCS#8 PEM, mode 0600 in a folder 0700; no key is overwritten, and one that others could read is refused.
* With a passphrase keys are written and read encrypted only: a clear key in such a store is refused, and so
  is an encrypted one in a store without a passphrase. Nothing falls back.
* A guess at a passphrase costs what scrypt costs (RFC 7914: 128 MiB and some tenths of a second), since the
  derivation in PKCS#8 has too few rounds for people's passphrases. The salt stands in a line before the PEM.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from cloister.core.errors import KeyStoreError
from cloister.core.keys.folder import KeyFolder
from cloister.core.keys.public import ED25519, MAX_PEM, malformed
from cloister.core.keys.secrets import Secret, require_private, require_secret
from cloister.core.keys.store import (
    NAME,
    MemorySigner,
    Signer,
    check_name,
    missing,
    new_private_key,
    private_key_of,
)

_CLEAR: Final = b"-----BEGIN PRIVATE KEY-----"
_ENCRYPTED: Final = re.compile(
    rb"scrypt 131072 8 1 ([A-Za-z0-9+/]{43}=)\n(-----BEGIN ENCRYPTED PRIVATE KEY-----\n.+)", re.DOTALL
)
_SALT_BYTES: Final = 32


class FileKeyStore:
    """Keys as PEM files in a folder that only its owner may enter.

    Args:
        directory: the folder; made with mode 0700 where it is missing.
        passphrase: answers what every key in it is encrypted with; none keeps them clear.

    Raises:
        KeyStoreError: ``key.permissions`` where others may enter the folder or it belongs to somebody else.
        StorageError: the folder cannot be made.
    """

    def __init__(self, directory: Path, *, passphrase: Secret | None = None) -> None:
        self._folder = KeyFolder(directory)
        self._passphrase = passphrase

    def generate(self, name: str, algorithm: str = ED25519) -> Signer:
        """Make a new key and keep it; it is on disk before this returns.

        Raises:
            KeyStoreError: ``key.exists``, ``key.name``, ``key.algorithm`` or ``key.secret``.
            StorageError: the key could not be written; there is none.
        """
        check_name(name)
        private = new_private_key(algorithm)
        salt = secrets.token_bytes(_SALT_BYTES)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, self._encryption(salt)
        )
        if self._passphrase is not None:
            pem = b"scrypt 131072 8 1 " + base64.b64encode(salt) + b"\n" + pem
        self._folder.keep(name, pem)
        return MemorySigner(private)

    def load(self, name: str) -> Signer:
        """The key of this name.

        Raises:
            KeyStoreError: ``key.missing``, ``key.permissions``, ``key.malformed``, ``key.name``, or
                ``key.passphrase`` where it isn't encrypted as this store wants it.
        """
        path = self._folder.path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise missing(name) from None
        except OSError:
            raise KeyStoreError("key.permissions", f"The key file {path} cannot be opened.") from None
        try:
            require_private(os.fstat(descriptor), path)
            pem = os.read(descriptor, MAX_PEM)
        finally:
            os.close(descriptor)
        return MemorySigner(private_key_of(self._decrypt(pem, name)))

    def names(self) -> tuple[str, ...]:
        """The names of all keys, sorted."""
        return tuple(name for name in self._folder.names() if NAME.fullmatch(name))

    def _decrypt(self, pem: bytes, name: str) -> PrivateKeyTypes:
        if self._passphrase is None:
            if not pem.startswith(_CLEAR):
                if b"ENCRYPTED PRIVATE KEY" in pem:
                    raise _passphrase(f"The key {name} is encrypted, and no passphrase was given.")
                raise malformed("private")
            return _read(pem, None)
        if pem.startswith(_CLEAR):
            raise _passphrase(f"The key {name} is not encrypted, although a passphrase is asked for.")
        encrypted = _ENCRYPTED.fullmatch(pem)
        if encrypted is None:
            raise malformed("private")
        try:
            salt = base64.b64decode(encrypted[1], validate=True)
        except binascii.Error:
            raise malformed("private") from None
        password = _stretched(require_secret(self._passphrase()), salt)
        try:
            return _read(encrypted[2], password)
        except KeyStoreError:
            raise _passphrase(f"The passphrase doesn't open the key {name}.") from None

    def _encryption(self, salt: bytes) -> serialization.KeySerializationEncryption:
        if self._passphrase is None:
            return serialization.NoEncryption()
        return serialization.BestAvailableEncryption(_stretched(require_secret(self._passphrase()), salt))


def _stretched(passphrase: bytes, salt: bytes) -> bytes:
    key = hashlib.scrypt(passphrase, salt=salt, n=2**17, r=8, p=1, maxmem=2**28, dklen=32)
    return base64.b64encode(key)


def _read(pem: bytes, password: bytes | None) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, password=password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise malformed("private") from None


def _passphrase(reason: str) -> KeyStoreError:
    return KeyStoreError(
        "key.passphrase", reason, "Give the passphrase that the key was made with, by key_passphrase_file."
    )
