"""Signals of several kinds in one number."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.acting.reach import Operation
from cloister.immune.detection import (
    DetectorSettings,
    FusionDetector,
    Signals,
    TailDetector,
    new_detector,
    read_detector,
    signals_of,
)
from cloister.immune.errors import ImmuneError
from cloister.immune.observation import Score
from tests.immune.detection.streams import attend, slower, stream

WEIGHTS = {"timing": 0.3, "io": 0.3, "network": 0.2, "syscalls": 0.2}
score = st.floats(min_value=0.0, max_value=100.0)
signals = st.fixed_dictionaries({name: st.none() | score for name in WEIGHTS})


@settings(max_examples=200)
@given(signals)
def test_the_fused_score_is_the_weighted_average_of_the_signals_there_are(
    given_signals: dict[str, float | None],
) -> None:
    """PIC-P8: multi-signal fusion (PIC-D5)."""
    present = {name: value for name, value in given_signals.items() if value is not None}
    fused = Signals(**given_signals).fused()
    if not present:
        assert fused == 0.0
        return
    weight = sum(WEIGHTS[name] for name in present)
    assert fused == pytest.approx(sum(WEIGHTS[name] * present[name] for name in present) / weight)
    assert min(present.values()) - 1e-9 <= fused <= max(present.values()) + 1e-9


@settings(max_examples=100)
@given(signals, st.sampled_from(sorted(WEIGHTS)), score)
def test_a_higher_signal_never_lowers_the_fused_score(
    given_signals: dict[str, float | None], name: str, other: float
) -> None:
    before = given_signals[name]
    if before is None:
        return
    low, high = ({**given_signals, name: value} for value in sorted((before, other)))
    assert Signals(**low).fused() <= Signals(**high).fused() + 1e-9


def test_all_four_weigh_as_the_design_says() -> None:
    assert Signals(100.0, 0.0, 0.0, 0.0).fused() == pytest.approx(30.0)
    assert Signals(0.0, 100.0, 0.0, 0.0).fused() == pytest.approx(30.0)
    assert Signals(0.0, 0.0, 100.0, 0.0).fused() == pytest.approx(20.0)
    assert Signals(0.0, 0.0, 0.0, 100.0).fused() == pytest.approx(20.0)


def test_of_operations_of_one_kind_the_highest_counts_and_unknown_ones_dont() -> None:
    def scored(value: float) -> Score:
        return Score(value, 0.5, "egress")

    reached = [
        ("read", scored(10.0)),
        ("write", scored(40.0)),
        ("connect", scored(90.0)),
        ("run", scored(5.0)),
        ("load", scored(60.0)),
        ("socket.bind", scored(100.0)),
    ]
    assert signals_of(scored(20.0), reached) == Signals(20.0, 40.0, 90.0, 60.0)
    assert signals_of(None, []) == Signals()


def test_every_operation_that_the_guard_sees_is_of_a_kind() -> None:
    for operation in Operation:
        assert signals_of(None, [(operation.value, NEW)]).fused() == pytest.approx(90.0)


SETTINGS = DetectorSettings()
NEW = Score(90.0, 0.0001, "egress target")


def taught(calls: int = 600) -> tuple[FusionDetector, TailDetector]:
    fusion, tail = FusionDetector(SETTINGS), TailDetector(SETTINGS)
    for each in (fusion, tail):
        attend(each, list(stream(5, calls)))  # type: ignore[arg-type]
    return fusion, tail


def test_it_is_selected_by_its_name_and_read_back_as_it_was() -> None:
    """PIC-P8, PIC-D5: selectable as the seed's detector is."""
    assert isinstance(new_detector("fusion", SETTINGS), FusionDetector)
    fusion, _ = taught()
    again = read_detector(fusion.as_json(), SETTINGS)
    assert isinstance(again, FusionDetector)
    call = slower(list(stream(5, 601))[-1], 20.0)
    assert again.score(call).value == fusion.score(call).value
    assert (again.learned, again.judging) == (600, True)
    for document in (
        {"kind": "fusion"},
        {**fusion.as_json(), "kind": "tail"},
        {"kind": "fusion", "tail": {}},
    ):
        with pytest.raises(ImmuneError) as refused:
            read_detector(document, SETTINGS)
        assert refused.value.code == "immune.baseline_damaged"


def test_while_nothing_new_is_reached_for_it_scores_as_the_tail_detector() -> None:
    fusion, tail = taught()
    for call in [slower(one, 10.0) for one in list(stream(5, 640))[600:]]:
        assert fusion.score(call).value == tail.score(call).value
        fusion.learn(call)
        tail.learn(call)
    assert fusion.level("duration") == tail.level("duration")
    assert fusion.summary() == tail.summary()


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from([one.value for one in Operation]), st.floats(0.0, 100.0)),
        min_size=1,
        max_size=80,
    ),
    st.floats(min_value=0.1, max_value=100.0),
)
def test_with_new_reaches_it_is_their_weighted_average_and_above_80_exactly_where_p_is_below_alpha(
    reached: list[tuple[str, float]], times: float
) -> None:
    fusion = TAUGHT.rested()
    call = slower(list(stream(5, 601))[-1], times)
    timing = fusion.score(call)
    heard = [(operation, Score(value, 0.5, "egress target")) for operation, value in reached]
    for operation, one in heard:
        fusion.reach(operation, one)
    score = fusion.score(call)
    assert score.value == pytest.approx(signals_of(timing, heard[:64]).fused())
    assert 0.0 <= score.p <= 1.0
    if abs(score.value - 80.0) > 1e-6:
        assert (score.value > 80.0) == (score.p < fusion.calibration.scale.alpha)


def test_what_was_reached_for_counts_until_its_call_has_ended() -> None:
    fusion, tail = taught()
    calls = list(stream(5, 602))[600:]
    before = tail.score(calls[0]).value
    fusion.reach("connect", NEW)
    assert fusion.entry(calls[0].entered).value > tail.entry(calls[0].entered).value
    found = fusion.score(calls[0])
    assert found.value == pytest.approx((0.3 * before + 0.2 * 90.0) / 0.5)
    assert found.feature == "connect"
    fusion.learn(calls[0])
    tail.learn(calls[0])
    assert fusion.score(calls[1]).value == tail.score(calls[1]).value


def test_before_it_judges_a_reach_alone_makes_no_score() -> None:
    fresh = FusionDetector(SETTINGS)
    fresh.reach("connect", NEW)
    assert fresh.score(next(iter(stream(5, 1)))).value == 0.0
    fresh.rest()
    assert not fresh.judging


TAUGHT = taught()[0]
