"""Frames between a mock enclave and its host: one byte for the kind, four for the length, then the bytes."""

from __future__ import annotations

import os
import select
import struct
import time
from enum import IntEnum
from typing import Final

from cloister.enclave.errors import EnclaveError

MAX_FRAME_BYTES: Final = 1024 * 1024
_HEADER = struct.Struct(">BI")
_CHUNK = 64 * 1024


class Frame(IntEnum):
    """What a frame is."""

    START = 1
    READY = 2
    RUN = 3
    OUTPUT = 4
    FAILED = 5
    ATTEST = 6
    DOCUMENT = 7
    NSM_REQUEST = 8
    NSM_ANSWER = 9


class FramedPipes:
    """Two pipes as a conversation.

    Args:
        reading: file descriptor to read from.
        writing: file descriptor to write to.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing

    def send(self, kind: Frame, body: bytes) -> None:
        """Send one frame.

        Raises:
            EnclaveError: enclave.mock where it is too long, or the other side is gone.
        """
        if len(body) > MAX_FRAME_BYTES:
            raise mock_error("A message is longer than 1 MiB.")
        rest = memoryview(_HEADER.pack(kind, len(body)) + body)
        try:
            while rest:
                rest = rest[os.write(self._writing, rest) :]
        except OSError:
            raise mock_error("The other side is gone.") from None

    def receive(self, seconds: float | None) -> tuple[Frame, bytes]:
        """Wait for one frame.

        Args:
            seconds: for how long in all; None for ever.

        Raises:
            EnclaveError: enclave.mock where none comes in time, it isn't one, or the other side is gone.
        """
        until = None if seconds is None else time.monotonic() + seconds
        kind, length = _HEADER.unpack(self._exactly(_HEADER.size, until))
        if kind not in tuple(Frame) or length > MAX_FRAME_BYTES:
            raise mock_error("The other side sent no frame.")
        return Frame(kind), self._exactly(length, until)

    def _exactly(self, length: int, until: float | None) -> bytes:
        read = bytearray()
        while len(read) < length:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._reading], [], [], left)[0]:
                raise mock_error("The other side didn't answer in time.")
            part = os.read(self._reading, min(_CHUNK, length - len(read)))
            if not part:
                raise mock_error("The other side is gone.")
            read += part
        return bytes(read)


def mock_error(sentence: str) -> EnclaveError:
    """The refusal of whatever a mock enclave can't do."""
    return EnclaveError(
        "enclave.mock", sentence, "Start a new mock enclave with functions that can be imported."
    )
