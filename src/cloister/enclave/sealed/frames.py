"""The one form in which anything crosses the worker's border: a short header and a payload, sizes first.

A frame is ``"CLF1"``, the header's length (4 bytes), the payload's length (8 bytes), both little-endian, the
header as canonical JSON (RFC 8785), the payload. Rules kept here:

1. Lengths are looked at before anything is read or allocated; each side says how much it is ready to take.
2. A header is an object with ``kind`` (one of the agreed words) and ``seq`` (which request it is of), and is
   read only in its one canonical encoding. What else it may hold is for who asked; nothing is guessed.
3. An answer that says that something failed holds an error's code, and nothing else.
4. The node never waits without a deadline, neither to read nor to write. The whole message has one, however
   small the pieces in which a peer takes or gives it.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cloister.core.canonical import JSON, canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.enclave.errors import SealedError

MAGIC: Final = b"CLF1"
PREFIX: Final = struct.Struct("<4sIQ")
MAX_HEADER: Final = 256 * 1024
MAX_PAYLOAD: Final = 8 * 1024**3
"""No frame is larger than that, whatever a side is ready to take."""

ERROR: Final = "error"
_DEPTH: Final = 12
_SLICE_SECONDS: Final = 0.02
CROSSING_SECONDS: Final = 300.0
"""How long one message may take from its first byte to its last; the largest are tables, which the worker
decrypts as they come."""


@dataclass(frozen=True)
class Frame:
    """One frame, read or to be written.

    Attributes:
        kind: the agreed word.
        seq: the number of the request that it is, or answers.
        fields: the rest of its header.
        payload: its bytes.
    """

    kind: str
    seq: int
    fields: dict[str, JSON] = field(default_factory=dict)
    payload: bytes | bytearray | memoryview = b""

    def head(self) -> bytes:
        """The bytes before the payload."""
        header = canonicalize({**self.fields, "kind": self.kind, "seq": self.seq})
        if len(header) > MAX_HEADER:
            raise protocol_error("a header is too large")
        return PREFIX.pack(MAGIC, len(header), len(self.payload)) + header


def protocol_error(what: str) -> SealedError:
    """The error for a peer that doesn't keep to the protocol; what it sent is never shown."""
    return SealedError("sealed.protocol", f"Across the worker's border, {what}.")


def read_prefix(prefix: bytes, most: int) -> tuple[int, int]:
    """The lengths of header and payload, each within its bound.

    Raises:
        SealedError: ``sealed.protocol``.
    """
    magic, header, payload = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise protocol_error("something that is no frame arrived")
    if header > MAX_HEADER or payload > min(most, MAX_PAYLOAD):
        raise protocol_error("a frame is larger than it may be")
    return header, payload


def read_header(header: bytes) -> tuple[str, int, dict[str, JSON]]:
    """A header's kind, number and the rest.

    Raises:
        SealedError: ``sealed.protocol``.
    """
    try:
        fields = parse_canonical(header, max_bytes=MAX_HEADER, max_depth=_DEPTH)
    except InputError:
        raise protocol_error("a header is not canonical JSON") from None
    if not isinstance(fields, dict):
        raise protocol_error("a header is no object")
    kind, seq = fields.pop("kind", None), fields.pop("seq", None)
    if not isinstance(kind, str) or type(seq) is not int or seq < 0:
        raise protocol_error("a header has no kind or number")
    return kind, seq, fields


class WorkerEnd:
    """The worker's end: plain blocking reads and writes, as it has nothing else to do.

    Args:
        reading: where requests come from.
        writing: where answers go to.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    def waiting(self) -> bool:
        """Whether a request has begun to arrive, or the node is gone."""
        poller = select.poll()
        poller.register(self._reading, select.POLLIN)
        return bool(poller.poll(0))

    def next_head(self, most: int) -> tuple[str, int, dict[str, JSON], int] | None:
        """The next request's header and its payload's length, of at most ``most`` bytes; None at the end.

        Raises:
            SealedError: ``sealed.protocol``.
        """
        prefix = bytearray(PREFIX.size)
        if not self.fill(memoryview(prefix)):
            return None
        header_size, payload_size = read_prefix(bytes(prefix), most)
        header = bytearray(header_size)
        self.fill(memoryview(header))
        return *read_header(bytes(header)), payload_size

    def fill(self, view: memoryview) -> bool:
        """Read until the view is full.

        Returns:
            Whether it is; False where the pipe had ended before the first byte.

        Raises:
            SealedError: ``sealed.protocol`` where it ends in between.
        """
        done = 0
        while done < len(view):
            count = os.readv(self._reading, [view[done:]])
            if not count:
                if done:
                    raise protocol_error("a frame is cut off")
                return not len(view)
            done += count
        return True

    def send(self, frame: Frame) -> None:
        """Write a frame."""
        for part in (frame.head(), frame.payload):
            view = memoryview(part).cast("B") if len(part) else memoryview(b"")
            while len(view):
                view = view[os.write(self._writing, view) :]


class NodeEnd:
    """The node's end: never blocks past a deadline, and looks up in between.

    Args:
        reading: where answers come from; owned from now on.
        writing: where requests go to; owned from now on.
        seconds: how long one message may take to cross.
    """

    def __init__(self, reading: int, writing: int, seconds: float = CROSSING_SECONDS) -> None:
        self._reading, self._writing, self._seconds = reading, writing, seconds
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)

    def send(self, frame: Frame, deadline: float, look_up: Callable[[], None]) -> None:
        """Write a frame.

        Args:
            frame: what is sent.
            deadline: by `time.monotonic`; the time to cross is a second one.
            look_up: called now and then; what it raises ends the writing.

        Raises:
            TimeoutError: a deadline passed.
            OSError: the worker's end is closed.
        """
        patience = _Patience(deadline, look_up).within(self._seconds)
        for part in (frame.head(), frame.payload):
            view = memoryview(part).cast("B") if len(part) else memoryview(b"")
            while len(view):
                patience.wear()
                try:
                    view = view[os.write(self._writing, view) :]
                except BlockingIOError:
                    patience.wait(self._writing, select.POLLOUT)

    def receive(self, most: int, deadline: float, look_up: Callable[[], None]) -> Frame:
        """Read the next frame, with a payload of at most ``most`` bytes.

        Args:
            most: bytes.
            deadline: by `time.monotonic`; from the first byte on, the time to cross is a second one.
            look_up: called now and then; what it raises ends the reading.

        Raises:
            TimeoutError: a deadline passed.
            EOFError: the worker's end is closed.
            SealedError: ``sealed.protocol``.
        """
        patience = _Patience(deadline, look_up)
        first = self._read(1, patience)
        patience = patience.within(self._seconds)
        prefix = first + self._read(PREFIX.size - 1, patience)
        header_size, payload_size = read_prefix(bytes(prefix), most)
        kind, seq, fields = read_header(bytes(self._read(header_size, patience)))
        return Frame(kind, seq, fields, self._read(payload_size, patience))

    def close(self) -> None:
        """Close both pipes."""
        for one in (self._reading, self._writing):
            if one >= 0:
                os.close(one)
        self._reading = self._writing = -1

    def _read(self, size: int, patience: _Patience) -> bytearray:
        held = bytearray(size)
        view = memoryview(held)
        while view:
            patience.wear()
            try:
                count = os.readv(self._reading, [view])
            except BlockingIOError:
                patience.wait(self._reading, select.POLLIN)
                continue
            if not count:
                raise EOFError
            view = view[count:]
        return held


class _Patience:
    """Until when something is waited for, and who looks up meanwhile; a peer that gives a byte now and then
    wears it out like one that gives none."""

    def __init__(self, deadline: float, look_up: Callable[[], None]) -> None:
        self._deadline, self._look_up = deadline, look_up
        self._next = time.monotonic() + _SLICE_SECONDS

    def within(self, seconds: float) -> _Patience:
        """The same, for at most so long from now."""
        return _Patience(min(self._deadline, time.monotonic() + seconds), self._look_up)

    def wear(self) -> None:
        """Look up where it is time to, and raise TimeoutError where time is over."""
        now = time.monotonic()
        if now >= self._next:
            self._look_up()
            now = time.monotonic()
            self._next = now + _SLICE_SECONDS
        if now > self._deadline:
            raise TimeoutError

    def wait(self, descriptor: int, event: int) -> None:
        """Wait a moment for a descriptor."""
        poller = select.poll()
        poller.register(descriptor, event)
        left = min(self._next, self._deadline) - time.monotonic()
        poller.poll(max(1.0, 1000 * left))
