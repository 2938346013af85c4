"""A listener that serves beside a test, and whoever comes to its door with bytes of their own."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from cloister.enclave.wire import Kind, Listener, Reception

Served = TypeVar("Served", bound=Listener)


@contextmanager
def serving(listener: Served, reception: Reception) -> Iterator[Served]:
    """A listener that serves in a thread of its own."""
    thread = threading.Thread(target=listener.serve, args=(reception,))
    thread.start()
    try:
        yield listener
    finally:
        listener.close()
        thread.join()


def raw(listener: Listener) -> socket.socket:
    """A connection to a listener at a path, on which nothing was said."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(10)
    made.connect(listener.address)
    return made


def frame(kind: Kind, payload: bytes) -> bytes:
    return struct.pack(">IB", len(payload), kind) + payload


def ended(connection: socket.socket, seconds: float) -> bool:
    """Whether the other end closes the connection in so many seconds."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
