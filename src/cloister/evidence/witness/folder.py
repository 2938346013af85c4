"""A witness on disk: its name, the logs it follows, and what it has seen of them.

::

    <folder>/name                 under which it cosigns
    <folder>/keys/                its signing key, where keys are kept in files
    <folder>/witness.pem          its public key, for trust directories: witness/<name>.pem
    <folder>/logs/<log>/<id>.pem  the keys of a log it follows; several where the log's owner changed its key
    <folder>/held/                its book; copies of its notes are checkpoints held off the log's machine

Rules kept here:

1. A witness follows the logs it was told of, by their keys; it believes no key that a request brings along.
2. No witness is overwritten: a second one in a folder is refused. One that could not be made whole has no
   name, and is made anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from cloister.core.errors import KeyStoreError, StorageError
from cloister.core.files import read_bounded, storage_error, write_atomic, write_new
from cloister.core.keys import ED25519, KeyStore, PublicKey
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import log_owner
from cloister.evidence.predicates.base import PARTY_PATTERN
from cloister.evidence.witness.book import CheckpointBook, file_name
from cloister.evidence.witness.witness import Witness

KEY: Final = "witness"
PUBLIC_KEY_FILE: Final = "witness.pem"
_MAX_PEM: Final = 16 * 1024
_NAME: Final = re.compile(PARTY_PATTERN)


def create_witness(folder: Path, open_store: Callable[[], KeyStore], name: str) -> PublicKey:
    """Make a witness with a new Ed25519 key.

    Args:
        folder: where; made if missing.
        open_store: opens what keeps the key.
        name: under which it cosigns, a party's name as in a trust directory.

    Returns:
        Its public key.

    Raises:
        EvidenceError: ``evidence.witness_refused`` for an improper name.
        KeyStoreError: the key store can't be used; then there is no witness yet, and one can be made again.
        StorageError: ``storage.exists`` if there is a witness in the folder.
    """
    if not _NAME.fullmatch(name):
        raise EvidenceError(
            "evidence.witness_refused",
            "A witness's name has letters, digits, dots, dashes and underscores.",
            "Choose another with --name, the one by which trust directories are to know it.",
        )
    if (folder / "name").exists():
        raise StorageError(
            "storage.exists", f"There is a witness in {folder}.", "Make another in its own folder."
        )
    _make(folder)
    store = open_store()
    signer = store.load(KEY) if KEY in store.names() else store.generate(KEY, ED25519)
    write_atomic(folder / PUBLIC_KEY_FILE, signer.public_key.pem.encode("ascii"), mode=0o644)
    # The name comes last: where it is, there is a whole witness.
    write_new(folder / "name", name.encode("ascii"))
    return signer.public_key


def follow(folder: Path, origin: str, key: PublicKey) -> None:
    """Let a witness follow a log, or know it by one more key.

    Args:
        folder: the witness's.
        origin: the log's name.
        key: the log's public key, from a source that can be believed.

    Raises:
        EvidenceError: ``evidence.witness_refused`` if there is no witness; ``evidence.checkpoint_malformed``
            for a name that no log has.
        StorageError: it can't be written.
    """
    read_name(folder)
    log_owner(origin)
    keys = folder / "logs" / file_name(origin)
    _make(keys)
    write_atomic(keys / f"{key.key_id.removeprefix('sha256:')[:16]}.pem", key.pem.encode("ascii"), mode=0o644)


def followed(folder: Path) -> Mapping[str, tuple[PublicKey, ...]]:
    """The keys of each log that a witness follows, by the log's name.

    Raises:
        KeyStoreError: ``key.malformed``, naming the file that is no public key.
    """
    return {
        unquote(log.name): tuple(_key(path) for path in sorted(log.glob("*.pem")))
        for log in sorted((folder / "logs").glob("*"))
    }


def open_witness(folder: Path, store: KeyStore) -> Witness:
    """The witness in a folder.

    Raises:
        EvidenceError: ``evidence.witness_refused`` if there is none.
        KeyStoreError: its key, or a log's, can't be used.
    """
    name = read_name(folder)
    return Witness(name, store.load(KEY), CheckpointBook(folder / "held"), followed(folder))


def read_name(folder: Path) -> str:
    """The name of the witness in a folder.

    Raises:
        EvidenceError: ``evidence.witness_refused`` if there is none.
    """
    if not (folder / "name").is_file():
        raise EvidenceError(
            "evidence.witness_refused",
            f"There is no witness in {folder}.",
            f"Make one:  cloister witness init {folder} --name NAME",
        )
    name = read_bounded(folder / "name", 100).decode("ascii", "replace")
    if not _NAME.fullmatch(name):
        raise EvidenceError(
            "evidence.witness_refused",
            f"{folder / 'name'} is not a witness's name.",
            "Write the name back by which trust directories know the witness.",
        )
    return name


def _key(path: Path) -> PublicKey:
    try:
        return PublicKey.from_pem(read_bounded(path, _MAX_PEM))
    except KeyStoreError as error:
        raise KeyStoreError("key.malformed", f"{path} is not a log's public key.") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from None
