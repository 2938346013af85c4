"""Noise without a delta has the laws that its mechanisms are proven for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cloister.privacy.errors import PrivacyError
from cloister.privacy.noise import GaussianIntegers
from cloister.privacy.pure_noise import discrete_laplace, finish, normals, radial_noise
from cloister.privacy.randomness import OsRandom

SOURCE = OsRandom("test")
NOISE = GaussianIntegers(SOURCE)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 31])
def test_a_radial_vector_has_a_gamma_length_and_no_direction(dimensions: int) -> None:
    drawn = np.array([radial_noise(dimensions, 4.0, NOISE)[0] for _ in range(5000)])
    lengths = np.linalg.norm(drawn, axis=1)
    assert stats.kstest(lengths, stats.gamma(dimensions, scale=1 / 4.0).cdf).pvalue > 1e-6
    # The square of one coordinate of a uniform direction is Beta(1/2, (d - 1) / 2).
    share = (drawn[:, 0] / lengths) ** 2
    if dimensions == 1:
        assert share == pytest.approx(1.0)
    else:
        assert stats.kstest(share, stats.beta(0.5, (dimensions - 1) / 2).cdf).pvalue > 1e-6
    assert stats.binomtest(int((drawn[:, -1] > 0).sum()), 5000).pvalue > 1e-6


def test_how_far_a_radial_vector_may_be_off_is_small_and_the_same_for_every_draw() -> None:
    errors = {radial_noise(31, 4.0, NOISE)[1] for _ in range(20)}
    assert len(errors) == 1
    assert errors.pop() < 1e-8 * 31 / 4.0


@pytest.mark.parametrize("scale", [1, 3, 50])
def test_discrete_laplace_has_its_law(scale: int) -> None:
    draws = 30_000
    drawn = discrete_laplace(draws, scale, SOURCE)
    decay = np.exp(-1 / scale)
    largest = 6 * scale
    chances = (1 - decay) / (1 + decay) * decay ** np.abs(np.arange(-largest, largest + 1))
    expected = np.append(chances, 1 - chances.sum()) * draws
    inside = np.array([(drawn == value).sum() for value in range(-largest, largest + 1)])
    observed = np.append(inside, draws - inside.sum())
    common = expected > 5
    statistic = ((observed - expected)[common] ** 2 / expected[common]).sum()
    assert stats.chi2.sf(statistic, common.sum() - 1) > 1e-6


def test_normals_are_normal_and_never_whole_steps() -> None:
    drawn = normals(20_000, NOISE)
    assert stats.kstest(drawn, "norm").pvalue > 1e-6
    assert (drawn * 2.0**40 != np.rint(drawn * 2.0**40)).all()


def test_finished_values_are_near_on_a_grid_and_hide_the_error() -> None:
    values, error, epsilon = np.array([0.25, -3.0, 11.0]), 1e-9, 0.05
    finished = np.array([finish(values, error, epsilon, SOURCE) for _ in range(2000)])
    step = 2.0 ** np.floor(np.log2(2 * error / np.sqrt(3)))
    assert (finished / step == np.rint(finished / step)).all()
    spread = (finished - values).std(axis=0)
    # Discrete Laplace of the L1 distance over epsilon: its deviation is sqrt(2) times that.
    moved = np.ceil(np.sqrt(3) * 2 * error / step) + 3
    np.testing.assert_allclose(spread, np.sqrt(2) * moved / epsilon * step, rtol=0.1)
    with pytest.raises(PrivacyError):
        finish(np.array([1e9]), 1e-9, epsilon, SOURCE)
