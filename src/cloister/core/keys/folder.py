"""A folder of key files that only its owner may enter."""

from __future__ import annotations

import os
from pathlib import Path

from cloister.core.errors import KeyStoreError, StorageError
from cloister.core.files import storage_error, write_new
from cloister.core.keys.store import check_name, exists


class KeyFolder:
    """The folder, in which each key has a file of its name.

    Args:
        directory: made with mode 0700 where it is missing.

    Raises:
        KeyStoreError: ``key.permissions`` where others may enter the folder or it belongs to somebody else.
        StorageError: the folder can't be made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = private_folder(directory)

    def path(self, name: str) -> Path:
        """The file of this key, there or not.

        Raises:
            KeyStoreError: ``key.name``.
        """
        check_name(name)
        return self._directory / f"{name}.pem"

    def names(self) -> tuple[str, ...]:
        """The names that files have, sorted; some may be none that a key can have."""
        return tuple(sorted(path.stem for path in self._directory.glob("*.pem")))

    def keep(self, name: str, pem: bytes) -> None:
        """Keep a new key; it is on disk when this returns.

        Raises:
            KeyStoreError: ``key.exists`` or ``key.name``.
            StorageError: it can't be written; there is none then.
        """
        path = self.path(name)
        try:
            write_new(path, pem, mode=0o600)
        except StorageError as error:
            if error.code == "storage.exists":
                raise exists(name) from None
            raise


def private_folder(directory: Path) -> Path:
    """A folder that only this user may enter; made with mode 0700 where it is missing.

    Raises:
        KeyStoreError: ``key.permissions`` where others may enter the folder or it belongs to somebody else.
        StorageError: the folder can't be made.
    """
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
    return directory
