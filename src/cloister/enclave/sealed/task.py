"""What a kind of work behind the seal is: requests in turn, each with a payload still in the pipe.

A task reads a payload itself, into memory of its own, and says how much it is ready to take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from cloister.core.canonical import JSON
from cloister.enclave.sealed.frames import WorkerEnd, protocol_error

_DROP_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What a request is answered with."""

    fields: dict[str, JSON] = field(default_factory=dict)
    payload: bytes | bytearray = b""


class Payload:
    """A request's payload, still in the pipe.

    Args:
        end: the worker's end.
        size: its bytes.
    """

    def __init__(self, end: WorkerEnd, size: int) -> None:
        self._end, self.size, self._left = end, size, size

    def fill(self, view: memoryview) -> bool:
        """Read the next bytes; False where so many are not left."""
        if len(view) > self._left or not self._end.fill(view):
            return False
        self._left -= len(view)
        return True

    def whole(self, most: int) -> bytearray:
        """All of it, if it is no more than ``most`` bytes.

        Raises:
            SealedError: ``sealed.protocol``.
        """
        if self.size > most:
            raise protocol_error("a payload is larger than it may be")
        held = bytearray(self.size)
        self.fill(memoryview(held))
        return held

    def drop(self) -> None:
        """Read what is left, and forget it."""
        held = memoryview(bytearray(min(_DROP_BYTES, self._left)))
        while self._left:
            self.fill(held[: min(len(held), self._left)])


class SealedTask(Protocol):
    """One kind of work behind the seal."""

    def handle(
        self, kind: str, fields: dict[str, JSON], payload: Payload, aborted: Callable[[], bool]
    ) -> Answer:
        """Serve one request.

        Args:
            kind: what is asked.
            fields: its header.
            payload: its payload.
            aborted: whether the node wants it to stop; asked as often as it can.

        Raises:
            CloisterError: refused; the node learns the code.
        """
        ...

    def wipe(self) -> tuple[int, int]:
        """Overwrite what it owns.

        Returns:
            How many buffers and how many bytes.
        """
        ...
