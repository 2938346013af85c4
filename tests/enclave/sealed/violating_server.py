"""The real fork server, whose workers make a forbidden call: each at another moment, by its number."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from cloister.core.canonical import JSON
from cloister.enclave.keyrelease.hpke import EnclaveKey
from cloister.enclave.sealed import server
from cloister.enclave.sealed.control import StartWorker
from cloister.enclave.sealed.forking import Child, fork_worker
from cloister.enclave.sealed.frames import Frame, WorkerEnd
from cloister.enclave.sealed.task import Answer, Payload
from cloister.enclave.sealed.training_task import TrainingTask

MOMENTS: Final = ("begin", "ask", "table", "plan", "round", "after a round", "close")
_moment = [""]
_init, _handle, _wipe, _send = TrainingTask.__init__, TrainingTask.handle, TrainingTask.wipe, WorkerEnd.send


def violate_at(moment: str) -> None:
    if _moment[0] == moment and os.getpid() == 1:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def init(self: TrainingTask, key: EnclaveKey) -> None:
    violate_at("begin")
    _init(self, key)


def handle(
    self: TrainingTask, kind: str, fields: dict[str, JSON], payload: Payload, aborted: Callable[[], bool]
) -> Answer:
    violate_at(kind)
    return _handle(self, kind, fields, payload, aborted)


def send(self: WorkerEnd, frame: Frame) -> None:
    _send(self, frame)
    if frame.fields.get("executed_steps") is not None:
        violate_at("after a round")


def wipe(self: TrainingTask) -> tuple[int, int]:
    violate_at("close")
    return _wipe(self)


def fork_with_moment(
    request: StartWorker, pipes: tuple[int, int], job: Callable[[int, int], None]
) -> tuple[socket.socket, Child]:
    _moment[0] = MOMENTS[(request.worker - 1) % len(MOMENTS)]
    return fork_worker(request, pipes, job)


if __name__ == "__main__":
    TrainingTask.__init__ = init  # type: ignore[method-assign]
    TrainingTask.handle = handle  # type: ignore[method-assign]
    TrainingTask.wipe = wipe  # type: ignore[method-assign]
    WorkerEnd.send = send  # type: ignore[method-assign]
    server.fork_worker = fork_with_moment  # type: ignore[attr-defined]
    server.main()
