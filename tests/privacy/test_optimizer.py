"""The DP step: noise of the stated scale on the grid, fresh each time, for every parameter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from cloister.privacy.noise import GaussianIntegers, Grid, IntegerNoise, choose_grid
from cloister.privacy.optimizer import CsprngDPOptimizer, GradientDescent
from cloister.privacy.randomness import OsRandom


class Silence:
    """Noise of nothing, so that a step shows its clipped sum alone."""

    generator = "silence"

    def draw(self, count: int, bits: int) -> np.ndarray:
        return np.zeros(count, dtype=np.int64)


def step_of(
    sums: list[torch.Tensor], *, clip: float, noise: float, source: IntegerNoise, steps: int = 1
) -> tuple[list[torch.Tensor], Grid]:
    """The released gradients of the last of some steps, scaled by a batch size of 1."""
    parameters = [nn.Parameter(torch.zeros(one.shape)) for one in sums]
    size = sum(one.numel() for one in sums)
    grid = choose_grid(clip, noise, parameters=size, units=100, summands=100)
    optimizer = CsprngDPOptimizer(
        GradientDescent(parameters, 0.0, 0.0),
        noise=source,
        grid=grid,
        noise_multiplier=noise,
        max_grad_norm=clip,
        expected_batch_size=1.0,
    )
    for _ in range(steps):
        optimizer.hold(sums)
        optimizer.step()
    return [p.grad.clone() for p in parameters if p.grad is not None], grid


def drawn_noise(noise: float, clip: float) -> np.ndarray:
    (drawn,), _ = step_of(
        [torch.zeros(400, 300, dtype=torch.float64)],
        clip=clip,
        noise=noise,
        source=GaussianIntegers(OsRandom("noise")),
    )
    return drawn.double().flatten().numpy()


def test_without_noise_a_step_gives_the_sum_to_half_a_grid_step_and_starts_anew() -> None:
    sums = [torch.randn(5, 4, dtype=torch.float64), torch.randn(7, dtype=torch.float64)]
    released, grid = step_of(sums, clip=1.0, noise=1.0, source=Silence(), steps=3)
    for got, expected in zip(released, sums, strict=True):
        assert float((got.double() - expected).abs().max()) <= grid.step * 1.01 + 2e-7


def test_every_output_is_a_point_of_the_grid() -> None:
    sums = [torch.randn(1000, dtype=torch.float64) * 0.01]
    (released,), grid = step_of(sums, clip=1.0, noise=1.0, source=GaussianIntegers(OsRandom("noise")))
    steps = released.double() / grid.step - 0.5
    # float32 keeps 24 bits of a value: that is what comes after the whole numbers.
    assert float((steps - steps.round()).abs().max()) <= float(released.abs().max()) * 2**-24 / grid.step


def test_noise_has_the_stated_scale_to_one_percent() -> None:
    noise, clip = 1.3, 0.4
    values = drawn_noise(noise, clip) / (noise * clip)
    assert len(values) >= 100_000
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], len(values))
    total = float(values @ values)
    assert low < total < high
    # The same test sees noise that is 2 % too small.
    assert not low < total * 0.98**2 < high
    assert stats.kstest(values, "norm").pvalue > 1e-6


def test_every_parameter_gets_noise_of_its_own() -> None:
    sums = [torch.zeros(30, 20, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)]
    released, _ = step_of(sums, clip=1.0, noise=1.0, source=GaussianIntegers(OsRandom("noise")))
    assert all(bool((part.abs() > 0).all()) for part in released)
    assert len(torch.cat([part.flatten() for part in released]).unique()) > 0.99 * 650


def test_noise_is_fresh_in_every_step() -> None:
    first, second = drawn_noise(1.0, 1.0), drawn_noise(1.0, 1.0)
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / np.sqrt(len(first))


def test_opacus_accountant_hook_is_called_once_a_step() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = CsprngDPOptimizer(
        GradientDescent([parameter], 1.0, 0.0),
        noise=GaussianIntegers(OsRandom("noise")),
        grid=choose_grid(1.0, 2.0, parameters=3, units=9, summands=9),
        noise_multiplier=2.0,
        max_grad_norm=1.0,
        expected_batch_size=4.0,
    )
    seen: list[float] = []
    optimizer.attach_step_hook(lambda one: seen.append(one.noise_multiplier / one.accumulated_iterations))
    for _ in range(3):
        optimizer.step()
    assert seen == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_descent_equals_torchs_own(momentum: float) -> None:
    torch.manual_seed(0)
    start = torch.randn(5, 3)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    descent = GradientDescent([ours], 0.3, momentum)
    reference = torch.optim.SGD([theirs], lr=0.3, momentum=momentum)
    for _ in range(4):
        gradient = torch.randn(5, 3)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        descent.step()
        reference.step()
        descent.zero_grad()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert ours.grad is None
