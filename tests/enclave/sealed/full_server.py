"""The hostile server where the second worker can't be forked, and the third not by its first child."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from cloister.enclave.sealed import forking, server
from cloister.enclave.sealed.control import StartWorker
from cloister.enclave.sealed.forking import Child
from tests.enclave.sealed import hostile_server, light_server

_fork, _fork_worker = os.fork, forking.fork_worker


def fork_worker(
    request: StartWorker, pipes: tuple[int, int], job: Callable[[int, int], None]
) -> tuple[socket.socket, Child]:
    own = os.getpid()

    def fork() -> int:
        if request.worker == 2 or (request.worker == 3 and os.getpid() != own):
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        return _fork()

    os.fork = fork
    return _fork_worker(request, pipes, job)


if __name__ == "__main__":
    assert hostile_server.ATTACKS
    server.fork_worker = fork_worker  # type: ignore[attr-defined]
    server.warm_up = light_server.keys_warmed  # type: ignore[attr-defined]
    server.main()
