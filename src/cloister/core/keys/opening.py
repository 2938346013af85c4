"""The key store that the settings choose for a party.

Rules this module keeps:

* One choice for the process: a token where ``pkcs11_library`` is set, else files, encrypted where
  ``key_passphrase_file`` is set. What is set only in part, or both at once, is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cloister.core.errors import KeyStoreError
from cloister.core.keys.files import FileKeyStore
from cloister.core.keys.pkcs11 import Pkcs11KeyStore
from cloister.core.keys.secrets import secret_file
from cloister.core.keys.store import KeyStore


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
    hardware = (settings.pkcs11_library, settings.pkcs11_token, settings.pkcs11_pin_file)
    library, token, pin_file = hardware
    if library is not None and token is not None and pin_file is not None:
        if settings.key_passphrase_file is not None:
            raise _unclear("key_passphrase_file is for keys in files, and pkcs11_library is set too")
        return Pkcs11KeyStore(library, token, secret_file(pin_file), owner=owner)
    if any(one is not None for one in hardware):
        raise _unclear("pkcs11_library, pkcs11_token and pkcs11_pin_file are set together or not at all")
    if settings.key_passphrase_file is not None:
        return FileKeyStore(directory, passphrase=secret_file(settings.key_passphrase_file))
    return FileKeyStore(directory)


def _unclear(reason: str) -> KeyStoreError:
    return KeyStoreError("key.settings", f"The settings don't name one key store: {reason}.", "Set one.")
