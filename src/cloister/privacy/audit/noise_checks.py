"""Noise: its scale and law on every tensor, with and without records, and that none is used twice.

Rules kept here:

1. What remains after the true clipped sum is taken off must be noise of the stated scale, tensor by tensor:
   a layer without noise can't hide behind the others.
2. A step on an empty batch is noise of the same scale; otherwise it shows that nobody was there.
3. Noise of different steps, rounds, restarts and sites is compared at every offset against each other, so
   that a stream that is used again, shifted or in part, is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final

import numpy as np

from cloister.privacy.audit import tails
from cloister.privacy.audit.check import Check
from cloister.privacy.audit.observation import (
    Floats,
    Tensor,
    Trainer,
    TrainerFactory,
    observe,
    tensors_of,
    unit_gradients,
)
from cloister.privacy.models import build_model
from cloister.privacy.trainer import TrainingData, TrainingPlan

_FEATURES: Final = 100
_HIDDEN: Final = (256, 256)
_PLAN: Final = TrainingPlan(1.0, 1.0, 1.0, 1, 1.0)
_NEVER: Final = 1e-9
"""A sampling probability with which two units are as good as never drawn."""


def noise_scale(factory: TrainerFactory, draws: int, alarm: float) -> list[Check]:
    """Check the scale and the law of the noise with everybody in the batch.

    Args:
        factory: Makes the trainer.
        draws: Number of noise values to look at, at least.
        alarm: Chance of a false alarm, shared by the checks made here.
    """
    model = build_model("mlp", _FEATURES, 2, 0, {"hidden": list(_HIDDEN)})
    expected = unit_gradients(model, _records(4), _PLAN.max_grad_norm).sum(axis=0)
    plan = replace(_PLAN, learning_rate=4.0)
    tensors = tensors_of(model)
    fits = -(-draws // tensors[-1].stop)
    values = np.stack([_noise(factory, plan, _records(4)) for _ in range(fits)]) - expected
    each = alarm / (len(tensors) + 2)
    distance, chance = tails.normal_shape(values.ravel())
    return [
        _scale("noise-scale", "All noise together has the plan's standard deviation.", values, each),
        *_by_tensor("noise-scale", values, tensors, each),
        Check(
            "noise-law",
            "The noise is normal: distance of its distribution function from the normal one.",
            distance,
            0.0,
            chance,
            each,
            values.size,
        ),
    ]


def empty_batch(factory: TrainerFactory, alarm: float) -> list[Check]:
    """Check that a step on an empty batch is noise of the same scale on every tensor."""
    plan = replace(_PLAN, sampling_probability=_NEVER, learning_rate=4 * _NEVER)
    tensors = tensors_of(build_model("mlp", _FEATURES, 2, 0, {"hidden": list(_HIDDEN)}))
    values = _noise(factory, plan, _records(4))[None]
    return _by_tensor("empty-batch", values, tensors, alarm / len(tensors))


def freshness(factory: TrainerFactory, alarm: float) -> list[Check]:
    """Check that steps, rounds, restarts and sites never share noise, and that no half of it repeats."""
    plan = replace(_PLAN, steps=2, learning_rate=2.0)
    data = _records(2)
    first = factory(plan, "site-a")
    rounds = [_released(first, plan, data), _released(first, plan, data)]
    restarted = _released(factory(plan, "site-a"), plan, data)
    other = _released(factory(plan, "site-b"), plan, data)
    half = rounds[0].shape[1] // 2
    cases = {
        "steps": [rounds[0][0], rounds[0][1]],
        "rounds": [rounds[0][0], rounds[1][0], rounds[1][1]],
        "restarts": [rounds[0][0], restarted[0], restarted[1]],
        "sites": [rounds[0][0], other[0], other[1]],
        "tensors": [rounds[0][0][:half], rounds[0][0][half : 2 * half]],
    }
    return [_different(name, noises, alarm / len(cases)) for name, noises in cases.items()]


def noise_error_found(draws: int, alarm: float) -> float:
    """Return the smallest relative error of a standard deviation that is found with probability 0.999.

    Args:
        draws: Number of noise values.
        alarm: Chance of a false alarm.
    """
    spread = np.sqrt(2 / draws)
    needed = np.sqrt(-2 * np.log(alarm / 2)) + 3.1
    return float(1 - np.sqrt(max(0.0, 1 - needed * spread)))


def _scale(name: str, claim: str, values: Floats, alarm: float) -> Check:
    total = float(np.square(values).sum())
    ratio = float(np.sqrt(total / values.size))
    return Check(name, claim, ratio, 1.0, tails.chi_square(total, values.size), alarm, values.size)


def _by_tensor(name: str, values: Floats, tensors: Sequence[Tensor], alarm: float) -> list[Check]:
    return [
        _scale(
            f"{name}/{tensor.name}",
            f"{'On an empty batch the' if name == 'empty-batch' else 'The'} noise on {tensor.name} has the"
            " plan's standard deviation.",
            values[:, tensor.start : tensor.stop],
            alarm,
        )
        for tensor in tensors
    ]


def _different(name: str, noises: Sequence[Floats], alarm: float) -> Check:
    pairs = list(combinations([noise / np.linalg.norm(noise) for noise in noises], 2))
    largest = max(_largest_cosine(one, other) for one, other in pairs)
    length = len(noises[0])
    return Check(
        f"freshness/{name}",
        f"Noise is never used again across {name}: largest cosine at any offset.",
        largest,
        0.0,
        tails.cosine(largest, length, len(pairs) * length),
        alarm,
        length * len(noises),
    )


def _largest_cosine(one: Floats, other: Floats) -> float:
    """The largest absolute cosine of two vectors, the second one rotated by every offset."""
    product = np.fft.rfft(one) * np.conj(np.fft.rfft(other))
    return float(np.abs(np.fft.irfft(product, len(one))).max())


def _noise(factory: TrainerFactory, plan: TrainingPlan, data: TrainingData) -> Floats:
    noise: Floats = _released(factory(plan, "site-a"), plan, data)[0]
    return noise


def _released(trainer: Trainer, plan: TrainingPlan, data: TrainingData) -> Floats:
    model = build_model("mlp", _FEATURES, 2, 0, {"hidden": list(_HIDDEN)})
    return observe(trainer, plan, model, data).sums


def _records(count: int) -> TrainingData:
    features = np.sin(np.arange(count * _FEATURES, dtype=np.float64)).reshape(count, _FEATURES)
    return TrainingData(features.astype(np.float32), np.arange(count, dtype=np.int64) % 2)
