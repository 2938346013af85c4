"""A watched function on a clock of its own: settings, ordinary calls, an attack, a promoted detector."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloister.immune import CallBlocked
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.settings import ImmuneSettings


class SteppingClock:
    """Seconds that pass with each look at it, alike but for chance, on any machine."""

    def __init__(self) -> None:
        self._chance = random.Random(3)
        self._now = 1000.0
        self.slower = 1.0
        self.slow = 0

    def __call__(self) -> float:
        self.slow -= self.slow > 0
        step = 1e-3 if self.slow else 1e-5
        self._now += step * self.slower * self._chance.lognormvariate(0.0, 0.2)
        return self._now

    def pass_by(self, seconds: float) -> None:
        self._now += seconds


def on_with(given: ImmuneSettings, clock: SteppingClock, *targets: str, **more: Any) -> Protection:
    return Protection(given, monotonic=clock, **more).start(targets)


def settings(folder: Path | None, **effector: object) -> ImmuneSettings:
    return ImmuneSettings.model_validate(
        {
            "cellagent": {"sampling": "every-call"},
            "effector": {"enforcing": ["tests.shop:*"], "contain_seconds": 0.5, **effector},
            "storage": {"directory": None if folder is None else str(folder)},
        }
    )


def ordinary(read: Callable[[list[int]], int], calls: int, chance: random.Random) -> None:
    """Calls with one to six ids each."""
    for _ in range(calls):
        read([chance.randrange(1000) for _ in range(chance.randint(1, 6))])


def attack(read: Callable[[list[int]], int], calls: int = 60) -> int:
    """How many calls with four hundred ids each were blocked."""
    blocked = 0
    for _ in range(calls):
        try:
            read(list(range(400)))
        except CallBlocked:
            blocked += 1
    return blocked


def promote_all(folder: Path) -> None:
    with Operator(folder, "tester") as operator:
        for one in operator.detectors():
            if one.verdict is not None and one.verdict.passed:
                operator.promote(one.id)
