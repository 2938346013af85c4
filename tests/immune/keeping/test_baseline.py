"""Baselines: what they say, when there is one, and how their versions are kept."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import (
    BaselineKeeper,
    BaselineProfile,
    Happened,
    StateStore,
    is_ready,
    profile_of,
)
from cloister.immune.keeping.baseline import forget_old_baselines
from cloister.immune.keeping.profile import percentile
from cloister.immune.settings import BaselineSettings
from tests.immune.keeping.conftest import FUNCTION, START, HandClock

DEFAULTS = BaselineSettings()
HOURS = 3600.0
durations = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@pytest.fixture
def keeper(store: StateStore) -> BaselineKeeper:
    return BaselineKeeper(store, DEFAULTS)


def made(values: list[float], now: float = START) -> BaselineProfile:
    profile = profile_of(FUNCTION, values, now)
    assert profile is not None
    return profile


@settings(max_examples=100)
@given(st.lists(durations, min_size=2, max_size=200))
def test_statistics_are_those_of_the_reference(values: list[float]) -> None:
    numpy = pytest.importorskip("numpy")
    profile = made(values)
    assert profile.sample_count == len(values)
    close = {"rel_tol": 1e-9, "abs_tol": 1e-9}
    assert math.isclose(profile.mean, numpy.mean(values), **close)
    assert math.isclose(profile.std, statistics.pstdev(values), **close)
    for value, rank in ((profile.p50, 50), (profile.p95, 95), (profile.p99, 99)):
        assert math.isclose(value, numpy.percentile(values, rank), **close)
    assert profile.p50 <= profile.p95 <= profile.p99


def test_hand_values() -> None:
    profile = made([4.0, 1.0, 3.0, 2.0])
    assert (profile.mean, profile.p50, profile.std) == (2.5, 2.5, math.sqrt(1.25))
    assert profile.p95 == pytest.approx(3.85)
    assert profile.p99 == pytest.approx(3.97)


SHAPES = {
    # inverse of the distribution function, mean, standard deviation
    "uniform": (lambda p, s: s * p, lambda s: s / 2, lambda s: s / math.sqrt(12)),
    "exponential": (lambda p, s: -s * math.log1p(-p), lambda s: s, lambda s: s),
}


@settings(max_examples=100)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.floats(min_value=1e-5, max_value=10),
    st.integers(min_value=0, max_value=2**32),
    st.sampled_from([20, 100, 1000, 4000]),
)
def test_estimates_are_near_the_truth_the_nearer_the_more_samples(
    shape: str, scale: float, seed: int, count: int
) -> None:
    """PIC-P5: Baseline convergence: enough samples give a baseline, whose estimates near the truth.

    The bounds shrink with the root of the number of samples: six standard errors for the mean, and the
    Dvoretzky-Kiefer-Wolfowitz inequality (Massart 1990) at 1e-9 for percentiles.
    """
    inverse, mean, deviation = SHAPES[shape]
    chance = random.Random(seed)
    profile = made([inverse(chance.random(), scale) for _ in range(count)])
    assert is_ready(profile.sample_count, 0.0, DEFAULTS)
    assert abs(profile.mean - mean(scale)) <= 6 * deviation(scale) / math.sqrt(count)
    # One over the count more: a percentile is interpolated between two neighbours.
    off = math.sqrt(math.log(2 / 1e-9) / (2 * count)) + 1 / count
    for value, rank in ((profile.p50, 0.5), (profile.p95, 0.95), (profile.p99, 0.99)):
        low, high = max(rank - off, 0.0), rank + off
        assert value >= inverse(low, scale) - 1e-12
        if high < 1:
            assert value <= inverse(high, scale) + 1e-12


def test_the_error_of_twenty_samples_is_ten_times_that_of_two_thousand() -> None:
    def error(count: int) -> float:
        chance = random.Random(count)
        return statistics.fmean(
            abs(made([chance.lognormvariate(0, 0.5) for _ in range(count)]).p50 - 1.0) for _ in range(200)
        )

    assert 7 < error(20) / error(2000) < 14


def test_nineteen_samples_are_no_baseline_twenty_are_and_so_are_two_after_two_hours() -> None:
    assert not is_ready(19, 0.0, DEFAULTS)
    assert is_ready(20, 0.0, DEFAULTS)
    assert not is_ready(2, 2 * HOURS - 1, DEFAULTS)
    assert is_ready(2, 2 * HOURS, DEFAULTS)
    assert not is_ready(1, 100 * HOURS, DEFAULTS)
    assert not is_ready(19, -1e9, DEFAULTS)
    assert is_ready(20, -1e9, DEFAULTS)


@settings(max_examples=100)
@given(st.lists(st.one_of(durations, st.sampled_from([math.nan, math.inf, -math.inf, -1.0])), max_size=50))
def test_what_is_no_duration_is_left_out(values: list[float]) -> None:
    sound = [one for one in values if math.isfinite(one) and one >= 0]
    assert profile_of(FUNCTION, values, START) == profile_of(FUNCTION, sound, START)
    assert (profile_of(FUNCTION, values, START) is None) == (len(sound) < 2)


@given(st.lists(durations, min_size=1, max_size=50), st.floats(min_value=0, max_value=1))
def test_a_percentile_lies_within_the_values(values: list[float], rank: float) -> None:
    values.sort()
    found = percentile(values, rank)
    assert values[0] <= found * (1 + 1e-12)
    assert found <= values[-1] * (1 + 1e-12)


@settings(max_examples=100)
@given(st.lists(durations, min_size=2, max_size=30), st.integers(min_value=0, max_value=9))
def test_a_profile_is_read_as_it_was_written(values: list[float], version: int) -> None:
    profile = made(values)
    read = BaselineProfile.from_json(profile.to_json(), version)
    assert (read.mean, read.p99, read.sample_count, read.version) == (
        profile.mean, profile.p99, profile.sample_count, version,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"function_name":1}', made([1.0, 2.0]).to_json().replace("1.5", "NaN"),
     made([1.0, 2.0]).to_json().replace('"sample_count":2', '"sample_count":0'),
     made([1.0, 2.0]).to_json().replace('"p99"', '"p98"')],
)  # fmt: skip
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(ImmuneError) as caught:
        BaselineProfile.from_json(text)
    assert caught.value.code == "immune.state_damaged"


def test_versions_rise_by_one_and_old_ones_stay(keeper: BaselineKeeper, store: StateStore) -> None:
    assert keeper.get_baseline(FUNCTION) is None
    stored = [keeper.store_baseline(made([1.0, float(number)])) for number in (2, 3, 4)]
    assert [one.version for one in stored] == [1, 2, 3]
    assert keeper.get_baseline(FUNCTION) == stored[2]
    assert [keeper.get_baseline(FUNCTION, version) for version in (1, 2, 3)] == stored
    assert keeper.get_baseline(FUNCTION, 4) is None
    other = made([1.0, 2.0])
    assert (
        keeper.store_baseline(BaselineProfile.from_json(other.to_json().replace("place", "take"))).version
        == 1
    )


def look(keeper: BaselineKeeper, values: list[float], *, held: bool = False) -> bool:
    event = keeper.look(FUNCTION, values, len(values), 0.0, held=held)
    assert event is None or event.kind is Happened.BASELINE_MADE
    return event is not None


def test_a_look_makes_a_baseline_of_twenty_calls_and_a_new_version_only_of_one_that_moved(
    keeper: BaselineKeeper,
) -> None:
    assert not look(keeper, [1.0] * 19)
    assert look(keeper, [1.0] * 20)
    assert not look(keeper, [1.0] * 20)
    assert not look(keeper, [1.09] * 20)
    assert look(keeper, [1.11] * 20)
    newest = keeper.get_baseline(FUNCTION)
    assert newest is not None
    assert (newest.version, newest.p50) == (2, 1.11)


def test_small_steps_add_up_to_a_new_version(keeper: BaselineKeeper) -> None:
    assert [look(keeper, [1.0 + step / 20] * 20) for step in range(6)] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]


def test_a_baseline_that_is_held_doesnt_move(keeper: BaselineKeeper) -> None:
    look(keeper, [1.0] * 20)
    assert not look(keeper, [9.0] * 20, held=True)
    newest = keeper.get_baseline(FUNCTION)
    assert newest is not None
    assert newest.p50 == 1.0


def test_a_stored_baseline_that_is_none_is_followed_by_a_sound_one(
    keeper: BaselineKeeper, store: StateStore
) -> None:
    look(keeper, [1.0] * 20)
    with store.writing() as connection:
        connection.execute("UPDATE baselines SET profile_json = '{}'")
    with pytest.raises(ImmuneError):
        keeper.get_baseline(FUNCTION)
    assert look(keeper, [1.0] * 20)
    newest = keeper.get_baseline(FUNCTION)
    assert newest is not None
    assert newest.version == 2


def test_old_versions_go_after_ninety_days_and_the_newest_never(
    keeper: BaselineKeeper, store: StateStore, hand: HandClock
) -> None:
    for number in range(3):
        keeper.store_baseline(made([1.0, float(number)]))
        hand.now += 30 * 86_400
    with store.writing() as connection:
        assert forget_old_baselines(connection, hand.now - 90 * 86_400) == 0
    hand.now += 1
    with store.writing() as connection:
        assert forget_old_baselines(connection, hand.now - 90 * 86_400) == 1
    hand.now += 1000 * 86_400
    with store.writing() as connection:
        assert forget_old_baselines(connection, hand.now - 90 * 86_400) == 1
    newest = keeper.get_baseline(FUNCTION)
    assert newest is not None
    assert newest.version == 3


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.floats(min_value=-1e9, max_value=4e9), st.sampled_from([1.0, 2.0])), max_size=12)
)
def test_a_clock_that_jumps_either_way_changes_no_version(steps: list[tuple[float, float]]) -> None:
    hand = HandClock()
    store = StateStore(None, hand)
    keeper = BaselineKeeper(store, DEFAULTS)
    last, level = 0, 0.0
    for now, value in steps:
        hand.now = now
        moved = look(keeper, [value] * 20)
        assert moved == (value != level)
        last, level = last + moved, value
        newest = keeper.get_baseline(FUNCTION)
        assert newest is not None
        assert newest.version == last
    store.close()


def test_what_a_detector_learned_is_given_back_and_what_was_changed_is_not(
    keeper: BaselineKeeper, store: StateStore
) -> None:
    assert keeper.learned(FUNCTION) is None
    keeper.save_learned(FUNCTION, b"one")
    keeper.save_learned(FUNCTION, b"two")
    assert keeper.learned(FUNCTION) == b"two"
    with store.writing() as connection:
        connection.execute("UPDATE learned SET state = x'00'")
    assert keeper.learned(FUNCTION) is None
