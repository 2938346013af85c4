"""What can be said of a call in numbers, from exact counts and a clock that may be wrong."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.detection.features import WINDOW, Traffic, log_duration
from cloister.immune.detection.level import Level, centre_of
from cloister.immune.detection.novelty import MOST_NAMES, Novelty
from cloister.immune.errors import ImmuneError
from cloister.immune.observation import Entered

any_float = st.floats(allow_nan=True, allow_infinity=True)
any_int = st.integers(min_value=-(10**30), max_value=10**400)


def entered(at: float, *, calls: int = 1, errors: int = 0, size: int = 0) -> Entered:
    return Entered(at, size, "service:main", calls, errors, True)


def after(traffic: Traffic, *calls: Entered) -> Traffic:
    for each in calls:
        traffic.read(each)
        traffic.take(failed=False)
    return traffic


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1.0, 0.0),
        (0.0, math.log(1e-9)),
        (-5.0, math.log(1e-9)),
        (1e-300, math.log(1e-9)),
        (1e300, math.log(1e9)),
    ],
)
def test_a_duration_of_any_size_has_a_finite_logarithm(seconds: float, expected: float) -> None:
    assert log_duration(seconds) == expected


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_of_a_duration_that_is_no_number_nothing_is_known(seconds: float) -> None:
    assert math.isnan(log_duration(seconds))


def test_a_negative_infinity_is_as_short_as_can_be() -> None:
    assert log_duration(-math.inf) == math.log(1e-9)


def test_the_rate_is_that_of_the_newest_calls() -> None:
    traffic = after(Traffic(), *(entered(index * 0.01) for index in range(200)))
    traffic.read(entered(2.0))
    assert math.exp(traffic.rate) == pytest.approx(100.0, rel=0.05)


def test_calls_that_nobody_observed_count_exactly() -> None:
    every = after(Traffic(), *(entered(index * 0.01) for index in range(1, 301)))
    tenth = after(Traffic(), *(entered(index * 0.1, calls=10) for index in range(1, 31)))
    every.read(entered(3.01))
    tenth.read(entered(3.1, calls=10))
    assert tenth.rate == pytest.approx(every.rate, abs=0.05)


def test_errors_that_nobody_observed_count_exactly() -> None:
    traffic = after(Traffic(), entered(0.0), entered(1.0, calls=40, errors=20))
    traffic.read(entered(1.1))
    assert traffic.errors == pytest.approx(WINDOW / 2, rel=0.1)


def test_a_burst_ends_when_its_last_call_does() -> None:
    calls = [index * 0.1 for index in range(100)]
    burst = [calls[-1] + 0.005 * index for index in range(1, 60)]
    traffic = after(Traffic(), *(entered(at) for at in calls + burst))
    traffic.read(entered(burst[-1] + 0.005))
    during = math.exp(traffic.rate)
    traffic.read(entered(burst[-1] + 0.1))
    assert during > 50.0
    assert math.exp(traffic.rate) <= 20.0 + 1e-6


def test_a_burst_after_a_silent_night_is_as_visible_as_at_noon() -> None:
    day = [index * 0.1 for index in range(100)]
    traffic = after(Traffic(), *(entered(at) for at in day))
    traffic.expect(0.1)
    morning = day[-1] + 30_000.0
    traffic = after(traffic, *(entered(morning + 0.005 * index) for index in range(40)))
    traffic.read(entered(morning + 0.2))
    assert math.exp(traffic.rate) > 30.0


@pytest.mark.parametrize("wrong", [-1000.0, math.nan, -math.inf, math.inf])
def test_a_clock_that_jumps_tells_nothing_of_the_rate_and_harms_nothing(wrong: float) -> None:
    traffic = after(Traffic(), *(entered(index * 0.01) for index in range(100)))
    traffic.read(entered(wrong))
    assert math.isnan(traffic.rate)
    traffic.take(failed=False)
    start = wrong if math.isfinite(wrong) else 50.0
    traffic = after(traffic, *(entered(start + index * 0.01) for index in range(100)))
    traffic.read(entered(start + 1.0))
    assert math.exp(traffic.rate) == pytest.approx(100.0, rel=0.05)


def test_a_clock_that_stands_still_gives_no_infinite_rate() -> None:
    traffic = after(Traffic(), *(entered(1.0) for _ in range(50)))
    traffic.read(entered(1.0))
    assert math.isnan(traffic.rate)


@settings(max_examples=200)
@given(st.lists(st.tuples(any_float, any_int, any_int, any_int, st.booleans()), max_size=20))
def test_whatever_comes_in_what_comes_out_is_finite_or_unknown(
    calls: list[tuple[float, int, int, int, bool]],
) -> None:
    traffic = Traffic()
    for at, count, errors, size, failed in calls:
        traffic.read(entered(at, calls=count, errors=errors, size=size))
        assert not math.isinf(traffic.rate)
        for known in (traffic.size, traffic.errors, traffic.one_more):
            assert 0.0 <= known < math.inf
        assert traffic.one_more >= traffic.errors
        traffic.take(failed=failed)
    assert Traffic.from_json(traffic.as_json()).as_json() == traffic.as_json()


@settings(max_examples=100)
@given(
    st.floats(min_value=0.0, max_value=10.0),
    st.floats(min_value=0.0, max_value=10.0),
    st.integers(min_value=0, max_value=30),
    st.integers(min_value=0, max_value=30),
)
def test_a_shorter_interval_and_more_errors_never_make_less_of_rate_and_errors(
    one: float, other: float, few: int, more: int
) -> None:
    traffic = after(Traffic(), *(entered(index * 0.1) for index in range(50)))
    start = 4.9
    traffic.read(entered(start + max(one, other), calls=30, errors=min(few, more)))
    rate, errors = traffic.rate, traffic.errors
    traffic.read(entered(start + min(one, other), calls=30, errors=max(few, more)))
    assert math.isnan(traffic.rate) or traffic.rate >= rate - 1e-12
    assert traffic.errors >= errors


@pytest.mark.parametrize(
    "change",
    [
        {"calls": -1.0},
        {"failed": 1e9},
        {"seconds": math.nan},
        {"at": "now"},
        {"longest": None},
        {"extra": 0},
    ],
)
def test_a_damaged_window_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ImmuneError):
        Traffic.from_json({**Traffic().as_json(), **change})


def test_a_level_follows_slow_change_and_no_single_event() -> None:
    rng = random.Random(2)
    level = centre_of([rng.gauss(0.0, 0.3) for _ in range(20)], 1 / 64)
    for _ in range(500):
        level.learn(rng.gauss(0.0, 0.3), 1.0)
    before = level.centre
    level.learn(1000.0, 1.0)
    assert abs(level.centre - before) < 0.02
    assert level.spread < 0.4
    for _ in range(1000):
        level.learn(rng.gauss(1.0, 0.3), 1.0)
    assert level.centre == pytest.approx(1.0, abs=0.15)


def test_the_level_of_a_constant_can_move_too() -> None:
    level = centre_of([0.0] * 20, 1 / 64)
    for _ in range(5000):
        level.learn(1.0, 1.0)
    assert level.centre > 0.9


@pytest.mark.parametrize(
    "document",
    [{}, {"centre": math.nan, "spread": 1.0}, {"centre": 0.0, "spread": 0.0}, {"centre": 1e9, "spread": 1.0}],
)
def test_a_damaged_level_is_refused(document: object) -> None:
    with pytest.raises(ImmuneError):
        Level.from_json(document, 0.1)


def names(sequence: list[str]) -> Novelty:
    novelty = Novelty()
    for name in sequence:
        novelty.learn(name, 1.0)
    novelty.refit(1.0)
    return novelty


def test_a_name_never_seen_is_the_more_unusual_the_longer_none_was_new() -> None:
    young, old = names(["a"] * 200), names(["a"] * 4000)
    assert 0.0 < young.surprise("b") < old.surprise("b")
    assert math.exp(-old.surprise("b")) == pytest.approx(0.1 / 4001)


def test_where_new_names_are_usual_a_new_name_is_not_unusual() -> None:
    novelty = names([f"caller{index}" for index in range(2000)])
    assert novelty.surprise("another") < 0.2
    assert len(novelty.as_json()["names"]) == MOST_NAMES  # type: ignore[arg-type]


def test_the_rarer_a_name_the_more_unusual_and_none_more_than_a_new_one() -> None:
    novelty = names(["often"] * 3000 + ["rarely"] * 10 + ["once"])
    order = [novelty.surprise(name) for name in ("often", "rarely", "once", "never")]
    assert order == sorted(order)
    assert order[0] < 1.0 < order[1]


def test_two_names_that_are_equally_usual_are_both_usual() -> None:
    novelty = names(["a", "b"] * 2000)
    assert max(novelty.surprise("a"), novelty.surprise("b")) < 1.5


def test_a_long_name_is_known_by_its_beginning() -> None:
    novelty = names(["x" * 10_000])
    assert novelty.knows("x" * 10_000)
    assert all(len(name) <= 200 for name in novelty.as_json()["names"])  # type: ignore[union-attr]


@settings(max_examples=100)
@given(st.lists(st.text(max_size=5), max_size=150))
def test_names_that_were_written_down_are_the_same_when_they_are_read(sequence: list[str]) -> None:
    novelty = names(sequence)
    again = Novelty.from_json(novelty.as_json())
    assert again.as_json() == novelty.as_json()
    assert [again.surprise(name) for name in sequence] == [novelty.surprise(name) for name in sequence]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"names": [], "new": 0.0, "seen": 0},
        {"names": {str(index): 1.0 for index in range(65)}, "new": 0.0, "seen": 65},
        {"names": {"x" * 201: 1.0}, "new": 0.0, "seen": 1},
        {"names": {"x": math.inf}, "new": 0.0, "seen": 1},
        {"names": {1: 1.0}, "new": 0.0, "seen": 1},
        {"names": {}, "new": -1.0, "seen": 1},
        {"names": {}, "new": 0.0, "seen": 1.0},
    ],
)
def test_damaged_names_are_refused(document: object) -> None:
    with pytest.raises(ImmuneError):
        Novelty.from_json(document)
