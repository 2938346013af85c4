"""The upkeep of every hundredth call: inline, and never in the way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cloister.core.keys import Signer
from cloister.immune.keeping import (
    AnchorKeeper,
    BaselineKeeper,
    DetectorRegistry,
    Happened,
    StateEvent,
    StateStore,
    TraceStore,
    Upkeep,
    open_state,
    pattern_key,
)
from cloister.immune.keeping.approval import LASTING
from cloister.immune.observation import Observed, Score
from cloister.immune.settings import BaselineSettings, StorageSettings
from tests.immune.keeping.conftest import FUNCTION, HandClock, call, keep_as_it_is

DAY = 86_400.0


class Room:
    """All that is kept, as a brain wires it."""

    def __init__(self, store: StateStore, signer: Signer, monotonic: HandClock) -> None:
        self.store, self.monotonic = store, monotonic
        self.traces = TraceStore()
        baseline = BaselineSettings()
        self.baselines = BaselineKeeper(store, baseline)
        self.anchors = AnchorKeeper(store, signer, baseline.drift_ratio)
        self.detectors = DetectorRegistry(store, pattern_key(None), 90, keep_as_it_is)
        self.upkeep = Upkeep(
            store,
            self.traces,
            self.baselines,
            self.anchors,
            self.detectors,
            baseline=baseline,
            storage=StorageSettings(),
            monotonic=monotonic,
        )

    def run(self, calls: int, duration: float = 0.01, *, blocks: bool = False) -> list[StateEvent]:
        told: list[StateEvent] = []
        for _ in range(calls):
            self.monotonic.now += 1
            self.store.clock.now += 1  # type: ignore[attr-defined]
            observed = call(duration, at=self.monotonic.now)
            told += self.upkeep.observed(FUNCTION, observed, ordinary=True, blocks=blocks)
        return told


@pytest.fixture
def room(store: StateStore, signer: Signer) -> Room:
    return Room(store, signer, HandClock(1000.0))


def kinds(events: list[StateEvent] | tuple[StateEvent, ...]) -> list[Happened]:
    return [event.kind for event in events]


def test_every_hundredth_call_is_a_look_and_no_other(room: Room) -> None:
    assert room.run(99) == []
    assert room.baselines.get_baseline(FUNCTION) is None
    assert kinds(room.run(1)) == [Happened.BASELINE_MADE]
    made = room.baselines.get_baseline(FUNCTION)
    assert made is not None
    assert (made.version, made.sample_count, made.p50) == (1, 100, 0.01)
    assert room.run(100) == []


def test_data_that_drifted_gives_a_new_version_of_the_baseline(room: Room) -> None:
    room.run(100)
    told = room.run(200, 0.02)
    assert Happened.BASELINE_MADE in kinds(told)
    made = room.baselines.get_baseline(FUNCTION)
    assert made is not None
    assert made.version > 1
    assert made.p50 == 0.02


def test_in_a_drift_a_blocking_functions_baseline_stays_and_anothers_moves(room: Room) -> None:
    room.run(100)
    room.anchors.approve(FUNCTION, "dana", calls=4)
    for level in [1.0] * 4 + [9.0] * LASTING:
        room.anchors.check(FUNCTION, {"duration": level}, 0.0)
    assert room.run(900, 0.05, blocks=True) == []
    assert kinds(room.run(100, 0.05, blocks=False)) == [Happened.BASELINE_MADE]


def test_a_detector_ends_after_the_hundredth_call(room: Room) -> None:
    room.run(100)
    room.detectors.store_detector(FUNCTION, b"p", 80.0, "")
    room.store.clock.now += 90 * DAY  # type: ignore[attr-defined]
    assert room.run(99) == []
    assert kinds(room.run(1)) == [Happened.DETECTOR_EXPIRED]


def test_no_thread_is_started(room: Room) -> None:
    before = threading.active_count()
    room.run(300)
    assert threading.active_count() == before


def test_what_another_process_approved_is_taken_over(room: Room, signer: Signer) -> None:
    room.run(100)
    assert room.store.path is not None
    other = StateStore(room.store.path, room.store.clock)
    AnchorKeeper(other, signer, 1.5).deploy(FUNCTION, "ci")
    AnchorKeeper(other, signer, 1.5).approve(FUNCTION, "dana")
    other.close()
    room.run(100)
    assert room.anchors.standing(FUNCTION).value == "relearning"


def test_the_newest_calls_and_the_standing_survive_a_restart(room: Room, signer: Signer) -> None:
    room.run(1250)
    room.anchors.approve(FUNCTION, "dana")
    assert room.upkeep.stop() == ()
    again = Room(room.store, signer, HandClock(5.0))
    assert again.upkeep.start(FUNCTION) == ()
    assert again.anchors.standing(FUNCTION).value == "relearning"
    before, after = room.traces.newest(FUNCTION), again.traces.newest(FUNCTION)
    assert len(after) == 1000
    assert [one.duration for one in after] == [one.duration for one in before]
    # The clock began anew; what is kept are the times between.
    assert after[0].entered.at == pytest.approx(5.0, abs=1e-5)
    assert after[0].entered.at - after[99].entered.at == pytest.approx(99, abs=1e-5)
    assert again.upkeep.stop() == ()
    with room.store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM traces").fetchone() == (1000,)


def test_calls_are_forgotten_after_30_days_and_nothing_else_before_90(room: Room, signer: Signer) -> None:
    room.run(300)
    room.detectors.store_detector(FUNCTION, b"p", 80.0, "")
    for clock in (room.monotonic, room.store.clock):
        clock.now += 31 * DAY  # type: ignore[attr-defined]
    room.upkeep.look(FUNCTION, blocks=False)
    assert room.traces.newest(FUNCTION) == ()
    with room.store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM traces").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM detectors").fetchone() == (1,)
    assert room.baselines.get_baseline(FUNCTION) is not None


def test_a_failing_part_is_told_and_counted_and_the_others_are_done(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("never shown")

    monkeypatch.setattr(room.baselines, "look", fail)
    room.detectors.store_detector(FUNCTION, b"p", 80.0, "")
    room.store.clock.now += 90 * DAY  # type: ignore[attr-defined]
    told = room.run(100)
    assert kinds(told) == [Happened.UPKEEP_FAILED, Happened.DETECTOR_EXPIRED]
    assert told[0].reason == "ValueError"
    assert room.upkeep.failures == 1


def test_while_another_process_writes_the_calls_go_on_and_the_look_is_made_up_for(room: Room) -> None:
    assert room.store.path is not None
    other = StateStore(room.store.path)
    with other.writing():
        told = room.run(100)
    other.close()
    assert set(kinds(told)) == {Happened.UPKEEP_FAILED}
    assert {event.reason for event in told} == {"immune.state_unusable"}
    assert kinds(room.run(100)) == [Happened.BASELINE_MADE]
    with room.store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM traces").fetchone() == (200,)


def test_of_a_function_that_is_called_very_often_there_is_one_look_a_second_and_some_calls_a_minute(
    room: Room,
) -> None:
    def saved() -> int:
        with room.store.reading() as connection:
            (count,) = connection.execute("SELECT count(*) FROM traces").fetchone()
            return int(count)

    def burst(calls: int) -> list[StateEvent]:
        told: list[StateEvent] = []
        for _ in range(calls):
            told += room.upkeep.observed(FUNCTION, call(at=room.monotonic.now), ordinary=True, blocks=False)
        return told

    assert kinds(burst(1000)) == [Happened.BASELINE_MADE]
    assert saved() == 100
    room.monotonic.now += 1.5
    burst(900)
    assert saved() == 100
    room.monotonic.now += 60
    burst(100)
    assert saved() == 300
    room.upkeep.stop()
    assert saved() == 300 + 99
    burst(50)
    room.upkeep.stop()
    assert saved() == 300 + 99 + 50


def test_all_functions_together_are_looked_after_in_a_thousandth_of_the_time(room: Room) -> None:
    took, looks = 0.02, []

    def slow_look(*_: object, **__: object) -> None:
        looks.append(room.monotonic.now)
        room.monotonic.now += took

    room.upkeep._baselines.look = slow_look  # type: ignore[assignment, method-assign]
    began = room.monotonic.now
    for number in range(20_000):
        room.monotonic.now += 0.005
        room.upkeep.observed(f"m:f{number % 7}", call(at=room.monotonic.now), ordinary=True, blocks=False)
    passed = room.monotonic.now - began
    assert 3 <= len(looks) <= 1 + passed * 0.001 / took


def test_damage_is_told_once_takes_every_detector_and_approval_and_the_calls_go_on(
    room: Room, path: Path
) -> None:
    room.run(500)
    number = room.detectors.store_detector(FUNCTION, b"p", 80.0, "")[0].id
    room.detectors.validate(
        number, room.traces.ordinary(FUNCTION, 100), lambda _: Score(1.0, 1.0, "duration")
    )
    room.detectors.promote(number, "dana")
    room.anchors.approve(FUNCTION, "dana", calls=2)
    for _ in range(2):
        room.anchors.check(FUNCTION, {"duration": 1.0}, 0.0)
    assert room.anchors.may_block(FUNCTION)
    assert room.detectors.get_active_detectors(FUNCTION)
    room.store.close()
    path.with_name(path.name + "-wal").unlink(missing_ok=True)
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * (path.stat().st_size - 4096))
    told = room.run(100)
    assert kinds(told).count(Happened.STATE_DAMAGED) == 1
    assert not room.anchors.may_block(FUNCTION)
    assert room.detectors.get_active_detectors(FUNCTION) == ()
    assert Happened.STATE_DAMAGED not in kinds(room.run(200))
    assert room.baselines.get_baseline(FUNCTION) is not None


def test_rows_that_are_no_calls_are_not_taken_over(room: Room, signer: Signer) -> None:
    room.run(100)
    with room.store.writing() as connection:
        connection.execute("UPDATE traces SET duration = 'long' WHERE id = 7")
    again = Room(room.store, signer, HandClock(5.0))
    assert again.upkeep.start(FUNCTION) == ()
    assert len(again.traces.newest(FUNCTION)) == 99


def test_a_call_with_times_that_are_none_is_kept_in_memory_alone(room: Room) -> None:
    room.upkeep.observed(FUNCTION, call(float("nan"), at=1.0), ordinary=True, blocks=False)
    room.upkeep.observed(FUNCTION, call(1.0, at=float("inf")), ordinary=True, blocks=False)
    assert Happened.UPKEEP_FAILED not in kinds(room.run(98))
    with room.store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM traces").fetchone() == (98,)


def test_in_memory_everything_works_and_nothing_is_written(tmp_path: Path, signer: Signer) -> None:
    hand = HandClock()
    room = Room(open_state(None, hand), signer, HandClock(0.0))
    assert kinds(room.run(200)) == [Happened.BASELINE_MADE]
    assert list(tmp_path.iterdir()) == []


def test_no_name_of_a_caller_that_cant_be_written_stops_the_upkeep(room: Room) -> None:
    odd = Observed(call(at=1.0).entered.__class__(1.0, 1, "m:\ud800", 1, 0, True), 0.01, False)
    room.upkeep.observed(FUNCTION, odd, ordinary=True, blocks=False)
    assert Happened.UPKEEP_FAILED not in kinds(room.run(99))


def test_after_a_long_suspicion_and_a_restart_the_ordinary_calls_are_there(
    room: Room, signer: Signer
) -> None:
    room.run(1000)
    for number in range(5000):
        room.monotonic.now += 1
        room.store.clock.now += 1  # type: ignore[attr-defined]
        suspected = call(at=room.monotonic.now, size=number)
        room.upkeep.observed(FUNCTION, suspected, ordinary=False, blocks=False)
    room.upkeep.stop()
    again = Room(room.store, signer, HandClock(5.0))
    again.upkeep.start(FUNCTION)
    assert len(again.traces.ordinary(FUNCTION, 1000)) == len(room.traces.ordinary(FUNCTION, 1000)) == 500
    kept = [one.entered.size for one in again.traces.newest(FUNCTION, 500)]
    assert kept == list(range(499, -1, -1))
