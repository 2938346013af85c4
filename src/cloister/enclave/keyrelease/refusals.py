"""Which refusals are said one by one, and which are only counted.

Whoever can send messages can be refused as often as they like. Of each kind, the first eight are said, then
every one whose count is a power of two, with the count: a million refusals are 24 lines, and each shows how
many there were.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

SAID_EACH: Final = 8


def is_said(count: int) -> bool:
    """Whether a refusal is said, or only counted.

    Args:
        count: how many of its kind there were, with this one; from 1.
    """
    return count <= SAID_EACH or count & (count - 1) == 0


class RefusalCounts:
    """Counts by kind, in memory; safe to share between threads. Kinds are codes of errors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, code: str) -> int:
        """Count one more.

        Returns:
            How many of its kind there were, with this one.
        """
        with self._lock:
            self._counts[code] += 1
            return self._counts[code]
