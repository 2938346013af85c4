"""Which calls are observed: as many as a budget pays for, chosen by chance.

Pure: what things cost, how full a queue is and where chance comes from is given. Rules kept here:

* ``budgeted`` observes one call in n = ceil(cost / (budget x mean duration)): a slow function's every call,
  and of a fast one as many as keep observing within its share of the time.
* Calls stand in blocks of n, and one of each block is chosen uniformly: nobody foresees which, the distance
  between two is 1 to 2n-1 with mean n, and the count is exact to one call (a free choice of 1 to 2n-1 would
  be off by more than a tenth in 1 of 12 runs of 1,000 calls).
* A rate falls with the processor time that observing takes and with the queue of what waits to be sent, and
  recovers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Final

MEDIAN_SHARE: Final = 0.05
"""Of a call's own time that observing may add to more than a third of the calls (PIC-P1)."""
WARM_UP: Final = 1000
"""Observed calls before the budget alone rules: what is rarer than one in a thousand is known as that."""
_LEARNING: Final = 3.0
"""Calls to one observed call until then, at most; the median call is one that nobody observed."""
MOST: Final = 2**30 - 1
"""The longest distance between two observed calls: the largest integer of one digit in CPython."""

_LEAST_FACTOR: Final = 0.01
_NEAR: Final = 1e-9
_RECOVERY: Final = 1.25


class Mode(StrEnum):
    """How the share of observed calls is found."""

    BUDGETED = "budgeted"
    FIXED = "fixed"
    EVERY_CALL = "every-call"


@dataclass(frozen=True, slots=True)
class Sampling:
    """What is asked of sampling.

    Attributes:
        mode: one of three.
        rate: share of calls that ``fixed`` observes. Until it has learned a function, ``budgeted`` observes a
            third at least, or this share where it is more.
        budget: share of a function's own time, or of the time from one call to the next where that is more,
            that observing may cost under ``budgeted``.
        cpu_threshold: share of one processor that observing may take in the whole process.
    """

    mode: Mode = Mode.BUDGETED
    rate: float = 0.1
    budget: float = 0.02
    cpu_threshold: float = 0.02

    def interval(
        self,
        cost: float,
        duration: float,
        factor: float = 1.0,
        *,
        spacing: float = 0.0,
        observed: int = WARM_UP,
    ) -> float:
        """How many calls there are to one observed call, on average.

        Args:
            cost: seconds that one observation takes.
            duration: mean seconds of a call; 0 while it isn't known, which the next calls have to tell.
            factor: of the rate, above 0 and at most 1; see `Pace`.
            spacing: mean seconds from one call to the next in this process that nobody uses. A function that
                is called seldom leaves a processor that has time; the budget is then of that.
            observed: calls that were observed so far. Until there are `WARM_UP`, ``budgeted`` observes a
                third at least: a function is learned once, and is unprotected until then.

        Returns:
            1 to `MOST`.
        """
        if self.mode is Mode.EVERY_CALL:
            return 1.0
        calls = 1.0 / self.rate
        if self.mode is Mode.BUDGETED and duration <= 0:
            return 1.0
        if self.mode is Mode.BUDGETED:
            affordable = float(ceil(min(cost / (self.budget * max(duration, spacing)), float(MOST))))
            if cost > MEDIAN_SHARE * duration:
                # So that the median call is one that nobody observed.
                affordable = max(affordable, 3.0)
            if observed < WARM_UP:
                return min(max(affordable, 1.0), _LEARNING, calls)
            calls = affordable
        return min(max(calls / factor, 1.0), MOST / 2)


class Ticks:
    """The calls that chance chooses, as distances from one to the next.

    Args:
        chance: uniform in [0, 1), such as ``random.Random(seed).random``.
    """

    __slots__ = ("_chance", "_rest")

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._rest = 0.0

    def next(self, interval: float) -> int:
        """Calls until the next chosen one, that one included.

        Args:
            interval: length of the next block, 1 or more; fractions are made up for by the blocks after it.

        Returns:
            1 to 2 x interval - 1, rounded up.
        """
        if interval <= 1.0:
            self._rest = 0.0
            return 1
        # int() rounds down here, and is quicker than floor().
        end = self._rest + interval + _NEAR
        before = int(self._rest + _NEAR)
        chosen = before + 1 + int(self._chance() * (int(end) - before))
        self._rest = end - chosen
        return chosen


def backpressure(fill: float) -> float:
    """The factor of the rate while a queue is as full as this.

    Args:
        fill: share of the queue that is taken, 0 to 1.

    Returns:
        0.75, 0.5, 0.25 and 0.1 from 70, 80, 90 and 95 percent up; 1 below.
    """
    if fill >= 0.95:
        return 0.1
    if fill >= 0.90:
        return 0.25
    if fill >= 0.80:
        return 0.5
    return 0.75 if fill >= 0.70 else 1.0


class Pace:
    """The factor of all rates in this process, from its processor time and its queue.

    Args:
        threshold: share of one processor above which less is observed.
        spare: share of the time that this process leaves to nobody, 0 to 1; asked at most once a second.
    """

    __slots__ = ("_cpu", "_pressure", "_spare", "_spent", "_threshold", "_total", "_when", "spare")

    def __init__(self, threshold: float, spare: Callable[[], float] = lambda: 1.0) -> None:
        self._threshold = threshold
        self._spare = spare
        self.spare: float = spare()
        self._cpu = self._pressure = 1.0
        self._spent = self._total = self._when = 0.0

    @property
    def factor(self) -> float:
        """Of the rate, above 0 and at most 1."""
        return max(self._cpu * self._pressure, _LEAST_FACTOR)

    @property
    def total(self) -> float:
        """Seconds that observing has taken since the start, all threads together."""
        return self._total

    def add(self, seconds: float, now: float) -> None:
        """Take note of what an observation took; at most once a second the factor follows.

        Args:
            seconds: of processor time.
            now: monotonic time, seconds.
        """
        self._total += seconds
        passed = now - self._when
        if passed < 1.0:
            return
        share = (self._total - self._spent) / passed
        self._spent, self._when = self._total, now
        self.spare = self._spare()
        if share > self._threshold:
            self._cpu = max(self._cpu * self._threshold / share, _LEAST_FACTOR)
        else:
            self._cpu = min(self._cpu * _RECOVERY, 1.0)

    def queue(self, fill: float) -> None:
        """Take note of how full the queue of what waits to be sent is, 0 to 1."""
        self._pressure = backpressure(fill)
