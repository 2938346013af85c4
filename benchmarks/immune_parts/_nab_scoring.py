"""Numenta's Anomaly Benchmark: its scoring, its own simple detector, and its published scores.

Scoring is that of Lavin and Ahmad 2015 (arXiv:1510.03336), section III, with the published code's constants:

* A detection is a row whose score is at least the threshold; there is one threshold for all series.
* The first 15 % of a series, 750 rows at most, are for learning and not scored.
* A window that is missed costs its weight; one that is found earns by how early its first detection is.
* Each detection outside windows costs, less the shorter it comes after one.
* The sum over series is put on a scale on which detecting nothing is 0 and a perfect detector 100.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PROBATION_SHARE, PROBATION_ROWS = 0.15, 750


@dataclass(frozen=True, slots=True)
class Profile:
    """What a user cares about: weights of a found and a missed window and of a false detection."""

    found: float
    missed: float
    false: float


STANDARD = Profile(1.0, 1.0, 0.11)
PROFILES = {
    "standard": STANDARD,
    "reward_low_FP_rate": Profile(1.0, 1.0, 0.22),
    "reward_low_FN_rate": Profile(1.0, 2.0, 0.11),
}


@dataclass(frozen=True, slots=True)
class Series:
    """A series, and where its anomalies are.

    Attributes:
        name: folder and file.
        values: one a row.
        windows: index of the first and of the last row of each window, in order.
    """

    name: str
    values: tuple[float, ...]
    windows: tuple[tuple[int, int], ...]

    @property
    def probation(self) -> int:
        """How many rows at the beginning aren't scored."""
        return min(math.floor(PROBATION_SHARE * len(self.values)), PROBATION_ROWS)


class SeriesDetector(Protocol):
    """Judges the rows of one series in order; higher is more unusual."""

    def judge(self, value: float) -> float:
        """The score of the next row."""
        ...


def load(folder: Path) -> list[Series]:
    """The series of a folder with `data` and `labels/combined_windows.json`."""
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text(encoding="utf-8"))
    found = []
    for name in sorted(labels):
        with (folder / "data" / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        # Labels write fractions of seconds, series don't.
        at = {row["timestamp"].split(".")[0]: index for index, row in reversed(list(enumerate(rows)))}
        windows = tuple((at[a.split(".")[0]], at[z.split(".")[0]]) for a, z in sorted(labels[name]))
        found.append(Series(name, tuple(float(row["value"]) for row in rows), windows))
    return found


def sigmoid(position: float) -> float:
    """The scaled sigmoid: 1 far before the end of a window, 0 at it, -1 far behind."""
    return -1.0 if position > 3 else 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0


def worth(series: Series, row: int, profile: Profile) -> tuple[int, float]:
    """The window that a row is in and what a detection there earns; or -1, and what it costs."""
    before = None
    for number, (first, last) in enumerate(series.windows):
        if first <= row <= last:
            return number, profile.found * sigmoid(-(last - row + 1) / (last - first + 1)) / sigmoid(-1.0)
        if last < row:
            before = (first, last)
    if before is None:
        return -1, -profile.false
    first, last = before
    return -1, profile.false * sigmoid((row - last) / (last - first))


def score_series(series: Series, scores: Sequence[float], threshold: float, profile: Profile) -> float:
    """A detector's score on one series, before it is put on a scale."""
    total, best = 0.0, [-profile.missed] * len(series.windows)
    for row in range(series.probation, len(scores)):
        if scores[row] >= threshold:
            window, value = worth(series, row, profile)
            if window < 0:
                total += value
            else:
                best[window] = max(best[window], value)
    return total + sum(best)


def normalized(total: float, windows: int, profile: Profile) -> float:
    """A sum over series on the scale from 0, nothing detected, to 100, perfect."""
    nothing = -profile.missed * windows
    return 100.0 * (total - nothing) / (windows * profile.found - nothing)


def best_threshold(
    results: Sequence[tuple[Series, Sequence[float]]], profile: Profile
) -> tuple[float, float]:
    """The threshold with the highest score over all series, as NAB chooses it for each detector.

    Args:
        results: every series with a detector's scores of all its rows.
        profile: the weights.

    Returns:
        The threshold, and the normalized score at it.
    """
    ranked = sorted(
        (
            (score, number, row)
            for number, (series, scores) in enumerate(results)
            for row, score in enumerate(scores)
            if row >= series.probation
        ),
        reverse=True,
    )
    windows = sum(len(series.windows) for series, _ in results)
    best: dict[tuple[int, int], float] = {}
    total = top = -profile.missed * windows
    threshold = math.inf
    for place, (score, number, row) in enumerate(ranked):
        window, value = worth(results[number][0], row, profile)
        if window < 0:
            total += value
        else:
            had = best.get((number, window), -profile.missed)
            best[number, window] = max(had, value)
            total += best[number, window] - had
        whole = place + 1 == len(ranked) or ranked[place + 1][0] < score
        if whole and total > top:
            top, threshold = total, score
    return threshold, normalized(top, windows, profile)


def run(series: Iterable[Series], make: Callable[[], SeriesDetector]) -> list[tuple[Series, list[float]]]:
    """Every series with the scores of a detector that is new for each."""
    results = []
    for one in series:
        detector = make()
        results.append((one, [detector.judge(value) for value in one.values]))
    return results


class WindowedGaussian:
    """NAB's own simple detector: how far a value lies in the tail of a Gaussian over the last 6,400.

    The window moves on by 100 rows at a time.
    """

    def __init__(self, window: int = 6400, step: int = 100) -> None:
        self._window, self._step = window, step
        self._values: list[float] = []
        self._waiting: list[float] = []
        self._mean = self._squares = 0.0

    def judge(self, value: float) -> float:
        """Tail probability of the value, from 0.5 to 1."""
        # NAB stored scores with twelve digits, and its threshold of 1.0 is one for these.
        score = round(1.0 - self._tail(value), 12) if self._values else 0.0
        if len(self._values) < self._window:
            self._take(value)
        else:
            self._waiting.append(value)
            if len(self._waiting) == self._step:
                values = self._values[self._step :] + self._waiting
                self._values, self._waiting = [], []
                self._mean = self._squares = 0.0
                for one in values:
                    self._take(one)
        return score

    def _take(self, value: float) -> None:
        self._values.append(value)
        off = value - self._mean
        self._mean += off / len(self._values)
        self._squares += off * (value - self._mean)

    def _tail(self, value: float) -> float:
        deviation = math.sqrt(self._squares / len(self._values)) or 0.000001
        return 0.5 * math.erfc(abs(value - self._mean) / deviation / math.sqrt(2.0))


def published(folder: Path, profile: str) -> dict[str, float]:
    """The published scores of every detector, summed and normalized over the series of a folder."""
    totals: dict[str, float] = {}
    with (folder / "results" / "per_series_scores.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["profile"] == profile and row["detector"] != "random":
                totals[row["detector"]] = totals.get(row["detector"], 0.0) + float(row["score"])
    windows = sum(len(one.windows) for one in load(folder))
    return {name: normalized(total, windows, PROFILES[profile]) for name, total in totals.items()}
