"""What a worker does once it is sealed: serve requests of one task, in turn, until it is told to end.

A task is chosen by its name from those that are built in; no code and no object crosses the border. Rules
kept here:

1. The first request names the task; the answer holds a public key that was made behind the seal.
2. A payload is never larger than the request's consumer is ready to take, and is read to its end or dropped,
   so that the next request begins where it should.
3. What fails is answered by its code alone. What is no error of ours has one code for all of it.
4. The last request wipes what the task owns; the answer says how much.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from cloister.core.canonical import JSON
from cloister.core.errors import CloisterError
from cloister.enclave.errors import SealedError
from cloister.enclave.keyrelease.hpke import EnclaveKey
from cloister.enclave.sealed.frames import ERROR, MAX_PAYLOAD, Frame, WorkerEnd, protocol_error
from cloister.enclave.sealed.kernel import give_free_memory_back
from cloister.enclave.sealed.task import Answer, Payload, SealedTask

_BEGIN, _CLOSE, _ABORT = "begin", "close", "abort"


Factory = Callable[[EnclaveKey], SealedTask]
_TASKS: Final[dict[str, Factory]] = {}


def register_task(name: str, factory: Factory) -> None:
    """Build a task in. Called in the server, while it warms up (`cloister.enclave.sealed.warm`).

    Args:
        name: what the node calls it by.
        factory: makes the task from the worker's key pair.

    Raises:
        ValueError: the name is taken; a defect of the caller.
    """
    if name in _TASKS:
        raise ValueError(f"a task named {name!r} is built in already")
    _TASKS[name] = factory


def serve_tasks(reading: int, writing: int) -> None:
    """Serve until told to end, or until the node is gone. Called behind the seal; never returns to a caller
    that matters: the process ends right after.

    Args:
        reading: the pipe requests come from.
        writing: the pipe answers go to.
    """
    end = WorkerEnd(reading, writing)
    task: SealedTask | None = None
    while True:
        head = end.next_head(MAX_PAYLOAD)
        if head is None:
            os._exit(0)
        kind, seq, fields, size = head
        payload = Payload(end, size)
        if kind == _ABORT:  # it came too late: what it was to stop is answered already
            payload.drop()
            continue
        try:
            if kind == _CLOSE:
                buffers, count = task.wipe() if task is not None else (0, 0)
                give_free_memory_back()
                end.send(Frame("done", seq, {"buffers": buffers, "bytes": count}))
                # It stays for the kill, so that whoever kills it can look at what is left.
                end.fill(memoryview(bytearray(1)))
                os._exit(0)
            if task is None:
                task, answer = _begin(kind, fields)
            else:
                answer = task.handle(kind, fields, payload, _abort_of(end, seq))
            payload.drop()
        except (CloisterError, Exception) as error:
            payload.drop()
            end.send(Frame(ERROR, seq, {"code": code_of(error)}))
        else:
            end.send(Frame("done", seq, answer.fields, answer.payload))


def code_of(error: BaseException) -> str:
    """The code that stands for an error outside."""
    if isinstance(error, CloisterError):
        return error.code
    # torch has no error of its own for memory; its allocator says so in words.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "alloc" in str(error)):
        return "sealed.memory_limit"
    return "sealed.task_failed"


def _begin(kind: str, fields: dict[str, JSON]) -> tuple[SealedTask, Answer]:
    name = fields.get("task")
    if kind != _BEGIN or not isinstance(name, str) or name not in _TASKS:
        raise protocol_error("no known task was named")
    key = EnclaveKey()
    return _TASKS[name](key), Answer({"public_key": key.public_bytes.hex()})


def _abort_of(end: WorkerEnd, seq: int) -> Callable[[], bool]:
    asked = False

    def aborted() -> bool:
        nonlocal asked
        while not asked and end.waiting():
            head = end.next_head(0)
            if head is None:
                os._exit(0)
            if head[0] != _ABORT:
                raise SealedError("sealed.protocol", "A request came before the last one was answered.")
            asked = head[1] == seq
        return asked

    return aborted
