"""Clipping: no unit moves the sum by more than the bound, however large, many or broken its records are.

Rules kept here:

1. The noise is made small beside the clip norm, so that the sum shows through it. What remains after the true
   clipped sum is taken off must be that small noise: any other clipping leaves more.
2. The records are chosen so that each wrong way of clipping gives another sum: lengths far above, just above
   and far below the bound, huge records that point the same way, a subject with many records, and a record
   whose gradient is not finite.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import nn

from cloister.privacy.audit import tails
from cloister.privacy.audit.check import Check
from cloister.privacy.audit.observation import TrainerFactory, observe, unit_gradients
from cloister.privacy.models import build_model
from cloister.privacy.trainer import TrainingData, TrainingPlan

_FEATURES: Final = 12
_NOISE: Final = 0.005
CLIP: Final = 0.9


def clipping(factory: TrainerFactory, alarm: float) -> list[Check]:
    """Check the clipping of a trainer.

    Args:
        factory: Makes the trainer.
        alarm: Chance of a false alarm, shared by the checks made here.
    """
    cases = {
        "huge": ("Records with huge gradients count as the clip norm and no more.", _huge()),
        "mixed": ("Each record's whole gradient is cut to the clip norm, short ones not at all.", mixed()),
        "subject": ("All records of a subject are added up and cut once.", _subjects()),
    }
    each = alarm / (len(cases) + 1)
    checks = [_case(factory, name, claim, data, data, each) for name, (claim, data) in cases.items()]
    broken, rest = _not_finite()
    claim = "A record whose gradient is not finite in float32 contributes nothing."
    return [*checks, _case(factory, "not-finite", claim, broken, rest, each)]


def _case(
    factory: TrainerFactory, name: str, claim: str, data: TrainingData, counted: TrainingData, alarm: float
) -> Check:
    plan = TrainingPlan(1.0, _NOISE, CLIP, 1, float(data.units))
    model = _model()
    expected = unit_gradients(model, counted, CLIP).sum(axis=0)
    released = observe(factory(plan, "site-a"), plan, model, data).sums[0]
    rest = (released - expected) / (_NOISE * CLIP)
    total = float(np.square(rest).sum())
    return Check(
        f"clipping/{name}",
        claim,
        float(np.sqrt(total / len(rest))),
        1.0,
        tails.chi_square(total, len(rest)),
        alarm,
        len(rest),
    )


def _model() -> nn.Module:
    return build_model("mlp", _FEATURES, 2, 0, {"hidden": [16, 16]})


def _rows(count: int) -> np.ndarray:
    rows: np.ndarray = np.sin(1.0 + np.arange(count * _FEATURES, dtype=np.float64)).reshape(count, _FEATURES)
    return rows


def _huge() -> TrainingData:
    return TrainingData(
        np.repeat(_rows(1) * 1e6, 4, axis=0).astype(np.float32), np.array([0, 0, 0, 0], np.int64)
    )


def mixed() -> TrainingData:
    """Records whose gradients are far above, around and far below the clip norm of these checks."""
    scales = np.array([0.0, 0.01, 0.3, 1.0, 1.0, 3.0, 30.0, 1000.0])
    rows = (_rows(8) * scales[:, None]).astype(np.float32)
    with torch.no_grad():
        # Records that the model is sure about have short gradients.
        guess = _model()(torch.from_numpy(rows)).argmax(dim=1).numpy()
    labels = np.where(np.arange(8) % 2, guess, 1 - guess).astype(np.int64)
    return TrainingData(rows, labels)


def _subjects() -> TrainingData:
    rows = np.concatenate([np.repeat(_rows(1), 20, axis=0), _rows(4)[1:]]).astype(np.float32)
    subjects = np.array([3] * 20 + [1, 1, 2], np.int64)
    return TrainingData(rows, np.zeros(23, np.int64), subjects)


def _not_finite() -> tuple[TrainingData, TrainingData]:
    rows = _rows(4).astype(np.float32)
    rows[1] = np.float32(3e38) * np.sign(rows[1])
    labels = np.array([0, 1, 0, 1], np.int64)
    rest = np.array([0, 2, 3])
    return TrainingData(rows, labels), TrainingData(rows[rest], labels[rest])
