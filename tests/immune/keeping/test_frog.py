"""Poisoning: a boiling frog and a deploy, on a level that follows the newest calls."""

from __future__ import annotations

import random
import statistics
from collections import deque

import pytest

from cloister.core.keys import Signer
from cloister.immune.keeping import AnchorKeeper, Happened, Standing, StateStore

FUNCTION = "bank.transfer:send"
RATIO = 1.5


class Level:
    """A detector's fast level and its learned median: what it is told to learn moves both."""

    def __init__(self) -> None:
        self._fast: deque[float] = deque(maxlen=64)
        self._learned: deque[float] = deque(maxlen=1000)

    def learn(self, value: float) -> None:
        self._learned.append(value)

    def see(self, value: float) -> float:
        self._fast.append(value)
        return statistics.median(self._fast)

    @property
    def learned(self) -> float:
        return statistics.median(self._learned)


class Protected:
    """A function under a keeper: every call is seen, and learned where the keeper allows it."""

    def __init__(self, keeper: AnchorKeeper, seed: int, *, blocks: bool = True) -> None:
        self.keeper, self.level, self._chance, self._blocks = keeper, Level(), random.Random(seed), blocks
        self.events: list[tuple[int, Happened]] = []
        self.calls = 0

    def run(self, calls: int, start: float, end: float | None = None) -> None:
        for step in range(calls):
            factor = start if end is None else start * (end / start) ** (step / calls)
            value = 0.01 * factor * self._chance.lognormvariate(0, 0.3)
            self.calls += 1
            level = self.level.see(value)
            if self.keeper.may_learn(FUNCTION, blocks=self._blocks):
                self.level.learn(value)
            event = self.keeper.check(FUNCTION, {"duration": level}, float(self.calls))
            if event is not None:
                self.events.append((self.calls, event.kind))

    def call_of(self, kind: Happened) -> int:
        return next(call for call, seen in self.events if seen is kind)


@pytest.fixture
def keeper(store: StateStore, signer: Signer) -> AnchorKeeper:
    return AnchorKeeper(store, signer, RATIO)


@pytest.mark.parametrize("seed", range(5))
def test_a_boiling_frog_to_six_times_raises_the_alarm_before_twice_and_isnt_learned(
    keeper: AnchorKeeper, seed: int
) -> None:
    function = Protected(keeper, seed)
    keeper.approve(FUNCTION, "dana")
    function.run(1000, 1.0)
    assert [kind for _, kind in function.events] == [Happened.ANCHOR_SIGNED]
    function.run(5000, 1.0, 6.0)
    alarm = function.call_of(Happened.DRIFT_BEGAN) - 1000
    factor = 6.0 ** (alarm / 5000)
    assert 1.3 < factor < 2.0
    assert function.level.learned < 0.01 * 2.0
    assert keeper.standing(FUNCTION) is Standing.DRIFTED
    assert keeper.may_block(FUNCTION)


def test_without_an_anchor_the_frog_is_learned(keeper: AnchorKeeper) -> None:
    function = Protected(keeper, 0)
    function.run(6000, 1.0, 6.0)
    assert function.events == []
    assert function.level.learned > 0.01 * 4.0


def test_a_function_that_cant_block_gets_the_alarm_and_learns_on(keeper: AnchorKeeper) -> None:
    function = Protected(keeper, 0, blocks=False)
    keeper.approve(FUNCTION, "dana")
    function.run(1000, 1.0)
    function.run(5000, 1.0, 6.0)
    assert function.call_of(Happened.DRIFT_BEGAN)
    assert function.level.learned > 0.01 * 4.0


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_calls_raise_no_drift_alarm(keeper: AnchorKeeper, seed: int) -> None:
    function = Protected(keeper, seed)
    keeper.approve(FUNCTION, "dana")
    function.run(10_000, 1.0)
    assert [kind for _, kind in function.events] == [Happened.ANCHOR_SIGNED]


@pytest.mark.parametrize("seed", range(5))
def test_a_deploy_that_takes_three_times_as_long_raises_the_alarm_and_recovers_within_200_calls_of_approval(
    keeper: AnchorKeeper, seed: int
) -> None:
    function = Protected(keeper, seed)
    keeper.approve(FUNCTION, "dana")
    function.run(1000, 1.0)
    function.run(100, 3.0)
    assert function.call_of(Happened.DRIFT_BEGAN) - 1000 <= 100
    approved_at = function.calls
    keeper.approve(FUNCTION, "dana")
    function.events.clear()
    function.run(200, 3.0)
    assert function.call_of(Happened.ANCHOR_SIGNED) - approved_at <= 200
    assert keeper.standing(FUNCTION) is Standing.APPROVED
    assert keeper.may_block(FUNCTION)
    function.run(5000, 3.0)
    assert len(function.events) == 1
    function.run(500, 1.0)
    assert function.call_of(Happened.DRIFT_BEGAN)


def test_with_a_deploy_marker_there_is_no_alarm_at_all(keeper: AnchorKeeper) -> None:
    function = Protected(keeper, 0)
    keeper.approve(FUNCTION, "dana")
    function.run(1000, 1.0)
    keeper.deploy(FUNCTION, "ci")
    function.run(300, 3.0)
    assert not keeper.may_block(FUNCTION)
    keeper.approve(FUNCTION, "dana")
    function.run(200, 3.0)
    assert [kind for _, kind in function.events] == [Happened.ANCHOR_SIGNED] * 2
    assert keeper.may_block(FUNCTION)
