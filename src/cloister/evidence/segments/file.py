"""A segment's file: new, owned, appended to, durable before anything is said about it.

Rules kept here:

1. The file is made by this process and by nobody before; mode 0600, opened for appending only.
   It gets its name when its beginning is on disk: no kill leaves a segment without a header.
2. After a write or synchronisation that failed, nothing more is written: what the disk holds is unknown, and
   a later synchronisation that succeeds proves nothing about it.
"""

from __future__ import annotations

import os
from pathlib import Path

from cloister.core.files import storage_error, sync_directory


class SegmentFile:
    """An append-only file.

    Args:
        path: the name it gets; its folder has to exist.

    Raises:
        StorageError: it can't be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unnamed = path.with_name(f".{path.name}.new")
        self._named = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._unnamed, flags, 0o600)
        except OSError as error:
            raise storage_error(error, path) from None

    def append(self, data: bytes) -> None:
        """Write behind what is there; it survives a loss of power when this returns.

        Raises:
            StorageError: any part of the data may be in the file, or none; ``storage.exists`` where the name
                is taken.
        """
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fdatasync(self._descriptor)
            if not self._named:
                os.link(self._unnamed, self._path, follow_symlinks=False)
                self._named = True
                self._unnamed.unlink()
                sync_directory(self._path.parent)
        except OSError as error:
            raise storage_error(error, self._path) from None

    def discard(self) -> None:
        """Let a file go of which nothing was ever said to be durable, and remove it.

        Raises:
            StorageError: it can't be removed.
        """
        self.close()
        try:
            self._unnamed.unlink(missing_ok=True)
            if self._named:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, self._path) from None

    def close(self) -> None:
        """Let the file go; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
