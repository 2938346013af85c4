"""The privacy transcript: a strict codec, and an epsilon that anyone recomputes."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.evidence.transcript import (
    ORDERS,
    Event,
    Gaussian,
    SampledGaussian,
    coalesce,
    epsilon,
    epsilon_pld,
    event_from_json,
    event_to_json,
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
)


@given(events)
def test_an_event_survives_canonical_json(event: Event) -> None:
    assert event_from_json(parse_canonical(canonicalize(event_to_json(event)))) == event


GOOD = {"type": "sampled_gaussian", "sampling_probability": 0.25, "noise_multiplier": 1.5, "steps": 3}


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
