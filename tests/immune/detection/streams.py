"""Seeded streams of calls for the tests of detection."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from cloister.immune.detection import TailDetector
from cloister.immune.observation import Entered, Observed, Score

MILLISECOND = 1e-3


def call(
    at: float,
    duration: float = MILLISECOND,
    size: int = 10,
    caller: str = "service:main",
    calls: int = 1,
    errors: int = 0,
    *,
    failed: bool = False,
    teaches: bool = True,
) -> Observed:
    return Observed(Entered(at, size, caller, calls, errors, teaches), duration, failed)


def lognormal(rng: random.Random) -> float:
    return MILLISECOND * rng.lognormvariate(0.0, 0.3)


def pareto(rng: random.Random) -> float:
    return MILLISECOND * rng.paretovariate(1.2)


def trimodal(rng: random.Random) -> float:
    mode = rng.random()
    if mode < 0.7:
        return MILLISECOND * max(rng.gauss(1.0, 0.05), 0.1)
    return MILLISECOND * max(rng.gauss(3.0, 0.2) if mode < 0.95 else rng.gauss(12.0, 1.0), 0.1)


SHAPES: dict[str, Callable[[random.Random], float]] = {
    "lognormal": lognormal,
    "pareto": pareto,
    "trimodal": trimodal,
}


def stream(
    seed: int, count: int, shape: Callable[[random.Random], float] = lognormal, *, lively: bool = True
) -> Iterator[Observed]:
    """Ordinary calls at random times, 100 a second; lively ones vary in size, caller and outcome too."""
    rng = random.Random(seed)
    at = 0.0
    for _ in range(count):
        at += rng.expovariate(100.0)
        size = int(rng.lognormvariate(4.0, 1.0)) if lively else 10
        caller = f"service:route{min(int(rng.expovariate(1.0)), 5)}" if lively else "service:main"
        failed = lively and rng.random() < 0.02
        yield call(at, shape(rng), size, caller, failed=failed)


def attend(detector: TailDetector, calls: Iterator[Observed] | list[Observed]) -> list[Score]:
    """Each call judged, then learned."""
    scores = []
    for observed in calls:
        scores.append(detector.score(observed))
        detector.learn(observed)
    return scores


def slower(observed: Observed, factor: float) -> Observed:
    return Observed(observed.entered, observed.duration * factor, observed.failed)
