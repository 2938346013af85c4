"""Ordinary traffic of one function: three shapes of durations, and the weather that all services live in.

Durations are lognormal, of two modes (a cache hit and a miss), or with a heavy tail. On top come seasons of
load (0.4 to 1.6 times the mean rate), drift (up to twice as long in the end), deploys (0.7 to 1.8 times at
once, sometimes with a caller that wasn't there before) and noisy neighbours (a stretch of calls 1.3 to 2
times as long). None of it is an attack, and a detector has to live with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from cloister.immune.errors import ImmuneError
from cloister.immune.generators.attacks import ORDINARY, Deviation
from cloister.immune.generators.calls import BENIGN, MAX_CALLS, Pattern, TracedCall, whole_nanoseconds
from cloister.immune.generators.draws import Draws

_CALLERS: Final = (
    "app.web:handle",
    "app.api:fetch",
    "app.jobs:nightly",
    "app.admin:page",
    "app.sync:pull",
)
_NEW_AFTER_DEPLOY: Final = "app.web:handle_v2"
_SIZES_IN_USE: Final = (16, 64, 256, 1024)


class Shape(StrEnum):
    """How durations are spread."""

    LOGNORMAL = "lognormal"
    BIMODAL = "bimodal"
    HEAVY_TAIL = "heavy-tail"


class Sizes(StrEnum):
    """How sizes of arguments are spread."""

    CONSTANT = "constant"
    CHOICE = "choice"
    LOGNORMAL = "lognormal"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a function is like.

    Attributes:
        shape: of its durations.
        median: of its durations, seconds.
        spread: deviation of the durations' logarithm; of the heavy tail, its exponent.
        rate: calls per second, mean over a season.
        sizes: how argument sizes are spread.
        size: typical argument size.
        callers: who calls it, most frequent first.
        error_rate: share of calls that raise.
    """

    shape: Shape
    median: float
    spread: float
    rate: float
    sizes: Sizes
    size: int
    callers: tuple[str, ...]
    error_rate: float


@dataclass(frozen=True, slots=True)
class Conditions:
    """What happens to a function in the course of a trace; positions are shares of the trace.

    Attributes:
        season: how far the rate swings, 0.6 at most: 1.6 and 0.4 times the mean.
        period: calls of one season.
        phase: where in the season the trace begins, 0 to 1.
        drift: how much longer calls take in the end, 1 to 2 times.
        deploys: where, and times as long from there on.
        newcomer: from where on there is one more caller; 1 means never.
        neighbour_every: mean number of calls between two noisy neighbours; 0 means none.
    """

    season: float = 0.0
    period: int = 2500
    phase: float = 0.0
    drift: float = 1.0
    deploys: tuple[tuple[float, float], ...] = ()
    newcomer: float = 1.0
    neighbour_every: int = 0


CALM: Final = Conditions()


def draw_behaviour(draws: Draws, shape: Shape | None = None) -> Behaviour:
    """A function's nature by chance: 20 us to 20 ms, up to five callers, 0.2 to 2 % of errors."""
    shape = shape or draws.pick(tuple(Shape))
    return Behaviour(
        shape=shape,
        median=draws.between(20e-6, 20e-3),
        spread=draws.uniform(1.8, 2.8) if shape is Shape.HEAVY_TAIL else draws.uniform(0.2, 0.5),
        rate=draws.between(0.5, 20.0),
        sizes=draws.pick(tuple(Sizes), (1, 1, 3)),
        size=draws.whole(8, 400),
        callers=_CALLERS[: draws.whole(1, len(_CALLERS))],
        error_rate=draws.between(0.002, 0.02),
    )


def draw_conditions(draws: Draws, count: int) -> Conditions:
    """The course of ``count`` calls by chance: a deploy in about 4,000 calls, drift in every second trace."""
    deploys = tuple(
        (draws.uniform(), draws.between(0.7, 1.8))
        for _ in range(math.ceil(count / 3000))
        if draws.chance(0.7 * min(1.0, count / 3000))
    )
    return Conditions(
        season=draws.uniform(0.2, 0.6),
        phase=draws.uniform(),
        drift=draws.uniform(1.0, 2.0) if draws.chance(0.5) else 1.0,
        deploys=deploys,
        newcomer=deploys[0][0] if deploys and draws.chance(0.3) else 1.0,
        neighbour_every=1500,
    )


class Traffic:
    """A function being called, one call after the other.

    Args:
        draws: decides every call.
        behaviour: what the function is like.
        conditions: what happens to it.
        count: how many ordinary calls the trace has, of which positions are shares.
    """

    def __init__(self, draws: Draws, behaviour: Behaviour, conditions: Conditions, count: int) -> None:
        self._draws, self._behaviour, self._conditions = draws, behaviour, conditions
        self._count = count
        self._at = 0.0
        self._ordinary = 0
        self._noisy_left, self._noise = 0, 1.0

    def call(self, label: Pattern = BENIGN, deviation: Deviation = ORDINARY) -> TracedCall:
        """The next call; calls of an attack let no time of the trace's course pass."""
        draws, behaviour = self._draws, self._behaviour
        share = self._ordinary / self._count
        season = self._season()
        self._at += draws.exponential(1.0 / (behaviour.rate * season * deviation.rate))
        # More load makes calls somewhat longer.
        level = math.sqrt(season) * self._level(share) * self._neighbour()
        duration = self._duration() * level * deviation.duration
        size = max(1, round(self._size() * deviation.size))
        caller = self._caller(share)
        failed = draws.chance(behaviour.error_rate if deviation.error_rate is None else deviation.error_rate)
        if label is BENIGN:
            self._ordinary += 1
        return TracedCall(
            whole_nanoseconds(self._at),
            whole_nanoseconds(duration),
            size,
            deviation.caller or caller,
            failed,
            label,
        )

    def _season(self) -> float:
        turn = self._ordinary / self._conditions.period + self._conditions.phase
        return 1.0 + self._conditions.season * math.sin(2.0 * math.pi * turn)

    def _level(self, share: float) -> float:
        level: float = self._conditions.drift**share
        for start, factor in self._conditions.deploys:
            if share >= start:
                level *= factor
        return level

    def _neighbour(self) -> float:
        if self._noisy_left == 0:
            self._noise = 1.0
            every = self._conditions.neighbour_every
            if every and self._draws.chance(1.0 / every):
                self._noisy_left, self._noise = self._draws.whole(20, 60), self._draws.uniform(1.3, 2.0)
        self._noisy_left = max(0, self._noisy_left - 1)
        return self._noise

    def _duration(self) -> float:
        draws, behaviour = self._draws, self._behaviour
        match behaviour.shape:
            case Shape.LOGNORMAL:
                return draws.lognormal(behaviour.median, behaviour.spread)
            case Shape.BIMODAL:
                # Three hits to one miss, which takes seven times as long.
                mode = 1.0 if draws.chance(0.75) else 7.0
                return draws.lognormal(behaviour.median * mode, behaviour.spread)
            case Shape.HEAVY_TAIL:
                least = behaviour.median * 2.0 ** (-1.0 / behaviour.spread)
                return draws.pareto(least, behaviour.spread)

    def _size(self) -> int:
        match self._behaviour.sizes:
            case Sizes.CONSTANT:
                return self._behaviour.size
            case Sizes.CHOICE:
                return self._draws.pick(_SIZES_IN_USE, (4, 3, 2, 1))
            case Sizes.LOGNORMAL:
                return max(1, round(self._draws.lognormal(self._behaviour.size, 0.5)))

    def _caller(self, share: float) -> str:
        callers = self._behaviour.callers
        if share >= self._conditions.newcomer:
            callers = (*callers, _NEW_AFTER_DEPLOY)
        return self._draws.pick(callers, [1.0 / (rank + 1) for rank in range(len(callers))])


def ordinary_calls(
    seed: int,
    count: int = 1000,
    *,
    shape: Shape | None = None,
    behaviour: Behaviour | None = None,
    conditions: Conditions | None = None,
) -> tuple[TracedCall, ...]:
    """Ordinary calls of one function.

    Args:
        seed: decides everything that isn't given.
        count: how many calls.
        shape: of the durations.
        behaviour: what the function is like.
        conditions: what happens to it; `CALM` means nothing.

    Returns:
        The calls, in order of time, all labelled benign.

    Raises:
        ImmuneError: ``immune.generator_invalid``; fewer than one call, or more than a trace may hold.
    """
    traffic = make_traffic(seed, count, shape=shape, behaviour=behaviour, conditions=conditions)
    return tuple(traffic.call() for _ in range(count))


def make_traffic(
    seed: int,
    count: int,
    *,
    shape: Shape | None = None,
    behaviour: Behaviour | None = None,
    conditions: Conditions | None = None,
) -> Traffic:
    """`Traffic` of one seed: its nature, its course and its calls have a source of chance each.

    Raises:
        ImmuneError: ``immune.generator_invalid``; as `ordinary_calls`.
    """
    if not 1 <= count <= MAX_CALLS:
        raise ImmuneError("immune.generator_invalid", f"A trace has 1 to {MAX_CALLS:,} calls.")
    nature = behaviour or draw_behaviour(Draws(f"{seed}/behaviour"), shape)
    if behaviour is not None and shape is not None:
        nature = replace(nature, shape=shape)
    course = conditions or draw_conditions(Draws(f"{seed}/conditions"), count)
    return Traffic(Draws(f"{seed}/calls"), nature, course, count)
