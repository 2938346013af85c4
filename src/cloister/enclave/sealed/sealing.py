"""The steps by which a forked process shuts itself in, in their order, each tried by itself.

Two processes take them. The first child gives up root and makes the namespaces; the second, which is the
first process of the new PID namespace, empties its view of files, drops what it could still use, and puts the
call filter on last. Between them and the server runs one socket, the border, which is closed at the end.

Rules kept here:

1. No step's failure keeps the next from being tried; each has its outcome. What it means is decided outside.
2. Host root is never mapped into a worker: where root starts it, it becomes an ordinary user before anything
   else, and where that fails nothing more happens.
3. A step counts as held when the kernel says so afterwards, where it can be asked.
4. Nothing here reads a request; when the first is read, every step is done.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cloister.core.canonical import JSON, canonicalize
from cloister.enclave.sealed import kernel
from cloister.enclave.sealed.claims import LISTENER, Outcome, SealLevel
from cloister.enclave.sealed.filter import load_filter, send_over
from cloister.enclave.sealed.fresh import draw_afresh

_SPACES: Final = (
    ("mount-namespace", kernel.CLONE_NEWNS, "mnt"),
    ("network-namespace", kernel.CLONE_NEWNET, "net"),
    ("pid-namespace", kernel.CLONE_NEWPID, "pid_for_children"),
    ("ipc-namespace", kernel.CLONE_NEWIPC, "ipc"),
    ("uts-namespace", kernel.CLONE_NEWUTS, "uts"),
)
_ROOTS: Final = ("/tmp", "/var", "/usr", "/")  # noqa: S108 - a place to mount on, nothing is written there # nosec B108
_DESCRIPTORS: Final = 16
BORDER: Final = 3


@dataclass(frozen=True, slots=True)
class SealRequest:
    """How a worker is to be sealed.

    Attributes:
        level: the set of measures.
        uid: the ordinary user and group it becomes where root starts it.
        memory_bytes: the most address space; has to exceed the server's.
        cpu_seconds: the most processor time.
    """

    level: SealLevel
    uid: int
    memory_bytes: int
    cpu_seconds: int


class Steps:
    """Collects what came of each step."""

    def __init__(self) -> None:
        self.outcomes: dict[str, tuple[Outcome, str]] = {}
        self.spaces: dict[str, int] = {}

    def take(self, name: str, step: Callable[[], str]) -> None:
        """Try a step; it answers a detail, or raises OSError or ValueError."""
        try:
            self.outcomes[name] = ("held", step())
        except OSError as refusal:
            self.outcomes[name] = ("failed", errno.errorcode.get(refusal.errno or 0, "refused"))
        except ValueError as refusal:
            self.outcomes[name] = ("failed", str(refusal)[:80])

    def as_json(self) -> dict[str, JSON]:
        """The outcomes, and the numbers of the namespaces."""
        spaces: dict[str, JSON] = dict(self.spaces)
        return {"measures": {name: list(one) for name, one in self.outcomes.items()}, "spaces": spaces}


def enter_namespaces(request: SealRequest, steps: Steps) -> None:
    """What the first child does: become an ordinary user, then leave every namespace of the host's."""
    steps.take("ordinary-user", lambda: _become_ordinary(request.uid))
    if os.geteuid() == 0 or os.getuid() == 0:
        return
    if request.level.isolated:
        steps.take("user-namespace", lambda: _own_users(os.getuid(), os.getgid()))
        for name, flag, _ in _SPACES:
            steps.take(name, lambda flag=flag: _own_space(flag))  # type: ignore[misc]
        for name in ("user", *(file for _, _, file in _SPACES)):
            try:
                steps.spaces[name] = os.stat(f"/proc/self/ns/{name}").st_ino  # noqa: PTH116
            except OSError:
                continue


def seal(request: SealRequest, steps: Steps, border: socket.socket) -> None:
    """What the second child does; when it returns, this process is sealed and the border closed.

    Args:
        request: how.
        steps: with what the first child did.
        border: descriptor 3, the only one beside the two pipes and the null device.
    """
    if request.level.isolated:
        if os.getpid() != 1:
            steps.outcomes["pid-namespace"] = ("failed", "not its first process")
        steps.take("empty-root", _empty_root)
    steps.take("fresh-randomness", draw_afresh)
    steps.take("only-its-pipes", _only_its_pipes)
    steps.take("one-thread", _one_thread)
    steps.take("no-new-privileges", _no_new_privileges)
    steps.take("landlock", lambda: f"abi {kernel.landlock_deny_all()}")
    steps.take("no-capabilities", _no_capabilities)
    steps.take("no-core-file", lambda: _limit(resource.RLIMIT_CORE, 0))
    steps.take("no-file-writing", lambda: _limit(resource.RLIMIT_FSIZE, 0))
    steps.take("no-processes", lambda: _limit(resource.RLIMIT_NPROC, 1))
    steps.take("open-file-limit", lambda: _limit(resource.RLIMIT_NOFILE, _DESCRIPTORS))
    steps.take("memory-limit", lambda: _limit(resource.RLIMIT_AS, request.memory_bytes))
    steps.take("processor-limit", lambda: _limit(resource.RLIMIT_CPU, request.cpu_seconds))
    steps.take("dies-with-server", _dies_with_server)
    steps.take("not-dumpable", _not_dumpable)
    listener = _load(request, steps, border)
    send_over(border, canonicalize(steps.as_json()), listener)
    if listener is not None:
        os.close(listener)
    border.close()


def _load(request: SealRequest, steps: Steps, border: socket.socket) -> int | None:
    # Both outcomes are written down beforehand: the filter may be in force when a step would be noted.
    try:
        listener = load_filter(
            own_init=request.level.isolated and os.getpid() == 1,
            with_listener=request.level.reported,
            border=border,
        )
    except OSError as refusal:
        name = errno.errorcode.get(refusal.errno or 0, "refused")
        steps.outcomes["call-filter"] = steps.outcomes[LISTENER] = ("failed", name)
        return None
    steps.outcomes["call-filter"] = ("held", "")
    if listener is not None:
        steps.outcomes[LISTENER] = ("held", "")
    return listener


def _become_ordinary(uid: int) -> str:
    if os.geteuid() == 0 or os.getuid() == 0:
        if uid <= 0:
            raise ValueError("no ordinary user was named")
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # A change of user makes a process's files in /proc root's; the maps are written through them.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    if 0 in (*os.getresuid(), *os.getresgid()):
        raise ValueError("still root")
    return f"uid {os.getuid()}"


def _own_users(uid: int, gid: int) -> str:
    kernel.unshare(kernel.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    return ""


def _own_space(flag: int) -> str:
    kernel.unshare(flag)
    if flag == kernel.CLONE_NEWUTS:
        socket.sethostname("sealed")
    return ""


def _empty_root() -> str:
    at = next(path for path in _ROOTS if os.path.isdir(path)).encode()  # noqa: PTH112
    plain = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount(b"none", b"/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount(b"tmpfs", at, b"tmpfs", plain, b"size=1m,mode=0700")
    os.chdir(at)
    kernel.pivot_root_here()
    again = plain | kernel.MS_REMOUNT | kernel.MS_RDONLY
    kernel.mount(b"none", b"/", None, again, b"size=1m,mode=0700")
    if os.listdir("/"):  # noqa: PTH208
        raise ValueError("the root is not empty")
    return "read-only"


def _only_its_pipes() -> str:
    # Closed before; asked here one by one, as there is no /proc to list them by.
    for descriptor in range(BORDER + 1, 256):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        raise ValueError("another descriptor is open")
    return ""


def _one_thread() -> str:
    import threading

    if threading.active_count() != 1:
        raise ValueError("more than one thread")
    return ""


def _no_new_privileges() -> str:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if kernel.prctl(kernel.PR_GET_NO_NEW_PRIVS) != 1:
        raise ValueError("not in force")
    return ""


def _no_capabilities() -> str:
    kernel.drop_all_capabilities()
    return ""


def _limit(which: int, value: int) -> str:
    resource.setrlimit(which, (value, value))
    if resource.getrlimit(which) != (value, value):
        raise ValueError("not in force")
    return str(value)


def _dies_with_server() -> str:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if kernel.parent_death_signal() != signal.SIGKILL:
        raise ValueError("not in force")
    return ""


def _not_dumpable() -> str:
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if kernel.prctl(kernel.PR_GET_DUMPABLE) != 0:
        raise ValueError("not in force")
    return ""
