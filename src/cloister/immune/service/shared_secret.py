"""The secret that sender and service share, in a file that only its owner can read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.core.files import write_new
from cloister.core.keys.secrets import secret_file
from cloister.immune.errors import ImmuneError

if TYPE_CHECKING:
    from cloister.immune.settings import ApiSettings

LEAST_BYTES: Final = 32


def read_secret(settings: ApiSettings) -> bytes | None:
    """The secret that telemetry is signed with; None where no file is set.

    Raises:
        ImmuneError: ``immune.setting_invalid`` where it could be guessed.
        KeyStoreError: ``key.secret`` or ``key.permissions``.
    """
    if settings.token_file is None:
        return None
    secret = secret_file(Path(settings.token_file))()
    if len(secret) < LEAST_BYTES:
        raise ImmuneError(
            "immune.setting_invalid",
            f"The secret in api.token_file has fewer than {LEAST_BYTES} bytes.",
            "Make one: openssl rand -hex 32",
        )
    return secret


def write_secret(path: Path, secret: bytes) -> None:
    """Write a secret in hex to a new file that only its owner can read.

    Args:
        path: the file; its folder has to exist.
        secret: 32 random bytes or more.

    Raises:
        StorageError: it can't be written there.
    """
    write_new(path, secret.hex().encode("ascii") + b"\n")
