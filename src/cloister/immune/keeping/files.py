"""The state database as a file: its mode, its identity, and how a damaged one is put aside."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cloister.core.interrupts import interruptible
from cloister.immune.keeping.events import DAMAGED

_COMPANIONS: Final = ("", "-wal", "-shm")
_ACKNOWLEDGED: Final = ".acknowledged-"


@interruptible
def file_locked(path: Path) -> Iterator[None]:
    """Let no other process open a database or put it aside, as long as the block runs.

    Args:
        path: the database; the lock is a file beside it.

    Raises:
        OSError: the folder can't be written.
    """
    with os.fdopen(
        os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb"
    ) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def identity(path: Path) -> tuple[int, int] | None:
    """Device and number of the file that has the name now; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def make_private(path: Path) -> None:
    """Make the file where there is none, and take it from everybody but its owner.

    Raises:
        OSError: it can't be opened for writing, or is another's.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_mode & 0o777 != 0o600:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def put_aside(path: Path, now: float) -> str:
    """Rename a damaged database with its write-ahead log, for whoever looks into it.

    Args:
        path: the database.
        now: seconds since 1970; part of the new name.

    Returns:
        The new name, in the same folder; no earlier one is overwritten.

    Raises:
        OSError: it can't be renamed.
    """
    try:
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    except (ValueError, OverflowError, OSError):
        stamp = "unknown-time"
    name, again = f"{path.name}{DAMAGED}{stamp}", 1
    while os.path.lexists(path.with_name(name)):
        again += 1
        name = f"{path.name}{DAMAGED}{stamp}.{again}"
    for companion in _COMPANIONS:
        part = path.with_name(path.name + companion)
        if os.path.lexists(part):
            part.rename(path.with_name(name + companion))
    return name


def damaged_files(directory: Path) -> tuple[str, ...]:
    """The names of what was put aside in a folder and nobody has acknowledged."""
    return tuple(
        sorted(one.name for one in directory.glob(f"*{DAMAGED}*") if not one.name.endswith(_COMPANIONS[1:]))
    )


def acknowledge_damaged(directory: Path) -> tuple[str, ...]:
    """Rename what was put aside, so that it is kept and no alarm any more.

    Returns:
        The names that they had.

    Raises:
        OSError: one can't be renamed; those before it are.
    """
    found = damaged_files(directory)
    for name in found:
        for companion in _COMPANIONS:
            part = directory / (name + companion)
            if os.path.lexists(part):
                part.rename(part.with_name(part.name.replace(DAMAGED, _ACKNOWLEDGED)))
    return found
