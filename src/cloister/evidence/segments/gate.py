"""Where threads wait for the disk: each at a gate of its own, and who gets through opens the next one.

Rules kept here:

1. All who wait are let through one after the other. Woken at once, or behind one shared condition, they would
   fight for the interpreter, which takes longer than what they do with it.
2. A thread that is interrupted while it waits still opens the next gate, when its own is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise


class Gate:
    """Where one thread waits, once."""

    __slots__ = ("_following", "_lock", "_open")

    def __init__(self) -> None:
        self._following: Gate | None = None
        self._open = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        """Wait until it is open."""
        try:
            self._lock.acquire()
        except BaseException:
            if not self._open:
                self._lock.acquire()
            raise
        finally:
            if self._following is not None:
                self._following.open()

    def open(self) -> None:
        """Let the one who waits through."""
        self._open = True
        self._lock.release()


def open_all(gates: Sequence[Gate]) -> None:
    """Open the first of these gates, behind which the others open."""
    for gate, following in pairwise(gates):
        gate._following = following
    if gates:
        gates[0].open()
