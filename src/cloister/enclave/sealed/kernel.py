"""The kernel's calls that Python does not offer: thin, checked, and nothing decided here.

Numbers and structures are those of Linux's own headers (``linux/prctl.h``, ``linux/landlock.h``,
``linux/capability.h``, ``sched.h``); the two system calls without a wrapper in the C library whose numbers
differ between machines are in `PIVOT_ROOT` and `CAPSET`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH: Final = 2

MADV_DONTDUMP: Final = 16
SECCOMP_IOCTL_NOTIF_RECV: Final = 0xC0502100
NOTIFICATION_BYTES: Final = 80

PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
CAPSET: Final = {"x86_64": 126, "aarch64": 91}
LANDLOCK_CREATE_RULESET: Final = 444
LANDLOCK_RESTRICT_SELF: Final = 446

_libc = ctypes.CDLL(None, use_errno=True)
_UL = ctypes.c_ulong


def prctl(option: int, value: int = 0) -> int:
    """``prctl(2)`` with one argument.

    Returns:
        What the kernel answers.

    Raises:
        OSError: It refuses.
    """
    return _checked(_libc.prctl(option, _UL(value), _UL(0), _UL(0), _UL(0)), "prctl")


def parent_death_signal() -> int:
    """The signal this process gets when the thread that started it ends (``PR_GET_PDEATHSIG``)."""
    signal = ctypes.c_int(0)
    _checked(_libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(signal), _UL(0), _UL(0), _UL(0)), "prctl")
    return signal.value


def unshare(flags: int) -> None:
    """``unshare(2)``. Raises OSError."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: bytes, target: bytes, kind: bytes | None, flags: int, options: bytes | None = None) -> None:
    """``mount(2)``. Raises OSError."""
    _checked(_libc.mount(source, target, kind, _UL(flags), options), "mount")


def pivot_root_here() -> None:
    """Make the working directory the root, and detach the old one (``pivot_root(2)``, "pivot_root(., .)").

    Raises:
        OSError: The kernel refuses, or the machine's kind is not known here.
    """
    number = PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(38, "pivot_root")
    _checked(_libc.syscall(number, b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def drop_all_capabilities() -> None:
    """Empty the ambient, bounding, effective, permitted and inheritable sets. Raises OSError."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        # Refused for the first one that doesn't exist, or where there is nothing to drop.
        if _libc.prctl(PR_CAPBSET_DROP, _UL(capability), _UL(0), _UL(0), _UL(0)):
            break
    number = CAPSET.get(platform.machine())
    if number is None:
        raise OSError(38, "capset")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _checked(_libc.syscall(number, header, (ctypes.c_uint32 * 6)()), "capset")


def landlock_deny_all() -> int:
    """Refuse this process every path, and where the kernel knows them TCP, abstract sockets and signals.

    Needs ``no_new_privs``. There is no rule, so nothing is let through.

    Returns:
        The kernel's Landlock ABI.

    Raises:
        OSError: No Landlock, or refused.
    """
    abi = _checked(_libc.syscall(LANDLOCK_CREATE_RULESET, None, _UL(0), 1), "landlock")
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    attributes = (ctypes.c_uint64 * 3)(files, 3, 3)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _checked(_libc.syscall(LANDLOCK_CREATE_RULESET, attributes, _UL(size), 0), "landlock")
    try:
        _checked(_libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
    finally:
        os.close(ruleset)
    return abi


def receive_notification(listener: int) -> bytes | None:
    """The next call that a filter holds back (``SECCOMP_IOCTL_NOTIF_RECV``).

    Ask only where a poll shows ``POLLIN``: where no call is held back this waits, and on kernels before 6.11
    for ever, also when every task under the filter is dead (Linux, ``seccomp: interrupt
    SECCOMP_IOCTL_NOTIF_RECV when all users have exited``).

    Returns:
        ``struct seccomp_notif``; None where the call vanished since, as its task was killed or is gone, or a
        signal came in between.

    Raises:
        OSError: The kernel refuses.
    """
    buffer = ctypes.create_string_buffer(NOTIFICATION_BYTES)
    try:
        _checked(_libc.ioctl(listener, _UL(SECCOMP_IOCTL_NOTIF_RECV), buffer), "notification")
    except OSError as refusal:
        if refusal.errno in (errno.ENOENT, errno.ENOTCONN, errno.EINTR):
            return None
        raise
    return buffer.raw


def lock_memory(address: int, size: int) -> None:
    """``mlock(2)`` and ``MADV_DONTDUMP``. Raises OSError, as where the limit on locked memory is reached."""
    _checked(_libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size)), "mlock")
    _checked(_libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), MADV_DONTDUMP), "madvise")


def give_free_memory_back() -> None:
    """``malloc_trim(3)``: return freed pages to the kernel, which clears them before it hands them out."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, what)
    return result
