"""From probabilities to the score of 0 to 100.

The *surprise* of an event is -ln p, p the probability of something at least as unusual. Rules:

* Score = 100 (1 - p^g), g = ln 0.2 / ln alpha. It is above 80 exactly where p is below alpha, also where
  rounding would have it otherwise; alpha is the share of ordinary calls that an operator accepts above 80.
* The features of a call are combined by the smallest of their probabilities. That is small more often than
  each: by Bonferroni's inequality as many times as there are features at most, less where some never vary
  or vary together. How often, is learned.
* So the score is monotone in each feature: a more unusual value never lowers it.
* Observed shares of p below .05, .01 and alpha are kept. Where the one of alpha is more than twice or less
  than half of what it should be, alpha is re-scaled by it.
"""

from __future__ import annotations

from math import exp, log, nextafter
from typing import TYPE_CHECKING, Final

from cloister.immune.detection import state
from cloister.immune.detection.tail_table import BUCKETS, MOST_SURPRISE, TailTable

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

THRESHOLD: Final = 80.0
JUST_ABOVE: Final = nextafter(THRESHOLD, 100.0)
_LN_FIFTH: Final = log(0.2)
PER_SURPRISE: Final = (BUCKETS - 1) / MOST_SURPRISE
APART: Final = 50
ASSUMED: Final = 3.0
MOST: Final = 4.0
LOOK_EVERY: Final = 512
LEAST_EXPECTED: Final = 8.0
LEAST_SEEN: Final = 200
"""Events before which the bound is taken for the combination."""


class Scale:
    """The score of a surprise under one alpha.

    Args:
        alpha: probability below which the score is above 80; between 0 and 0.05 or so.
    """

    __slots__ = ("_power", "alpha")

    def __init__(self, alpha: float = 0.001) -> None:
        self.alpha: float = alpha
        self._power: float = _LN_FIFTH / log(alpha)

    def value(self, surprise: float, p: float) -> float:
        """The score.

        Args:
            surprise: -ln p.
            p: the probability, which decides on the side of 80.

        Returns:
            0 to 100.
        """
        value = 100.0 - 100.0 * exp(-self._power * surprise)
        if p < self.alpha:
            return value if value > THRESHOLD else JUST_ABOVE
        return value if value < THRESHOLD else THRESHOLD


class Combination:
    """The probability of the smallest among the probabilities of several features.

    It lies between that smallest one and, by Bonferroni's inequality, as many times it as there are
    features. Where between, is learned: a table holds how small the smallest was. -ln of a probability is
    exponential by itself, so the table's buckets are even in it and its extrapolated tail is exact.

    Args:
        features: how many there are.
        table: how small the smallest was so far.
        seen: events that it was learned from; from 200 on it is used, before that the bound.
    """

    __slots__ = ("_most", "seen", "table")

    def __init__(self, features: int = 1, table: TailTable | None = None, seen: int = 0) -> None:
        self._most: float = log(features)
        self.table: TailTable = table or TailTable()
        self.seen: int = seen

    def surprise(self, rarest: float) -> float:
        """-ln of the combined probability.

        Args:
            rarest: the largest surprise among the features.

        Returns:
            It, or up to ln(features) less, never below 0; it never falls as the rarest rises.
        """
        found = self.table.look_at(int(rarest * PER_SURPRISE))
        least = rarest - self._most
        if found > least and self.seen >= LEAST_SEEN:
            return found if found < rarest else rarest
        return least if least > 0.0 else 0.0

    def learn(self, added: float) -> None:
        """Count the event that was looked at last, as of `TailTable.learn`."""
        self.table.learn(added)
        self.seen += 1


class Calibration:
    """Observed against promised shares of small probabilities, and alpha re-scaled by them.

    An attack makes many in a row. So for the re-scaling a run of them counts once: after one below alpha the
    next ``APART`` events count neither way, and alpha moves by a factor of ``MOST`` at most.

    Args:
        alpha: as the operator set it.
        memory: events after which the older ones weigh half or less.
    """

    __slots__ = ("_again", "_below", "_look_at", "_memory", "_rare", "alpha", "events", "scale")

    def __init__(self, alpha: float = 0.001, memory: int = 16_000) -> None:
        self.alpha: float = alpha
        self.scale: Scale = Scale(alpha)
        self.events: int = 0
        self._memory: int = memory
        self._below: list[float] = [0.0, 0.0, 0.0]
        self._rare: float = 0.0
        self._again: int = 0
        self._look_at: int = LOOK_EVERY

    def learn(self, p: float) -> None:
        """Count the probability that an ordinary call was given."""
        self.events += 1
        if p < 0.05:
            below = self._below
            below[0] += 1.0
            if p < 0.01:
                below[1] += 1.0
            if p < self.alpha:
                below[2] += 1.0
                if self.events >= self._again:
                    self._rare += 1.0
                    self._again = self.events + APART
        if self.events >= self._look_at:
            self._look()

    def _look(self) -> None:
        if self.events > 2 * self._memory:
            half = self.events // 2
            self._again -= self.events - half
            self.events = half
            self._below = [count * 0.5 for count in self._below]
            self._rare *= 0.5
        self._look_at = self.events + LOOK_EVERY
        counted = self.events - self._rare * APART
        ratio = (self._rare + ASSUMED) / (counted * self.alpha + ASSUMED)
        if counted * self.alpha < LEAST_EXPECTED or 0.5 <= ratio <= 2.0:
            wanted = self.alpha
        else:
            wanted = self.alpha / min(max(ratio, 1.0 / MOST), MOST)
        if wanted != self.scale.alpha:
            self.scale = Scale(wanted)

    def observed(self) -> dict[float, float]:
        """The share of calls below .05, below .01 and below alpha, by that number; empty without calls."""
        if not self.events:
            return {}
        levels = (0.05, 0.01, self.alpha)
        return {level: count / self.events for level, count in zip(levels, self._below, strict=True)}

    def as_json(self) -> dict[str, JSON]:
        """Its counts, and alpha as set and as re-scaled."""
        return {
            "again": max(self._again - self.events, 0),
            "alpha": self.alpha,
            "below": list(self._below),
            "events": self.events,
            "look": self._look_at - self.events,
            "rare": self._rare,
            "scaled": self.scale.alpha,
        }

    @classmethod
    def from_json(cls, value: object, alpha: float, memory: int) -> Calibration:
        """The counts that `as_json` wrote; new ones where they are of another alpha.

        Raises:
            ImmuneError: ``immune.baseline_damaged`` where the value isn't one of its documents.
        """
        part = state.members(
            value, "calibration", ("again", "alpha", "below", "events", "look", "rare", "scaled")
        )
        of = state.number(part["alpha"], "alpha", 1e-12, 0.5)
        found = cls(of, memory)
        found.scale = Scale(state.number(part["scaled"], "scaled", of / MOST, min(of * MOST, 0.5)))
        found.events = state.whole(part["events"], "events", 0, state.MOST_WHOLE)
        found._again = found.events + state.whole(part["again"], "again", 0, APART)
        found._below = state.numbers(part["below"], "below", 0.0, found.events, 3)
        if len(found._below) != 3:
            state.refuse("below doesn't have three counts")
        found._rare = state.number(part["rare"], "rare", 0.0, found.events)
        found._look_at = found.events + state.whole(part["look"], "look", 1, LOOK_EVERY)
        return found if of == alpha else cls(alpha, memory)
