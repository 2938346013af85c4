"""What is installed here, by the records that installers leave: names, versions, and the hash of every file.

``RECORD`` (Recording Installed Projects, PyPA specification) lists each file of a distribution with its
SHA-256; a hashed lock at installation pins the archive that both came from. Rules kept here:

1. Only folders on the module search path are looked at. A folder or file that isn't of its form counts as
   absent, so what it would vouch for is vouched for by nobody.
2. Nothing is imported, and no file but the records is read.
"""

from __future__ import annotations

import base64
import binascii
import csv
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_INFO: Final = ".dist-info"
_STARTUP: Final = (_INFO, ".egg-info", ".egg-link", ".pth")
_HASH: Final = "sha256="


@dataclass(frozen=True, slots=True)
class Distribution:
    """One installed distribution.

    Attributes:
        name: as its folder says.
        version: likewise.
        folder: the folder on the search path that it's installed to, with no link in it.
        record: the path of its ``RECORD``.
    """

    name: str
    version: str
    folder: str
    record: str


def installed_distributions(search_path: Iterable[str]) -> tuple[Distribution, ...]:
    """Every distribution with a ``RECORD``, in the order of the search path, then by name.

    Args:
        search_path: folders, as in ``sys.path``.
    """
    return tuple(_distributions(installation_folders(search_path)))


def installation_folders(search_path: Iterable[str]) -> tuple[str, ...]:
    """The folders of a search path that exist, each once, with no link in them."""
    real = (os.path.realpath(one) for one in search_path if Path(one).is_absolute())
    return tuple(dict.fromkeys(one for one in real if Path(one).is_dir()))


def startup_names(folder: str) -> tuple[str, ...]:
    """The names in an installation folder by which code gets installed or started: distributions, paths."""
    return tuple(sorted(name for name in os.listdir(folder) if name.endswith(_STARTUP)))  # noqa: PTH208


def recorded_hashes(
    distributions: Iterable[Distribution], paths: Collection[str]
) -> dict[str, tuple[str, str]]:
    """What the records say of some files.

    Args:
        distributions: whose records are read.
        paths: absolute, with no link in them.

    Returns:
        By path: the file's name inside its distribution's folder, and its SHA-256 in hex. A file that no
        record lists with a hash isn't there.
    """
    wanted = frozenset(paths)
    found: dict[str, tuple[str, str]] = {}
    for one in distributions:
        for name, written in _record(one):
            path = f"{one.folder}/{name}"
            if path not in wanted and ".." in name:
                path = os.path.normpath(path)
            if path in wanted and (digest := _sha256(written)):
                found.setdefault(path, (name, digest))
    return found


def _distributions(folders: Iterable[str]) -> Iterator[Distribution]:
    for folder in folders:
        for entry in sorted(os.listdir(folder)):  # noqa: PTH208
            name, dash, version = entry.removesuffix(_INFO).partition("-")
            record = f"{folder}/{entry}/RECORD"
            if entry.endswith(_INFO) and dash and Path(record).is_file():
                yield Distribution(name, version, folder, record)


def _record(of: Distribution) -> Iterator[tuple[str, str]]:
    try:
        with Path(of.record).open(encoding="utf-8", newline="") as file:
            yield from ((row[0], row[1]) for row in csv.reader(file) if len(row) == 3)
    except (OSError, UnicodeDecodeError, csv.Error):
        return


def _sha256(written: str) -> str:
    text = written.removeprefix(_HASH)
    if text == written:
        return ""
    try:
        digest = base64.b64decode(f"{text}=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return ""
    return digest.hex() if len(digest) == 32 else ""
