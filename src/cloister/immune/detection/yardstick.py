"""How slow this machine is at present, told by work of ours that is always the same.

Neighbours that come and go, cold caches and a lower clock make all code slower at once, a function of
microseconds by three times and more. Processor time shows it as well as a clock on the wall does, so leaving
waits out doesn't help. What our own scoring of a call takes, right beside that call, does: both are slower
together. So the level of a duration is compared with what was approved in this measure (`keeping.drift`).
"""

from __future__ import annotations

from math import exp, isnan, log, nan
from typing import Final

from cloister.immune.detection.level import median

SCORING: Final = "scoring"
"""The yardstick's name among the levels of a function."""
_FIRST: Final = 20
_SPEED: Final = 1.0 / 32.0
_FAR: Final = 1.0
"""Of the logarithm: so that it is no slower than the level of durations, and a wait of milliseconds moves it
by three percent."""


class Yardstick:
    """The running centre of what the same piece of work takes."""

    __slots__ = ("_centre", "_first")

    def __init__(self) -> None:
        self._first: list[float] = []
        self._centre = nan

    def take(self, seconds: float) -> None:
        """Take note of one measurement.

        Args:
            seconds: that the work took; what is no time (none, ``nan``) is left out.
        """
        if not seconds > 0.0:
            return
        if isnan(self._centre):
            self._first.append(log(seconds))
            if len(self._first) == _FIRST:
                self._centre, self._first = median(self._first), []
            return
        step = log(seconds) - self._centre
        self._centre += _SPEED * min(max(step, -_FAR), _FAR)

    @property
    def level(self) -> float:
        """What it takes at present, seconds; ``nan`` before there are enough measurements."""
        return exp(self._centre)
