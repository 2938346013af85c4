"""Passphrases and PINs: asked for when they are needed, shown to nobody.

Rules this module keeps:

* A secret comes in as a function, so that no settings object, log line or ``repr`` carries it.
* A file that holds one belongs to its user alone, like a key.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from cloister.core.errors import InputError, KeyStoreError
from cloister.core.files import open_plain

Secret: TypeAlias = Callable[[], bytes]
"""Answers a passphrase or PIN."""

MAX_SECRET: Final = 1024


def secret_file(path: Path) -> Secret:
    """A secret that is read from a file each time it is needed; one line break at its end is not part of it.

    Args:
        path: a plain file of mode 0600 that belongs to this user.

    Returns:
        The function. Calling it raises KeyStoreError ``key.secret`` where the file is missing or empty, and
        ``key.permissions`` where others could read it.
    """

    def read() -> bytes:
        return require_secret(bytes(read_private(path)).removesuffix(b"\n").removesuffix(b"\r"))

    return read


def read_private(path: Path) -> bytearray:
    """What a file of mode 0600 holds, at most 1024 bytes, in a buffer that can be wiped.

    Raises:
        KeyStoreError: ``key.secret`` where it is missing, ``key.permissions`` where others could read it.
    """
    try:
        descriptor = open_plain(path)
    except InputError as error:
        raise KeyStoreError("key.secret", error.message, "Name the file that holds it.") from None
    try:
        require_private(os.fstat(descriptor), path)
        buffer = bytearray(MAX_SECRET + 1)
        del buffer[os.readv(descriptor, [buffer]) :]
    finally:
        os.close(descriptor)
    return buffer


def require_secret(secret: bytes) -> bytes:
    """Refuse a passphrase or PIN that can't be one.

    Raises:
        KeyStoreError: ``key.secret`` where it is empty or too long.
    """
    if not secret or len(secret) > MAX_SECRET:
        raise KeyStoreError("key.secret", f"A passphrase or PIN has between 1 and {MAX_SECRET} bytes.")
    return secret


def require_private(found: os.stat_result, path: Path) -> None:
    """Refuse a file with a key or secret in it that others than this user could read or replace.

    Raises:
        KeyStoreError: ``key.permissions``.
    """
    if not stat.S_ISREG(found.st_mode):
        raise KeyStoreError("key.permissions", f"The key file {path} is not a plain file.")
    if found.st_mode & 0o077 or found.st_uid != os.geteuid():
        raise KeyStoreError(
            "key.permissions",
            f"Others could read the key file {path}.",
            f"Treat the key as lost, or own it and run: chmod 600 {path}",
        )
