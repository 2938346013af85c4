"""What is usual of one function and where it lies at present, as a tail detector tells it.

The level that `TailUsual.level` tells for the comparison with an approved baseline follows without the
caution of what judges: it shows where things are, also where an attack keeps them.
"""

from __future__ import annotations

from math import exp, nan, sqrt
from typing import Final

from cloister.immune.detection.detector import Summary
from cloister.immune.detection.features import LONGEST
from cloister.immune.detection.tail_state import TailState

PRESENT_SPEED: Final = 1.0 / 32.0
SIZE_STEP: Final = 2.0


class TailUsual(TailState):
    """What was learned of one function, told.

    Args:
        settings: alpha, half-life and how much is learned before anything is judged.
    """

    __slots__ = ()

    @property
    def learned(self) -> int:
        """Calls that taught."""
        return self._learned

    @property
    def judging(self) -> bool:
        """Whether enough was learned to judge; before, every score is 0."""
        return self._level is not None

    def summary(self) -> Summary | None:
        """What is usual of the function's durations, newer ones weighing more.

        Returns:
            Mean and deviation of the durations; percentiles to half a bucket, 4 %; None before enough was
            learned.
        """
        level = self._level
        if level is None:
            return None
        p50, p95, p99 = (exp(level.centre + self._duration.quantile(share)) for share in (0.5, 0.95, 0.99))
        std = sqrt(max(self._squares / self._weight, 0.0)) if self._weight else 0.0
        return Summary(self._learned, self._calls, self._failed, self._mean, std, p50, p95, p99)

    def level(self, feature: str) -> float:
        """Where a feature lies at present, within some thirty calls, learned without caution.

        Args:
            feature: one of `FEATURES`.

        Returns:
            ``duration`` in seconds, ``size`` in its unit, ``rate`` in calls per second, ``errors`` as a
            share; ``nan`` for the others and before enough was learned.
        """
        if self._level is None:
            return nan
        if feature == "duration":
            return exp(self._present)
        if feature == "size":
            return exp(self._present_size) - 1.0
        if feature == "rate":
            return exp(self._rate_level.centre) if self._rate_level is not None else nan
        return self._traffic.error_share if feature == "errors" else nan

    def _follow(self, duration: float, size: float, spread: float) -> None:
        """Let the present levels follow, without caution but for the length of a step."""
        far = 2.0 * spread
        step = duration - self._present
        if step > far:
            step = far
        elif step < -far:
            step = -far
        self._present += PRESENT_SPEED * step
        step = size - self._present_size
        if step > SIZE_STEP:
            step = SIZE_STEP
        elif step < -SIZE_STEP:
            step = -SIZE_STEP
        self._present_size += PRESENT_SPEED * step

    def _add(self, duration: float) -> None:
        """Mean and squares, older ones weighing less (D. H. D. West, Communications of the ACM 22, 1979)."""
        if duration < 0.0:
            duration = 0.0
        elif duration > LONGEST:
            duration = LONGEST
        keep = self._keep
        weight = self._weight = self._weight * keep + 1.0
        step = duration - self._mean
        mean = self._mean = self._mean + step / weight
        self._squares = self._squares * keep + step * (duration - mean)
