"""A running sum of what was spent, so that admitting one more spend costs the same however many came before.

The sum is kept in Renyi divergences, one float64 an order. A settlement takes off what was not done; after
100,000 spends the sum is off by less than 1e-9, far below the margin every limit keeps (``AGREEMENT``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloister.evidence.transcript import ORDERS, Approximate, Event, times
from cloister.privacy.accountant import held_from_rdp, rdp_vector


class Balance:
    """What one job, or all jobs on a dataset, spent so far."""

    __slots__ = ("_delta", "_vector")

    def __init__(self) -> None:
        self._vector = np.zeros(len(ORDERS))
        self._delta = 0.0

    def add(self, mechanism: Event, number: int) -> None:
        """Add a mechanism that ran so many times more; a negative number takes it off again.

        Args:
            mechanism: Run once.
            number: How many times.
        """
        if not number:
            return
        self._vector += number * rdp_vector(mechanism)
        if isinstance(mechanism, Approximate):
            self._delta += number * mechanism.delta

    def held_with(self, events: Sequence[Event], delta: float, limit: float) -> float:
        """Return what is held against a limit once ``events`` had happened too, at the limit's order."""
        used = sum(times(event) * event.delta for event in events if isinstance(event, Approximate))
        vector = sum((rdp_vector(event) for event in events), start=self._vector)
        return held_from_rdp(vector, self._delta + used, delta, limit)
