"""A party's keys over time: the one it signs with, and the public halves of those it signed with before.

::

    <party>/keys/                  in the key store: site, then site-2, site-3
    <party>/former-keys/<id>.pem   the public key of each but the newest

Rules kept here:

1. The key with the highest number is the one that signs; a key that was replaced signs nothing more.
2. A former key is known as such before there is a new one: a crash in between leaves the party as it was.
3. Former keys say whose a log's head is. Whether others still believe them is for their trust directories.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from cloister.core.errors import KeyStoreError
from cloister.core.files import read_bounded, storage_error, write_atomic
from cloister.core.keys import KeyStore, PublicKey, Signer

_FORMER: Final = "former-keys"
_MAX_PEM: Final = 16 * 1024


def current_key(role: str, names: Collection[str]) -> str | None:
    """The name of the newest of a party's keys; None if it has none.

    Args:
        role: The party's role, after which its keys are named: ``site``, then ``site-2`` and so on.
        names: The names of the keys in its store.
    """
    numbered = _numbered(role, names)
    return max(numbered)[1] if numbered else None


def former_keys(folder: Path) -> tuple[PublicKey, ...]:
    """The keys that a party signed with before.

    Args:
        folder: The party's.

    Raises:
        KeyStoreError: ``key.malformed``, naming the file that is no public key.
        InputError: A file can't be read.
    """
    return tuple(_public_key(path) for path in sorted((folder / _FORMER).glob("[!.]*.pem")))


def rotate_key(role: str, folder: Path, present: PublicKey, store: KeyStore) -> Signer:
    """Give a party a new key, keeping the public half of the one it has had.

    Args:
        role: The party's role, after which its keys are named.
        folder: The party's.
        present: The key that the party has signed with up to now.
        store: Keeps the party's keys.

    Returns:
        The key that the party signs with from now on.

    Raises:
        KeyStoreError: The store can't make it.
        StorageError: The public half of the former one can't be kept; then nothing was changed.
    """
    former = folder / _FORMER
    try:
        former.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error(error, former) from None
    # Before the new key: a former key that isn't known as one would make the log nobody's.
    write_atomic(former / f"{present.key_id.removeprefix('sha256:')[:32]}.pem", present.pem.encode("ascii"))
    number, _ = max(_numbered(role, store.names()), default=(1, ""))
    return store.generate(f"{role}-{number + 1}")


def _numbered(role: str, names: Collection[str]) -> list[tuple[int, str]]:
    first = [(1, role)] if role in names else []
    later = (re.fullmatch(rf"{re.escape(role)}-([1-9][0-9]{{0,5}})", name) for name in names)
    return [*first, *((int(found[1]), found[0]) for found in later if found is not None)]


def _public_key(path: Path) -> PublicKey:
    try:
        return PublicKey.from_pem(read_bounded(path, _MAX_PEM))
    except KeyStoreError as error:
        raise KeyStoreError("key.malformed", f"{path} is not a public key.") from error
