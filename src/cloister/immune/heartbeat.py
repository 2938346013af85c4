"""Something that is done now and then on a thread of its own, in this process and in children of forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet


class Heartbeat:
    """A daemon thread that acts every few seconds; none runs before `start`.

    Args:
        act: what is done; what it raises is dropped, and it is done again.
        seconds: between two times.
    """

    def __init__(self, act: Callable[[], object], seconds: float) -> None:
        self._act, self._seconds = act, seconds
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        _BEATING.add(self)

    def start(self) -> None:
        """Begin; again, nothing happens."""
        if self._thread is None and not self._over.is_set():
            self._thread = threading.Thread(target=self._run, name="immune-heartbeat", daemon=True)
            # A process that ends starts no thread any more, and needs none.
            with suppress(RuntimeError):
                self._thread.start()

    def close(self) -> None:
        """End, after what is being done."""
        self._over.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            with suppress(Exception):
                self._act()

    def _after_fork(self) -> None:
        if self._thread is not None:
            self._thread = None
            over = self._over.is_set()
            self._over = threading.Event()
            if not over:
                self.start()


_BEATING: WeakSet[Heartbeat] = WeakSet()


def _after_fork() -> None:
    for one in list(_BEATING):
        one._after_fork()


os.register_at_fork(after_in_child=_after_fork)
