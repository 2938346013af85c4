"""One function's cell on a machine that gets slower, and in a drift that goes away again."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest

from cloister.core.keys import EphemeralKeyStore
from cloister.immune.brain import Brain
from cloister.immune.cell import Cell
from cloister.immune.keeping import Happened, Standing
from cloister.immune.keeping.events import StateEvent
from cloister.immune.observation import Decision, Entered, Observed
from cloister.immune.settings import ImmuneSettings

NAME = "tests.shop:export"
DURATION, SCORING = 2e-5, 6e-6
UNUSUAL_RANK = 99.9
"""Of the second detector: one ordinary call in a thousand, as of the first. While a function is suspected the
time of its approval stands still, and one call in twenty, the default, makes it half as long again."""


class Told:
    """Where events go."""

    def __init__(self) -> None:
        self.kinds: list[Happened] = []

    def decided(self, function: str, decision: Decision) -> None:
        """Decisions aren't looked at."""

    def happened(self, event: StateEvent) -> None:
        """Keep its kind."""
        self.kinds.append(event.kind)

    def drifts(self) -> list[Happened]:
        return [one for one in self.kinds if one in (Happened.DRIFT_BEGAN, Happened.DRIFT_ENDED)]


class Machine:
    """A machine with clocks of its own: how slow it is shows in a function's duration and in our own work.

    Attributes:
        slow: how many times slower than usual it is.
        work: how many times more than usual the function does.
        timed: whether the brain may time its own work.
    """

    def __init__(self, detector: str, rank: float = UNUSUAL_RANK) -> None:
        self.slow, self.work, self.timed = 1.0, 1.0, True
        self._chance = random.Random(7)
        self._now = self._own = 0.0
        self.told = Told()
        self.brain = Brain(
            ImmuneSettings.model_validate(
                {
                    "anomaly": {"detector": detector, "threshold_percentile": rank},
                    "effector": {"enforcing": [NAME]},
                }
            ),
            EphemeralKeyStore().generate("tests"),
            self.told,
            redact=str,
            switched_off=lambda: False,
            changed=lambda _: None,
            matured=lambda _name, _learned: None,
            monotonic=lambda: self._now,
            stopwatch=self._stopwatch,
        )
        self.cell = self.brain.cell(NAME)

    @property
    def now(self) -> float:
        return self._now

    def wait(self, seconds: float) -> None:
        self._now += seconds

    @property
    def standing(self) -> Standing:
        return self.brain.anchors.standing(NAME)

    def run(self, calls: int) -> None:
        for _ in range(calls):
            self._call(self._chance.randint(1, 6), self.work)

    def attack(self, calls: int, work: float = 150.0) -> None:
        for _ in range(calls):
            self._call(400, work)

    def size_of_an_attack(self) -> float:
        """How probable the size of an attack's call is now."""
        return self.cell.detector.entry(Entered(self._now, 400, "tests:caller", 1, 0, True)).p

    def _call(self, size: int, work: float) -> None:
        self._now += 0.01
        entered = Entered(self._now, size, "tests:caller", 1, 0, True)
        noise = self._chance.lognormvariate(0.0, 0.25)
        self.cell.enter(entered)
        self.cell.leave(Observed(entered, DURATION * self.slow * work * noise, False))

    def _stopwatch(self) -> float:
        self._own += SCORING * self.slow * self._chance.lognormvariate(0.0, 0.1)
        return self._own if self.timed else math.nan


def drifting(standing: Standing) -> bool:
    return standing is Standing.DRIFTED


def approved(detector: str, *, timed: bool = True) -> Machine:
    made = Machine(detector)
    made.timed = timed
    made.brain.anchors.approve(NAME, "dana")
    made.run(300)
    assert made.standing is Standing.APPROVED
    return made


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = approved("tail")
    yield made
    made.brain.close()


@pytest.mark.parametrize("slow", [0.5, 1.6, 2.5, 3.5])
def test_neighbours_that_slow_the_whole_machine_raise_no_drift_alarm_and_learning_goes_on(
    machine: Machine, slow: float
) -> None:
    for phase in (slow, 1.0, slow):
        machine.slow = phase
        machine.run(400)
    assert machine.told.drifts() == []
    assert machine.cell.detector.learned > 1400


def test_without_the_yardstick_the_same_machine_would_raise_it() -> None:
    machine = approved("tail", timed=False)
    machine.slow = 2.5
    machine.run(400)
    assert machine.told.drifts() == [Happened.DRIFT_BEGAN]
    machine.brain.close()


@pytest.mark.parametrize("slow", [1.0, 2.0])
def test_a_function_that_does_twice_the_work_drifts_whatever_its_machine_does(
    machine: Machine, slow: float
) -> None:
    machine.slow, machine.work = slow, 2.2
    machine.run(400)
    assert machine.told.drifts() == [Happened.DRIFT_BEGAN]


def test_the_calls_of_an_attack_that_nothing_stops_are_not_learned_by_a_function_that_may_be_blocked(
    machine: Machine,
) -> None:
    for _ in range(3):
        machine.attack(60)
        machine.run(300)
    assert machine.size_of_an_attack() < 1e-6


def test_what_stood_out_before_a_slow_call_ran_makes_a_candidate_of_its_own(machine: Machine) -> None:
    """A call of 400 records takes 15,000 times as long as usual here: its size is the lesser surprise."""
    machine.attack(3, work=15_000.0)
    found = [one.provenance.split()[0] for one in machine.brain.registry.detectors()]
    assert {"duration", "size"} <= set(found)


def test_what_a_validation_would_find_is_told_before_there_is_a_candidate() -> None:
    for rank, some in ((UNUSUAL_RANK, False), (95.0, True)):
        machine = Machine("l2-percentile", rank)
        machine.run(15)
        assert machine.cell.flagged() == (0, 15)
        machine.run(800)
        flagged, tried = machine.cell.flagged()
        assert (flagged > 0, tried) == (some, 100)
        machine.brain.close()


def test_a_function_that_nobody_approved_learns_on_whatever_it_does() -> None:
    machine = Machine("tail")
    machine.run(300)
    machine.attack(60)
    assert machine.cell.detector.learned == 360
    machine.brain.close()


@pytest.mark.parametrize("detector", ["tail", "l2-percentile"])
def test_in_a_drift_nothing_is_learned_and_it_ends_when_the_function_is_itself_again(detector: str) -> None:
    machine = approved(detector)
    machine.work = 4.0
    machine.run(1500)
    assert machine.told.drifts() == [Happened.DRIFT_BEGAN]
    assert drifting(machine.standing)
    learned = machine.cell.detector.learned
    summary = machine.cell.detector.summary()
    machine.run(200)
    assert machine.cell.detector.learned == learned
    machine.work = 1.0
    machine.run(1500)
    assert machine.told.drifts() == [Happened.DRIFT_BEGAN, Happened.DRIFT_ENDED]
    assert not drifting(machine.standing)
    assert machine.cell.detector.learned > learned
    again = machine.cell.detector.summary()
    assert summary is not None
    assert again is not None
    assert again.p50 < summary.p50 * 1.1
    machine.brain.close()


def test_a_gate_makes_no_caller_known_to_a_function_that_may_be_blocked_but_while_a_person_approves(
    machine: Machine,
) -> None:
    other = machine.brain.cell("tests.shop:other")
    assert _stranger(machine, machine.cell, 700) < 0.0002
    assert _stranger(machine, other, 700) > 0.0004
    machine.brain.anchors.approve(NAME, "dana")
    assert _stranger(machine, machine.cell, 20) > 0.0004
    assert machine.standing is Standing.RELEARNING


def _stranger(machine: Machine, cell: Cell, after: int) -> float:
    """How probable a caller is that gates found a few times after so many ordinary calls."""
    for teaches, caller, calls in ((True, "tests:caller", after), (False, "shell:main", 3)):
        for _ in range(calls):
            machine.wait(0.001)
            entered = Entered(machine.now, 4, caller, 1, 0, teaches)
            cell.leave(Observed(entered, DURATION, False))
    return cell.detector.entry(entered).p_by_feature["caller"]
