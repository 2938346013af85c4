"""The narrow door to the kernel: files, folders of configfs and ioctls, each by its path.

Rules kept here:

* Whoever implements `Device` answers as Linux does, with ``OSError`` where Linux refuses. So a recorded
  device stands in at the level of bytes and frames, and collectors are tested down to the layout of frames.
* Nothing is kept open between two calls, and nothing is read beyond its limit.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cloister.enclave.attestation.binding import REPORT_DATA_BYTES
from cloister.enclave.errors import CollectError

_ABSENT = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR)
_DENIED = (errno.EACCES, errno.EPERM)


class Device(Protocol):
    """What collectors ask of the operating system. Every method raises OSError where Linux does."""

    def present(self, path: str) -> bool:
        """Whether something is there."""
        ...

    def read(self, path: str, limit: int) -> bytes:
        """All that one opening of a file gives, at most ``limit`` bytes (EFBIG for more)."""
        ...

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """Bytes of a file from an offset, as a model-specific register is read."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write data to a file in one piece."""
        ...

    def ioctl(self, path: str, number: int, frame: bytearray) -> None:
        """Hand a device a frame, which it may change in place.

        Args:
            path: the device's node.
            number: the request's number.
            frame: the request's structure; pointers in it are addresses in this process.
        """
        ...

    def make_folder(self, path: str) -> None:
        """Make a folder; in configfs that makes an entry with its attributes."""
        ...

    def remove_folder(self, path: str) -> None:
        """Remove a folder; in configfs its attributes go with it."""
        ...


class LinuxDevice:
    """This machine's."""

    def present(self, path: str) -> bool:
        """See `Device.present`."""
        return os.path.lexists(path)

    def read(self, path: str, limit: int) -> bytes:
        """See `Device.read`."""
        parts, size = [], 0
        with _opened(path, os.O_RDONLY) as descriptor:
            while part := os.read(descriptor, min(1 << 16, limit + 1 - size)):
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return b"".join(parts)

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        """See `Device.read_at`."""
        with _opened(path, os.O_RDONLY) as descriptor:
            return os.pread(descriptor, length, offset)

    def write(self, path: str, data: bytes) -> None:
        """See `Device.write`."""
        with _opened(path, os.O_WRONLY) as descriptor:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def ioctl(self, path: str, number: int, frame: bytearray) -> None:
        """See `Device.ioctl`."""
        with _opened(path, os.O_RDWR) as descriptor:
            fcntl.ioctl(descriptor, number, frame, True)

    def make_folder(self, path: str) -> None:
        """See `Device.make_folder`."""
        Path(path).mkdir(mode=0o700)

    def remove_folder(self, path: str) -> None:
        """See `Device.remove_folder`."""
        Path(path).rmdir()


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn what the operating system says about a device into a typed error.

    Args:
        what: the device, as the message names it.

    Raises:
        CollectError: collect.absent, collect.denied or collect.refused.
    """
    try:
        yield
    except OSError as error:
        raise device_error(error, what) from None


def device_error(error: OSError, what: str) -> CollectError:
    """What the operating system said about a device, as a typed error."""
    if error.errno in _ABSENT:
        return CollectError("collect.absent", f"{what} is not on this machine.")
    if error.errno in _DENIED:
        return CollectError("collect.denied", f"This user may not use {what}.")
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return CollectError("collect.refused", f"{what} refused with {name}.")


def require_report_data(report_data: bytes) -> None:
    """Refuse what isn't 64 bytes before any device is asked.

    Raises:
        CollectError: collect.request.
    """
    if len(report_data) != REPORT_DATA_BYTES:
        raise CollectError("collect.request", "Report data has another length than 64 bytes.")


def malformed_answer(what: str) -> CollectError:
    """The refusal of an answer that isn't of its exact form."""
    return CollectError("collect.malformed", f"{what} gave an answer that is not of its exact form.")


def other_answer(what: str) -> CollectError:
    """The refusal of an answer to something else."""
    return CollectError("collect.mismatch", f"{what} answered another question than it was asked.")
