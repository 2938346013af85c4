"""Both accountants calibrate to dp-accounting's figures, hold published configurations, and refuse GDP."""

from __future__ import annotations

import math

import pytest
from opacus.accountants import PRVAccountant

from cloister.evidence.transcript import (
    ADAPTIVE,
    FIXED_PLAN,
    PLD_GRID,
    Gaussian,
    Mode,
    SampledGaussian,
    epsilon,
    epsilon_by,
    epsilon_held,
    epsilon_pld,
)
from cloister.privacy.errors import PrivacyError
from cloister.privacy.modes import calibrate, epsilon_in, require_mode, steps_within

PUBLISHED = [
    # q, sigma, steps, delta, Opacus RDP, Opacus PRV, PLD on a grid of 1e-3; where each is from
    (32 / 199, 1.5, 300, 1e-3, 9.231, 8.090, 8.080),
    (256 / 10_000, 1.1, 1000, 1e-5, 4.708, 4.291, 4.281),
    (512 / 60_000, 1.23, 4680, 1e-5, 2.579, 2.372, 2.364),
    (1024 / 1_000_000, 0.7, 20_000, 1e-7, 3.266, 2.523, 2.522),
]


@pytest.mark.parametrize(("q", "sigma", "steps", "delta", "renyi", "prv", "pld"), PUBLISHED)
def test_known_configurations_have_their_known_epsilons(
    q: float, sigma: float, steps: int, delta: float, renyi: float, prv: float, pld: float
) -> None:
    event = SampledGaussian(q, sigma, steps)
    # The fixed whole orders cost at most 4 % beside fractional ones.
    assert renyi - 1e-3 <= epsilon_in(ADAPTIVE, [event], delta) <= 1.04 * renyi
    assert epsilon_in(FIXED_PLAN, [event], delta) == pytest.approx(pld, abs=1e-3)
    assert epsilon_in(FIXED_PLAN, [event], delta) == pytest.approx(prv, abs=0.02)


@pytest.mark.parametrize(("q", "sigma", "steps", "delta"), [row[:4] for row in PUBLISHED[1:3]])
def test_opacus_histories_have_nearly_their_prv_epsilon(
    q: float, sigma: float, steps: int, delta: float
) -> None:
    opacus = PRVAccountant()
    opacus.history = [(sigma, q, steps)]
    assert epsilon_pld([SampledGaussian(q, sigma, steps)], delta) == pytest.approx(
        opacus.get_epsilon(delta=delta), abs=0.02
    )


def test_an_opacus_history_of_several_jobs_has_nearly_its_prv_epsilon() -> None:
    opacus = PRVAccountant()
    opacus.history = [(1.5, 0.02, 400), (2.0, 0.05, 100), (1.2, 0.01, 700)]
    events = [SampledGaussian(q, sigma, steps) for sigma, q, steps in opacus.history]
    assert epsilon_pld(events, 1e-5) == pytest.approx(opacus.get_epsilon(delta=1e-5), abs=0.02)


def test_mnist_at_epsilon_three_needs_the_known_noise() -> None:
    """60,000 pictures, batches of 512, 40 epochs, (3, 1e-5)."""
    q, steps = 512 / 60_000, 40 * 60_000 // 512
    noise = calibrate(FIXED_PLAN, 3.0, 1e-5, q, steps)
    assert epsilon_pld([SampledGaussian(q, noise, steps)], 1e-5) <= 3.0
    assert noise == pytest.approx(1.061, abs=0.01)
    assert calibrate(ADAPTIVE, 3.0, 1e-5, q, steps) > noise


@pytest.mark.parametrize("mode", [ADAPTIVE, FIXED_PLAN])
@pytest.mark.parametrize("spent", [(), (Gaussian(20.0, 3), SampledGaussian(0.1, 3.0, 20))])
def test_calibrated_noise_is_the_least_that_keeps_the_target_with_what_was_spent(
    mode: Mode, spent: tuple[Gaussian | SampledGaussian, ...]
) -> None:
    noise = calibrate(mode, 2.0, 1e-5, 0.05, 300, spent=spent)
    assert epsilon_by(mode, [*spent, SampledGaussian(0.05, noise, 300)], 1e-5) <= 2.0
    assert epsilon_held(mode, [*spent, SampledGaussian(0.05, noise, 300)], 1e-5, 2.0) <= 2.0
    assert epsilon_held(mode, [*spent, SampledGaussian(0.05, noise - 2e-3, 300)], 1e-5, 2.0) > 2.0
    steps = steps_within(mode, 2.0, 1e-5, 0.05, noise, spent=spent)
    assert steps >= 300
    assert epsilon_held(mode, [*spent, SampledGaussian(0.05, noise, steps)], 1e-5, 2.0) <= 2.0
    assert epsilon_held(mode, [*spent, SampledGaussian(0.05, noise, steps + 1)], 1e-5, 2.0) > 2.0 - 1e-5


def test_the_loss_distribution_buys_about_a_quarter_more_steps() -> None:
    assert steps_within(ADAPTIVE, 3.0, 1e-5, 0.0256, 1.1) == 380
    assert steps_within(FIXED_PLAN, 3.0, 1e-5, 0.0256, 1.1) == 499


def test_the_fixed_plans_figure_is_dp_accountings_within_its_grid() -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant

    exact = PLDAccountant(value_discretization_interval=1e-4)
    exact.compose(SelfComposedDpEvent(PoissonSampledDpEvent(0.0256, GaussianDpEvent(1.1)), 1000))
    ours = epsilon_in(FIXED_PLAN, [SampledGaussian(0.0256, 1.1, 1000)], 1e-5)
    assert ours == pytest.approx(exact.get_epsilon(1e-5), abs=PLD_GRID)


@pytest.mark.parametrize("name", ["gdp", "GDP", "clt", "f-dp", "prv", "", "Adaptive"])
def test_an_accountant_that_understates_or_is_unknown_is_refused_by_name(name: str) -> None:
    with pytest.raises(PrivacyError) as refused:
        require_mode(name)
    assert refused.value.code == "privacy.accountant_refused"


def test_gdp_would_understate() -> None:
    q, sigma, steps = 1024 / 1_000_000, 0.7, 20_000
    mu = q * math.sqrt(steps * (math.exp(1 / sigma**2) - 1))
    gaussian = epsilon_pld([Gaussian(1 / mu, 1)], 1e-7)
    assert gaussian < 0.75 * epsilon_pld([SampledGaussian(q, sigma, steps)], 1e-7)


def test_an_epsilon_beyond_any_limit_is_bounded_without_a_loss_distribution() -> None:
    events = [SampledGaussian(0.5, 0.01, 1000)]
    assert epsilon_by(FIXED_PLAN, events, 1e-5) == epsilon(events, 1e-5) > 1000
