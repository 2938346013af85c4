"""Reading and writing files so that nothing is half-written and nothing that was there is lost.

Rules this module keeps:

* A file appears whole under its name, or not at all: temporary name in the same folder, fsync, rename or
  link, fsync of the folder. On failure the temporary file is removed and what was there before is untouched.
* Reading is bounded, and only plain files are read: no pipe, device or folder.
* A path given by a document stays below its root and passes through no symbolic link.
* Failures of the operating system arrive as `InputError` (reading) or `StorageError` (writing).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Self

from cloister.core.errors import InputError, StorageError

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_EXISTS = frozenset({errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY})
_IN_USE = frozenset({errno.EBUSY, errno.ETXTBSY, errno.EAGAIN})


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file whole, in place of what has that name now.

    Args:
        path: the file; its folder has to exist.
        data: all of its content.
        mode: its permission bits, independent of the process's umask.

    Raises:
        StorageError: nothing was changed; only where the folder itself cannot be synchronised is the new
            content in place, whole.
    """
    _write(path, data, mode, os.replace)


def write_new(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file whole under a name that is free.

    Args:
        path: the file; its folder has to exist.
        data: all of its content.
        mode: its permission bits, independent of the process's umask.

    Raises:
        StorageError: ``storage.exists`` where the name is taken (by a link too); nothing was changed.
    """
    _write(path, data, mode, _link)


def require_place(path: Path) -> None:
    """Make sure that a file can be written here, before something is done that can't be undone.

    Raises:
        StorageError: it can't; nothing was changed.
    """
    if path.is_dir():
        raise storage_error(OSError(errno.EISDIR, ""), path)

    def discard(temporary: Path, _: Path) -> None:
        temporary.unlink()

    _write(path, b"", 0o600, discard)


class StagedFile:
    """A file that is whole on disk before it has a name: for what is announced only once it can be kept.

    Use it in a ``with`` block, which removes what was written unless `appear` was called.

    Args:
        path: the name it will have, which must be free; its folder has to exist.
        mode: its permission bits, independent of the process's umask.

    Raises:
        StorageError: nothing can be written there, or the name is taken.
    """

    def __init__(self, path: Path, *, mode: int = 0o600) -> None:
        self._path, self._mode = path, mode
        self._temporary = path.parent / f".{path.name[:64]}.{secrets.token_hex(8)}.tmp"
        if os.path.lexists(path):
            raise storage_error(FileExistsError(errno.EEXIST, ""), path)
        try:
            _write_through(self._temporary, b"", mode)
        except OSError as error:
            raise storage_error(error, path) from None

    def write(self, data: bytes) -> None:
        """Put all of its content on disk.

        Raises:
            StorageError: it can't be written.
        """
        try:
            self._temporary.unlink()
            _write_through(self._temporary, data, self._mode)
            sync_directory(self._path.parent)
        except OSError as error:
            raise storage_error(error, self._path) from None

    def appear(self) -> None:
        """Give it its name.

        Raises:
            StorageError: ``storage.exists`` where the name was taken meanwhile.
        """
        try:
            _link(self._temporary, self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise storage_error(error, self._path) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    os.link(temporary, path, follow_symlinks=False)
    temporary.unlink()


def _write(path: Path, data: bytes, mode: int, settle: Callable[[Path, Path], None]) -> None:
    temporary = path.parent / f".{path.name[:64]}.{secrets.token_hex(8)}.tmp"
    try:
        try:
            _write_through(temporary, data, mode)
            settle(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, path) from None


def _write_through(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in a folder survive a loss of power.

    Raises:
        OSError: the folder cannot be opened or synchronised.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a plain file of at most ``max_bytes`` bytes.

    Raises:
        InputError: ``input.missing_file``, ``input.unreadable`` or ``input.too_large``.
    """
    with os.fdopen(open_plain(path), "rb") as stream:
        try:
            data = stream.read(max_bytes + 1)
        except OSError as error:
            raise _read_error(error, path) from None
    if len(data) > max_bytes:
        raise InputError("input.too_large", f"{path} is larger than {max_bytes} bytes.")
    return data


def read_or_make(path: Path, max_bytes: int, make: Callable[[], bytes]) -> bytes:
    """Read a plain file, made with mode 0600 by whoever comes first.

    Args:
        path: the file; its folder has to exist.
        max_bytes: more are not read.
        make: its content, where it isn't there.

    Raises:
        InputError: as `read_bounded`.
        StorageError: it isn't there and can't be written.
    """
    if not path.exists():
        try:
            write_new(path, make())
        except StorageError as error:
            if error.code != "storage.exists":
                raise
    return read_bounded(path, max_bytes)


def open_plain(path: Path) -> int:
    """Open a plain file for reading and return its descriptor; a pipe or device is refused without waiting.

    Raises:
        InputError: ``input.missing_file`` or ``input.unreadable``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:
        raise InputError("input.unreadable", "A path holds a zero byte.") from None
    except OSError as error:
        raise _read_error(error, path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("input.unreadable", f"{path} is not a plain file.")
    return descriptor


def resolve_inside(root: Path, relative: str) -> Path:
    """The path of a document's file below its root.

    Args:
        root: the folder to stay in; it may itself be reached through a link.
        relative: a relative path with ``/`` between its parts, as documents write it.

    Returns:
        The absolute path; whether something is there is not asked.

    Raises:
        InputError: ``input.path_escapes`` for absolute paths, ``..``, zero bytes, backslashes and any
            symbolic link on the way (CWE-22, CWE-59).
    """
    pure = PurePosixPath(relative)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\0" in relative or "\\" in relative:
        raise _escapes(root)
    path = root.resolve()
    for part in pure.parts:
        path = path / part
        if path.is_symlink():
            raise _escapes(root)
    return path


def storage_error(error: OSError, path: Path) -> StorageError:
    """What the operating system said about writing ``path``, as a typed error."""
    number = error.errno
    if number in _NO_SPACE:
        return StorageError(
            "storage.no_space", f"There is no space left to write {path}.", "Free some space and run again."
        )
    if number in _DENIED:
        return StorageError(
            "storage.permission", f"Writing {path} is not permitted.", "Choose a folder you may write to."
        )
    if number in _EXISTS:
        return StorageError(
            "storage.exists", f"{path} is already there.", "Move it away or choose another name."
        )
    if number in _IN_USE:
        return StorageError("storage.in_use", f"{path} is in use by another process.")
    if number == errno.ENOENT and path.parent.is_dir():
        # As /proc is: it is there, and nothing can be made in it.
        return StorageError(
            "storage.permission", f"{path.parent} takes no files.", "Choose a folder you may write to."
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return StorageError(
            "storage.failed", f"There is no folder {path.parent}.", "Create the folder first."
        )
    name = errno.errorcode.get(number or 0, "unknown")
    return StorageError("storage.failed", f"Writing {path} failed ({name}).")


def _read_error(error: OSError, path: Path) -> InputError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return InputError("input.missing_file", f"There is no file {path}.", "Check the path.")
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return InputError("input.unreadable", f"{path} cannot be read ({name}).")


def _escapes(root: Path) -> InputError:
    return InputError(
        "input.path_escapes",
        f"A path in the document leaves {root}.",
        "Use a relative path below that folder, without '..' and without symbolic links.",
    )
