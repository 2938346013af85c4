"""What is measured, and its fingerprint: place, size, times and hash of every file at one time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from cloister.core.canonical import JSON, canonicalize
from cloister.enclave.installed import installation_folders, installed_distributions, startup_names
from cloister.enclave.measure import measured_packages
from cloister.enclave.sealed.loaded import LoadedFiles

LARGE_BYTES: Final = 16 * 1024**2
_CHUNK: Final = 1024**2
_CACHES: Final = "__pycache__"
_UNREADABLE: Final = "unreadable"
_CHANGING: Final = "changes while it is read"
_LOOKS_DIFFERENT: Final = "large, and looks different"

Place = tuple[int, int, int, int]
Named = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class WatchedFiles:
    """What is measured.

    Attributes:
        packages: folder of each package by its import name; byte-code caches are left out.
        files: single files by what they are: a lock file, a distribution's record, a job's definition.
        folders: where distributions are installed: which there are.
        loaded: all else that the server was loaded from.
    """

    packages: Mapping[str, Path]
    files: Mapping[str, Path] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    loaded: LoadedFiles = field(default_factory=LoadedFiles)

    @classmethod
    def installed(cls, search_path: Iterable[str] = ()) -> Self:
        """This package and every package that offers models, what is installed, and the lock it came from.

        Args:
            search_path: folders, as in ``sys.path``.
        """
        packages, folders = measured_packages(), installation_folders(search_path)
        records = {
            f"distributions in folder {folders.index(one.folder)}/{one.name}-{one.version}": Path(one.record)
            for one in installed_distributions(folders)
        }
        return cls(packages, _lock_files(packages["cloister"]) | records, folders)

    def with_loaded(self, loaded: LoadedFiles) -> Self:
        """The same, and what a server was loaded from."""
        return replace(self, loaded=loaded)

    def all(self) -> Iterator[tuple[str, str]]:
        """Every file that is there now, by a name that says nothing of the machine."""
        yield from self.listed()
        yield from self.loaded.paths.items()

    def listed(self) -> Iterator[tuple[str, str]]:
        """All but what was loaded: single files, and packages and distributions as they are listed now."""
        for name, path in self.files.items():
            yield name, str(path)
        for name, root in self.packages.items():
            yield from _files_of(name, str(root))
        for number, folder in enumerate(self.folders):
            yield f"distributions in folder {number}", folder


@dataclass(frozen=True)
class Fingerprint:
    """All files at one time: place, size, times and hash of each; an unreadable one has none."""

    places: Mapping[str, Place | None]
    hashes: Mapping[str, str]

    @property
    def unsettled(self) -> tuple[str, ...]:
        """Files that have no hash: they can't be read, or changed meanwhile."""
        none = (_UNREADABLE, _CHANGING, _LOOKS_DIFFERENT)
        return tuple(name for name, value in self.hashes.items() if value in none)

    @property
    def sha384(self) -> str:
        """One hash over all names and hashes."""
        listed: list[JSON] = [[name, self.hashes[name]] for name in sorted(self.hashes)]
        return hashlib.sha384(canonicalize(listed)).hexdigest()


NOTHING: Final = Fingerprint({}, {})


def take_fingerprint(files: WatchedFiles | Named, earlier: Fingerprint = NOTHING) -> Fingerprint:
    """Look at every file; hash those whose place, size or times are not as before.

    Args:
        files: what is looked at.
        earlier: a look whose hashes may be taken over.
    """
    places: dict[str, Place | None] = {}
    hashes: dict[str, str] = {}
    for name, path in files.all() if isinstance(files, WatchedFiles) else files:
        places[name] = place = place_of(path)
        was = earlier.places.get(name)
        if place is None:
            hashes[name] = _UNREADABLE
        elif place == was:
            hashes[name] = earlier.hashes[name]
        elif was is not None and place[1] > LARGE_BYTES:
            hashes[name] = _LOOKS_DIFFERENT
        else:
            digest = _hash(path)
            hashes[name] = digest if place_of(path) == place else _CHANGING
    return Fingerprint(places, hashes)


def with_folder(
    watched: WatchedFiles, baseline: Fingerprint, name: str, folder: Path
) -> tuple[WatchedFiles, Fingerprint]:
    """What is watched and its baseline, with all files of one more folder as they are now.

    Args:
        watched: what is measured.
        baseline: what it was at the start.
        name: the folder's, of no measured package.
        folder: where it is.
    """
    more = replace(watched, packages={**watched.packages, name: folder})
    now = take_fingerprint(_files_of(name, str(folder)))
    return more, Fingerprint({**baseline.places, **now.places}, {**baseline.hashes, **now.hashes})


def _lock_files(package: Path) -> dict[str, Path]:
    """The hashed locks of a source tree, where this package runs from one."""
    folder = package.parent.parent / "requirements"
    return {f"requirements/{one.name}": one for one in sorted(folder.glob("*.txt"))}


def _files_of(name: str, path: str) -> Iterator[tuple[str, str]]:
    if not Path(path).is_dir():
        yield name, path
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != _CACHES:
                    yield from _files_of(f"{name}/{entry.name}", entry.path)
            else:
                yield f"{name}/{entry.name}", entry.path


def place_of(path: str) -> Place | None:
    """Inode, size and times of a file; None where it can't be looked at."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _hash(path: str) -> str:
    digest = hashlib.sha256()
    try:
        for chunk in contents_of(path):
            digest.update(chunk)
    except OSError:
        return _UNREADABLE
    return digest.hexdigest()


def contents_of(path: str) -> Iterator[bytes | memoryview]:
    """A file's contents in pieces; of a folder, the names that matter there."""
    try:
        file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115
    except IsADirectoryError:
        yield "\n".join(startup_names(path)).encode("utf-8", "surrogateescape")
        return
    with file:
        held = bytearray(min(_CHUNK, max(1, os.fstat(file.fileno()).st_size + 1)))
        view = memoryview(held)
        while count := file.readinto(held):
            yield view[:count]
