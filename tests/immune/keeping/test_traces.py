"""The newest calls of each function: which are kept, in what order, in how much memory."""

from __future__ import annotations

import dataclasses
import math
import random
import threading
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.keeping import TraceStore
from cloister.immune.keeping.traces import LONGEST_CALLER, MAX_CALLERS
from cloister.immune.observation import Entered, Observed
from tests.immune.keeping.conftest import FUNCTION, call

numbers = st.floats(min_value=-1e12, max_value=1e12)
observed_calls = st.builds(
    Observed,
    st.builds(
        Entered,
        at=numbers,
        size=st.integers(min_value=0, max_value=2**63 - 1),
        caller=st.text(max_size=20),
        calls=st.integers(min_value=0, max_value=2**32 - 1),
        errors=st.integers(min_value=0, max_value=2**32 - 1),
        teaches=st.booleans(),
    ),
    duration=numbers,
    failed=st.booleans(),
)


def test_the_call_after_the_thousandth_takes_the_place_of_the_first() -> None:
    traces = TraceStore()
    for number in range(1000):
        traces.add(FUNCTION, call(at=float(number)), ordinary=True)
    assert len(traces.newest(FUNCTION)) == 1000
    traces.add(FUNCTION, call(at=1000.0), ordinary=True)
    kept = [one.entered.at for one in traces.newest(FUNCTION)]
    assert kept == [float(number) for number in range(1000, 0, -1)]


def kept_after(
    kept: list[tuple[Observed, bool]], one: Observed, *, ordinary: bool, bound: int
) -> list[tuple[Observed, bool]]:
    """What is kept, oldest first, when a call was added: the newest, but never too many of a suspicion."""
    left = kept[1:] if len(kept) == bound else kept
    others = sum(not other for _, other in left)
    if len(kept) == bound and not ordinary and others >= max(0, min(bound // 2, bound - 100)):
        return kept
    return [*left, (one, ordinary)]


@settings(max_examples=100)
@given(
    st.lists(st.tuples(observed_calls, st.booleans()), max_size=60), st.integers(1, 20), st.integers(0, 30)
)
def test_the_newest_are_read_newest_first_and_equal_to_what_was_given(
    given_calls: list[tuple[Observed, bool]], bound: int, count: int
) -> None:
    traces, model = TraceStore(bound), list[tuple[Observed, bool]]()
    for number, (one, ordinary) in enumerate(given_calls, 1):
        assert traces.add(FUNCTION, one, ordinary=ordinary) == number
        model = kept_after(model, one, ordinary=ordinary, bound=bound)
    newest = model[::-1]
    assert list(traces.newest(FUNCTION, count)) == [one for one, _ in newest[:count]]
    assert [(kept.observed, kept.ordinary) for kept in traces.kept(FUNCTION, bound)] == newest
    wanted = [one for one, ordinary in newest if ordinary]
    assert list(traces.ordinary(FUNCTION, count)) == wanted[:count]
    assert sorted(traces.durations(FUNCTION, -math.inf)) == sorted(one.duration for one in wanted)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=80), st.integers(1, 8))
def test_a_ring_from_which_the_oldest_are_forgotten_is_the_end_of_all_that_was_given(
    steps: list[tuple[bool, float]], bound: int
) -> None:
    traces, model, now = TraceStore(bound), list[float](), 0.0
    for adds, value in steps:
        if adds:
            now += value
            traces.add(FUNCTION, call(now, at=now), ordinary=True)
            model = [*model, now][-bound:]
        else:
            before = now - value
            traces.forget(before)
            model = [one for one in model if one >= before]
        assert [one.entered.at for one in traces.newest(FUNCTION)] == model[::-1]
        assert sorted(traces.durations(FUNCTION, now - 50)) == [one for one in model if one >= now - 50]
        assert traces.functions() == ((FUNCTION,) if model else ())


def test_the_last_hundred_ordinary_calls_before_a_candidate_are_exactly_those() -> None:
    traces = TraceStore()
    for number in range(500):
        traces.add(FUNCTION, call(at=float(number)), ordinary=number % 2 == 0)
    found = [one.entered.at for one in traces.ordinary(FUNCTION, 100, before=400.0)]
    assert found == [float(number) for number in range(398, 198, -2)]


# A suspicion


def test_a_suspicion_however_long_leaves_half_of_the_ordinary_calls() -> None:
    traces = TraceStore()
    for number in range(21_000):
        traces.add(FUNCTION, call(at=float(number)), ordinary=number < 1000)
    found = [one.entered.at for one in traces.ordinary(FUNCTION, 1000)]
    assert found == [float(number) for number in range(999, 499, -1)]
    suspected = [one.observed.entered.at for one in traces.kept(FUNCTION, 1000) if not one.ordinary]
    assert suspected == [float(number) for number in range(1499, 999, -1)]
    for number in range(21_000, 21_600):
        traces.add(FUNCTION, call(at=float(number)), ordinary=True)
    assert len(traces.ordinary(FUNCTION, 1000)) == 600
    assert traces.newest(FUNCTION, 1)[0].entered.at == 21_599.0


@pytest.mark.parametrize("per_function", [100, 101, 150, 199, 200, 5000])
def test_however_few_are_kept_a_suspicion_leaves_the_hundred_that_a_candidate_is_tried_on(
    per_function: int,
) -> None:
    traces = TraceStore(per_function)
    for number in range(3 * per_function):
        traces.add(FUNCTION, call(at=float(number)), ordinary=number < per_function)
    newest = [float(number) for number in range(per_function - 1, per_function - 101, -1)]
    assert [one.entered.at for one in traces.ordinary(FUNCTION, 100)] == newest


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 80), st.booleans()), max_size=12),
    st.integers(95, 260),
)
def test_through_suspicions_that_come_and_go_what_is_kept_is_the_newest_but_for_too_many_of_them(
    spells: list[tuple[bool, int, bool]], bound: int
) -> None:
    traces, model, now = TraceStore(bound), list[tuple[Observed, bool]](), 0.0
    for ordinary, times, forgets in spells:
        for _ in range(times):
            now += 1
            one = call(at=now)
            traces.add(FUNCTION, one, ordinary=ordinary)
            model = kept_after(model, one, ordinary=ordinary, bound=bound)
        if forgets:
            traces.forget(now - 70)
            model = [kept for kept in model if kept[0].entered.at >= now - 70]
        found = [(kept.observed, kept.ordinary) for kept in traces.kept(FUNCTION, bound)]
        assert found == model[::-1]


def test_calls_of_a_suspicion_that_arent_kept_are_counted_but_not_as_kept() -> None:
    traces = TraceStore()
    for number in range(1000):
        traces.add(FUNCTION, call(at=float(number)), ordinary=True)
    counted = [traces.add(FUNCTION, call(at=1000.0 + number), ordinary=False) for number in range(2000)]
    assert counted == list(range(1001, 3001))
    assert traces.added(FUNCTION) == (1500, 0.0)


def test_functions_are_kept_apart() -> None:
    traces = TraceStore()
    traces.add("a:f", call(1.0), ordinary=True)
    traces.add("b:f", call(2.0), ordinary=True)
    assert [one.duration for one in traces.newest("a:f")] == [1.0]
    assert traces.newest("c:f") == ()
    assert traces.added("c:f") == (0, 0.0)


def test_the_function_that_was_fed_least_recently_makes_room() -> None:
    traces = TraceStore(10, max_functions=2)
    for function in ("a:f", "b:f", "a:f", "c:f"):
        traces.add(function, call(), ordinary=True)
    assert traces.functions() == ("a:f", "c:f")


def test_a_thousand_calls_take_under_26_kilobytes() -> None:
    chance = random.Random(1)
    callers = [f"shop.web:handler_{number}" for number in range(10)]
    tracemalloc.start()
    traces = TraceStore()
    before, _ = tracemalloc.get_traced_memory()
    for function in range(20):
        for number in range(1500):
            made = call(chance.random(), at=float(number), size=number, caller=callers[number % 10])
            traces.add(f"m:f{function}", made, ordinary=True)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / 20 < 26_000


def test_names_of_callers_are_bounded_in_length_and_number() -> None:
    traces = TraceStore(10)
    traces.add(FUNCTION, call(caller="x" * 10_000), ordinary=True)
    assert traces.newest(FUNCTION)[0].entered.caller == "x" * LONGEST_CALLER
    for number in range(MAX_CALLERS + 10):
        traces.add(FUNCTION, call(caller=f"c{number}"), ordinary=True)
    assert traces.newest(FUNCTION)[0].entered.caller == ""
    traces.add(FUNCTION, call(caller="c5"), ordinary=True)
    assert traces.newest(FUNCTION)[0].entered.caller == "c5"


@pytest.mark.parametrize("wrong", [-1, 2**80])
def test_counts_beyond_what_is_kept_are_cut_to_it(wrong: int) -> None:
    traces = TraceStore()
    traces.add(FUNCTION, Observed(Entered(0.0, wrong, "", wrong, wrong, True), 1.0, False), ordinary=True)
    entered = traces.newest(FUNCTION)[0].entered
    assert (entered.size, entered.calls) == ((0, 0) if wrong < 0 else (2**63 - 1, 2**32 - 1))


def test_a_kept_call_has_no_field_for_an_argument() -> None:
    assert {one.name for one in dataclasses.fields(Entered)} == {
        "at", "size", "caller", "calls", "errors", "teaches",
    }  # fmt: skip
    assert {one.name for one in dataclasses.fields(Observed)} == {"entered", "duration", "failed"}


def test_threads_lose_no_call() -> None:
    traces = TraceStore()
    threads = [
        threading.Thread(
            target=lambda: [
                traces.add(FUNCTION, call(caller=f"c{n % 7}"), ordinary=True) for n in range(2000)
            ]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traces.added(FUNCTION)[0] == 8000
    assert len(traces.newest(FUNCTION)) == 1000


def test_what_is_usual_is_the_largest_size_and_the_callers_of_the_ordinary_calls_that_are_kept() -> None:
    store = TraceStore(per_function=50)
    assert store.usual("m:f") == (0, frozenset())
    chance = random.Random(2)
    for number in range(130):
        entered = Entered(float(number), chance.randrange(1000), f"m:c{number % 7}", 1, 0, True)
        store.add("m:f", Observed(entered, 0.1, False), ordinary=number % 3 > 0)
        if number % 40 == 39:
            store.forget(number - 20.0)
        kept = [one.entered for one in store.ordinary("m:f", 50)]
        expected = max((one.size for one in kept), default=0), frozenset(one.caller for one in kept)
        assert store.usual("m:f") == expected


def test_a_call_for_which_a_column_widens_counts_once() -> None:
    store = TraceStore(per_function=1000)
    for size in (1, 300, 70_000, 2**40, 2**62):
        store.add("shop:pay", call(0.0, size=size), ordinary=False)
    for number in range(1000):
        store.add("shop:pay", call(1.0 + number), ordinary=True)
    for number in range(600):
        store.add("shop:pay", call(2000.0 + number), ordinary=False)
    others = sum(not one.ordinary for one in store.kept("shop:pay", 1000))
    assert others == 500
