"""What node and fork server say to each other: small messages on a packet socket, with descriptors beside.

No record, key or weight passes here; those go from node to worker directly, through pipes whose ends the node
makes and hands over with ``start``. A message is canonical JSON in one packet. An unknown kind or field is an
error: both ends are of one release.
"""

from __future__ import annotations

import array
import os
import socket
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cloister.core.canonical import canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.enclave.errors import SealedError
from cloister.enclave.sealed.claims import Outcome, SealLevel

MAX_MESSAGE: Final = 64 * 1024
_MOST_DESCRIPTORS: Final = 4
_Word = Annotated[str, Field(pattern=r"^[a-z0-9_]{0,40}$")]
Cause = Literal["violation", "exited", "killed", "cpu_limit", "start_timeout", "not_forked"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StartWorker(_Message):
    """Node to server, with the worker's ends of its two pipes: fork and seal a worker."""

    kind: Literal["start"] = "start"
    worker: int
    level: SealLevel
    uid: int
    memory_bytes: int
    cpu_seconds: int
    start_ms: int


class EndWorker(_Message):
    """Node to server: kill a worker, and where asked look whether anything of it is left."""

    kind: Literal["end"] = "end"
    worker: int
    look: bool


class ServerLoaded(_Message):
    """Server to node, before it is ready: some of the files that it was loaded from.

    Attributes:
        modules: the source or library of each module, and the file of its byte code; "" where it has none.
    """

    kind: Literal["loaded"] = "loaded"
    modules: tuple[tuple[str, str], ...]


class ServerReady(_Message):
    """Server to node: everything is imported and warmed, one thread runs."""

    kind: Literal["ready"] = "ready"
    pid: int
    warmed: tuple[str, ...]


class ServerFailed(_Message):
    """Server to node: it cannot serve; the reason is an exception's kind, never its text."""

    kind: Literal["failed"] = "failed"
    reason: str


class WorkerSealed(_Message):
    """Server to node: what came of each measure; the worker waits for its first request."""

    kind: Literal["sealed"] = "sealed"
    worker: int
    pid: int
    measures: dict[str, tuple[Outcome, str]]


class WorkerEnded(_Message):
    """Server to node: a worker is dead and reaped.

    Attributes:
        cause: "violation", "exited" by itself, "killed" on request or by somebody else, "cpu_limit",
            "start_timeout", or "not_forked": there never was one.
        call: the forbidden call, in the words of `cloister.enclave.sealed.calls`.
        word: one more on it, or none.
        reason: why there never was one: an errno's name.
        status: the exit status, or the signal's number below zero.
        core: whether the kernel wrote a core file.
        reaped_ms: milliseconds from the kernel's notice, or the request, to the reaped worker.
        processes_seen: how many processes were looked at for its namespaces; None where nobody looked.
        processes_hidden: how many others are younger than the server, which may not look into them.
        sees_all: whether it has the right to look into every process.
        left_in_spaces: how many of those it looked at are in one of these.
    """

    kind: Literal["ended"] = "ended"
    worker: int
    cause: Cause
    call: _Word = ""
    word: _Word = ""
    reason: Annotated[str, Field(pattern=r"^[A-Z0-9]{0,20}$")] = ""
    status: int = 0
    core: bool = False
    reaped_ms: float = 0.0
    processes_seen: int | None = None
    processes_hidden: int = 0
    sees_all: bool = False
    left_in_spaces: int | None = None


Request = StartWorker | EndWorker
Event = ServerLoaded | ServerReady | ServerFailed | WorkerSealed | WorkerEnded

_REQUESTS: Final[TypeAdapter[Request]] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
_EVENTS: Final[TypeAdapter[Event]] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def send(connection: socket.socket, message: Request | Event, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message.

    Raises:
        OSError: The other end is gone.
    """
    rights = []
    if descriptors:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    connection.sendmsg([canonicalize(message.model_dump(mode="json"))], rights)


def receive_request(connection: socket.socket) -> tuple[Request, tuple[int, ...]] | None:
    """The next request with its descriptors, which are the caller's now; None when the node is gone.

    Raises:
        SealedError: ``sealed.protocol``.
    """
    packet, descriptors = receive_packet(connection)
    if not packet:
        return None
    try:
        return _REQUESTS.validate_python(_read(packet), strict=False), descriptors
    except (InputError, ValidationError):
        raise SealedError("sealed.protocol", "The node sent the fork server no request.") from None


def receive_event(connection: socket.socket) -> Event | None:
    """The next event; None when the server is gone.

    Raises:
        SealedError: ``sealed.protocol``.
    """
    packet, descriptors = receive_packet(connection)
    for one in descriptors:
        os.close(one)
    if not packet:
        return None
    try:
        return _EVENTS.validate_python(_read(packet), strict=False)
    except (InputError, ValidationError):
        raise SealedError("sealed.protocol", "The fork server sent no event.") from None


def receive_packet(connection: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """One packet and the descriptors that came with it; an empty one at the end.

    Raises:
        BlockingIOError: Nothing is there, and the socket doesn't wait.
        OSError: The connection can't be read.
    """
    room = socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS)
    try:
        packet, ancillary, _, _ = connection.recvmsg(MAX_MESSAGE, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", ()
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return packet, tuple(descriptors)


def _read(packet: bytes) -> object:
    return parse_canonical(packet, max_bytes=MAX_MESSAGE, max_depth=6)
