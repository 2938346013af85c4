"""The privacy transcript: a strict codec, and an epsilon that anyone recomputes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.evidence.transcript import (
    ADAPTIVE,
    FIXED_PLAN,
    ORDERS,
    POISSON,
    Approximate,
    Event,
    Gaussian,
    Pure,
    RepeatAndSelect,
    SampledGaussian,
    coalesce,
    epsilon,
    epsilon_held,
    epsilon_pld,
    event_from_json,
    event_to_json,
    order_for,
)

noises = st.floats(min_value=0.3, max_value=1e4)
events = st.one_of(
    st.builds(
        SampledGaussian,
        st.floats(min_value=1e-6, max_value=1.0),
        noises,
        st.integers(min_value=1, max_value=10**6),
    ),
    st.builds(Gaussian, noises, st.integers(min_value=1, max_value=10**6)),
    st.builds(Pure, st.floats(min_value=1e-6, max_value=100), st.integers(min_value=1, max_value=1000)),
    st.builds(
        Approximate,
        st.floats(min_value=1e-6, max_value=100),
        st.floats(min_value=1e-30, max_value=1e-9),
        st.integers(min_value=1, max_value=100),
    ),
    st.builds(
        RepeatAndSelect,
        st.floats(min_value=1e-6, max_value=1.0),
        noises,
        st.integers(min_value=1, max_value=10**6),
        noises,
        st.floats(min_value=1, max_value=1e4),
        st.one_of(st.floats(min_value=0, max_value=100), st.just(POISSON)),
        st.integers(min_value=1, max_value=100),
    ),
)


@given(events)
def test_an_event_survives_canonical_json(event: Event) -> None:
    assert event_from_json(parse_canonical(canonicalize(event_to_json(event)))) == event


GOOD = {"type": "sampled_gaussian", "sampling_probability": 0.25, "noise_multiplier": 1.5, "steps": 3}
TUNED = {
    **GOOD,
    "type": "repeat_and_select",
    "score_noise_multiplier": 8.0,
    "mean": 10,
    "shape": "poisson",
    "count": 1,
}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "gaussian",
        {},
        {**GOOD, "type": "laplace"},
        {**GOOD, "type": ["gaussian"]},
        {**GOOD, "epsilon": 1.0},
        {k: v for k, v in GOOD.items() if k != "steps"},
        {**GOOD, "steps": 3.0},
        {**GOOD, "steps": True},
        {**GOOD, "steps": 0},
        {**GOOD, "steps": -1},
        {**GOOD, "steps": 10**10},
        {**GOOD, "noise_multiplier": 0},
        {**GOOD, "noise_multiplier": 1e-200},
        {**GOOD, "sampling_probability": 5e-324},
        {**GOOD, "noise_multiplier": -1.0},
        {**GOOD, "noise_multiplier": "1.5"},
        {**GOOD, "noise_multiplier": True},
        {**GOOD, "noise_multiplier": math.nan},
        {**GOOD, "noise_multiplier": math.inf},
        {**GOOD, "sampling_probability": 0},
        {**GOOD, "sampling_probability": 1.01},
        {"type": "gaussian", "noise_multiplier": 1.0, "steps": 1},
        {"type": "pure", "epsilon": 0, "count": 1},
        {"type": "pure", "epsilon": 101, "count": 1},
        {"type": "pure", "epsilon": math.inf, "count": 1},
        {"type": "pure", "epsilon": "poisson", "count": 1},
        {"type": "approximate", "epsilon": 1.0, "count": 1},
        {"type": "approximate", "epsilon": 1.0, "delta": 0, "count": 1},
        {"type": "approximate", "epsilon": 1.0, "delta": 1, "count": 1},
        {**TUNED, "shape": "geometric"},
        {**TUNED, "shape": math.inf},
        {**TUNED, "shape": -0.5},
        {**TUNED, "mean": 0.5},
        {**TUNED, "mean": "poisson"},
        {**TUNED, "steps": 2.5},
        {**TUNED, "score_noise_multiplier": 0},
    ],
)
def test_anything_that_is_not_exactly_an_event_is_refused(value: object) -> None:
    with pytest.raises(InputError) as refusal:
        event_from_json(value)  # type: ignore[arg-type]
    assert refusal.value.code == "input.schema"


def test_coalescing_merges_rounds_and_does_not_care_about_order() -> None:
    one, two = SampledGaussian(0.2, 1.5, 10), SampledGaussian(0.2, 1.6, 10)
    other = Gaussian(20.0, 1)
    assert coalesce([one, other, two, one, other]) == coalesce([other, two, one, one, other])
    assert coalesce([one, one, other]) == (other, SampledGaussian(0.2, 1.5, 20))


@pytest.mark.parametrize(
    ("event", "delta", "published"),
    [
        # dp-accounting's own figures for its default orders, which include ours and fractional ones.
        (SampledGaussian(256 / 10_000, 1.1, 1000), 1e-5, 4.708),
        (SampledGaussian(512 / 60_000, 1.23, 4680), 1e-5, 2.579),
        (SampledGaussian(1024 / 1_000_000, 0.7, 20_000), 1e-7, 3.266),
        (Gaussian(20.0, 100), 1e-5, 2.166),
    ],
)
def test_epsilon_is_that_of_the_published_configurations(
    event: Event, delta: float, published: float
) -> None:
    ours = epsilon([event], delta)
    assert published - 1e-3 <= ours <= published * 1.02


def test_whole_orders_cost_little_against_all_orders() -> None:
    import dp_accounting
    from dp_accounting import rdp

    for q, noise, steps in [(0.2, 2.8, 100), (0.5, 6.0, 200), (0.02, 0.9, 500), (1.0, 10.0, 30)]:
        accountant = rdp.RdpAccountant()
        accountant.compose(
            dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(noise)), steps
        )
        reference = accountant.get_epsilon(1e-4)
        assert reference - 1e-9 <= epsilon([SampledGaussian(q, noise, steps)], 1e-4) <= reference * 1.02


def test_a_good_event_of_each_kind_is_read() -> None:
    assert event_from_json(TUNED) == RepeatAndSelect(0.25, 1.5, 3, 8.0, 10.0, POISSON, 1)  # type: ignore[arg-type]
    assert event_from_json({**TUNED, "shape": 1}) == RepeatAndSelect(0.25, 1.5, 3, 8.0, 10.0, 1.0, 1)  # type: ignore[dict-item]
    assert event_from_json({"type": "pure", "epsilon": 1, "count": 2}) == Pure(1.0, 2)


@pytest.mark.parametrize("recompute", [epsilon, epsilon_pld])
def test_a_pure_mechanism_costs_about_its_epsilon_and_never_more(
    recompute: Callable[[Sequence[Event], float], float],
) -> None:
    for value in (0.1, 1.0, 4.0):
        assert 0.9 * value < recompute([Pure(value, 1)], 1e-5) < value + 0.02
        # Many small ones compose better than by adding them up.
        assert recompute([Pure(value / 50, 100)], 1e-5) < 2 * value


@pytest.mark.parametrize("recompute", [epsilon, epsilon_pld])
def test_an_approximate_mechanism_takes_its_delta_off_the_total(
    recompute: Callable[[Sequence[Event], float], float],
) -> None:
    done: list[Event] = [Gaussian(5.0, 3)]
    both = recompute([*done, Approximate(0.5, 4e-6, 1)], 1e-5)
    assert both == pytest.approx(recompute([*done, Pure(0.5, 1)], 6e-6), abs=1e-9)
    assert recompute([*done, Approximate(0.5, 5e-6, 2)], 1e-5) == math.inf


def test_a_pure_mechanism_is_never_cheaper_than_the_laplace_mechanism_of_its_epsilon() -> None:
    import dp_accounting
    from dp_accounting import rdp

    for value in (0.05, 0.5, 2.0):
        laplace = rdp.RdpAccountant(orders=list(ORDERS))
        laplace.compose(dp_accounting.LaplaceDpEvent(1 / value), 20)
        assert epsilon([Pure(value, 20)], 1e-5) >= laplace.get_epsilon(1e-5) - 1e-9


@pytest.mark.parametrize("shape", [0.0, 1.0, 0.5, POISSON])
def test_a_tuning_costs_more_than_one_trial_and_less_than_all(shape: float) -> None:
    trial: list[Event] = [SampledGaussian(0.1, 6.0, 100), Gaussian(20.0, 1)]
    tuned: list[Event] = [RepeatAndSelect(0.1, 6.0, 100, 20.0, 10.0, shape, 1)]
    one, ten = epsilon(trial, 1e-5), epsilon(trial * 10, 1e-5)
    assert one < epsilon(tuned, 1e-5) < ten
    assert epsilon(tuned, 1e-5) <= epsilon_pld(tuned, 1e-5) * 1.001 < 1.5 * epsilon(tuned, 1e-5)


def test_epsilon_by_privacy_loss_distributions_is_tighter_but_near() -> None:
    plan = [SampledGaussian(0.1, 1.5, 100), Gaussian(20.0, 3)]
    assert 0.7 * epsilon(plan, 1e-5) < epsilon_pld(plan, 1e-5) < epsilon(plan, 1e-5)


def test_epsilon_agrees_with_opacus() -> None:
    accountant = pytest.importorskip("opacus.accountants").RDPAccountant()
    for _ in range(300):
        accountant.step(noise_multiplier=1.7, sample_rate=0.15)
    theirs = accountant.get_epsilon(1e-4)
    ours = epsilon([SampledGaussian(0.15, 1.7, 300)], 1e-4)
    assert ours == pytest.approx(theirs, rel=0.02)
    assert ours == pytest.approx(accountant.get_epsilon(1e-4, alphas=list(ORDERS)), abs=1e-6)


def test_merged_and_unmerged_transcripts_have_one_epsilon() -> None:
    parts = [SampledGaussian(0.2, 2.0, 5)] * 7 + [Gaussian(9.0, 1)] * 2
    assert epsilon(parts, 1e-5) == epsilon(list(coalesce(parts)), 1e-5)


def test_nothing_done_costs_nothing() -> None:
    assert epsilon([], 1e-5) == 0.0
    assert epsilon_pld([], 1e-5) == 0.0


@given(events, st.integers(min_value=1, max_value=50))
def test_more_steps_never_cost_less(event: Event, more: int) -> None:
    assert epsilon([event], 1e-5) <= epsilon([event] * more, 1e-5)


@pytest.mark.parametrize("q", [1e-9, 0.5, 1 - 1e-16, 1.0])
@pytest.mark.parametrize("noise", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("delta", [1e-300, 0.999])
def test_no_event_that_can_be_read_breaks_the_recomputation(q: float, noise: float, delta: float) -> None:
    assert epsilon([SampledGaussian(q, noise, 10**9), Gaussian(noise, 10**9)], delta) >= 0
    pure: list[Event] = [Pure(noise_to_epsilon, 10**9) for noise_to_epsilon in (1e-6, 100.0)]
    for shape in (0.0, 1e-9, 1.0, 100.0, POISSON):
        for mean in (1.0, 1 + 1e-12, 1e4):
            assert epsilon([*pure, RepeatAndSelect(q, noise, 10**9, noise, mean, shape, 10**9)], delta) >= 0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, math.inf])
@pytest.mark.parametrize("recompute", [epsilon, epsilon_pld])
def test_an_impossible_delta_is_refused(recompute: object, delta: float) -> None:
    with pytest.raises(InputError):
        recompute([Gaussian(1.0, 1)], delta)  # type: ignore[operator]


def test_hardly_any_noise_is_an_enormous_epsilon_and_no_noise_on_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert epsilon([SampledGaussian(0.01, 0.02, 1000)], 1e-5) > 1000
    assert capfd.readouterr() == ("", "")


def test_reading_a_transcript_needs_no_heavy_library() -> None:
    code = (
        "import sys, cloister.evidence.transcript as t;"
        "t.event_from_json({'type': 'gaussian', 'noise_multiplier': 1, 'count': 1});"
        "print([m for m in ('numpy','torch','scipy','dp_accounting') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("limit", "delta", "order"),
    [
        (0.25, 1e-5, 53),
        (0.5, 1e-5, 29),
        (1.0, 1e-5, 17),
        (1.0, 1e-4, 13),
        (2.0, 1e-5, 10),
        (3.0, 1e-5, 7),
        (5.0, 1e-5, 5),
        (1e-6, 1e-5, 512),
        (1e6, 1e-5, 2),
    ],
)
def test_a_limits_order_follows_from_the_limit_alone(limit: float, delta: float, order: int) -> None:
    assert order_for(limit, delta) == order


def test_what_is_held_against_a_limit_is_the_figure_at_its_order() -> None:
    import dp_accounting
    from dp_accounting import rdp

    events = [SampledGaussian(0.1, 2.0, 100), Gaussian(20.0, 3)]
    accountant = rdp.RdpAccountant(orders=[order_for(3.0, 1e-5)])
    training = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(2.0))
    accountant.compose(dp_accounting.SelfComposedDpEvent(training, 100))
    accountant.compose(dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(20.0), 3))
    held = epsilon_held(ADAPTIVE, events, 1e-5, 3.0)
    assert held == pytest.approx(accountant.get_epsilon(0.99e-5), abs=1e-9)
    assert held == epsilon_held(ADAPTIVE, [events[1], *[SampledGaussian(0.1, 2.0, 50)] * 2], 1e-5, 3.0)
    assert epsilon_held(ADAPTIVE, [], 1e-5, 3.0) == 0.0


def test_approximate_mechanisms_share_a_hundredth_of_delta_against_a_limit() -> None:
    shared = [Approximate(0.5, 5e-8, 2)]
    assert epsilon_held(ADAPTIVE, shared, 1e-5, 3.0) < math.inf
    assert epsilon_held(ADAPTIVE, [Approximate(0.5, 5e-8, 3)], 1e-5, 3.0) == math.inf
    assert epsilon_held(FIXED_PLAN, [Approximate(0.5, 4e-6, 2)], 1e-5, 3.0) < math.inf
