"""Frames on the socket between a client and a service: length u32, kind u8, payload; big endian, bounded.

Rules kept here:

* A message has a deadline as a whole, from its first byte, by its size: whoever sends or takes a byte now and
  then is too slow, not patient.
* A size is held against the bound of its kind before anything of the payload is read, and memory is taken as
  bytes arrive.
* Whoever carries looks at kind and size, and into no payload that is a client's.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cloister.enclave.wire.dialect import Dialect, Kind

_HEAD: Final = struct.Struct(">IB")
_PIECE_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Pace:
    """How fast a message has to pass.

    Attributes:
        seconds: for any message.
        bytes_per_second: beside that, a second for each of so many bytes.
    """

    seconds: float = 10.0
    bytes_per_second: int = 64 * 1024

    def seconds_for(self, size: int) -> float:
        """How long a message of so many bytes may take."""
        return self.seconds + size / self.bytes_per_second


class Channel:
    """Reads and writes frames. Not for more than one thread at a time.

    Args:
        connection: the socket; whose it is closes it.
        dialect: has the errors.
        pace: how fast a message has to pass.
    """

    def __init__(self, connection: socket.socket, dialect: Dialect, pace: Pace | None = None) -> None:
        self._connection, self._dialect, self._pace = connection, dialect, pace or Pace()

    def write(self, kind: Kind, payload: bytes) -> None:
        """Write one frame.

        Raises:
            CloisterError: the dialect's, where nobody reads any more, or too slowly.
        """
        frame = _HEAD.pack(len(payload), kind) + payload
        try:
            # The timeout of sendall is for all of it.
            self._connection.settimeout(self._pace.seconds_for(len(frame)))
            self._connection.sendall(frame)
        except TimeoutError:
            raise self._dialect.too_slow() from None
        except (OSError, ValueError):
            raise self._dialect.gone() from None

    def read(self, bounds: Mapping[Kind, int], patience: float) -> tuple[Kind, bytes]:
        """Read one frame.

        Args:
            bounds: the kinds that may come, and the largest payload of each.
            patience: how long its first byte is waited for, in seconds.

        Raises:
            CloisterError: the dialect's, at the end, for what is too slow, and for what is no such frame.
        """
        first = self._exactly(1, time.monotonic() + patience)
        rest = self._exactly(_HEAD.size - 1, time.monotonic() + self._pace.seconds)
        length, kind = _HEAD.unpack(first + rest)
        if kind not in tuple(Kind) or length > bounds.get(Kind(kind), -1):
            raise self._dialect.gone()
        return Kind(kind), self._exactly(length, time.monotonic() + self._pace.seconds_for(length))

    def _exactly(self, size: int, deadline: float) -> bytes:
        held = bytearray()
        while len(held) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._dialect.too_slow()
            try:
                self._connection.settimeout(left)
                part = self._connection.recv(min(_PIECE_BYTES, size - len(held)))
            except TimeoutError:
                raise self._dialect.too_slow() from None
            except (OSError, ValueError):
                raise self._dialect.gone() from None
            if not part:
                raise self._dialect.gone()
            held += part
        return bytes(held)
