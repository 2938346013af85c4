"""No more events pass than the rates allow, and one hot function doesn't starve the others."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.service.limiter import EventLimiter


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


ARRIVALS = st.lists(
    st.tuples(st.floats(0, 5, allow_nan=False), st.integers(0, 400), st.integers(0, 3)), max_size=40
)


@settings(max_examples=200)
@given(ARRIVALS, st.floats(0.5, 800), st.integers(1, 500))
def test_no_more_events_pass_than_were_held_and_flowed_in(
    arrivals: list[tuple[float, int, int]], rate: float, burst: int
) -> None:
    """PIC-P20: rate limiting. N events in T seconds: at most min(N, capacity + T x rate) pass."""
    time = Time()
    limiter = EventLimiter(rate, burst, 1e9, time)
    offered = passed = 0
    for wait, events, function in arrivals:
        time.now += wait
        offered += events
        passed += sum(limiter.admit([f"m:f{function}"] * events))
        assert passed <= min(offered, burst + (time.now - 1000.0) * rate) + 1e-6


@settings(max_examples=200)
@given(ARRIVALS, st.floats(1, 200))
def test_no_function_sends_more_than_its_own_rate(
    arrivals: list[tuple[float, int, int]], function_rate: float
) -> None:
    """PIC-P20 for each function alone (PIC-X8)."""
    time = Time()
    limiter = EventLimiter(1e6, 10**6, function_rate, time)
    passed = dict.fromkeys(range(4), 0)
    for wait, events, function in arrivals:
        time.now += wait
        passed[function] += sum(limiter.admit([f"m:f{function}"] * events))
        assert passed[function] <= function_rate * (1 + time.now - 1000.0) + 1e-6


def test_a_burst_of_2000_events_of_many_functions_passes_and_the_next_one_does_not() -> None:
    limiter = EventLimiter(500, 2000, 1000, Time())
    names = [f"m:f{number % 40}" for number in range(2001)]
    assert limiter.admit(names) == [True] * 2000 + [False]


def test_after_a_second_500_more_pass() -> None:
    time = Time()
    limiter = EventLimiter(500, 2000, 1000, time)
    names = [f"m:f{number % 40}" for number in range(2000)]
    limiter.admit(names)
    time.now += 1
    assert sum(limiter.admit(names)) == 500


def test_a_function_that_sends_without_end_leaves_the_others_their_events() -> None:
    """PIC-X8: isolation of one hot function."""
    time = Time()
    limiter = EventLimiter(500, 2000, 1000, time)
    quiet_passed = quiet_offered = hot_passed = 0
    for _ in range(600):
        time.now += 0.1
        hot_passed += sum(limiter.admit(["m:hot"] * 1000))
        offered = [f"m:quiet{number}" for number in range(20)]
        quiet_offered += len(offered)
        quiet_passed += sum(limiter.admit(offered))
    assert quiet_passed == quiet_offered
    assert hot_passed >= 60 * 250


def test_what_a_hot_function_may_still_send_is_what_nobody_else_needs() -> None:
    time = Time()
    limiter = EventLimiter(500, 2000, 1000, time)
    passed = 0
    for _ in range(100):
        time.now += 0.1
        passed += sum(limiter.admit(["m:hot"] * 1000))
    assert passed >= 10 * 500 * 0.95


def test_how_long_to_wait_is_how_long_it_takes_until_there_is_room() -> None:
    time = Time()
    limiter = EventLimiter(500, 2000, 1e6, time)
    limiter.admit([f"m:f{number % 40}" for number in range(2000)])
    wait = limiter.retry_after(100)
    assert wait == 0.2
    time.now += wait
    assert limiter.retry_after(100) == 0.0


def test_more_events_than_the_bucket_ever_holds_are_waited_for_until_it_is_full() -> None:
    limiter = EventLimiter(500, 2000, 1e6, Time())
    assert limiter.retry_after(10**9) == 0.0


def test_a_clock_that_goes_back_neither_adds_nor_takes() -> None:
    time = Time()
    limiter = EventLimiter(10, 10, 10, time)
    assert sum(limiter.admit(["m:f"] * 10)) == 5  # the half that isn't reserved
    time.now -= 3600
    assert sum(limiter.admit(["m:f"] * 10)) == 0
    time.now += 1
    assert sum(limiter.admit([f"m:g{number}" for number in range(100)])) == 10


@settings(max_examples=100)
@given(st.lists(st.integers(0, 50), max_size=300), st.lists(st.floats(0, 0.1), min_size=1, max_size=5))
def test_more_names_than_are_remembered_buy_nobody_a_second_burst(
    names: list[int], waits: list[float]
) -> None:
    time = Time()
    limiter = EventLimiter(1e6, 10**6, 3, time, max_functions=4)
    passed = dict.fromkeys(range(51), 0)
    for index, name in enumerate(names):
        time.now += waits[index % len(waits)]
        passed[name] += sum(limiter.admit([f"m:f{name}"]))
        assert passed[name] <= 3 * (1 + time.now - 1000.0) + 3 + 1e-6
    assert len(limiter._functions) <= 4


def test_to_come_back_under_a_name_that_was_forgotten_buys_nothing() -> None:
    limiter = EventLimiter(1e6, 10**6, 3, Time(), max_functions=4)
    passed = sum(sum(limiter.admit([f"m:f{name}"])) for _ in range(20) for name in range(5))
    assert passed == 3 * 5
