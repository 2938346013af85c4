"""The yardstick: what the same piece of work takes, whatever single measurements say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.detection.yardstick import Yardstick

times = st.floats(min_value=1e-7, max_value=1e-2)


def test_it_knows_nothing_before_twenty_measurements() -> None:
    stick = Yardstick()
    for _ in range(19):
        stick.take(5e-6)
        assert math.isnan(stick.level)
    stick.take(5e-6)
    assert stick.level == pytest.approx(5e-6)


def test_it_follows_a_machine_that_gets_slower_within_a_hundred_or_two() -> None:
    stick = Yardstick()
    for number in range(20):
        stick.take(5e-6 * (0.8 + 0.02 * number))
    for _ in range(200):
        stick.take(10e-6)
    assert stick.level > 9e-6


@settings(max_examples=100)
@given(st.lists(times, min_size=20, max_size=60), times)
def test_no_single_measurement_moves_it_by_more_than_a_few_percent(series: list[float], one: float) -> None:
    stick = Yardstick()
    for _ in range(200):
        stick.take(5e-6)
    before = stick.level
    stick.take(one)
    assert abs(math.log(stick.level / before)) < 0.032
    for number in series:
        stick.take(number)
    assert 1e-7 <= stick.level <= 1e-2


@pytest.mark.parametrize("nothing", [0.0, -1.0, math.nan])
def test_what_is_no_time_is_left_out(nothing: float) -> None:
    stick = Yardstick()
    for _ in range(20):
        stick.take(5e-6)
        stick.take(nothing)
    assert stick.level == pytest.approx(5e-6)
