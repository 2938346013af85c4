"""The key store that the settings choose for a party.

Rules this module keeps:

* One choice for the process: a token where ``pkcs11_library`` is set, else files, encrypted where
  ``key_passphrase_file`` is set. What is set only in part, or both at once, is refused.
* Data keys are wrapped by a key in AWS KMS where ``kms_key`` is set, else by one where the others are. What
  was wrapped stays where it was wrapped: its own id says which key opens it, whatever is set by now.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cloister.core.errors import KeyStoreError
from cloister.core.keys.files import FileKeyStore
from cloister.core.keys.folder import private_folder
from cloister.core.keys.pkcs11 import Pkcs11KeyStore
from cloister.core.keys.secrets import Secret, secret_file
from cloister.core.keys.store import KeyStore
from cloister.core.keys.wrapping import FileWrappingKey, WrappingKey
from cloister.core.keys.wrapping_kms import KmsWrappingKey
from cloister.core.keys.wrapping_token import TokenWrappingKey


class KeySettings(Protocol):
    """The part of the settings that chooses a key store; `cloister.core.settings.Settings` has it."""

    @property
    def key_passphrase_file(self) -> Path | None:
        """The file with the passphrase of keys kept as files."""
        ...

    @property
    def pkcs11_library(self) -> Path | None:
        """The PKCS#11 module."""
        ...

    @property
    def pkcs11_token(self) -> str | None:
        """The token's label."""
        ...

    @property
    def pkcs11_pin_file(self) -> Path | None:
        """The file with the token's PIN."""
        ...

    @property
    def kms_key(self) -> str | None:
        """ARN of the key in AWS KMS by which data keys are wrapped."""
        ...


def open_key_store(settings: KeySettings, directory: Path, *, owner: str) -> KeyStore:
    """Open the store that keeps a party's keys.

    Args:
        settings: the process's settings.
        directory: where the keys lie if they are files.
        owner: the party, ``<role>/<name>``; keeps apart parties that share a token.

    Raises:
        KeyStoreError: ``key.settings`` for settings that don't name one store, else as the store itself.
        StorageError: the folder can't be made.
    """
    token = _token(settings)
    if token is not None:
        if settings.key_passphrase_file is not None:
            raise _unclear("key_passphrase_file is for keys in files, and pkcs11_library is set too")
        return Pkcs11KeyStore(*token, owner=owner)
    return FileKeyStore(directory, passphrase=_passphrase(settings))


def wrapping_kind(settings: KeySettings) -> str:
    """Where the settings keep the key-encryption key: "kms", "token" or "file", as ids of them begin.

    Raises:
        KeyStoreError: ``key.settings`` for a token that is named in part.
    """
    if settings.kms_key is not None:
        return "kms"
    return "file" if _token(settings) is None else "token"


def create_wrapping_key(settings: KeySettings, directory: Path, name: str, *, owner: str) -> WrappingKey:
    """Make a key-encryption key where the settings keep it: in a token, else in a file. One in AWS KMS is
    there already, made by who administers that.

    Args:
        settings: the process's settings.
        directory: where it lies if it is a file; made with mode 0700 where it is missing.
        name: the key's name.
        owner: the party; keeps apart parties that share a token.

    Raises:
        KeyStoreError: ``key.settings``, ``key.exists``, or as the store itself.
        StorageError: it can't be written.
    """
    if settings.kms_key is not None:
        return KmsWrappingKey.of_arn(settings.kms_key)
    token = _token(settings)
    if token is not None:
        return TokenWrappingKey.create(*token, name, owner=owner)
    return FileWrappingKey.create(private_folder(directory), name, passphrase=_passphrase(settings))


def open_wrapping_key(
    settings: KeySettings, directory: Path, wrapping_id: str, name: str, *, owner: str
) -> WrappingKey:
    """The key-encryption key that something was wrapped with.

    Args:
        settings: the process's settings.
        directory: where it lies if it is a file.
        wrapping_id: as the key itself said when it wrapped.
        name: the key's name in a file or token.
        owner: the party; keeps apart parties that share a token.

    Raises:
        KeyStoreError: ``key.missing`` where that key isn't at hand, as one in a token that the settings don't
            name, or as the store itself.
    """
    kind, _, place = wrapping_id.partition(":")
    if kind == "kms":
        return KmsWrappingKey.of_arn(place)
    found: WrappingKey
    if kind == "token":
        found = TokenWrappingKey.load(*_required_token(settings), name, owner=owner)
    else:
        found = FileWrappingKey.load(directory, name, passphrase=_passphrase(settings))
    if found.wrapping_id != wrapping_id:
        raise KeyStoreError(
            "key.missing",
            "The key-encryption key at hand is not the one it was wrapped with.",
            "Name the store in which that key is.",
        )
    return found


def load_wrapping_key(settings: KeySettings, directory: Path, name: str, *, owner: str) -> WrappingKey:
    """The key-encryption key that `create_wrapping_key` made, for whoever has wrapped nothing with it yet.

    Args:
        settings: the process's settings.
        directory: where it lies if it is a file.
        name: the key's name.
        owner: the party; keeps apart parties that share a token.

    Raises:
        KeyStoreError: ``key.missing``, or as the store itself.
    """
    if settings.kms_key is not None:
        return KmsWrappingKey.of_arn(settings.kms_key)
    token = _token(settings)
    if token is not None:
        return TokenWrappingKey.load(*token, name, owner=owner)
    return FileWrappingKey.load(directory, name, passphrase=_passphrase(settings))


def _token(settings: KeySettings) -> tuple[Path, str, Secret] | None:
    library, token, pin_file = settings.pkcs11_library, settings.pkcs11_token, settings.pkcs11_pin_file
    if library is not None and token is not None and pin_file is not None:
        return library, token, secret_file(pin_file)
    if any(one is not None for one in (library, token, pin_file)):
        raise _unclear("pkcs11_library, pkcs11_token and pkcs11_pin_file are set together or not at all")
    return None


def _required_token(settings: KeySettings) -> tuple[Path, str, Secret]:
    token = _token(settings)
    if token is None:
        raise KeyStoreError(
            "key.missing",
            "The key-encryption key is in a token, and the settings name none.",
            "Set pkcs11_library, pkcs11_token and pkcs11_pin_file.",
        )
    return token


def _passphrase(settings: KeySettings) -> Secret | None:
    path = settings.key_passphrase_file
    return None if path is None else secret_file(path)


def _unclear(reason: str) -> KeyStoreError:
    return KeyStoreError("key.settings", f"The settings don't name one key store: {reason}.", "Set one.")
