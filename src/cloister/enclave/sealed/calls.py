"""What is said of a call that a sealed worker may not make: words of a closed list, never the worker's own.

A worker chooses its last call and every argument of it. What is stated about it is signed, kept and shown to
others, so whatever is copied from the arguments is a way out for records. Rules kept here:

1. A call is its name in libseccomp's table, or `UNLISTED`: never a number.
2. Of the arguments at most one word is said, from the table below. Anything else is ``another``.
3. So a statement holds less than ten bits of a worker's choosing, once in a worker's life. That, and when the
   call is made, stays open.

Source of the numbers: Linux's ``socket.h``, ``fcntl.h``, ``sched.h``, ``ptrace.h`` and ``prctl.h``.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

UNLISTED: Final = "unlisted"
UNKNOWN: Final = "unknown"
"""The kernel killed the worker by itself, and didn't tell for which call."""

WRITING: Final = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | 0o20000000
"""The flags of ``openat`` of which any makes it more than opening for reading; the last is ``O_TMPFILE``."""

_ANOTHER: Final = "another"
_NOTICE: Final = struct.Struct("<QIIiIQ6Q")
_VALUES: Final[Mapping[str, tuple[int, Mapping[int, str]]]] = {
    "socket": (
        0,
        {
            socket.AF_UNIX: "unix",
            socket.AF_INET: "inet",
            socket.AF_INET6: "inet6",
            16: "netlink",
            17: "packet",
            40: "vsock",
        },
    ),
    "ptrace": (0, {0: "traceme", 16: "attach", 0x4206: "seize"}),
    "prctl": (0, {4: "dumpable", 22: "seccomp", 36: "subreaper"}),
}
"""By call: the argument's place, and the word for each value."""

_BITS: Final[Mapping[str, tuple[int, tuple[tuple[int, str], ...]]]] = {
    "openat": (2, ((os.O_CREAT, "create"), (os.O_TRUNC, "truncate"), (os.O_ACCMODE, "write"))),
    "clone": (0, ((0x00010000, "thread"), (0, "process"))),
}
"""By call: the argument's place, and the word for the first of these bits that is set."""

WORDS: Final[Mapping[str, frozenset[str]]] = {
    **{call: frozenset({*said.values(), _ANOTHER}) for call, (_, said) in _VALUES.items()},
    **{call: frozenset({*(word for _, word in said), _ANOTHER}) for call, (_, said) in _BITS.items()},
}
"""All words that are ever said, by the call they are said of."""


@dataclass(frozen=True, slots=True)
class ForbiddenCall:
    """A call as the kernel held it back.

    Attributes:
        name: the call's name, `UNLISTED` or `UNKNOWN`.
        word: one of `WORDS` for that call; empty where there is none.
    """

    name: str
    word: str = ""


def read_notice(notice: bytes) -> ForbiddenCall:
    """What may be said of a notification.

    Args:
        notice: ``struct seccomp_notif``.
    """
    import pyseccomp  # the server's; the node knows the words without it

    _, _, _, number, _, _, *arguments = _NOTICE.unpack(notice)
    try:
        name = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number).decode("ascii")
    except (ValueError, OSError):
        name = UNLISTED
    return ForbiddenCall(name, _word(name, arguments))


def _word(name: str, arguments: list[int]) -> str:
    if name in _VALUES:
        place, values = _VALUES[name]
        return values.get(arguments[place] & 0xFFFFFFFF, _ANOTHER)
    if name in _BITS:
        place, bits = _BITS[name]
        return next((word for bit, word in bits if not bit or arguments[place] & bit), _ANOTHER)
    return ""
