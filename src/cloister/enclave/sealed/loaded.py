"""Which files a fork server was really loaded from, and who vouches for each of them.

The server says which modules it has; the kernel says which files are mapped into it. Rules kept here:

1. A file is vouched for by the measurement of this package and of those that offer models, by the ``RECORD``
   of an installed distribution with the hash that it has, or by belonging to the interpreter or to the
   system's libraries. Anything else is an unmeasured place, and the server isn't used.
2. A file that changed since the server was started may be another than the one that was loaded, and counts as
   changed. The kernel sets that time (``st_ctime``); nobody can set it back without setting the clock.
3. Links are followed first: what counts is where a file really lies.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloister.enclave.errors import SealBroken
from cloister.enclave.installed import installed_distributions, recorded_hashes

_BATCH_BYTES: Final = 32 * 1024
_SYSTEM: Final = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"),
    *("/nix/store", "/gnu/store"),
)
_SITES: Final = ("site-packages", "dist-packages")
_GONE: Final = " (deleted)"


@dataclass(frozen=True)
class LoadedFiles:
    """The files of a server outside the measured packages.

    Attributes:
        paths: where each is, by a name that says who vouches for it.
        recorded: the SHA-256 that a distribution's record has for it, by the same name.
    """

    paths: Mapping[str, str] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)


def imported_modules() -> Iterator[tuple[tuple[str, str], ...]]:
    """What this process was loaded from, in batches that fit a message: called in the server.

    Yields:
        Pairs of a module's file and its byte code's, "" where that isn't there. A module that was made by
        another one, without a file, isn't among them; that one is.
    """
    batch: list[tuple[str, str]] = []
    size = 0
    for file in sorted(_module_files()):
        size += len(file[0]) + len(file[1]) + 8
        if size > _BATCH_BYTES and batch:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(file)
    yield tuple(batch)


def place_loaded(
    modules: Iterable[tuple[str, str]],
    mapped: Iterable[str],
    *,
    packages: Collection[str],
    measured: Collection[str],
    byte_code: Path | None,
    search_path: Iterable[str],
    since_ns: int,
) -> LoadedFiles:
    """Find who vouches for each file.

    Args:
        modules: what the server says, as from `imported_modules`.
        mapped: what the kernel says, as from `mapped_files`.
        packages: names of the measured packages: from nowhere else are these imported.
        measured: paths of their files.
        byte_code: the folder of the server's own byte code.
        search_path: as the server's ``sys.path``.
        since_ns: when it was started, in nanoseconds since 1970.

    Raises:
        SealBroken: ``sealed.code_unmeasured`` for a file that nobody vouches for, ``sealed.code_changed`` for
            one that isn't there as it was when the server started.
    """
    sources = dict(modules)
    real = _without_links((*sources, *mapped))
    known = recorded_hashes(installed_distributions(search_path), frozenset(real.values()))
    interpreter = _interpreter()
    paths: dict[str, str] = {}
    recorded: dict[str, str] = {}
    for given, path in real.items():
        if path not in measured:
            _require_unchanged(path, since_ns)
            if path in known:
                name, recorded[name] = known[path]
            else:
                name = _name(path, interpreter if given in sources else (*interpreter, *_libraries()))
            if name.split("/")[0].removesuffix(".py") in packages:
                raise unmeasured(f"a second {name}")
            paths[name] = path
        cached = sources.get(given)
        if cached:
            if byte_code is None or not cached.startswith(f"{byte_code}/"):
                raise unmeasured(f"byte code of {path}")
            paths[f"byte code{cached.removeprefix(str(byte_code))}"] = cached
    return LoadedFiles(paths, recorded)


def mapped_files(pid: int) -> tuple[str, ...]:
    """The files that are mapped into a process to be run, by the kernel's word.

    A file of which nothing may be run is data, such as a locale or the list of users that the C library asks,
    which its service replaces at any time.

    Raises:
        SealBroken: ``sealed.code_changed`` where one of them isn't there any more.
        OSError: the process is gone, or may not be looked at.
    """
    found: dict[str, None] = {}
    with Path(f"/proc/{pid}/maps").open(encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            _, rights, _, _, _, *path = line.rstrip("\n").split(maxsplit=5)
            # Memory that was given a name is no file.
            if (
                "x" in rights
                and path
                and path[0].startswith("/")
                and not path[0].startswith(("/dev/zero", "/memfd:", "/SYSV"))
            ):
                found[path[0]] = None
    if any(one.endswith(_GONE) for one in found):
        raise changed_since_start()
    return tuple(found)


def unmeasured(name: str) -> SealBroken:
    """The refusal of a server that runs what nobody vouches for."""
    return SealBroken(
        "sealed.code_unmeasured",
        "The fork server was loaded from a file that is neither measured nor recorded by its installer.",
        "Install all from wheels into a virtual environment of its own, as copies and not by links, with no "
        "packages of the system's, and have nothing else on Python's path.",
        details=[name],
    )


def changed_since_start() -> SealBroken:
    """The refusal of a server whose files changed while it started."""
    return SealBroken(
        "sealed.code_changed",
        "A file that the fork server was loaded from changed while it started.",
        "Find out who changed it, install the agreed release anew, then start again.",
    )


def _module_files() -> set[tuple[str, str]]:
    found = set()
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        source = getattr(spec, "origin", None) if getattr(spec, "has_location", False) else None
        source = source or getattr(module, "__file__", None)
        if not isinstance(source, str) or not source.startswith("/"):
            continue
        cached = getattr(spec, "cached", None)
        has_cache = isinstance(cached, str) and cached != source and os.path.isfile(cached)  # noqa: PTH113
        found.add((source, str(cached) if has_cache else ""))
    return found


def _without_links(paths: Iterable[str]) -> dict[str, str]:
    folders: dict[str, str] = {}
    real = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder).rstrip("/")
        joined = f"{folders[folder]}/{name}"
        real[path] = os.path.realpath(joined) if Path(joined).is_symlink() else joined
    return real


def _require_unchanged(path: str, since_ns: int) -> None:
    try:
        found = os.lstat(path)
    except OSError:
        raise changed_since_start() from None
    if not stat.S_ISREG(found.st_mode) or found.st_ctime_ns >= since_ns:
        raise changed_since_start()


def _name(path: str, places: Iterable[tuple[str, str]]) -> str:
    if not any(f"/{one}/" in path for one in _SITES):
        for kind, place in places:
            if path == place or path.startswith(f"{place}/"):
                return f"{kind}{path.removeprefix(str(Path(place).parent))}"
    raise unmeasured(path)


def _interpreter() -> tuple[tuple[str, str], ...]:
    """Where modules of the interpreter lie: its own, not a virtual environment's."""
    own = {"platbase": sys.base_exec_prefix, "base": sys.base_prefix}
    folders = {os.path.realpath(sysconfig.get_path(one, vars=own)) for one in ("stdlib", "platstdlib")}
    return tuple(("python", one) for one in sorted(folders))


def _libraries() -> tuple[tuple[str, str], ...]:
    """Where else mapped files may lie: the interpreter itself, the system's libraries, and those that an
    interpreter brings along in a prefix of its own."""
    brought = (f"{sys.base_exec_prefix}/{one}" for one in ("lib", sys.platlibdir))
    return (
        ("python", os.path.realpath(sys.executable)),
        *(("system", os.path.realpath(one)) for one in _SYSTEM),
        *(("python", os.path.realpath(one)) for one in brought),
    )
