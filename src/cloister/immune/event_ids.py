"""Ids of decisions and telemetry: unique over processes and restarts, and cheap enough for the call path.

Each is 128 random bits. An `Incident` statement names one and travels, so none may tell how many came before
it: that depends on what the calls were, and in cloister on records. They are drawn many at a time. A child of
a fork draws its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

_BYTES: Final = 16
_AT_A_TIME: Final = 64


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
        """A new id, such as ``9f2c81d07a44be1002c4e6a1f8d93b57``."""
        while True:
            try:
                return self._drawn.pop()
            except IndexError:
                drawn = self._randomness(_BYTES * _AT_A_TIME).hex()
                size = 2 * _BYTES
                self._drawn.extend(drawn[at : at + size] for at in range(0, len(drawn), size))

    def _begin(self) -> None:
        self.process_id = os.getpid()
        self._drawn: list[str] = []


_IN_THIS_PROCESS: WeakSet[EventIds] = WeakSet()


def _after_fork() -> None:
    for ids in list(_IN_THIS_PROCESS):
        ids._begin()


os.register_at_fork(after_in_child=_after_fork)
