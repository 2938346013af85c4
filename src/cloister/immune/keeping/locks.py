"""Locks that a forked child finds free: the thread that held one wasn't copied."""

from __future__ import annotations

import os
import threading
from typing import Final
from weakref import WeakSet


class ForkSafe:
    """What keeps something in memory under a re-entrant lock, ``_lock``, that a forked child finds free.

    The lock itself stands in the ``with``. One around it, with an ``__enter__`` in Python, would be left held
    where an interrupt arrives once it is taken and before the block is entered.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _ALL.add(self)


_ALL: Final[WeakSet[ForkSafe]] = WeakSet()


def _after_fork() -> None:
    for one in list(_ALL):
        one._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
