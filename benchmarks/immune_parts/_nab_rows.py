"""Detectors of calls, made to judge the rows of a series.

A row becomes two calls of two functions: one takes as long as the value lies off its running mean, the
other as long as the step from the row before, both in running spreads. The rarer of both counts. Once
something is found, NAB pays for no second detection nearby and fines false ones each: so a row is reported
only where it is rarer than all of the hundred before it.

About forty such fronts were tried on the shared series, with more and other features; read the figure +-3.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from cloister.immune.detection import TailDetector
from cloister.immune.observation import Entered, Observed
from immune_parts._detectors import EwmaZ, Peer
from immune_parts._nab_scoring import SeriesDetector, WindowedGaussian

NOTHING, NO_SPREAD = 1e-6, 1e-12


class RowsAsCalls:
    """Two detectors of calls: one for how far off a value lies, one for how far it jumped.

    Args:
        make: makes one that has learned nothing.
        memory: share of a new value in the running mean and spread.
        quiet: rows after a report in which only something rarer is reported.
    """

    def __init__(self, make: Callable[[], Peer], memory: float = 0.005, quiet: int = 100) -> None:
        self._off, self._step = make(), make()
        self._memory = memory
        self._rows = 0
        self._mean = self._spread = self._before = 0.0
        self._recent: deque[float] = deque(maxlen=quiet)

    def judge(self, value: float) -> float:
        """-ln of the row's probability; 0 where one of the rows before it was rarer."""
        if self._rows == 0:
            self._mean = self._before = value
        off, step = value - self._mean, value - self._before
        spread = self._spread or NO_SPREAD
        surprise = max(
            self._surprise(self._off, abs(off) / spread), self._surprise(self._step, abs(step) / spread)
        )
        self._rows += 1
        weight = max(self._memory, 1.0 / self._rows)
        self._mean += weight * off
        self._spread += weight * (abs(off) - self._spread)
        self._before = value
        reported = surprise if surprise > max(self._recent, default=0.0) else 0.0
        self._recent.append(surprise)
        return reported

    def _surprise(self, detector: Peer, spreads: float) -> float:
        entered = Entered(float(self._rows), 1, "series", 1, 0, teaches=True)
        observed = Observed(entered, max(spreads, NOTHING), failed=False)
        score = detector.score(observed)
        detector.learn(observed)
        return -math.log(max(score.p, 1e-300))


DETECTORS: dict[str, Callable[[], SeriesDetector]] = {
    "windowed Gaussian (run here)": WindowedGaussian,
    "tail tables": lambda: RowsAsCalls(TailDetector),
    "EWMA z": lambda: RowsAsCalls(EwmaZ),
}
