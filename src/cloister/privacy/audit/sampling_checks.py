"""Sampling: who was in each batch, read off the released sums, must look like independent coins.

Rules kept here:

1. Each unit has a coordinate of its own and noise is small, so that the sum shows who took part.
2. Amplification is lost when batches have a fixed size, run through the data in turn, or hold neighbours
   together; each of these shows in a count of its own.
3. The sums must be scaled by the expected batch size. After the true sum is taken off, noise of the stated
   scale must remain in every step.
4. Sites draw their batches independently.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from cloister.privacy.audit import tails
from cloister.privacy.audit.check import Check
from cloister.privacy.audit.observation import Observed, TrainerFactory, observe, unit_gradients
from cloister.privacy.models import build_model
from cloister.privacy.trainer import TrainingData, TrainingPlan

_UNITS: Final = 200
_PROBABILITY: Final = 0.25
_NOISE: Final = 0.02
_FAR: Final = 1000.0
"""Size of a unit's one feature: so large that every gradient is longer than the clip norm."""

Batches = npt.NDArray[np.bool_]


def sampling(factory: TrainerFactory, inclusions: int, alarm: float) -> list[Check]:
    """Check the batches of a trainer.

    Args:
        factory: Makes the trainer.
        inclusions: Number of coins to look at, at least.
        alarm: Chance of a false alarm, shared by the checks made here.
    """
    steps = -(-inclusions // _UNITS)
    steps += steps % 2
    batches, rest = _watch(factory, "site-a", steps)
    other, _ = _watch(factory, "site-b", steps)
    each = alarm / 8
    q, count = _PROBABILITY, batches.size
    by_unit = batches.sum(axis=0)
    strangest = int(by_unit[np.argmax(np.abs(by_unit - steps * q))])
    spread, spread_chance = tails.dispersion(batches.sum(axis=1), _UNITS, q)
    total = float(np.square(rest).sum())
    return [
        _count("sampling/rate", "Units join batches at the plan's rate.", batches.sum(), count, q, each),
        Check(
            "sampling/every-unit",
            "Every single unit joins at the plan's rate: the one furthest off.",
            strangest / steps,
            q,
            min(1.0, _UNITS * tails.binomial(strangest, steps, q)),
            each,
            count,
        ),
        Check(
            "sampling/batch-size",
            "Batch sizes scatter like a binomial: variance over the binomial's.",
            spread,
            1.0,
            spread_chance,
            each,
            steps,
        ),
        _count(
            "sampling/turns",
            "A unit in one batch is as likely as others to be in the next.",
            (batches[::2] & batches[1::2]).sum(),
            count // 2,
            q * q,
            each,
        ),
        _count(
            "sampling/neighbours",
            "Units that stand side by side join independently.",
            (batches[:, ::2] & batches[:, 1::2]).sum(),
            count // 2,
            q * q,
            each,
        ),
        _count(
            "sampling/distant",
            "Units that stand far apart join independently.",
            (batches[:, : _UNITS // 2] & batches[:, _UNITS // 2 :]).sum(),
            count // 2,
            q * q,
            each,
        ),
        _count(
            "sampling/sites",
            "Two sites draw their batches independently.",
            (batches & other).sum(),
            count,
            q * q,
            each,
        ),
        Check(
            "sampling/sum",
            "In every sampled step noise of the plan's scale is added to the sum, whatever the batch's size.",
            float(np.sqrt(total / rest.size)),
            1.0,
            tails.chi_square(total, rest.size),
            each,
            rest.size,
        ),
    ]


def _count(name: str, claim: str, successes: int, trials: int, probability: float, alarm: float) -> Check:
    chance = tails.binomial(int(successes), trials, probability)
    return Check(name, claim, int(successes) / trials, probability, chance, alarm, trials)


def _watch(factory: TrainerFactory, site: str, steps: int) -> tuple[Batches, npt.NDArray[np.float64]]:
    """Return who was in each step's batch, and what remains of the sums, in standard deviations."""
    plan = TrainingPlan(_PROBABILITY, _NOISE, 1.0, steps, 1e-6 * _PROBABILITY * _UNITS)
    data = TrainingData(np.eye(_UNITS, dtype=np.float32) * np.float32(_FAR), np.zeros(_UNITS, np.int64))
    model = build_model("logistic-regression", _UNITS, 2, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    # A gradient's direction does not change with the weights, and its length is the clip norm throughout.
    signs = unit_gradients(model, data, 1.0)
    seen: Observed = observe(factory(plan, site), plan, model, data)
    batches: Batches = seen.sums @ signs.T > 0.5
    return batches, (seen.sums - batches @ signs) / _NOISE
