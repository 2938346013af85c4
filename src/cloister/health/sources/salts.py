"""The secret salt beside each private table, without which its commitment could be searched for records.

A commitment is published in manifests and receipts. Over the records alone it would let anyone who knows all
cells but one try out that one, outside every privacy budget. The salt, 32 bytes from the operating system's
entropy, is the part that nobody can try out.

Rules kept here:

* The file is ``<site>.salt`` beside ``<site>.csv``: 64 hexadecimal digits, its owner's alone (mode 0600).
* It never leaves the site, and no message or log holds a part of it.
* It is made once and never replaced. Who loses it can't open the commitment any more: the same records then
  have another hash, and need a new manifest. The budget spent on them stays spent.
"""

import os
import re
from pathlib import Path

from cloister.core.files import resolve_inside, write_new
from cloister.core.inside import open_inside
from cloister.health.commitment import SALT_BYTES
from cloister.health.errors import HealthError

_CONTENT = re.compile(rb"([0-9a-f]{%d})\n?" % (2 * SALT_BYTES))
_HINT = "Make it with: cloister data JOB --data DIR."


def salt_name(site: str) -> str:
    """The name of a site's salt file."""
    return f"{site}.salt"


def make_salt(folder: Path, site: str) -> bool:
    """Make a site's salt if it has none.

    Args:
        folder: the folder of its table.
        site: the site.

    Returns:
        Whether one was made; one that is there is left as it is.

    Raises:
        InputError: the file would lie outside the folder.
        StorageError: it can't be written.
    """
    path = resolve_inside(folder, salt_name(site))
    if path.exists():
        return False
    write_new(path, os.urandom(SALT_BYTES).hex().encode() + b"\n", mode=0o600)
    return True


def read_salt(folder: Path, site: str) -> bytes:
    """Read a site's salt.

    Args:
        folder: the folder of its table.
        site: the site.

    Returns:
        32 bytes.

    Raises:
        HealthError: ``health.salt_missing``, ``health.salt_permissions`` or ``health.salt_malformed``.
        InputError: the file lies outside the folder, or can't be read.
    """
    path = resolve_inside(folder, salt_name(site))
    if not path.exists():
        raise HealthError("health.salt_missing", f"The table of site {site} has no {path.name}.", _HINT)
    with os.fdopen(open_inside(folder, salt_name(site)), "rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        content = stream.read(2 * SALT_BYTES + 2)
    if mode & 0o077:
        raise HealthError(
            "health.salt_permissions",
            f"The file {path.name} is open to others than its owner.",
            f"Close it with chmod 600 {path.name}; if others may have read it, remove it and make a new one.",
        )
    match = _CONTENT.fullmatch(content)
    if match is None:
        raise HealthError(
            "health.salt_malformed",
            f"The file {path.name} doesn't hold {2 * SALT_BYTES} lower-case hexadecimal digits.",
            "Restore it from a backup; without one, remove it and make a new one, and a new manifest.",
        )
    return bytes.fromhex(match[1].decode())
