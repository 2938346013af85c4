"""What a sampling sees of a trace: exact counts always, the calls it promises, and the gates' calls."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.errors import ImmuneError
from cloister.immune.generators import (
    BENIGN,
    BUDGETED,
    EVERY_CALL,
    ONE_IN_TEN,
    SamplingPlan,
    TracedCall,
    TraceSensor,
    attacked_trace,
    ordinary_calls,
)
from cloister.immune.observation import Observed, Score
from cloister.immune.wrapping.costs import UNSEEN

PLANS = (EVERY_CALL, ONE_IN_TEN, BUDGETED)


def seen(plan: SamplingPlan, calls: tuple[TracedCall, ...], seed: int = 0) -> list[Observed | None]:
    sensor = TraceSensor(plan, seed)
    return [sensor.look(call) for call in calls]


@settings(max_examples=60)
@given(st.sampled_from(PLANS), st.integers(0, 10**6))
def test_counts_of_calls_and_errors_are_exact_whatever_is_sampled(plan: SamplingPlan, seed: int) -> None:
    calls = attacked_trace(seed, 300, warm_up=150, times=1)
    looked = seen(plan, calls, seed)
    last = max(place for place, one in enumerate(looked) if one is not None)
    observed = [one for one in looked if one is not None]
    assert sum(one.entered.calls for one in observed) == last + 1
    failures = sum(one.entered.errors + one.failed for one in observed)
    assert failures == sum(call.failed for call in calls[: last + 1])
    assert all(one.entered.errors < one.entered.calls for one in observed)


def test_an_observation_holds_what_its_call_was() -> None:
    calls = ordinary_calls(4, 50)
    for call, one in zip(calls, seen(EVERY_CALL, calls), strict=True):
        assert one is not None
        assert (one.entered.at, one.entered.size, one.entered.caller) == (call.at, call.size, call.caller)
        assert (one.duration, one.failed, one.entered.calls) == (call.duration, call.failed, 1)
        assert one.entered.teaches


def test_every_call_is_every_call_and_one_in_ten_is_about_one_in_ten() -> None:
    calls = ordinary_calls(4, 20_000)
    assert all(one is not None for one in seen(EVERY_CALL, calls))
    assert sum(one is not None for one in seen(ONE_IN_TEN, calls)) == pytest.approx(2000, rel=0.05)


ORDINARY = Score(10.0, 0.5, "duration")
UNUSUAL = Score(90.0, 0.0001, "duration")


def _lasting(duration: float, count: int = 20_000) -> tuple[TracedCall, ...]:
    apart = max(1e-3, 2 * duration)
    return tuple(TracedCall(i * apart, duration, 4, "app:main", False, BENIGN) for i in range(count))


def _that_saw(plan: SamplingPlan, calls: tuple[TracedCall, ...], seed: int = 0) -> TraceSensor:
    sensor = TraceSensor(plan, seed)
    for call in calls:
        if sensor.look(call) is not None:
            sensor.hear(ORDINARY)
    return sensor


def _that_was_told(plan: SamplingPlan, calls: tuple[TracedCall, ...]) -> list[Observed | None]:
    sensor, looked = TraceSensor(plan), []
    for call in calls:
        looked.append(sensor.look(call))
        if looked[-1] is not None:
            sensor.hear(ORDINARY)
    return looked


@pytest.mark.parametrize(("duration", "one_in"), [(1e-2, 1), (1e-3, 2), (4e-4, 5), (1e-4, 19), (1e-5, 360)])
def test_a_budget_looks_at_all_of_a_slow_function_and_thins_a_quick_one(duration: float, one_in: int) -> None:
    known = _that_was_told(BUDGETED, _lasting(duration))[3100:]
    assert sum(one is not None for one in known) == pytest.approx(len(known) / one_in, rel=0.1)


def test_a_function_is_learned_from_a_third_of_its_calls_at_least() -> None:
    looked = seen(BUDGETED, _lasting(1e-5))
    assert sum(one is not None for one in looked[:3000]) == pytest.approx(1000, abs=3)
    assert sum(one is not None for one in looked[3100:]) < 150


@settings(max_examples=40)
@given(st.floats(1e-6, 1e-2))
def test_observing_gets_what_each_call_leaves_of_the_budget_and_half_of_it_at_least(duration: float) -> None:
    """From 10 us up that keeps the budget, with what it costs to count each call down and to compare it."""
    looked = _that_was_told(BUDGETED, _lasting(duration, 9000))[3100:]
    each = 2 * BUDGETED.cost + UNSEEN
    observing = sum(one is not None for one in looked) * each
    budget = BUDGETED.sampling.budget * duration * len(looked)
    passing = (1e-7 if duration >= 5e-6 else 5e-8) * len(looked)
    assert observing <= 1.05 * max(budget - passing, budget / 2) + 3 * each
    if duration >= 1e-5:
        assert observing + passing <= 1.05 * budget + 3 * each


@pytest.mark.parametrize(("size", "caller"), [(4, "shell:main"), (400, "app:main")])
def test_gates_look_at_an_unknown_caller_and_at_larger_arguments_and_learn_nothing_from_them(
    size: int, caller: str
) -> None:
    sensor = _that_saw(BUDGETED, _lasting(1e-5, 4000), seed=4)
    strange = TracedCall(4.0, 1e-5, size, caller, False, BENIGN)
    looked = [sensor.look(strange) for _ in range(100)]
    judged = [one for one in looked if one is not None]
    assert looked[0] is not None
    # One that is new and stays is judged as often as eight calls that chance chooses allow, not each time.
    assert 8 <= len(judged) <= 20
    assert sum(one.entered.teaches for one in judged) <= 2


def test_after_a_suspicious_call_the_next_is_looked_at_and_after_an_unusual_one_the_next_twenty() -> None:
    calls = _lasting(1e-5, 4040)
    suspicious = Score(60.0, 0.01, "duration")
    for heard, least, most in ((ORDINARY, 0, 1), (suspicious, 1, 2), (UNUSUAL, 20, 22)):
        sensor = _that_saw(BUDGETED, calls[:4000])
        assert sensor.look(TracedCall(4.0, 1e-5, 400, "shell:main", False, BENIGN)) is not None
        sensor.hear(heard)
        looked = 0
        for call in calls[4001:4040]:
            if sensor.look(call) is not None:
                looked += 1
                sensor.hear(ORDINARY)
        assert least <= looked <= most, heard


@pytest.mark.parametrize(
    ("plan", "duration"),
    [(ONE_IN_TEN, 1e-3), (BUDGETED, 3e-6), (replace(BUDGETED, compiled=False), 1e-4)],
    ids=["1:10", "too quick", "too quick for pure Python"],
)
def test_one_in_ten_has_no_gates_nor_has_a_function_too_quick_for_them(
    plan: SamplingPlan, duration: float
) -> None:
    sensor = _that_saw(plan, _lasting(duration, 4000))
    strange = TracedCall(4.0, duration, 4, "shell:main", False, BENIGN)
    assert sum(sensor.look(strange) is not None for _ in range(1000)) < 120


def test_time_that_nobody_uses_pays_for_a_third_of_the_calls() -> None:
    looked = seen(replace(BUDGETED, spare=1.0), _lasting(1e-5))[5000:]
    assert sum(one is not None for one in looked) == pytest.approx(len(looked) / 3, rel=0.05)


def test_ticks_come_from_the_seed_and_never_in_step() -> None:
    calls = ordinary_calls(4, 2000)
    assert seen(ONE_IN_TEN, calls, 1) == seen(ONE_IN_TEN, calls, 1)
    assert seen(ONE_IN_TEN, calls, 1) != seen(ONE_IN_TEN, calls, 2)
    gaps = {one.entered.calls for one in seen(ONE_IN_TEN, calls) if one is not None}
    assert min(gaps) == 1
    assert max(gaps) >= 18


@pytest.mark.parametrize("wrong", [{"cost": 0.0}, {"cost": -1.0}, {"spare": -0.1}, {"spare": 1.1}])
def test_a_plan_with_a_number_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ImmuneError) as refused:
        replace(BUDGETED, **wrong)
    assert refused.value.code == "immune.generator_invalid"
