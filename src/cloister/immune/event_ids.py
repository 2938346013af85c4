"""Ids of decisions and telemetry: unique over processes and restarts, and cheap enough for the call path.

A random prefix of the process and a counter. A child of a fork draws a prefix of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from weakref import WeakSet


class EventIds:
    """Gives one id after the other; safe in threads and over forks.

    Args:
        randomness: gives so many random bytes.

    Attributes:
        process_id: of the process whose ids they are.
    """

    def __init__(self, randomness: Callable[[int], bytes] = os.urandom) -> None:
        self._randomness = randomness
        self._begin()
        _IN_THIS_PROCESS.add(self)

    def next(self) -> str:
        """A new id, such as ``9f2c81d07a44be10-1f``: 64 random bits, and a number."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def _begin(self) -> None:
        self.process_id = os.getpid()
        self._prefix = self._randomness(8).hex()
        self._numbers = count(1)


_IN_THIS_PROCESS: WeakSet[EventIds] = WeakSet()


def _after_fork() -> None:
    for ids in list(_IN_THIS_PROCESS):
        ids._begin()


os.register_at_fork(after_in_child=_after_fork)
