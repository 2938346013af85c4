"""SHA-256 as the house writes it: 64 lower-case hexadecimal digits, in a type of its own."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, NewType

from pydantic import StringConstraints

from cloister.core.files import open_plain

Sha256 = NewType("Sha256", str)
"""A SHA-256 digest (FIPS 180-4) as 64 lower-case hexadecimal digits."""

Sha256Field = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""The same, as the type of a model's field."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1024 * 1024


def sha256_hex(data: bytes) -> Sha256:
    """The SHA-256 of bytes."""
    return Sha256(hashlib.sha256(data).hexdigest())


def sha256_file(path: Path) -> Sha256:
    """The SHA-256 of a file, read in pieces of one MiB.

    Raises:
        InputError: ``input.missing_file`` or ``input.unreadable``.
    """
    digest = hashlib.sha256()
    with os.fdopen(open_plain(path), "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return Sha256(digest.hexdigest())


def is_sha256(text: str) -> bool:
    """Whether the text is a SHA-256 digest as this house writes it."""
    return _SHA256.fullmatch(text) is not None
