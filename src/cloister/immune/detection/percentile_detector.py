"""The seed's detector, for comparison: the rank of a call's distance from the mean among earlier distances.

It finds less than the tail detector (`docs/adr/0021-scores-by-tail-probability.md`), and is selected by
``anomaly.detector: l2-percentile``. Rules this module keeps:

* A call is a vector: duration, size of the arguments, call rate, error rate, each normalised to [0, 1].
* Its distance from the mean vector of the newest 1,000 is ranked among theirs. A larger distance never
  scores lower.
* Above 80 exactly where the rank is above the threshold, the 95th percentile where nobody set another. The
  original's rule, mean distance plus three standard deviations, is told beside it.
* Only what a tick of chance chose teaches.
"""

from __future__ import annotations

import copy
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from math import exp, isfinite, isnan, log, nan, sqrt
from typing import TYPE_CHECKING, Final

from cloister.immune.detection import state
from cloister.immune.detection.detector import DetectorSettings, Summary
from cloister.immune.detection.features import MOST_CALLS, Traffic, log_duration
from cloister.immune.detection.normalizer import FeatureNormalizer, percentile
from cloister.immune.detection.score import Scale
from cloister.immune.detection.tail_table import MOST_EVENTS
from cloister.immune.observation import NOTHING_UNUSUAL, Entered, Observed, Score

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

KIND: Final = "l2-percentile"
COLUMNS: Final = 4
HISTORY: Final = 1000
PRESENT: Final = 100
REFIT_EVERY: Final = 100
DISTANCE: Final = ("distance",)
MOST: Final = 1e30
_MEMBERS: Final = ("calls", "errors", "kind", "learned", "rows", "started", "traffic")


@dataclass(frozen=True, slots=True)
class Distances:
    """Of the distances that were learned.

    Attributes:
        threshold: the one at the threshold percentile.
        mean_and_three_std: the original's threshold.
    """

    threshold: float
    mean_and_three_std: float


class PercentileDetector:
    """Judges one function's calls by L2 distance and percentile rank.

    Args:
        settings: threshold, and how much is learned before anything is judged.
    """

    __slots__ = (
        "_calls", "_distances", "_failed", "_learned", "_mean", "_normalizer", "_present", "_rows", "_scale",
        "_started", "_traffic", "_usual", "settings",
    )  # fmt: skip

    def __init__(self, settings: DetectorSettings | None = None) -> None:
        self.settings: DetectorSettings = settings or DetectorSettings()
        self._scale: Scale = Scale(1.0 - self.settings.threshold_percentile / 100.0)
        self._traffic: Traffic = Traffic()
        self._rows: array[float] = array("d")
        self._present: array[float] = array("d")
        self._distances: array[float] = array("d")
        self._normalizer: FeatureNormalizer | None = None
        self._mean: list[float] = []
        self._usual: float = 0.0
        self._started: float = nan
        self._learned: int = 0
        self._calls: int = 0
        self._failed: int = 0

    @property
    def learned(self) -> int:
        """Calls that taught."""
        return self._learned

    @property
    def judging(self) -> bool:
        """Whether enough was learned to judge; before, every score is 0."""
        return self._normalizer is not None

    def entry(self, entered: Entered) -> Score:
        """Judge a call before its body runs: its duration is taken for the median."""
        self._traffic.read(entered)
        return self._judge(self._row(nan, failed=False))

    def score(self, observed: Observed) -> Score:
        """Judge a call that has ended; 0 before enough was learned."""
        self._traffic.read(observed.entered)
        return self._judge(self._row(log_duration(observed.duration), failed=observed.failed))

    def learn(self, observed: Observed) -> None:
        """Take note of a call that has ended; if chance chose it, learn from it."""
        entered = observed.entered
        row = self._noted(observed)
        if not entered.teaches or isnan(log_duration(observed.duration)):
            return
        self._learned += 1
        _keep(self._rows, row, HISTORY)
        _keep(self._present, row, PRESENT)
        if isnan(self._started):
            self._started = entered.at
        if self._normalizer is not None:
            if self._learned % REFIT_EVERY == 0:
                self.refit()
            return
        old = entered.at - self._started >= self.settings.min_seconds
        if self._learned >= self.settings.min_samples or (old and self._learned > 1):
            self.refit()

    def note(self, observed: Observed) -> None:
        """Take note of a call that may not teach."""
        self._noted(observed)

    def follow(self, observed: Observed) -> None:
        """Let the levels follow a call that may not teach, taken note of already; nothing else changes."""
        duration = log_duration(observed.duration)
        if not isnan(duration):
            _keep(self._present, self._row(duration, failed=observed.failed), PRESENT)

    def refit(self) -> None:
        """Make scales, mean and ordered distances anew from the newest calls."""
        rows = self._history()
        if not rows:
            return
        normalizer = FeatureNormalizer(rows)
        scaled = [normalizer.capped(row) for row in rows]
        self._mean = [sum(column) / len(scaled) for column in zip(*scaled, strict=True)]
        self._distances = array("d", sorted(_distance(row, self._mean) for row in scaled))
        uncapped = sorted(_distance(normalizer.uncapped(row), self._mean) for row in rows)
        self._usual = percentile(uncapped, 50.0)
        self._normalizer = normalizer

    def rank(self, distance: float) -> float:
        """The percentile rank of a distance: the share of learned ones below it, half a call on either side.

        Args:
            distance: in normalised units.

        Returns:
            Above 0 and below 100.
        """
        count = len(self._distances)
        return 100.0 * (bisect_left(self._distances, distance) + 0.5) / (count + 1)

    def distances(self) -> Distances | None:
        """The thresholds as distances; None before enough was learned."""
        if not self._distances:
            return None
        count = len(self._distances)
        mean = sum(self._distances) / count
        std = sqrt(sum((distance - mean) ** 2 for distance in self._distances) / count)
        return Distances(percentile(self._distances, self.settings.threshold_percentile), mean + 3.0 * std)

    def trust(self, calls: int) -> None:
        """Nothing: it learns from every call alike."""

    def rest(self) -> None:
        """Nothing of the calls just before is kept."""

    def rested(self) -> PercentileDetector:
        """A copy to try calls on."""
        return copy.deepcopy(self)

    def summary(self) -> Summary | None:
        """What is usual of the newest 1,000 durations; None before enough was learned."""
        if self._normalizer is None:
            return None
        durations = sorted(self._rows[0::COLUMNS])
        count = len(durations)
        mean = sum(durations) / count
        std = sqrt(sum((duration - mean) ** 2 for duration in durations) / count)
        p50, p95, p99 = (percentile(durations, percent) for percent in (50.0, 95.0, 99.0))
        return Summary(self._learned, self._calls, self._failed, mean, std, p50, p95, p99)

    def level(self, feature: str) -> float:
        """Where a feature lies: the median of its newest 100 values; ``nan`` where it isn't known."""
        columns = {"duration": 0, "size": 1, "rate": 2, "errors": 3}
        if self._normalizer is None or feature not in columns:
            return nan
        known = sorted(value for value in self._present[columns[feature] :: COLUMNS] if isfinite(value))
        return percentile(known, 50.0) if known else nan

    def _row(self, duration: float, *, failed: bool) -> tuple[float, float, float, float]:
        traffic = self._traffic
        return (
            exp(duration),
            min(exp(min(traffic.size, 69.0)) - 1.0, MOST),
            exp(traffic.rate),
            traffic.one_more if failed else traffic.errors,
        )

    def _noted(self, observed: Observed) -> tuple[float, float, float, float]:
        """Count a call, and let it be the newest; its row."""
        entered = observed.entered
        self._traffic.read(entered)
        row = self._row(log_duration(observed.duration), failed=observed.failed)
        self._traffic.take(failed=observed.failed)
        calls = min(max(entered.calls, 1), MOST_CALLS)
        self._calls += calls
        self._failed += min(max(entered.errors, 0), calls) + observed.failed
        return row

    def _judge(self, row: tuple[float, float, float, float]) -> Score:
        normalizer = self._normalizer
        if normalizer is None:
            return NOTHING_UNUSUAL
        distance = _distance(normalizer.capped(row), self._mean)
        p = 1.0 - self.rank(distance) / 100.0
        surprise = -log(p)
        times = _distance(normalizer.uncapped(row), self._mean) / self._usual if self._usual > 0.0 else 0.0
        value = self._scale.value(surprise, p)
        return Score(value, p, DISTANCE[0], times, DISTANCE, (surprise,))

    def _history(self) -> list[array[float]]:
        return [self._rows[start : start + COLUMNS] for start in range(0, len(self._rows), COLUMNS)]

    def as_json(self) -> dict[str, JSON]:
        """All that was learned. Brings the distances up to date first."""
        if self._normalizer is not None:
            self.refit()
        rows: list[JSON] = [value if isfinite(value) else None for value in self._rows]
        started: JSON = None if isnan(self._started) else self._started
        return {
            "calls": min(self._calls, state.MOST_WHOLE),
            "errors": min(self._failed, self._calls, state.MOST_WHOLE),
            "kind": KIND,
            "learned": self._learned,
            "rows": rows,
            "started": started,
            "traffic": self._traffic.as_json(),
        }

    @classmethod
    def from_json(cls, value: object, settings: DetectorSettings | None = None) -> PercentileDetector:
        """The detector that `as_json` wrote.

        Raises:
            ImmuneError: ``immune.baseline_damaged`` where the value isn't one of its documents.
        """
        part = state.members(value, "detector", _MEMBERS)
        if part["kind"] != KIND:
            state.refuse("it is of another kind of detector")
        found = cls(settings)
        rows = part["rows"]
        if not isinstance(rows, list) or len(rows) > HISTORY * COLUMNS or len(rows) % COLUMNS:
            state.refuse("rows aren't those of at most 1,000 calls")
        for index, item in enumerate(rows):
            missing = item is None and index % COLUMNS == 2
            found._rows.append(nan if missing else state.number(item, "row", 0.0, MOST))
        found._present = found._rows[-PRESENT * COLUMNS :]
        found._learned = state.whole(part["learned"], "learned", len(rows) // COLUMNS, int(MOST_EVENTS))
        found._calls = state.whole(part["calls"], "calls", 0, state.MOST_WHOLE)
        found._failed = state.whole(part["errors"], "errors", 0, found._calls)
        found._traffic = Traffic.from_json(part["traffic"])
        if part["started"] is not None:
            found._started = state.number(part["started"], "started", -1e15, 1e15)
        if rows and found._learned >= found.settings.min_samples:
            found.refit()
        return found


def _keep(rows: array[float], row: tuple[float, ...], most: int) -> None:
    """Keep a row as the newest of at most so many."""
    rows.extend(row)
    if len(rows) > most * COLUMNS:
        del rows[:COLUMNS]


def _distance(row: list[float], mean: list[float]) -> float:
    """L2 distance of two vectors of one length."""
    return sqrt(sum((value - centre) ** 2 for value, centre in zip(row, mean, strict=True)))
