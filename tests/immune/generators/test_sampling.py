"""What a sampling sees of a trace: exact counts always, the calls it promises, and the gates' calls."""

from __future__ import annotations

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
from cloister.immune.observation import Observed

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


def _lasting(duration: float, count: int = 20_000) -> tuple[TracedCall, ...]:
    return tuple(TracedCall(i * 1e-3, duration, 4, "app:main", False, BENIGN) for i in range(count))


@pytest.mark.parametrize(("duration", "one_in"), [(1e-2, 1), (1e-3, 1), (4e-4, 3), (1e-4, 10), (1e-5, 50)])
def test_a_budget_looks_at_all_of_a_slow_function_and_thins_a_quick_one(duration: float, one_in: int) -> None:
    looked = seen(BUDGETED, _lasting(duration))[200:]
    assert sum(one is not None for one in looked) == pytest.approx(19_800 / one_in, rel=0.1)


@settings(max_examples=60)
@given(st.floats(1e-6, 1e-2))
def test_a_budget_is_kept_whatever_the_duration(duration: float) -> None:
    looked = seen(BUDGETED, _lasting(duration, 5000))[500:]
    checks = len(looked) * BUDGETED.check if duration >= 60e-6 else 0.0
    spent = sum(one is not None for one in looked) * BUDGETED.cost + checks
    assert spent <= 1.25 * BUDGETED.budget * duration * len(looked) + 5 * BUDGETED.cost


def test_gates_look_at_an_unknown_caller_and_at_larger_arguments_and_learn_nothing_from_them() -> None:
    calls = _lasting(7e-5, 3000)
    for strange in (
        TracedCall(4.0, 7e-5, 4, "shell:main", False, BENIGN),
        TracedCall(4.0, 7e-5, 400, "app:main", False, BENIGN),
    ):
        sensor = TraceSensor(BUDGETED, seed=4)
        for call in calls:
            sensor.look(call)
        looked = [sensor.look(strange) for _ in range(200)]
        taught = next(place for place, one in enumerate(looked) if one and one.entered.teaches)
        assert taught > 5
        assert None not in looked[:taught]
        # A tick of chance made it known: from there on it is thinned like any other.
        assert sum(one is not None for one in looked[taught:]) < 0.3 * len(looked[taught:])


def test_after_a_suspicious_call_the_next_twenty_are_looked_at_and_after_an_ordinary_one_not() -> None:
    calls = _lasting(1e-5, 3020)
    for p, least, most in ((0.5, 0, 4), (0.01, 20, 20)):
        sensor = TraceSensor(BUDGETED)
        for call in calls[:3000]:
            sensor.look(call)
        sensor.hear(p)
        assert least <= sum(sensor.look(call) is not None for call in calls[3000:]) <= most


@pytest.mark.parametrize(("plan", "duration"), [(ONE_IN_TEN, 1e-3), (BUDGETED, 5e-5)])
def test_one_in_ten_has_no_gates_nor_has_a_function_too_quick_for_them(
    plan: SamplingPlan, duration: float
) -> None:
    sensor = TraceSensor(plan)
    for call in _lasting(duration, 3000):
        sensor.look(call)
    strange = TracedCall(4.0, duration, 4, "shell:main", False, BENIGN)
    assert sum(sensor.look(strange) is not None for _ in range(1000)) < 180


def test_ticks_come_from_the_seed_and_never_in_step() -> None:
    calls = ordinary_calls(4, 2000)
    assert seen(ONE_IN_TEN, calls, 1) == seen(ONE_IN_TEN, calls, 1)
    assert seen(ONE_IN_TEN, calls, 1) != seen(ONE_IN_TEN, calls, 2)
    gaps = {one.entered.calls for one in seen(ONE_IN_TEN, calls) if one is not None}
    assert min(gaps) == 1
    assert max(gaps) >= 18


@pytest.mark.parametrize(
    "wrong", [{"one_in": -1}, {"budget": 0.0}, {"cost": 0.0}, {"check": 0.0}, {"watch": -1}]
)
def test_a_plan_with_a_number_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    asked: dict[str, object] = {"name": "x", "one_in": 1, "gates": True, **wrong}
    with pytest.raises(ImmuneError) as refused:
        SamplingPlan(**asked)  # type: ignore[arg-type]
    assert refused.value.code == "immune.generator_invalid"
