"""A ring of the newest events: bounded, safe under threads, and it counts what it dropped."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Ring(Generic[T]):
    """Keeps the newest; where it is full, the oldest gives way.

    Args:
        capacity: events held at most.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._kept: deque[T] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        self._dropped = 0
        self.capacity = capacity

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def fill(self) -> float:
        """Share of the capacity that is taken."""
        return len(self._kept) / self.capacity

    @property
    def dropped(self) -> int:
        """How many gave way before anybody took them."""
        return self._dropped

    def append(self, event: T) -> None:
        """Keep an event as the newest."""
        with self._lock:
            self._dropped += len(self._kept) == self.capacity
            self._kept.append(event)

    def take(self, most: int) -> list[T]:
        """Remove the oldest ones and return them, oldest first; at most so many."""
        with self._lock:
            return [self._kept.popleft() for _ in range(min(most, len(self._kept)))]

    def newest(self, most: int) -> list[T]:
        """The newest ones, oldest first, without removing them."""
        with self._lock:
            return list(self._kept)[-most:] if most > 0 else []

    def forget(self) -> None:
        """Start empty, with a new lock: for the child of a fork, whose parent may have held the old one."""
        self._lock = threading.Lock()
        self._kept.clear()
        self._dropped = 0
