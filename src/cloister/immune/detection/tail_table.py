"""How rarely a quantity is as large as this: a decayed histogram whose tail is extrapolated.

A table holds what one feature of one function was, in buckets 8 % wide, each event counting less as newer
ones come. From it follows, for every bucket, the *surprise*: -ln of the probability of something at least
that large. Rules this module keeps:

* Memory is two rows of numbers over the buckets that had events, 192 at most, whatever was seen; looking up
  and learning cost the same for ever.
* The surprise never falls as the quantity rises.
* Instead of making older events smaller, the weight of the next event, the *unit*, is made larger. Its owner
  keeps it, one for all tables of a function, and has the tables made smaller together when it is large.
* Above the point that 3 % of events exceed, the probability isn't counted but extrapolated by the mean
  distance of those events from it: Hill's estimator, in logarithms (B. M. Hill, A simple general approach to
  inference about the tail of a distribution, Annals of Statistics 3, 1975). Two events of the mean distance
  3 are assumed beforehand, so that few events give a cautious answer.
* Inside a bucket half of its events count as larger (mid-p).
* The surprises are of the last `refit`. Whoever owns several tables does one at a time, so that no single
  call pays for all.
"""

from __future__ import annotations

from array import array
from math import ceil, log
from typing import TYPE_CHECKING, Final

from cloister.immune.detection import state

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

BUCKETS: Final = 192
LAST: Final = BUCKETS - 1
MIDDLE: Final = 96
WIDTH: Final = log(1.08)
PER_LOG: Final = 1.0 / WIDTH
OFFSET: Final = MIDDLE + 0.5

TAIL_SHARE: Final = 0.03
ASSUMED_EVENTS: Final = 2.0
ASSUMED_DISTANCE: Final = 3.0
LEAST_DISTANCE: Final = 0.5
MOST_SURPRISE: Final = 27.6
"""-ln of 1e-12: nothing is said to be rarer."""

MOST_EVENTS: Final = 1e15


class TailTable:
    """A decayed histogram in logarithmic buckets and the surprise of each bucket.

    `look` finds a quantity's place, `learn` counts an event there.

    Attributes:
        place: the bucket that was looked at last.
    """

    __slots__ = ("_bottom", "_counts", "_first", "_most", "_start", "_step", "_surprises", "place")

    def __init__(self) -> None:
        # Of the buckets from the lowest to the highest that had an event.
        # A list, for every event changes it: an array makes a number of Python's of each item that is read.
        self._counts: list[float] = []
        self._bottom: int = 0
        # Of the buckets from the one below those to the one above what is counted, for below the first of
        # them all are alike, and above the last the surprise is a straight line.
        self._surprises: array[float] = array("d", (0.0,))
        self._first: int = 0
        self._start: float = 0.0
        self._step: float = 0.0
        self._most: int = BUCKETS
        self.place: int = MIDDLE

    def look(self, distance: float) -> float:
        """The surprise of a quantity.

        Args:
            distance: ln of its ratio to the table's middle; any finite number. Beyond both ends, factors of
                1,600, it lies in the last bucket there.

        Returns:
            -ln of the probability of its bucket or a higher one; 0 before the first `refit`.
        """
        place = int(distance * PER_LOG + OFFSET)
        surprises = self._surprises
        index = place - self._first
        if 0 <= index < len(surprises):
            self.place = place
            return surprises[index]
        return self.look_at(min(max(place, 0), LAST))

    def look_at(self, bucket: int) -> float:
        """The surprise of a bucket, 0 to 191, for whoever divides a quantity into buckets otherwise."""
        self.place = bucket
        surprises = self._surprises
        index = bucket - self._first
        if index < len(surprises):
            return surprises[index] if index > 0 else surprises[0]
        index -= len(surprises)
        # Never below that of the last counted bucket.
        return max(self._start + index * self._step if index < self._most else MOST_SURPRISE, surprises[-1])

    def learn(self, added: float) -> None:
        """Count an event in the bucket that was looked at last.

        Args:
            added: its weight: the unit for an ordinary event, less for one that is to change little.
        """
        index = self.place - self._bottom
        if not 0 <= index < len(self._counts):
            self._reach(self.place)
            index = self.place - self._bottom
        self._counts[index] += added

    def _reach(self, place: int) -> None:
        """Let the counts reach to a bucket, with no room beyond it."""
        counts = self._counts
        if not counts:
            self._bottom = place
        below = max(self._bottom - place, 0)
        above = max(place - self._bottom - len(counts) + 1, 0)
        self._counts = [0.0] * below + counts + [0.0] * above
        self._bottom -= below

    def events(self) -> float:
        """The sum of all weights."""
        return sum(self._counts)

    def refit(self, unit: float) -> None:
        """Make the surprise of all buckets anew from the counts.

        Args:
            unit: weight of an ordinary event of now.
        """
        if self._counts:
            found = _surprises(self._counts, self._bottom, unit)
            self._surprises, self._start, self._step, self._most = found
            self._first = max(self._bottom - 1, 0)

    def rescale(self, scale: float) -> None:
        """Multiply all weights."""
        self._counts = [count * scale for count in self._counts]

    def quantile(self, share: float) -> float:
        """The distance from the middle below which a share of the events lies.

        Args:
            share: 0 to 1.

        Returns:
            ln(value / middle), interpolated inside its bucket; 0 where nothing was learned.
        """
        wanted = share * sum(self._counts)
        below = 0.0
        last = 0.0
        for index, count in enumerate(self._counts, self._bottom):
            if count <= 0.0:
                continue
            if below + count >= wanted:
                return (index - OFFSET + (wanted - below) / count) * WIDTH
            below += count
            last = (index - OFFSET + 1.0) * WIDTH
        return last

    def as_json(self) -> dict[str, JSON]:
        """The counts, from the first that isn't empty to the last."""
        filled = [index for index, count in enumerate(self._counts) if count > 0.0]
        counts: list[JSON] = []
        if not filled:
            return {"bottom": 0, "counts": counts}
        counts.extend(self._counts[filled[0] : filled[-1] + 1])
        return {"bottom": self._bottom + filled[0], "counts": counts}

    @classmethod
    def from_json(cls, value: object) -> TailTable:
        """The table that `as_json` wrote; its surprises are those of a unit of one.

        Raises:
            ImmuneError: ``immune.baseline_damaged`` where the value isn't one of its documents.
        """
        part = state.members(value, "table", ("bottom", "counts"))
        counts = state.numbers(part["counts"], "counts", 0.0, MOST_EVENTS, BUCKETS)
        bottom = state.whole(part["bottom"], "bottom", 0, BUCKETS - len(counts))
        table = cls()
        for place, count in enumerate(counts, bottom):
            if count > 0.0:
                table.place = place
                table.learn(count)
        table.place = MIDDLE
        table.refit(1.0)
        return table


def _surprises(counts: list[float], bottom: int, unit: float) -> tuple[array[float], float, float, int]:
    """-ln of the probability of each bucket or a higher one, never falling.

    Args:
        counts: weights of the buckets from the first to the last with any.
        bottom: the bucket of the first.
        unit: weight of one event of now.

    Returns:
        Those of the bucket below the first (where there is one), of the counted ones and of the first that is
        extrapolated; then the line of the others: where it starts, its step, and after how many buckets
        nothing is said to be rarer.
    """
    total = sum(counts)
    scale = 1.0 / (total + unit)
    half = 0.5 * unit
    least_beyond = TAIL_SHARE * total
    above = distance = 0.0
    edge = len(counts) - 1
    while edge > 0 and above + counts[edge] < least_beyond:
        above += counts[edge]
        distance += edge * counts[edge]
        edge -= 1
    distance -= edge * above
    assumed = ASSUMED_EVENTS * unit
    mean = max((distance + ASSUMED_DISTANCE * assumed) / (above + assumed), LEAST_DISTANCE)
    tail = max(above / total, half * scale)

    below = 0.0
    found = [-log((total + half) * scale)] if bottom else []
    for count in counts[: edge + 1]:
        found.append(-log((total - below - 0.5 * count + half) * scale))
        below += count
    beyond = counts[edge + 1] if edge + 1 < len(counts) else 0.0
    found.append(max(-log((above - 0.5 * beyond + half) * scale), found[-1]))
    start, step = -log(tail), 1.0 / mean
    start += 1.5 * step
    most = ceil((MOST_SURPRISE - start) * mean)
    return array("d", found[: BUCKETS - max(bottom - 1, 0)]), start, step, most
