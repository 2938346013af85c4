"""The fork server: one process and one thread that has imported everything and knows nothing.

Started by the node with ``python -m cloister.enclave.sealed.server DESCRIPTOR``, in an environment of its
own, where the descriptor is its end of a packet socket (`cloister.enclave.sealed.control`). It holds no key
and no record: those pass through pipes between node and worker. Rules kept here:

1. It serves as long as its node lives and the socket is open, and ends with all its workers otherwise; a
   worker also dies with it.
2. One loop waits for everything at once; nothing that a worker does or leaves undone can hold it up.
3. What fails for one worker, its fork or the handling of it, is that worker's end and no other's.
4. It never loads a call filter of its own: libseccomp keeps one listener per process.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time
from typing import Final

from cloister.core.errors import CloisterError
from cloister.enclave.errors import SealedError
from cloister.enclave.sealed import kernel
from cloister.enclave.sealed.control import (
    EndWorker,
    ServerFailed,
    ServerLoaded,
    ServerReady,
    StartWorker,
    WorkerEnded,
    receive_request,
    send,
)
from cloister.enclave.sealed.forking import fork_worker
from cloister.enclave.sealed.loaded import imported_modules
from cloister.enclave.sealed.supervision import Supervised, reap_strangers
from cloister.enclave.sealed.warm import warm_up

_TICK_MS: Final = 200
_LAST_SECONDS: Final = 2.0


class ForkServer:
    """The loop.

    Args:
        connection: the server's end of the control socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._node = os.getppid()
        self._workers: dict[int, Supervised] = {}

    def serve(self) -> None:
        """Serve until the node is gone or closes the socket; then kill every worker."""
        try:
            while os.getppid() == self._node and self._turn(_TICK_MS):
                pass
        finally:
            self._end_all()

    def _turn(self, milliseconds: float) -> bool:
        poller = select.poll()
        poller.register(self._connection, select.POLLIN)
        owners: dict[int, Supervised] = {}
        for worker in self._workers.values():
            for descriptor in worker.descriptors:
                poller.register(descriptor, select.POLLIN)
                owners[descriptor] = worker
        ready = dict(poller.poll(milliseconds))
        for descriptor, worker in owners.items():
            # What is looked at first may have ended the worker, and given back what comes next.
            if descriptor in ready and descriptor in worker.descriptors:
                sealed = worker.look_at(descriptor, ready[descriptor])
                if sealed is not None:
                    send(self._connection, sealed)
        for worker in self._workers.values():
            if worker.overdue:
                worker.end("start_timeout")
        self._tell_ends()
        reap_strangers(tuple(self._workers.values()))
        return self._connection.fileno() not in ready or self._take_request()

    def _tell_ends(self) -> None:
        for worker in list(self._workers.values()):
            ended = worker.over()
            if ended is not None:
                del self._workers[ended.worker]
                send(self._connection, ended)

    def _take_request(self) -> bool:
        try:
            received = receive_request(self._connection)
        except SealedError:
            return False
        if received is None:
            return False
        request, descriptors = received
        match request:
            case StartWorker():
                self._start(request, descriptors)
            case EndWorker():
                worker = self._workers.get(request.worker)
                if worker is not None:
                    worker.end("killed", look=request.look)
        return True

    def _start(self, request: StartWorker, descriptors: tuple[int, ...]) -> None:
        from cloister.enclave.sealed.tasks import serve_tasks

        try:
            pipes = self._pipes_for(request, descriptors)
            self._workers[request.worker] = Supervised(request, *fork_worker(request, pipes, serve_tasks))
        except (OSError, RuntimeError) as refusal:
            number = refusal.errno if isinstance(refusal, OSError) else None
            reason = errno.errorcode.get(number or 0, "THREADS")
            ended = WorkerEnded(worker=request.worker, cause="not_forked", reason=reason)
            send(self._connection, ended)
        finally:
            for one in descriptors:
                os.close(one)

    def _pipes_for(self, request: StartWorker, descriptors: tuple[int, ...]) -> tuple[int, int]:
        if request.worker in self._workers:
            raise OSError(errno.EEXIST, "the number is taken")
        if len(descriptors) != 2:
            raise OSError(errno.EMFILE, "no room for its pipes")
        return descriptors[0], descriptors[1]

    def _end_all(self) -> None:
        for worker in self._workers.values():
            worker.end("killed")
        until = time.monotonic() + _LAST_SECONDS
        while self._workers and time.monotonic() < until:
            poller = select.poll()
            for worker in self._workers.values():
                for descriptor in worker.descriptors:
                    poller.register(descriptor, select.POLLIN)
            poller.poll(_TICK_MS)
            self._workers = {name: one for name, one in self._workers.items() if one.over() is None}


def main() -> None:
    """Warm up, say so, and serve."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    try:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        warmed = warm_up()
        _require_sound_process()
    except (Exception, CloisterError) as error:
        send(connection, ServerFailed(reason=type(error).__name__))
        sys.exit(1)
    for modules in imported_modules():
        send(connection, ServerLoaded(modules=modules))
    send(connection, ServerReady(pid=os.getpid(), warmed=warmed))
    try:
        ForkServer(connection).serve()
    except OSError:
        sys.exit(1)


def _require_sound_process() -> None:
    if os.getpid() == 1:
        # A worker is process 1 of its own namespace; OpenSSL tells forks apart by the process's number.
        raise RuntimeError("the fork server must not be a container's first process")
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
        raise RuntimeError("the fork server has more than one thread")


if __name__ == "__main__":
    main()
