"""What was verified once and stays true: that some bytes were signed under other bytes.

A relying party sees the same issuers, manifests and answers again and again, and checking a P-384 signature
costs a third of a millisecond.

Rules kept here:

* A fact is found by hashes of all the bytes it is about, the root's included; nothing else may go into it.
* Times, revocation and trust aren't facts: they're judged anew each time, against the caller's own ground.
* It is bounded, forgets the least recently used first, and may be shared by threads.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TypeVar

T = TypeVar("T")
_CAPACITY = 512


class VerifiedFacts:
    """Facts by the hashes of the bytes they are about.

    Args:
        capacity: how many are kept.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._facts: OrderedDict[bytes, object] = OrderedDict()
        self._lock = Lock()

    def recall(self, key: bytes, kind: type[T]) -> T | None:
        """The fact of this kind that was kept under a key, if it is still there."""
        with self._lock:
            found = self._facts.get(key)
            if not isinstance(found, kind):
                return None
            self._facts.move_to_end(key)
            return found

    def keep(self, key: bytes, fact: object) -> None:
        """Keep a fact.

        Args:
            key: hashes of all the bytes it is about.
            fact: immutable, and true of those bytes for ever.
        """
        with self._lock:
            self._facts[key] = fact
            self._facts.move_to_end(key)
            while len(self._facts) > self._capacity:
                self._facts.popitem(last=False)
