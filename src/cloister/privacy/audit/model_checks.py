"""One model of one's own under a trainer: noise on each of its tensors, and its gradients clipped as a whole.

The other checks use small networks made for them. These two are for the architecture that a job trains, where
a layer may be of a kind whose clipping is written apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import nn

from cloister.privacy.audit import tails
from cloister.privacy.audit.check import Check
from cloister.privacy.audit.observation import (
    Floats,
    TrainerFactory,
    observe,
    tensors_of,
    unit_gradients,
)
from cloister.privacy.trainer import TrainingData, TrainingPlan

_RECORDS: Final = 6
_FAINT: Final = 0.005


@dataclass(frozen=True, slots=True)
class AuditedModel:
    """A model to run the checks on.

    Args:
        build: Makes the model, each time with the same weights.
        features: Number of features it takes.
    """

    build: Callable[[], nn.Module]
    features: int


def own_model(factory: TrainerFactory, audited: AuditedModel, alarm: float) -> list[Check]:
    """Check the noise on each tensor of a model, and the clipping of its gradients.

    Args:
        factory: Makes the trainer.
        audited: The model.
        alarm: Chance of a false alarm, shared by the checks made here.
    """
    data = _records(audited.features)
    tensors = tensors_of(audited.build())
    lengths = np.linalg.norm(unit_gradients(audited.build(), data, np.inf), axis=1)
    # Half of the records are cut.
    clip = float(np.median(lengths))
    each = alarm / (len(tensors) + 1)
    loud = _rest(factory, audited, data, TrainingPlan(1.0, 1.0, clip, 1, float(_RECORDS)))
    faint = _rest(factory, audited, data, TrainingPlan(1.0, _FAINT, clip, 1, float(_RECORDS)))
    checks = [
        _check(
            f"model/{one.name}",
            f"Noise on {one.name} has the plan's scale.",
            loud[one.start : one.stop],
            each,
        )
        for one in tensors
    ]
    claim = "Each record's gradient of this model is cut as a whole."
    return [*checks, _check("model/clipping", claim, faint, each)]


def _check(name: str, claim: str, rest: Floats, alarm: float) -> Check:
    total = float(np.square(rest).sum())
    ratio = float(np.sqrt(total / len(rest)))
    return Check(name, claim, ratio, 1.0, tails.chi_square(total, len(rest)), alarm, len(rest))


def _rest(factory: TrainerFactory, audited: AuditedModel, data: TrainingData, plan: TrainingPlan) -> Floats:
    """What remains of the released sum without the true one, in the noise's standard deviations."""
    expected = unit_gradients(audited.build(), data, plan.max_grad_norm).sum(axis=0)
    released = observe(factory(plan, "site-a"), plan, audited.build(), data).sums[0]
    rest: Floats = (released - expected) / (plan.noise_multiplier * plan.max_grad_norm)
    return rest


def _records(features: int) -> TrainingData:
    rows = np.sin(1.0 + np.arange(_RECORDS * features, dtype=np.float64)).reshape(_RECORDS, features)
    scales = np.linspace(0.2, 3.0, _RECORDS)[:, None]
    return TrainingData((rows * scales).astype(np.float32), np.arange(_RECORDS, dtype=np.int64) % 2)
