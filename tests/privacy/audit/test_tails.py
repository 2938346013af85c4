"""The tail bounds: exact where they say so, never below the true chance elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cloister.privacy.audit import tails


@given(draws=st.integers(1, 4_000_000), deviations=st.floats(-9, 9))
def test_the_chi_square_is_the_librarys(draws: int, deviations: float) -> None:
    total = max(1e-3, draws + deviations * math.sqrt(2 * draws))
    exact = 2 * min(stats.chi2.cdf(total, draws), stats.chi2.sf(total, draws))
    assert tails.chi_square(total, draws) == pytest.approx(min(1.0, exact), rel=1e-4, abs=1e-300)


def test_a_sum_that_is_not_finite_or_zero_is_impossible() -> None:
    assert tails.chi_square(math.inf, 5) == 0
    assert tails.chi_square(math.nan, 5) == 0
    assert tails.chi_square(0.0, 2) == 0


@given(trials=st.integers(1, 100_000), p=st.floats(0.01, 0.99), share=st.floats(0, 1))
def test_the_binomial_bound_is_never_below_the_chance(trials: int, p: float, share: float) -> None:
    count = round(share * trials)
    tail = stats.binom.cdf(count, trials, p) if count < trials * p else stats.binom.sf(count - 1, trials, p)
    assert tails.binomial(count, trials, p) >= min(1.0, tail) * (1 - 1e-9)


@given(dimensions=st.integers(3, 100_000), value=st.floats(0.0, 1.0))
def test_the_bound_on_cosines_is_never_below_the_chance(dimensions: int, value: float) -> None:
    exact = stats.beta.sf(value**2, 0.5, (dimensions - 1) / 2)
    assert tails.cosine(value, dimensions, 1) >= exact * (1 - 1e-9)


def test_the_law_of_values_is_told_from_others() -> None:
    generator = np.random.default_rng(0)
    _, same = tails.normal_shape(generator.standard_normal(50_000))
    assert same > 1e-3
    uniform = (generator.random(50_000) - 0.5) * math.sqrt(12)
    for other in (uniform, generator.laplace(scale=math.sqrt(0.5), size=50_000), np.zeros(100)):
        distance, chance = tails.normal_shape(other)
        assert chance < 1e-3
        assert distance == pytest.approx(stats.kstest(other, "norm").statistic)


def test_batch_sizes_of_a_binomial_scatter_as_expected_and_fixed_ones_do_not() -> None:
    generator = np.random.default_rng(0)
    chances = [tails.dispersion(generator.binomial(200, 0.25, 600), 200, 0.25)[1] for _ in range(400)]
    # The approximation is good enough: about one in twenty below 0.05.
    assert 6 <= sum(chance < 0.05 for chance in chances) <= 40
    assert tails.dispersion(np.full(600, 50), 200, 0.25)[1] < 1e-100
