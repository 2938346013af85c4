"""Reading a file below a folder so that nobody can lead the way out of it meanwhile.

`files.resolve_inside` looks at each part of a path and then opens the whole: who may write in a folder on
the way can put a link there in between. Here each part is opened relative to the one before it, by its
descriptor, never through a link, and what was opened is what is read.

Rules this module keeps:

* No absolute path, no ``..``, no backslash, no zero byte; no symbolic link below the root. The root itself
  may be reached through one: it is the operator's word.
* Only plain files are opened. A pipe or device is refused before that, since opening some has effects.
* Size is bounded by what the file says of itself, and by what is read.

What it can't see: a hard link to a file elsewhere on the same disk, and what root mounts below the folder.

Sources: CWE-22, CWE-59, CWE-367; POSIX.1-2017 openat.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import Final

from cloister.core.errors import InputError

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_inside(root: Path, relative: str, max_bytes: int) -> bytes:
    """Read a plain file below a folder.

    Args:
        root: the folder to stay in.
        relative: a relative path with ``/`` between its parts, as documents write it.
        max_bytes: the largest size that is read.

    Raises:
        InputError: ``input.path_escapes``, ``input.missing_file``, ``input.unreadable`` or
            ``input.too_large``.
    """
    with os.fdopen(open_inside(root, relative), "rb") as stream:
        try:
            too_large = os.fstat(stream.fileno()).st_size > max_bytes
            data = b"" if too_large else stream.read(max_bytes + 1)
        except OSError:
            raise InputError("input.unreadable", f"{_last(relative)} cannot be read.") from None
    if too_large or len(data) > max_bytes:
        raise InputError("input.too_large", f"{_last(relative)} is larger than {max_bytes} bytes.")
    return data


def open_inside(root: Path, relative: str) -> int:
    """Open a plain file below a folder for reading and return its descriptor.

    Args:
        root: the folder to stay in.
        relative: as in :func:`read_inside`.

    Raises:
        InputError: ``input.path_escapes``, ``input.missing_file`` or ``input.unreadable``.
    """
    pure = PurePosixPath(relative)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\0" in relative or "\\" in relative:
        raise _escapes(root)
    *folders, name = pure.parts
    try:
        place = os.open(root, _FOLDER)
    except (OSError, ValueError):
        raise InputError("input.missing_file", f"There is no folder {root}.", "Check the path.") from None
    try:
        for folder in folders:
            deeper = _enter(place, folder, root)
            os.close(place)
            place = deeper
        return _open(place, name, root)
    finally:
        os.close(place)


def _enter(place: int, name: str, root: Path) -> int:
    try:
        if stat.S_ISLNK(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            raise _escapes(root)
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=place)
    except OSError:
        raise InputError(
            "input.missing_file", f"There is no such folder below {root}.", "Check the path."
        ) from None


def _open(place: int, name: str, root: Path) -> int:
    try:
        seen = os.stat(name, dir_fd=place, follow_symlinks=False)
    except OSError:
        raise InputError(
            "input.missing_file", f"There is no file {name} in {root}.", "Check the path."
        ) from None
    if stat.S_ISLNK(seen.st_mode):
        raise _escapes(root)
    if not stat.S_ISREG(seen.st_mode):
        raise InputError("input.unreadable", f"{name} is not a plain file.")
    try:
        descriptor = os.open(name, _FILE, dir_fd=place)
    except OSError:
        raise InputError("input.unreadable", f"{name} cannot be read.", "Check its permissions.") from None
    opened = os.fstat(descriptor)
    if not stat.S_ISREG(opened.st_mode) or (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino):
        os.close(descriptor)
        raise InputError("input.unreadable", f"{name} changed while it was opened.", "Run again.")
    return descriptor


def _last(relative: str) -> str:
    return PurePosixPath(relative).name


def _escapes(root: Path) -> InputError:
    return InputError(
        "input.path_escapes",
        f"A path leaves {root}.",
        "Use a relative path below that folder, without '..' and without symbolic links.",
    )
