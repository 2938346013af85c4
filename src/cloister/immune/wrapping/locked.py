"""The gate for Python without a global interpreter lock: it changes its counts under a lock.

The countdown lies in the wrapper and isn't under that lock, so counts are near there, not exact. A hold is
exact still: the wrapper reads a flag that nobody writes but the gate.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from cloister.immune.wrapping.calls import Choice
from cloister.immune.wrapping.gate import Gate


class LockedGate(Gate):
    """The gate for Python without a global interpreter lock."""

    __slots__ = ("_lock",)

    def forget(self) -> None:
        """As in `Gate`, under a lock."""
        self._lock = threading.RLock()
        super().forget()

    def tick(self) -> Choice:
        """As in `Gate`, under a lock."""
        with self._lock:
            choice = super().tick()
            self._holding.cell_contents = self._held
            return choice

    def since(self) -> tuple[int, int]:
        """As in `Gate`, under a lock."""
        with self._lock:
            return super().since()

    def failed(self, *, told: bool) -> None:
        """As in `Gate`, under a lock."""
        with self._lock:
            super().failed(told=told)

    def stopped(self) -> None:
        """As in `Gate`, under a lock."""
        with self._lock:
            super().stopped()

    def once(self) -> None:
        """As in `Gate`, under a lock."""
        with self._lock:
            super().once()

    def learn(self, cost: float, duration: float, choice: Choice, now: float) -> None:
        """As in `Gate`, under a lock."""
        with self._lock:
            super().learn(cost, duration, choice, now)

    def _stop(self, *, hold: bool) -> None:
        with self._lock:
            super()._stop(hold=hold)

    def _refill(self, calls: int) -> None:
        with self._lock:
            super()._refill(calls)


def is_locked() -> bool:
    """Whether this interpreter runs one thread at a time."""
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return enabled()
