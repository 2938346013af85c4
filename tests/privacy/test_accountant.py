"""The accountant used while training equals dp-accounting and keeps below its targets."""

from __future__ import annotations

from itertools import count

import dp_accounting
import numpy as np
import pytest
from dp_accounting import rdp
from hypothesis import given
from hypothesis import strategies as st

from cloister.evidence.transcript import (
    ADAPTIVE,
    ORDERS,
    POISSON,
    Approximate,
    Event,
    Gaussian,
    Pure,
    RepeatAndSelect,
    SampledGaussian,
    epsilon,
    epsilon_held,
)
from cloister.privacy.accountant import (
    AGREEMENT,
    calibrate_noise,
    calibrate_noise_in_advance,
    epsilon_after,
    epsilon_of,
    held_of,
    max_steps,
    max_steps_in_advance,
    rdp_vector,
)
from cloister.privacy.errors import PrivacyError
from tests.timing import processor_seconds, shortest

probabilities = st.floats(min_value=1e-5, max_value=1.0)
noises = st.floats(min_value=0.3, max_value=200)
sampled = st.builds(SampledGaussian, probabilities, noises, st.integers(min_value=1, max_value=5000))
plain = st.builds(Gaussian, noises, st.integers(min_value=1, max_value=50))
pure = st.builds(Pure, st.floats(min_value=1e-4, max_value=20), st.integers(min_value=1, max_value=50))
approximate = st.builds(
    Approximate,
    st.floats(min_value=1e-3, max_value=5),
    st.floats(min_value=1e-12, max_value=1e-9),
    st.integers(min_value=1, max_value=5),
)
tuned = st.builds(
    RepeatAndSelect,
    probabilities,
    noises,
    st.integers(min_value=1, max_value=5000),
    noises,
    st.floats(min_value=1, max_value=200),
    st.one_of(st.sampled_from([0.0, 1.0, POISSON]), st.floats(min_value=0.01, max_value=20)),
    st.integers(min_value=1, max_value=3),
)


@given(tuned)
def test_the_renyi_vector_of_a_tuning_equals_dp_accountings(event: RepeatAndSelect) -> None:
    accountant = rdp.RdpAccountant(orders=list(ORDERS))
    training = dp_accounting.PoissonSampledDpEvent(
        event.sampling_probability, dp_accounting.GaussianDpEvent(event.noise_multiplier)
    )
    score = dp_accounting.GaussianDpEvent(event.score_noise_multiplier)
    trial = dp_accounting.ComposedDpEvent([dp_accounting.SelfComposedDpEvent(training, event.steps), score])
    accountant.compose(
        dp_accounting.dp_event.RepeatAndSelectDpEvent(trial, event.mean, event.shape), event.count
    )
    np.testing.assert_allclose(rdp_vector(event), accountant.rdp, rtol=1e-6, atol=1e-6)


@given(pure)
def test_the_renyi_vector_of_a_pure_mechanism_equals_randomised_response(event: Pure) -> None:
    accountant = rdp.RdpAccountant(list(ORDERS), dp_accounting.NeighboringRelation.REPLACE_ONE)
    noise = 2 / (1 + np.exp(event.epsilon))
    accountant.compose(dp_accounting.RandomizedResponseDpEvent(noise, 2), event.count)
    np.testing.assert_allclose(rdp_vector(event), accountant.rdp, rtol=1e-6, atol=1e-6)
    assert (rdp_vector(event) <= event.count * event.epsilon + 1e-9).all()


@given(sampled)
def test_the_renyi_vector_equals_dp_accountings(event: SampledGaussian) -> None:
    reference = rdp.RdpAccountant(orders=list(ORDERS))
    inner = dp_accounting.GaussianDpEvent(event.noise_multiplier)
    reference.compose(dp_accounting.PoissonSampledDpEvent(event.sampling_probability, inner), event.steps)
    np.testing.assert_allclose(rdp_vector(event), reference._rdp, rtol=1e-6, atol=1e-6)


@given(
    st.lists(st.one_of(sampled, plain, pure, approximate, tuned), max_size=4),
    st.sampled_from([1e-3, 1e-5, 1e-8]),
)
def test_epsilon_equals_the_verifiers_recomputation(events: list[Event], delta: float) -> None:
    ours, theirs = epsilon_of(events, delta), epsilon(events, delta)
    assert ours == pytest.approx(theirs, abs=AGREEMENT if theirs < 10 else 1e-6 * theirs)


def test_epsilon_grows_by_what_follows() -> None:
    done, following = [SampledGaussian(0.2, 2.0, 10)], SampledGaussian(0.2, 2.0, 10)
    assert epsilon_after(done, following, 1e-4) == epsilon_of([SampledGaussian(0.2, 2.0, 20)], 1e-4)
    assert epsilon_after([], following, 1e-4) == epsilon_of(done, 1e-4)
    assert epsilon_of([], 1e-4) == 0.0


def test_a_mechanism_almost_without_noise_costs_an_enormous_epsilon() -> None:
    assert epsilon_of([SampledGaussian(0.1, 1e-3, 1)], 1e-5) > 1e4
    assert epsilon_of([SampledGaussian(0.1, 1e-3, 10**9)], 1e-5) > 1e13


@given(
    st.floats(min_value=0.2, max_value=5.0),
    st.floats(min_value=0.01, max_value=1.0),
    st.integers(min_value=1, max_value=2000),
)
def test_calibrated_noise_is_the_least_that_keeps_the_target(target: float, q: float, steps: int) -> None:
    noise = calibrate_noise(target, 1e-5, q, steps)
    assert epsilon([SampledGaussian(q, noise, steps)], 1e-5) <= target
    assert epsilon_held(ADAPTIVE, [SampledGaussian(q, noise, steps)], 1e-5, target) <= target
    assert held_of([SampledGaussian(q, noise - 1e-3, steps)], 1e-5, target) + AGREEMENT > target
    in_advance = calibrate_noise_in_advance(target, 1e-5, q, steps)
    assert in_advance <= noise
    assert epsilon([SampledGaussian(q, in_advance, steps)], 1e-5) <= target
    assert epsilon_of([SampledGaussian(q, in_advance - 1e-3, steps)], 1e-5) + AGREEMENT > target


@pytest.mark.timed
def test_calibration_takes_less_than_a_tenth_of_a_second() -> None:
    # Another target each time, for what was calibrated once is remembered.
    targets = (2.7 + number / 100 for number in count())
    run = lambda: processor_seconds(lambda: calibrate_noise(next(targets), 1e-5, 0.123, 777))  # noqa: E731
    assert shortest(run, 0.1) < 0.1


@pytest.mark.parametrize(
    ("target", "delta"), [(0.0, 1e-5), (-1.0, 1e-5), (float("inf"), 1e-5), (1.0, 0.0), (1.0, 1.0)]
)
def test_an_impossible_target_is_refused(target: float, delta: float) -> None:
    with pytest.raises(PrivacyError) as refusal:
        calibrate_noise(target, delta, 0.1, 10)
    assert refusal.value.code == "privacy.budget_invalid"


def test_a_target_no_noise_reaches_is_refused() -> None:
    with pytest.raises(PrivacyError) as refusal:
        calibrate_noise(1e-5, 1e-5, 1.0, 10**6)
    assert refusal.value.code == "privacy.unreachable_target"


@given(st.floats(min_value=0.5, max_value=5.0), st.floats(min_value=0.01, max_value=1.0), noises)
def test_max_steps_is_the_last_count_under_the_limit(limit: float, q: float, noise: float) -> None:
    spent = [Gaussian(40.0, 2)]
    steps = max_steps(limit, 1e-5, q, noise, spent=spent)
    if steps:
        assert held_of([*spent, SampledGaussian(q, noise, steps)], 1e-5, limit) <= limit
    if steps < 10**9:
        assert held_of([*spent, SampledGaussian(q, noise, steps + 1)], 1e-5, limit) + AGREEMENT > limit
    in_advance = max_steps_in_advance(limit, 1e-5, q, noise, spent=spent)
    assert in_advance >= steps
    if in_advance < 10**9:
        assert epsilon_after(spent, SampledGaussian(q, noise, in_advance + 1), 1e-5) + AGREEMENT > limit


@given(
    st.lists(st.one_of(sampled, plain, pure, approximate, tuned), max_size=4),
    st.sampled_from([1e-3, 1e-5, 1e-8]),
    st.floats(min_value=1e-3, max_value=10.0),
)
def test_what_is_held_against_a_limit_equals_the_verifiers_recomputation(
    events: list[Event], delta: float, limit: float
) -> None:
    ours, theirs = held_of(events, delta, limit), epsilon_held(ADAPTIVE, events, delta, limit)
    assert ours == pytest.approx(theirs, abs=AGREEMENT if theirs < 10 else 1e-6 * theirs)


def test_the_noise_that_one_order_costs_is_what_the_decision_record_says() -> None:
    """Beside the best order afterwards, which is no filter; a bound over all 72 orders costs 18 %."""
    more = []
    for limit in (1.0, 3.0):
        for q in (0.1, 0.3, 1.0):
            for steps in (10, 50, 200, 1000):
                by_one = calibrate_noise(limit, 1e-5, q, steps)
                more.append(by_one / calibrate_noise_in_advance(limit, 1e-5, q, steps))
    assert 1.0 <= np.mean(more) < 1.012
    assert np.max(more) < 1.10
