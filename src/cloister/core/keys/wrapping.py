"""Keys that wrap other keys: the port, and one kept as a file.

A data key encrypts records; it is kept wrapped, and what unwraps it is the hospital's alone.

Rules this module keeps:

* What is wrapped is bound to a context, the thing it is for. Under another context it doesn't unwrap.
* A key that wraps leaves its place never: it is in a file of its owner's alone, in a token, or in a service.
* An unwrapped key comes in a buffer that can be wiped.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.core.canonical import b64decode, b64encode
from cloister.core.errors import InputError, KeyStoreError, StorageError
from cloister.core.files import open_plain, write_new
from cloister.core.hashes import sha256_hex
from cloister.core.keys.secrets import Secret, require_private, require_secret
from cloister.core.keys.store import check_name, exists, missing
from cloister.core.symmetric import AES_KEY_BYTES, AES_NONCE_BYTES

DOMAIN: Final = b"urn:cloister:wrapped-key:v1\x00"
MAX_WRAPPED_BYTES: Final = 8192
_TAG_BYTES: Final = 16
_CLEAR: Final = "cloister-key-encryption-key-v1 "
_ENCRYPTED: Final = "cloister-key-encryption-key-scrypt-131072-8-1-v1 "
_SALT_BYTES: Final = 32
_SEALED: Final = AES_KEY_BYTES + _TAG_BYTES
_SIZES: Final = {_CLEAR: AES_KEY_BYTES, _ENCRYPTED: _SALT_BYTES + AES_NONCE_BYTES + _SEALED}
_WHOLE: Final = AES_NONCE_BYTES + AES_KEY_BYTES + _TAG_BYTES


class WrappingKey(Protocol):
    """A key-encryption key: AES-256-GCM in a file or token, or a key management service's own key."""

    @property
    def wrapping_id(self) -> str:
        """Which key it is, for people and for books; nothing secret."""
        ...

    def wrap(self, key: bytes | bytearray, context: bytes) -> bytes:
        """Wrap a 32-byte key for a context.

        Raises:
            KeyStoreError: ``key.malformed`` for another size; ``key.hardware`` or ``key.service``.
        """
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytearray:
        """The 32-byte key, in a buffer to be wiped.

        Raises:
            KeyStoreError: ``key.wrapped`` unless it was wrapped by this key for this context;
                ``key.hardware`` or ``key.service``.
        """
        ...


class FileWrappingKey:
    """A key-encryption key in a file of mode 0600, made by `create` and read by `load`."""

    def __init__(self, name: str, secret: bytes) -> None:
        self._cipher = AESGCM(secret)
        self._name = name
        self._id = sha256_hex(DOMAIN + b"id\x00" + secret)[:16]

    @classmethod
    def create(cls, directory: Path, name: str, *, passphrase: Secret | None = None) -> FileWrappingKey:
        """Make a new key; it is on disk when this returns.

        Args:
            directory: an existing folder.
            name: up to 100 letters, digits, dots, dashes and underscores.
            passphrase: answers what the file is encrypted with, at scrypt's cost; none keeps it clear.

        Raises:
            KeyStoreError: ``key.exists``, ``key.name`` or ``key.secret``.
            StorageError: it can't be written.
        """
        secret = secrets.token_bytes(AES_KEY_BYTES)
        content = _CLEAR + b64encode(secret) if passphrase is None else _encrypted(secret, passphrase)
        try:
            write_new(_path(directory, name), f"{content}\n".encode("ascii"), mode=0o600)
        except StorageError as error:
            if error.code == "storage.exists":
                raise exists(name) from None
            raise
        return cls(name, secret)

    @classmethod
    def load(cls, directory: Path, name: str, *, passphrase: Secret | None = None) -> FileWrappingKey:
        """The key of this name.

        Raises:
            KeyStoreError: ``key.missing``, ``key.permissions``, ``key.malformed``, ``key.name``, or
                ``key.passphrase`` where it isn't encrypted as it should be.
        """
        path = _path(directory, name)
        try:
            descriptor = open_plain(path)
        except InputError as error:
            if error.code == "input.missing_file":
                raise missing(name) from None
            raise KeyStoreError("key.permissions", error.message) from None
        try:
            require_private(os.fstat(descriptor), path)
            raw = os.read(descriptor, 1024)
        finally:
            os.close(descriptor)
        form, kept = _content(raw, name)
        if (form == _ENCRYPTED) != (passphrase is not None):
            raise _wrong_passphrase(name)
        if passphrase is None:
            return cls(name, kept)
        salt, nonce, sealed = kept[:_SALT_BYTES], kept[_SALT_BYTES:][:AES_NONCE_BYTES], kept[-_SEALED:]
        try:
            return cls(name, AESGCM(_stretched(passphrase, salt)).decrypt(nonce, sealed, DOMAIN))
        except InvalidTag:
            raise _wrong_passphrase(name) from None

    @property
    def wrapping_id(self) -> str:
        """``file:``, its name, and a hash that only this key has."""
        return f"file:{self._name}:{self._id}"

    def wrap(self, key: bytes | bytearray, context: bytes) -> bytes:
        """Wrap a key: 12-byte nonce, ciphertext, 16-byte tag (NIST SP 800-38D)."""
        require_data_key(key)
        nonce = secrets.token_bytes(AES_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, DOMAIN + context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytearray:
        """Unwrap a key."""
        if len(wrapped) != _WHOLE:
            raise wrong_wrapping()
        key = bytearray(AES_KEY_BYTES)
        try:
            self._cipher.decrypt_into(
                wrapped[:AES_NONCE_BYTES], wrapped[AES_NONCE_BYTES:], DOMAIN + context, key
            )
        except InvalidTag:
            raise wrong_wrapping() from None
        return key

    def __repr__(self) -> str:
        return f"<key-encryption key {self.wrapping_id}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key-encryption key is never copied out of its process")


def require_data_key(key: bytes | bytearray) -> None:
    """Refuse what isn't 32 bytes.

    Raises:
        KeyStoreError: ``key.malformed``.
    """
    if len(key) != AES_KEY_BYTES:
        raise KeyStoreError("key.malformed", "A data key has 32 bytes.")


def wrong_wrapping() -> KeyStoreError:
    """The refusal of a wrapped key that doesn't open."""
    return KeyStoreError(
        "key.wrapped", "The wrapped key doesn't open under this key, or was wrapped for something else."
    )


def _path(directory: Path, name: str) -> Path:
    check_name(name)
    return directory / f"{name}.kek"


def _content(raw: bytes, name: str) -> tuple[str, bytes]:
    for form, size in _SIZES.items():
        text = raw.decode("ascii", "replace")
        if not text.startswith(form):
            continue
        try:
            kept = b64decode(text.removeprefix(form).removesuffix("\n"))
        except InputError:
            break
        if len(kept) == size and text == f"{form}{b64encode(kept)}\n":
            return form, kept
    raise KeyStoreError("key.malformed", f"The file of {name} holds no key-encryption key.")


def _encrypted(secret: bytes, passphrase: Secret) -> str:
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(AES_NONCE_BYTES)
    sealed = AESGCM(_stretched(passphrase, salt)).encrypt(nonce, secret, DOMAIN)
    return _ENCRYPTED + b64encode(salt + nonce + sealed)


def _stretched(passphrase: Secret, salt: bytes) -> bytes:
    return hashlib.scrypt(
        require_secret(passphrase()), salt=salt, n=2**17, r=8, p=1, maxmem=2**28, dklen=AES_KEY_BYTES
    )


def _wrong_passphrase(name: str) -> KeyStoreError:
    return KeyStoreError(
        "key.passphrase",
        f"The key {name} isn't encrypted with the passphrase that was given, or one is missing.",
        "Give the passphrase that the key was made with, by key_passphrase_file.",
    )
