"""The overhead harness: both sides by turns, intervals that hold, a difference that is there is found."""

from __future__ import annotations

from math import comb
from random import Random

import pytest

from cloister.immune.errors import ImmuneError
from cloister.immune.overhead import measure_overhead, median_interval


class Machine:
    """A clock that only work moves, and a log of who worked."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def clock(self) -> int:
        return self.now

    def work(self, name: str, nanoseconds: int) -> None:
        self.now += nanoseconds
        self.log.append(name)


def test_both_sides_run_in_every_round_and_take_turns_in_going_first() -> None:
    machine = Machine()
    measure_overhead(
        lambda: machine.work("plain", 100),
        lambda: machine.work("protected", 103),
        rounds=6,
        calls=2,
        clock_ns=machine.clock,
    )
    first = ["plain"] * 2 + ["protected"] * 2
    assert machine.log == (first + first[::-1]) * 3


def test_percentiles_difference_and_ratio_are_of_one_call() -> None:
    machine = Machine()
    found = measure_overhead(
        lambda: machine.work("plain", 1000),
        lambda: machine.work("protected", 1050),
        rounds=9,
        calls=10,
        clock_ns=machine.clock,
    )
    assert (found.plain.p50, found.plain.p99) == pytest.approx((1e-6, 1e-6))
    assert found.protected.p95 == pytest.approx(1.05e-6)
    assert found.difference.value == pytest.approx(50e-9)
    assert (found.ratio.low, found.ratio.value, found.ratio.high) == pytest.approx((1.05, 1.05, 1.05))


def test_a_disturbance_that_lasts_hits_both_sides_and_leaves_the_difference() -> None:
    machine, random = Machine(), Random(3)
    rounds = iter(range(10**6))

    def work(name: str, nanoseconds: int) -> None:
        # From the third part on the machine is three times as slow.
        slow = 3000 if next(rounds) > 80 else 0
        machine.work(name, nanoseconds + slow + random.randrange(20))

    found = measure_overhead(
        lambda: work("plain", 1000),
        lambda: work("protected", 1060),
        rounds=61,
        calls=1,
        clock_ns=machine.clock,
    )
    assert 50e-9 < found.difference.low <= found.difference.value <= found.difference.high < 70e-9


@pytest.mark.parametrize("count", [6, 10, 25, 61, 200])
def test_an_interval_is_the_narrowest_that_the_sign_test_allows(count: int) -> None:
    values = [float(one) for one in range(count)]
    found = median_interval(values, 0.95)
    beyond = int(found.low)
    assert found.high == count - 1 - beyond
    assert 2 * sum(comb(count, below) for below in range(beyond + 1)) <= 0.05 * 2**count
    assert 2 * sum(comb(count, below) for below in range(beyond + 2)) > 0.05 * 2**count


@pytest.mark.parametrize("count", [1000, 1001, 2000, 10_000])
def test_many_values_have_the_interval_of_the_exact_sign_test_but_for_one_place(count: int) -> None:
    found = median_interval([float(one) for one in range(count)])
    beyond = int(found.low)
    assert found.high == count - 1 - beyond
    exact, below = -1, 0
    while 2 * (below := below + comb(count, exact + 1)) <= 2**count // 20:
        exact += 1
    assert abs(beyond - exact) <= 1


def test_an_interval_encloses_the_true_median_as_often_as_it_says() -> None:
    random = Random(17)
    enclosed = 0
    for _ in range(2000):
        found = median_interval([random.expovariate(1.0) for _ in range(25)])
        enclosed += found.low <= 0.693147 <= found.high
    # 95.7 % is the exact confidence of 25 values; four standard errors below it.
    assert 0.939 <= enclosed / 2000 <= 0.975


@pytest.mark.parametrize(
    "ask",
    [
        lambda: median_interval([1.0] * 5),
        lambda: median_interval([1.0] * 20, 1.0),
        lambda: median_interval([]),
        lambda: measure_overhead(int, int, rounds=5),
        lambda: measure_overhead(int, int, calls=0),
    ],
)
def test_too_little_for_an_interval_is_refused_by_its_code(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(ImmuneError) as refused:
        ask()
    assert refused.value.code == "immune.measure_undefined"


def test_real_work_that_is_done_twice_costs_more_than_once() -> None:
    def once() -> int:
        return sum(range(300))

    def twice() -> int:
        return once() + once()

    found = measure_overhead(once, twice, rounds=31, calls=20)
    assert found.difference.low > 0
    assert found.ratio.low > 1.3
