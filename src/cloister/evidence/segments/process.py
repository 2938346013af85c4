"""Which process on which boot writes: told by the kernel and a random number, not by configuration.

Rules kept here:

1. A process number that the kernel gives again and a forked copy of a process have another identity.
2. The time since the boot is the kernel's, counts while the machine sleeps, and can't be set back.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from cloister.core.errors import StorageError

Uptime: TypeAlias = Callable[[], int]

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Process:
    """A writer in a process.

    Attributes:
        boot: the kernel's identity of the boot.
        pid: the process's number.
        token: 16 random hexadecimal digits.
    """

    boot: str
    pid: int
    token: str


def this_process() -> Process:
    """A new identity for a writer in this process.

    Raises:
        StorageError: ``storage.failed`` where the kernel doesn't tell its boot.
    """
    try:
        boot = BOOT_ID.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        boot = ""
    if not _UUID.fullmatch(boot):
        raise StorageError("storage.failed", f"The kernel doesn't tell its boot's identity in {BOOT_ID}.")
    return Process(boot, os.getpid(), secrets.token_hex(8))


def system_uptime() -> int:
    """Microseconds since the boot."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
