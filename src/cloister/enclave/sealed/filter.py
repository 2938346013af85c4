"""The calls a sealed worker may make, and what becomes of every other one.

Four answers, in the kernel (seccomp):

- *allow*: what computing needs once everything is imported;
- *quiet*: what libraries ask in passing (is this a terminal, who am I): refused, no violation;
- *open for reading*: "there is no such file", no violation, as torch looks for sources while it trains;
- *everything else*: with a listener, the call is held back and reported to the server, which kills the
  worker (`calls` has what is said of it); without one, the kernel kills it and the call stays unknown. Calls
  of another architecture (32 bit, x32) are killed by libseccomp's own rule.

Network, writing files, starting programs or processes, tracing, reading another's memory, io_uring, mounts
and keyrings are in none of the lists, so they fall to the last.
"""

from __future__ import annotations

import array
import errno
import select
import socket
from typing import Final

import pyseccomp

from cloister.enclave.sealed.calls import WRITING

_ALLOWED: Final = (
    *("read", "write", "readv", "writev", "close", "fstat", "lseek", "poll", "ppoll"),
    *("mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "mlock", "munlock"),
    *("futex", "exit", "exit_group", "restart_syscall", "set_robust_list", "rseq", "sched_yield"),
    *("rt_sigreturn", "rt_sigprocmask", "sigaltstack"),
    *("clock_gettime", "clock_getres", "clock_nanosleep", "gettimeofday"),
    *("getrandom", "getpid", "gettid", "getppid", "getrusage"),
)
_QUIET: Final = (
    *("ioctl", "fcntl", "dup", "newfstatat", "statx", "stat", "lstat", "access", "faccessat", "faccessat2"),
    *("readlink", "readlinkat", "getcwd", "getdents64", "uname", "sysinfo", "sched_getaffinity", "prlimit64"),
    *("getuid", "geteuid", "getgid", "getegid", "rt_sigaction", "tgkill"),
)


def load_filter(own_init: bool, with_listener: bool, border: socket.socket) -> int | None:  # noqa: FBT001
    """Put the filter on this process, for good.

    Args:
        own_init: whether this process is the first of a PID namespace of its own; only then may it signal
            process 1, which is how it aborts itself.
        with_listener: whether forbidden calls are reported rather than killed by the kernel.
        border: the socket over which the listener is to be sent; nothing else may be sent from then on.

    Returns:
        The listener's descriptor, or None without one.

    Raises:
        OSError: The kernel or libseccomp refuses; with a listener also where one is in force already.
    """
    rules = pyseccomp.SyscallFilter(pyseccomp.NOTIFY if with_listener else pyseccomp.KILL_PROCESS)
    for call in _ALLOWED:
        rules.add_rule(pyseccomp.ALLOW, call)
    for call in _QUIET:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), call)
    reading = pyseccomp.Arg(2, pyseccomp.MASKED_EQ, WRITING, 0)
    rules.add_rule(pyseccomp.ERRNO(errno.ENOENT), "openat", reading)
    if own_init:
        rules.add_rule(pyseccomp.ALLOW, "kill", pyseccomp.Arg(0, pyseccomp.EQ, 1))
    # Of no use once the border is closed, which it is before anything from outside is read.
    rules.add_rule(pyseccomp.ALLOW, "sendmsg", pyseccomp.Arg(0, pyseccomp.EQ, border.fileno()))
    rules.load()
    if not with_listener:
        return None
    listener = int(pyseccomp._libseccomp.seccomp_notify_fd(rules._filter))
    # Where the process had loaded another filter, libseccomp tells of an older listener, or of none.
    if listener < 0 or not _is_open(listener):
        raise OSError(errno.EBADF, "no listener")
    return listener


def _is_open(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return not any(event & select.POLLNVAL for _, event in poller.poll(0))


def send_over(border: socket.socket, message: bytes, descriptor: int | None) -> None:
    """Send the last word before the worker serves, with the listener where there is one."""
    rights = []
    if descriptor is not None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    border.sendmsg([message], rights)
