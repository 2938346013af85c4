"""Byte code that a fork server may run: its own, kept where nobody else may write.

Caches beside the sources (``__pycache__``) are pinned by nothing: no record holds their hash, and Python runs
what stands in them if size and time of the source fit. Compiling everything from its source takes 7 s of
processor time at each start. So the server reads no cache but this user's own folder (``pycache_prefix``),
where Python writes what it compiled itself, from the sources that are measured. Rules kept here:

1. The folder belongs to this user, and nobody else may enter it; no link is followed to it. Where that can't
   be had, there is no cache: everything is compiled at each start, and nothing is written.
2. Each installation has a folder of its own, by its interpreter and the records of what is installed. Python
   takes byte code for a source's by size and whole seconds alone, which an upgrade may leave as they were;
   and another machine with the same home would overwrite what a server here is watched for.
3. No start-up file runs in the server: no ``.pth`` file, ``sitecustomize`` or ``usercustomize``.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloister.enclave.installed import installed_distributions

_NO_FOLDER: Final = "/proc/self/no-byte-code"
_MODE: Final = 0o700
_LIST: Final = "loaded.txt"


@dataclass(frozen=True, slots=True)
class ByteCode:
    """Where a server's byte code is.

    Attributes:
        folder: of its own; None where none can be had.
    """

    folder: Path | None

    @property
    def filled(self) -> bool:
        """Whether a server has compiled everything into it before."""
        return self.list is not None and self.list.is_file()

    @property
    def list(self) -> Path | None:
        """Where the files are listed that the last server was loaded from."""
        return None if self.folder is None else self.folder / _LIST

    @property
    def options(self) -> tuple[str, ...]:
        """The interpreter's options for a server: no start-up files, no user's packages, no working folder on
        the path, and byte code of this folder alone."""
        place = _NO_FOLDER if self.folder is None else str(self.folder)
        cache = ("-B",) if self.folder is None else ()
        return "-s", "-S", "-P", *cache, "-X", f"pycache_prefix={place}"


def own_byte_code(home: Path | None = None) -> ByteCode:
    """This user's folder, made where it's missing.

    Args:
        home: the user's folder of caches; by default ``$XDG_CACHE_HOME``, else ``~/.cache``.
    """
    try:
        above = (home or _cache_home()) / "cloister"
        for missing in reversed([one for one in (above, *above.parents) if not one.exists()]):
            missing.mkdir(mode=_MODE, exist_ok=True)
        folder = above.resolve() / f"bytecode-{sys.implementation.cache_tag}-{_installation()[:16]}"
        folder.mkdir(mode=_MODE, exist_ok=True)
        return ByteCode(folder if _is_private(folder) else None)
    except (OSError, RuntimeError):
        return ByteCode(None)


def _cache_home() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if Path(named).is_absolute() else Path.home() / ".cache"


def _installation() -> str:
    """SHA-256 over which interpreter runs and what its installers have written down, and when."""
    digest = hashlib.sha256(sys.version.encode())
    for one in installed_distributions(sys.path):
        record = Path(one.record)
        content = hashlib.sha256(record.read_bytes()).hexdigest()
        line = f"{one.record}\0{int(record.stat().st_mtime)}\0{content}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _is_private(folder: Path) -> bool:
    if not _is_closed(folder.lstat()):
        return False
    # Whoever may write to a folder above could put another in its place, if he can get there.
    for one in reversed(folder.parents):
        found = one.stat()
        if found.st_uid not in (0, os.geteuid()):
            return False
        if _is_closed(found):
            return True
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            return False
    return True


def _is_closed(found: os.stat_result) -> bool:
    """Whether it is a folder of this user that nobody else may enter."""
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
