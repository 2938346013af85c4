"""How the fork server makes a worker: a first child makes the namespaces and forks it.

It tells the server over the border which process the worker is, and exits. The worker waits for the server's
word, as its parent has to be reaped first; then it seals itself and does its job. Rules kept here:

1. The server forks only while one thread runs in it.
2. What can't be forked, for want of processes, memory or descriptors, is an error of that one worker.
3. A worker's pidfd is made by the first child, of its own child: the number can't be another's by then.
4. The first child keeps the worker's two pipes and the border: the server's socket and what belongs to other
   workers are closed before anything else.
"""

from __future__ import annotations

import array
import errno
import fcntl
import itertools
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from cloister.enclave.sealed.control import StartWorker
from cloister.enclave.sealed.sealing import BORDER, SealRequest, Steps, enter_namespaces, seal

_FAILED: Final = 70
_MOST_DESCRIPTORS: Final = 65536


@dataclass(frozen=True, slots=True)
class Child:
    """A process whose parent the server is, or will be: its number stays its own until it is reaped."""

    pid: int
    pidfd: int

    def kill(self) -> None:
        """Kill it, if it still lives."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> tuple[int, resource.struct_rusage] | None:
        """Take note of its end and give the descriptor back; None while it lives."""
        found, status, usage = os.wait4(self.pid, os.WNOHANG)
        if not found:
            return None
        os.close(self.pidfd)
        return status, usage


def fork_worker(
    request: StartWorker, pipes: tuple[int, int], job: Callable[[int, int], None]
) -> tuple[socket.socket, Child]:
    """Fork the first child; it forks the worker.

    Args:
        request: how it is to be sealed.
        pipes: where it reads requests, where it writes answers; the caller's to close.
        job: what it does once it is sealed.

    Returns:
        The server's end of the border, and the first child.

    Raises:
        OSError: No process or descriptor is to be had; nothing is left behind.
        RuntimeError: More than one thread runs here.
    """
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
        raise RuntimeError("the fork server has more than one thread")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            first = os.fork()
        except OSError:
            ours.close()
            raise
        if first == 0:
            _first_child(request, pipes, theirs, job)
        try:
            return ours, Child(first, os.pidfd_open(first))
        except OSError:
            ours.close()
            os.kill(first, signal.SIGKILL)  # not waited for yet: the number is still its own
            os.waitpid(first, 0)
            raise


def _first_child(
    request: StartWorker, pipes: tuple[int, int], border: socket.socket, job: Callable[[int, int], None]
) -> NoReturn:
    try:
        _keep(*pipes, border.fileno())
        wanted = SealRequest(request.level, request.uid, request.memory_bytes, request.cpu_seconds)
        steps = Steps()
        enter_namespaces(wanted, steps)
        try:
            pid = os.fork()
        except OSError as refusal:
            border.send(_number(-(refusal.errno or errno.EIO)))
            os._exit(_FAILED)
        if pid:
            _tell_of(pid, border)
            os._exit(0)
        _worker(wanted, steps, pipes, border, job)
    finally:
        os._exit(_FAILED)


def _keep(*descriptors: int) -> None:
    kept = sorted({0, 1, 2, *descriptors})
    for low, high in itertools.pairwise((*kept, _MOST_DESCRIPTORS)):
        os.closerange(low + 1, high)


def _tell_of(pid: int, border: socket.socket) -> None:
    try:
        rights = array.array("i", [os.pidfd_open(pid)])
    except OSError as refusal:
        os.kill(pid, signal.SIGKILL)  # our own child, not waited for
        border.send(_number(-(refusal.errno or errno.EIO)))
    else:
        border.sendmsg([_number(pid)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _number(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True)


def _worker(
    wanted: SealRequest,
    steps: Steps,
    pipes: tuple[int, int],
    border: socket.socket,
    job: Callable[[int, int], None],
) -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    # First out of the way of 0 to 3, where what is moved could lie already.
    reading, writing, null, edge = (_above(one) for one in (pipes[0], pipes[1], null, border.detach()))
    for place, one in enumerate((reading, writing, null, edge)):
        os.dup2(one, place, inheritable=False)
    os.closerange(BORDER + 1, _MOST_DESCRIPTORS)
    inner = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=BORDER)
    # The server has reaped the first child by then; else the signal of a parent's death would hit us.
    if inner.recv(1) != b"g":
        return
    seal(wanted, steps, inner)
    job(0, 1)


def _above(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, BORDER + 1)


def read_news(packet: bytes, descriptors: tuple[int, ...]) -> Child | str:
    """What the first child tells: the worker that it forked, or the errno's name for which it couldn't."""
    number = int.from_bytes(packet, "little", signed=True)
    if number > 0 and len(descriptors) == 1:
        return Child(number, descriptors[0])
    return errno.errorcode.get(-number, "EIO")
