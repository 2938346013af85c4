"""How much of a processor nobody uses: what observing may be paid from besides the function's own time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


class SpareTime:
    """The share of the time in which this process ran nothing, on a machine that had a processor free.

    A process that works all the time has none, and neither has one that waits for a processor: where more
    threads want to run than there are processors, time that passes is time that others use.

    Args:
        wall: monotonic time, seconds.
        processor: processor time of this process, seconds.
        wanting: how many threads want to run on the machine, on average of late.
        processors: how many can.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.perf_counter,
        processor: Callable[[], float] = time.process_time,
        wanting: Callable[[], float] = lambda: os.getloadavg()[0],
        processors: int = os.cpu_count() or 1,
    ) -> None:
        self._wall, self._processor = wall, processor
        self._wanting, self._processors = wanting, processors
        self._at, self._used = wall(), processor()

    def __call__(self) -> float:
        """The share since it was last asked, 0 to 1."""
        at, used = self._wall(), self._processor()
        passed, ran = at - self._at, used - self._used
        self._at, self._used = at, used
        if passed <= 0.0 or self._wanting() > self._processors:
            return 0.0
        return min(max(1.0 - ran / passed, 0.0), 1.0)
