"""What an attack must not bring about: open gates, a full disk, a halted event loop, a poisoned baseline."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.immune import ImmuneIncident, monitor
from cloister.immune.acting.containment import Stage
from cloister.immune.audit_event import AuditEvent
from cloister.immune.keeping import Standing
from cloister.immune.notes import Notes
from cloister.immune.observation import Action, Decision, Ground
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.settings import ImmuneSettings
from cloister.immune.wrapping.faults import FAULTS
from cloister.immune.wrapping.monitor import gates
from tests.immune.scene import SteppingClock, attack, on_with, ordinary, promote_all, settings

NAME = "tests.shop:read"
Contained = tuple[Protection, list[Callable[[list[int]], int]]]


def make() -> Callable[[list[int]], int]:
    """One of several functions of one name, as a factory makes them."""

    @monitor(name=NAME)
    def read(ids: list[int]) -> int:
        return sum(one * step for one in ids for step in range(40))

    return read


def approve(protection: Protection, folder: Path) -> None:
    with Operator(folder, "tester") as operator:
        operator.approve(NAME)
    protection.brain.take_over_decisions()


def audit(folder: Path) -> list[dict[str, str]]:
    with Operator(folder, "tester") as operator:
        operator.export(folder / "out.jsonl")
    lines = (folder / "out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def contained(
    folder: Path, clock: SteppingClock
) -> Iterator[tuple[Protection, list[Callable[[list[int]], int]]]]:
    """Two functions of one name, of which the first made is attacked until they are contained."""
    reads = [make(), make()]
    with on_with(settings(folder, contain_seconds=60), clock) as protection:
        approve(protection, folder)
        ordinary(reads[0], 500, random.Random(5))
        attack(reads[0])
        promote_all(folder)
        clock.pass_by(1000.0)
        ordinary(reads[0], 200, random.Random(6))
        attack(reads[0], 20)
        assert protection.brain.effector.state(NAME).stage is Stage.CONTAIN
        yield protection, reads


def test_every_function_of_a_contained_name_is_stopped_whichever_was_attacked(
    contained: Contained,
) -> None:
    protection, reads = contained
    for read in reads:
        assert attack(read, 50) == 50
    before = protection.status()["functions"][NAME]["calls"]  # type: ignore[index,call-overload]
    attack(reads[0], 3)
    attack(reads[1], 4)
    assert protection.status()["functions"][NAME]["calls"] == before + 7  # type: ignore[index,call-overload]


def test_one_that_is_made_while_its_name_is_contained_is_stopped_from_its_first_call(
    contained: Contained,
) -> None:
    assert attack(make(), 10) == 10


def test_status_tells_the_stage_of_now_without_a_call_coming(
    contained: Contained, clock: SteppingClock
) -> None:
    protection, _ = contained
    one = protection.status()["functions"][NAME]  # type: ignore[index,call-overload]
    assert (one["stage"], 0 < one["stage_seconds_left"] <= 120.0) == ("contain", True)
    clock.pass_by(10_000.0)
    one = protection.status()["functions"][NAME]  # type: ignore[index,call-overload]
    assert (one["stage"], one["stage_seconds_left"]) != ("contain", 0)
    assert one["stage"] in {"half-open", "release", "observe"}


def test_an_operator_releases_a_function_in_every_process_and_it_is_in_the_audit(
    contained: Contained, folder: Path, clock: SteppingClock
) -> None:
    protection, reads = contained
    clock.pass_by(10.0)
    with Operator(folder, "tester") as operator:
        told = operator.release(NAME)
    assert told.by == "tester"
    protection.brain.take_over_decisions()
    assert protection.brain.effector.state(NAME).stage is Stage.OBSERVE
    reads[1]([1, 2])
    attack(reads[0], 3)
    assert ("state-change", "stage-released") in {(one["event_type"], one["action"]) for one in audit(folder)}


def test_a_release_of_before_does_not_end_a_containment_of_after(
    contained: Contained, folder: Path, clock: SteppingClock
) -> None:
    protection, reads = contained
    clock.pass_by(10.0)
    with Operator(folder, "tester") as operator:
        operator.release(NAME)
    protection.brain.take_over_decisions()
    ordinary(reads[0], 30, random.Random(8))
    attack(reads[0], 20)
    assert protection.brain.effector.state(NAME).stage is Stage.CONTAIN
    protection.brain.take_over_decisions()
    assert protection.brain.effector.state(NAME).stage is Stage.CONTAIN


def test_once_its_detector_is_rejected_a_contained_function_runs(contained: Contained, folder: Path) -> None:
    _, reads = contained
    with Operator(folder, "tester") as operator:
        for one in operator.detectors():
            operator.reject(one.id, "it was the nightly export")
    ordinary(reads[0], 20, random.Random(9))


def test_what_cannot_be_blocked_is_not_looked_at_call_by_call_and_floods_no_audit(
    folder: Path, clock: SteppingClock
) -> None:
    """A release that changes the size of arguments does this to every function that nobody enabled."""
    read = make()
    watched = settings(folder, enforcing=["tests.other:*"])
    with on_with(watched, clock) as protection:
        approve(protection, folder)
        ordinary(read, 500, random.Random(5))
        assert attack(read, 2000) == 0
        assert not any(one.armed for one in gates(NAME))
        assert protection.brain.effector.state(NAME).stage in {Stage.CONTAIN, Stage.HALF_OPEN, Stage.SUSPECT}
    entries = [one for one in audit(folder) if one["event_type"] == "decision"]
    assert 0 < len(entries) < 80
    assert any("; time " in one["reason"] for one in entries)


def test_no_anchor_is_taken_of_an_attack_that_comes_while_it_is_taken(
    folder: Path, clock: SteppingClock
) -> None:
    read, chance = make(), random.Random(5)
    with on_with(settings(folder), clock) as protection:
        ordinary(read, 300, chance)
        approve(protection, folder)
        ordinary(read, 120, chance)
        for _ in range(8):
            attack(read, 40)
            ordinary(read, 10, chance)
        for _ in range(400):
            clock.pass_by(0.5)
            ordinary(read, 5, chance)
        assert protection.brain.anchors.standing(NAME) is Standing.APPROVED
        anchor = protection.brain.anchors.anchor(NAME)
        assert anchor is not None
        assert anchor.bands["size"].high < 40


def test_a_rejection_or_approval_of_another_process_is_known_without_a_call(
    folder: Path, clock: SteppingClock
) -> None:
    read = make()
    with on_with(settings(folder), clock) as protection:
        ordinary(read, 30, random.Random(5))
        with Operator(folder, "tester") as operator:
            operator.approve(NAME)
        assert protection.brain.anchors.standing(NAME) is Standing.UNAPPROVED
        deadline = time.monotonic() + 30
        while protection.brain.anchors.standing(NAME) is Standing.UNAPPROVED and time.monotonic() < deadline:
            time.sleep(0.05)
        assert protection.brain.anchors.standing(NAME) is Standing.RELEARNING


# What a decision costs the caller


class SlowTrail:
    """An audit on a disk that takes its time."""

    def __init__(self) -> None:
        self.waited, self.recorded = 0, 0

    def record(self, event: AuditEvent) -> bool:
        self.recorded += 1
        return True

    def record_durably(self, event: AuditEvent) -> bool:
        self.waited += 1
        return True

    def close(self) -> None:
        return None


BLOCK = Decision(Action.BLOCK, "contained for 9 s more; size 9.1x median", 97.0, "event-1", Ground.CONTAINED)
WOULD = Decision(
    Action.ALLOW, "contained for 9 s more; size 9.1x median", 97.0, "event-2", Ground.WOULD_BLOCK
)


def notes(**more: object) -> tuple[Notes, SlowTrail]:
    trail = SlowTrail()
    return Notes(trail, monotonic=time.monotonic, **more), trail  # type: ignore[arg-type]


def test_only_a_containments_first_block_waits_for_the_disk_and_every_block_is_in_the_audit() -> None:
    taken, trail = notes()
    for _ in range(100):
        taken.decided(NAME, BLOCK)
    assert (trail.waited, trail.recorded) == (1, 99)
    taken.stage_changed(NAME, "release", "from contain to release")
    taken.decided(NAME, BLOCK)
    assert trail.waited == 2


def test_an_event_loop_never_waits_for_the_disk() -> None:
    taken, trail = notes()

    async def blocked() -> None:
        taken.decided(NAME, BLOCK)

    asyncio.run(blocked())
    assert (trail.waited, trail.recorded) == (0, 1)


def test_what_is_only_marked_is_taken_down_the_first_second_fourth_time_and_counted_at_the_end() -> None:
    taken, trail = notes()
    for _ in range(1000):
        taken.decided(NAME, WOULD)
    assert trail.recorded == 10
    told: list[AuditEvent] = []
    trail.record = lambda event: told.append(event) or True  # type: ignore[method-assign,func-returns-value]
    taken.stage_changed(NAME, "half-open", "from contain to half-open")
    assert told[0].reason == "from contain to half-open, after 1000 would-block"


def test_counts_are_exact_under_threads() -> None:
    taken, trail = notes()

    def many() -> None:
        for _ in range(2000):
            taken.decided(NAME, WOULD)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert taken._counts[NAME][Ground.WOULD_BLOCK] == 8000
    assert trail.recorded == 13


def test_whoever_is_told_of_incidents_has_no_say_in_the_decision() -> None:
    def broken(_: ImmuneIncident) -> None:
        raise RuntimeError("the pager is down")

    before = FAULTS.count
    taken, _ = notes(on_incident=broken)
    taken.decided(NAME, BLOCK)
    assert FAULTS.count == before + 1


def test_functions_beyond_the_most_are_left_unwatched_and_counted(
    monkeypatch: pytest.MonkeyPatch, clock: SteppingClock
) -> None:
    monkeypatch.setattr("cloister.immune.protection.MOST_FUNCTIONS", 3)
    before = FAULTS.count
    with on_with(ImmuneSettings(), clock) as protection:
        many = [monitor(name=f"tests.many:f{number}")(lambda: 1) for number in range(6)]
        assert [one() for one in many] == [1] * 6
        assert len([name for name in protection.brain.cells() if name.startswith("tests.many:")]) <= 3
    assert FAULTS.count > before


def test_a_function_that_is_approved_is_looked_at_as_closely_as_a_new_one_until_the_baseline_is_taken(
    folder: Path, clock: SteppingClock
) -> None:
    """By the budget alone a quick function would take a hundred thousand calls."""
    name = "tests.shop:quick"

    @monitor(name=name)
    def quick(number: int) -> int:
        return number + 1

    budgeted = settings(folder).model_copy(update={"cellagent": ImmuneSettings().cellagent})
    with on_with(budgeted, clock) as protection:
        for number in range(20_000):
            quick(number)
        (gate,) = gates(name)
        assert gate.interval > 20
        with Operator(folder, "tester") as operator:
            operator.approve(name)
        protection._beat()
        before = gate.observed
        for number in range(2_000):
            quick(number)
        assert gate.observed - before > 100
