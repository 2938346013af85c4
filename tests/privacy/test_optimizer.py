"""The DP step: noise of the stated scale, a clipping bound that holds, sums as of one record at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleHooks
from scipy import stats
from torch import nn

from cloister.privacy.models import build_model
from cloister.privacy.optimizer import CsprngDPOptimizer, GradientDescent
from cloister.privacy.randomness import OsRandom
from cloister.privacy.trainer import TrainingData

MODELS = ["logistic-regression", "mlp", "small-cnn", "gru"]


class Silence:
    """A source that gives zeros, so that a step shows its clipped sum alone."""

    generator = "silence"

    def words(self, count: int) -> np.ndarray:
        return np.zeros(count, dtype=np.uint64)

    def normal(self, count: int) -> np.ndarray:
        return np.zeros(count)


def private_gradients(
    model: nn.Module,
    features: torch.Tensor,
    labels: torch.Tensor,
    *,
    clip: float,
    noise: float,
    source: object,
) -> list[torch.Tensor]:
    """One step's gradients, scaled by a batch size of 1, before descending."""
    model.train()
    hooks = GradSampleHooks(model, loss_reduction="sum")
    parameters = list(model.parameters())
    optimizer = CsprngDPOptimizer(
        GradientDescent(parameters, 0.0, 0.0),
        source=source,  # type: ignore[arg-type]
        noise_multiplier=noise,
        max_grad_norm=clip,
        expected_batch_size=1.0,
    )
    nn.functional.cross_entropy(model(features), labels, reduction="sum").backward()
    optimizer.step()
    gradients = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    hooks.cleanup()
    model.zero_grad(set_to_none=True)
    return gradients


def one_record_at_a_time(
    model: nn.Module, features: torch.Tensor, labels: torch.Tensor, clip: float
) -> list[torch.Tensor]:
    parameters = list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for row, label in zip(features, labels, strict=True):
        loss = nn.functional.cross_entropy(model(row[None]), label[None])
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in gradients))  # type: ignore[arg-type]
        factor = min(1.0, clip / (float(norm) + 1e-6))
        total = [kept + gradient * factor for kept, gradient in zip(total, gradients, strict=True)]
    return total


def length(gradients: Sequence[torch.Tensor]) -> float:
    return float(torch.cat([g.double().flatten() for g in gradients]).norm())


@pytest.mark.parametrize("clip", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("name", MODELS)
def test_the_clipped_sum_equals_one_record_at_a_time(name: str, clip: float, tumours: TrainingData) -> None:
    model = build_model(name, 30, 2, seed=1)
    features, labels = torch.from_numpy(tumours.features[:9]), torch.from_numpy(tumours.labels[:9])
    ours = private_gradients(model, features, labels, clip=clip, noise=1.0, source=Silence())
    for got, expected in zip(ours, one_record_at_a_time(model, features, labels, clip), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [1.0, 1e6, 1e18])
def test_one_record_never_moves_the_sum_by_more_than_the_bound(name: str, size: float) -> None:
    model = build_model(name, 30, 2, seed=1)
    row = torch.full((1, 30), size)
    gradients = private_gradients(model, row, torch.tensor([0]), clip=0.7, noise=1.0, source=Silence())
    assert length(gradients) <= 0.7 * (1 + 1e-5)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 3e38, 1e20])
def test_a_record_with_a_non_finite_gradient_contributes_nothing_and_is_not_visible(
    value: float, tumours: TrainingData
) -> None:
    model = build_model("mlp", 30, 2, seed=1)
    features, labels = torch.from_numpy(tumours.features[:6].copy()), torch.from_numpy(tumours.labels[:6])
    alone = private_gradients(model, features[1:], labels[1:], clip=1.0, noise=1.0, source=Silence())
    features[0] = value
    together = private_gradients(model, features, labels, clip=1.0, noise=1.0, source=Silence())
    moved = length([a - b for a, b in zip(together, alone, strict=True)])
    assert all(bool(torch.isfinite(g).all()) for g in together)
    assert moved <= 1.0 + 1e-5
    if not np.isfinite(value):
        assert moved < 1e-6


def drawn_noise(noise: float, clip: float) -> np.ndarray:
    """Noise of one step on a wide model, for a batch of one record whose clipped gradient is known."""
    model = nn.Sequential(nn.Linear(400, 300))
    row, label = torch.zeros(1, 400), torch.tensor([0])
    quiet = private_gradients(model, row, label, clip=clip, noise=noise, source=Silence())
    noisy = private_gradients(model, row, label, clip=clip, noise=noise, source=OsRandom("noise"))
    return np.concatenate([(n - q).flatten().numpy() for n, q in zip(noisy, quiet, strict=True)]).astype(
        np.float64
    )


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
    model = build_model("mlp", 30, 2, seed=1)
    row, label = torch.zeros(1, 30), torch.tensor([0])
    quiet = private_gradients(model, row, label, clip=1.0, noise=1.0, source=Silence())
    noisy = private_gradients(model, row, label, clip=1.0, noise=1.0, source=OsRandom("noise"))
    drawn = [(n - q).flatten() for n, q in zip(noisy, quiet, strict=True)]
    assert all(bool((part != 0).all()) for part in drawn)
    assert len(torch.cat(drawn).unique()) > 0.99 * sum(part.numel() for part in drawn)


def test_noise_is_fresh_in_every_step() -> None:
    first, second = drawn_noise(1.0, 1.0), drawn_noise(1.0, 1.0)
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / np.sqrt(len(first))


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
