"""Draws from distributions, from nothing but uniform numbers of a seed.

`random.Random` promises the same uniform numbers on every version of Python, and nothing more; so the
distributions are made here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import TypeVar

Item = TypeVar("Item")


class Draws:
    """A source of chance of its own.

    Args:
        seed: decides all that follows.
    """

    def __init__(self, seed: str) -> None:
        self._uniform = Random(seed).random  # noqa: S311 - traces, not secrets

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """At least ``low``, below ``high``."""
        return low + (high - low) * self._uniform()

    def between(self, low: float, high: float) -> float:
        """As `uniform`, of the logarithm: each doubling is as likely; both ends above 0."""
        return low * math.pow(high / low, self._uniform())

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int((high - low + 1) * self._uniform())

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._uniform() < probability

    def exponential(self, mean: float) -> float:
        """A waiting time with this mean."""
        return -mean * math.log(1.0 - self._uniform())

    def normal(self) -> float:
        """Mean 0, deviation 1 (Box and Muller 1958)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self._uniform()))
        return radius * math.cos(2.0 * math.pi * self._uniform())

    def lognormal(self, median: float, sigma: float) -> float:
        """Median times e to a normal draw of deviation ``sigma``."""
        return median * math.exp(sigma * self.normal())

    def pareto(self, least: float, alpha: float) -> float:
        """At least ``least``; beyond x with probability (least/x)^alpha."""
        return least * math.pow(1.0 - self._uniform(), -1.0 / alpha)

    def pick(self, items: Sequence[Item], weights: Sequence[float] | None = None) -> Item:
        """One of them, by weight."""
        if weights is None:
            return items[self.whole(0, len(items) - 1)]
        left = self._uniform() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]
