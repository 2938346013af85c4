"""How many calls are observed, and which."""

from __future__ import annotations

import math
import random
from itertools import accumulate, pairwise, repeat, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.wrapping import Mode, Pace, Sampling, monitor
from cloister.immune.wrapping.costs import Costs
from cloister.immune.wrapping.sampling import MOST, WARM_UP, Ticks, backpressure
from cloister.immune.wrapping.spare import SpareTime
from tests.immune.wrapping.watching import TENTH, watching


def _ticks(seed: int, interval: float, calls: int) -> list[int]:
    ticks = Ticks(random.Random(seed).random)
    return list(takewhile(lambda call: call <= calls, accumulate(ticks.next(interval) for _ in repeat(0))))


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    calls=st.integers(1000, 20_000),
    rate=st.floats(0.01, 1.0, allow_nan=False),
)
def test_the_sampled_count_is_within_a_tenth_of_what_the_rate_says(
    seed: int, calls: int, rate: float
) -> None:
    """PIC-P2: For N of 1000 or more, sampled count within 10 percent of N times R.

    It is within one call of it, which is a tenth or less from ten sampled calls on.
    """
    interval = Sampling(Mode.FIXED, rate=rate).interval(1e-6, 1e-6)
    sampled = len(_ticks(seed, interval, calls))
    assert abs(sampled - calls * rate) <= max(1.0, 0.1 * calls * rate)
    assert abs(sampled - calls * rate) <= 1.0 + 1e-6


def test_the_count_of_a_watched_function_is_that_of_the_rate() -> None:
    with watching(TENTH) as watcher:

        @monitor
        def body() -> None: ...

        for _ in range(5000):
            body()
        assert len(watcher.sensor("body").left) == 500
        assert all(one.entered.teaches for one in watcher.sensor("body").left)


def test_the_distance_between_two_sampled_calls_is_chance_of_mean_n_and_below_2n() -> None:
    calls = _ticks(3, 10.0, 100_000)
    gaps = [b - a for a, b in pairwise(calls)]
    assert (min(gaps), max(gaps)) == (1, 19)
    assert math.isclose(sum(gaps) / len(gaps), 10, rel_tol=0.01)
    # No position within a block is preferred.
    places = [(call - 1) % 10 for call in calls]
    assert all(0.08 < places.count(place) / len(places) < 0.12 for place in range(10))


def test_the_same_seed_chooses_the_same_calls() -> None:
    assert _ticks(5, 7.0, 1000) == _ticks(5, 7.0, 1000) != _ticks(6, 7.0, 1000)


@pytest.mark.parametrize(
    ("cost", "duration", "calls"),
    [(1e-6, 100e-6, 1), (1e-6, 50e-6, 1), (1e-6, 20e-6, 3), (1e-6, 1e-6, 50), (9e-6, 1e-6, 450)],
)
def test_a_budget_of_two_percent_gives_one_call_in_cost_over_budget_times_duration(
    cost: float, duration: float, calls: int
) -> None:
    assert Sampling(Mode.BUDGETED).interval(cost, duration) == calls


@settings(max_examples=100)
@given(cost=st.floats(1e-9, 1e-3), duration=st.floats(1e-9, 10.0), budget=st.floats(0.001, 0.5))
def test_what_observing_costs_stays_within_the_budget(cost: float, duration: float, budget: float) -> None:
    interval = Sampling(Mode.BUDGETED, budget=budget).interval(cost, duration)
    assert interval >= 1
    if interval > 1:
        assert cost / interval <= budget * duration * (1 + 1e-9) or interval == MOST / 2


def test_a_budgeted_functions_first_calls_are_observed_until_its_duration_is_known() -> None:
    assert Sampling(Mode.BUDGETED, rate=0.1).interval(1e-6, 0.0) == 1


def test_every_call_observes_every_call_whatever_the_factor() -> None:
    assert Sampling(Mode.EVERY_CALL).interval(1.0, 1e-9, 0.1) == 1


@pytest.mark.parametrize(
    ("fill", "factor"),
    [(0.0, 1), (0.69, 1), (0.7, 0.75), (0.79, 0.75), (0.8, 0.5), (0.9, 0.25), (0.95, 0.1), (1.0, 0.1)],
)
def test_a_queue_that_fills_lowers_the_rate_by_this_table(fill: float, factor: float) -> None:
    assert backpressure(fill) == factor
    pace = Pace(0.02)
    pace.queue(fill)
    assert pace.factor == factor
    assert Sampling(Mode.FIXED, rate=0.1).interval(0, 0, pace.factor) == pytest.approx(10 / factor)


def test_load_lowers_the_rate_and_its_end_lets_it_recover() -> None:
    pace = Pace(0.02)
    for second in range(1, 5):
        pace.add(0.2, float(second))
    low = pace.factor
    assert low <= 0.1
    factors = []
    for second in range(5, 40):
        pace.add(0.001, float(second))
        factors.append(pace.factor)
    assert factors == sorted(factors)
    assert factors[-1] == 1.0


@pytest.mark.parametrize(
    ("seconds", "between", "least", "most"),
    [(0.01, 0.0, 1, 1), (1e-6, 0.0, 50, MOST), (1e-6, 0.05, 3, 3)],
)
def test_slow_and_seldom_functions_are_observed_often_and_fast_busy_ones_within_the_budget(
    seconds: float, between: float, least: float, most: float
) -> None:
    now = [0.0]
    with watching(Sampling(Mode.BUDGETED)) as watcher:

        @monitor(name="tests:one")
        def one() -> None:
            now[0] += seconds

        watcher.gate("one").clock = lambda: now[0]
        for _ in range(4000):
            one()
            now[0] += between
        assert least <= watcher.gate("one").interval <= most


def test_a_function_that_is_not_learned_yet_is_observed_at_a_third_of_its_calls_or_the_rate() -> None:
    budgeted = Sampling(Mode.BUDGETED, rate=0.1)
    assert budgeted.interval(1e-3, 1e-6, 0.01, observed=WARM_UP - 1) == 3
    assert Sampling(Mode.BUDGETED, rate=0.5).interval(1e-3, 1e-6, 0.01, observed=WARM_UP - 1) == 2
    assert budgeted.interval(1e-3, 1e-6, 0.01, observed=WARM_UP) > 1000
    assert budgeted.interval(1e-6, 1.0, observed=0) == 1


def test_where_observing_would_move_the_median_two_of_three_calls_pass() -> None:
    """PIC-P1: median latency with PIC is at most 1.05 times without."""
    assert Sampling(Mode.BUDGETED).interval(2e-5, 1e-4, spacing=1.0) == 3
    assert Sampling(Mode.BUDGETED).interval(2e-6, 1e-4, spacing=1.0) == 1


def test_time_that_nobody_uses_is_what_a_process_leaves_on_a_machine_with_a_free_processor() -> None:
    at, used, wanting = [0.0], [0.0], [0.5]
    spare = SpareTime(lambda: at[0], lambda: used[0], lambda: wanting[0], 2)

    def after(seconds: float, ran: float) -> float:
        at[0] += seconds
        used[0] += ran
        return spare()

    assert after(1.0, 0.25) == pytest.approx(0.75)
    assert after(1.0, 1.0) == 0.0
    assert after(1.0, 3.0) == 0.0, "several threads"
    assert after(0.0, 0.0) == 0.0, "a clock that stands"
    assert after(1.0, -1.0) == 1.0, "a clock that goes back"
    wanting[0] = 2.5
    assert after(1.0, 0.1) == 0.0, "others wait for a processor"


@pytest.mark.parametrize(("spare", "least", "most"), [(1.0, 1, 3), (0.0, 300, 1200)])
def test_a_busy_process_pays_for_observing_from_the_functions_own_time_alone(
    spare: float, least: float, most: float
) -> None:
    """A call of 1 us each 50 ms: where the rest of the time is nobody's, it pays; where not, it doesn't."""
    now = [0.0]
    with watching(Sampling(Mode.BUDGETED)) as watcher:

        @monitor(name="tests:one")
        def one() -> None:
            now[0] += 1e-6

        gate = watcher.gate("one")
        gate.clock, gate._pace = lambda: now[0], Pace(1000.0, lambda: spare)
        for _ in range(6000):
            one()
            now[0] += 0.05
        assert least <= gate.interval <= most


def test_calls_of_strangers_that_are_judged_are_paid_from_the_same_budget() -> None:
    costs = Costs()
    costs.observed(1e-5)
    costs.took(1e-3)
    alone = costs.beside_passing(0.02, looking=True)
    for _ in range(100):
        costs.beyond(1.0)
    assert costs.beside_passing(0.02, looking=True) == pytest.approx(2 * alone)
    for _ in range(100):
        costs.beyond(0.0)
    assert costs.beside_passing(0.02, looking=True) == pytest.approx(alone)
