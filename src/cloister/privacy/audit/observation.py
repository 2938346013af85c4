"""Looking at a trainer from outside: what each of its steps released, and what it should have released.

Rules kept here:

1. A trainer is seen through its public face alone: a plan goes in, a model is trained in place, and before
   each step the trainer asks whether to abort. At that moment the model's weights are read.
2. What should have been released is computed another way: one unit at a time, by plain differentiation, in
   float64. Nothing of the engine's own clipping is used.

Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cloister.privacy.errors import PrivacyError
from cloister.privacy.trainer import FitResult, TrainingData, TrainingPlan

Floats = npt.NDArray[np.float64]


class Trainer(Protocol):
    """What an audit needs of a trainer; :class:`~cloister.privacy.trainer.DPTrainer` has it."""

    def fit(self, model: nn.Module, data: TrainingData, *, abort: Callable[[], bool]) -> FitResult:
        """Train the model in place, asking ``abort`` before each step."""
        ...


TrainerFactory = Callable[[TrainingPlan, str], Trainer]
"""Makes a new trainer for a plan at a site of this name, as the site would after a restart."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one parameter lies in the flat vectors.

    Args:
        name: The parameter's name in the model.
        start: First coordinate.
        stop: One past the last.
    """

    name: str
    start: int
    stop: int


def tensors_of(model: nn.Module) -> tuple[Tensor, ...]:
    """Return where each trained parameter lies in :func:`flat_weights`."""
    found, start = [], 0
    for name, parameter in model.named_parameters():
        found.append(Tensor(name, start, start + parameter.numel()))
        start += parameter.numel()
    return tuple(found)


def flat_weights(model: nn.Module) -> Floats:
    """Return all weights as one float64 vector."""
    with torch.no_grad():
        return torch.cat([p.flatten() for p in model.parameters()]).double().numpy()


@dataclass(frozen=True, slots=True)
class Observed:
    """One call of ``fit``, step by step.

    Args:
        weights: float64 [steps + 1, parameters]; row t is what step t began with.
        sums: float64 [steps, parameters]; the noisy clipped sums that the steps released.
    """

    weights: Floats
    sums: Floats


def observe(trainer: Trainer, plan: TrainingPlan, model: nn.Module, data: TrainingData) -> Observed:
    """Train, and read what every step released off the movement of the weights.

    Args:
        trainer: Made for ``plan``.
        plan: Without momentum, so that a step moves the weights by its own sum alone.
        model: Trained in place.
        data: The records.

    Raises:
        PrivacyError: ``privacy.audit_impossible`` when the plan has momentum, or the trainer did not ask
            before each of its steps.
    """
    if plan.momentum:
        raise PrivacyError(
            "privacy.audit_impossible",
            "With momentum the steps of a trainer can't be told apart.",
            "Audit the plan with momentum 0: momentum is computed from released sums, so it costs nothing.",
        )
    seen: list[Floats] = []

    def look() -> bool:
        seen.append(flat_weights(model))
        return False

    result = trainer.fit(model, data, abort=look)
    if result.executed_steps != plan.steps or len(seen) != plan.steps:
        raise PrivacyError(
            "privacy.audit_impossible", "The trainer did not ask whether to abort before each of its steps."
        )
    weights = np.stack([*seen, flat_weights(model)])
    scale = plan.sampling_probability * data.units / plan.learning_rate
    return Observed(weights, -np.diff(weights, axis=0) * scale)


def unit_gradients(model: nn.Module, data: TrainingData, max_grad_norm: float) -> Floats:
    """Return each unit's clipped gradient, one after the other, by plain differentiation.

    A unit with a gradient that is not finite has a row of zeros.

    Args:
        model: At the weights in question.
        data: The records; units are subjects where there are any.
        max_grad_norm: The length to cut to.

    Returns:
        float64 [units, parameters]; subjects in ascending order.
    """
    exact = deepcopy(model).double()
    parameters = list(exact.parameters())
    features, labels = torch.from_numpy(data.features).double(), torch.from_numpy(data.labels)
    rows = []
    for members in _members(data):
        loss = nn.functional.cross_entropy(exact(features[members]), labels[members], reduction="sum")
        gradient = torch.cat([one.flatten() for one in torch.autograd.grad(loss, parameters)])
        norm = float(torch.linalg.vector_norm(gradient))
        if not np.isfinite(norm):
            rows.append(np.zeros(len(gradient)))
        else:
            rows.append((gradient * min(1.0, max_grad_norm / max(norm, 1e-12))).numpy())
    return np.stack(rows)


def _members(data: TrainingData) -> Sequence[npt.NDArray[np.int64]]:
    if data.subjects is None:
        return list(np.arange(data.records)[:, None])
    return [np.flatnonzero(data.subjects == one) for one in np.unique(data.subjects)]
