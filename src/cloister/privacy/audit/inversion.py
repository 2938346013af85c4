"""Gradient inversion: rebuilding records from one update, as whoever receives it could try.

Two attacks, and the better one counts for each record:

- *division*: a first linear layer's weight gradient is the bias gradient times the input, so one divided by
  the other is a record, wherever a neuron fired for that record alone;
- *matching*: records are searched for whose gradient points the way the update does.

The attacker is favoured: it knows the weights and all labels, every record is in the batch, and for each
record the closest of all its candidates is taken. What that choice alone yields from candidates that hold no
information is stated as chance.

Sources: Phong et al. 2018, section III (division); Zhu et al. 2019 (matching); Geiping et al. 2020
(arXiv:2003.14053, cosine as the distance, signs of its gradient); Fowl et al. 2022 (neurons of one record).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import nn

from cloister.privacy.audit.observation import Floats, TrainerFactory, observe, unit_gradients
from cloister.privacy.errors import PrivacyError
from cloister.privacy.models import build_model
from cloister.privacy.trainer import TrainingData, TrainingPlan

_HIDDEN: Final = 256
_SEARCH: Final = 400
_SMOOTH: Final = 0.01


@dataclass(frozen=True, slots=True)
class Inversion:
    """What was rebuilt from one update.

    Args:
        name: How the update was protected.
        similarity: float64 [records], the absolute correlation of each record with what was rebuilt of it.
        chance: The mean similarity of candidates that hold no information, picked the same way.
        rebuilt: float64 [records, features], scaled to the record's mean and spread, for a picture.
    """

    name: str
    similarity: Floats
    chance: float
    rebuilt: Floats = field(repr=False)

    def as_json(self) -> dict[str, object]:
        """The figures without the records."""
        return {
            "name": self.name,
            "records": len(self.similarity),
            "mean_similarity": float(self.similarity.mean()),
            "best_similarity": float(self.similarity.max()),
            "chance": self.chance,
        }


def attack_updates(
    factory: TrainerFactory, plan: TrainingPlan, victims: TrainingData, *, seed: int = 0
) -> tuple[Inversion, ...]:
    """Attack the update of one step over all victims: unprotected, clipped, and as a trainer releases it.

    Args:
        factory: Makes the trainer.
        plan: Its clip norm and noise multiplier are used, for one step with everybody in the batch.
        victims: From 2 to 64 records, each a unit.
        seed: Of the model and the search.

    Returns:
        One result for each of the three.

    Raises:
        PrivacyError: ``privacy.audit_impossible`` for another number of victims.
    """
    if victims.records > 64 or victims.subjects is not None:
        raise PrivacyError("privacy.audit_impossible", "An update of at most 64 records is attacked.")
    classes = max(2, int(victims.labels.max()) + 1)
    width = victims.features.shape[1]
    model = build_model("mlp", width, classes, seed, {"hidden": [_HIDDEN]})
    one_step = TrainingPlan(
        1.0, plan.noise_multiplier, plan.max_grad_norm, 1, float(victims.units), physical_batch=64
    )
    updates = {
        "no protection": unit_gradients(model, victims, np.inf).sum(axis=0),
        "clipped, no noise": unit_gradients(model, victims, plan.max_grad_norm).sum(axis=0),
    }
    trained = build_model("mlp", width, classes, seed, {"hidden": [_HIDDEN]})
    released = observe(factory(one_step, "site-a"), one_step, trained, victims).sums[0]
    updates[f"clipped, noise {plan.noise_multiplier:.3g} x clip norm"] = released
    return tuple(_attack(name, model, update, victims, seed) for name, update in updates.items())


def _attack(name: str, model: nn.Module, update: Floats, victims: TrainingData, seed: int) -> Inversion:
    found = np.concatenate((divided(model, update), matched(model, update, victims.labels, seed)))
    blind = np.random.default_rng(seed).standard_normal(found.shape)
    records = victims.features.astype(np.float64)
    likeness, closest = _closest(records, found)
    signs = np.sign((_standard(records) * _standard(found)[closest]).sum(axis=1, keepdims=True))
    spread, middle = records.std(axis=1, keepdims=True), records.mean(axis=1, keepdims=True)
    width = np.sqrt(records.shape[1])
    rebuilt = _standard(found)[closest] * signs * width * spread + middle
    return Inversion(name, likeness, float(_closest(records, blind)[0].mean()), rebuilt)


def _closest(records: Floats, candidates: Floats) -> tuple[Floats, np.ndarray]:
    """The largest absolute correlation of each record with any candidate, and whose it is."""
    alike = np.abs(_standard(records) @ _standard(candidates).T)
    return alike.max(axis=1), alike.argmax(axis=1)


def _standard(rows: Floats) -> Floats:
    """Rows with mean 0 and length 1."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    unit: Floats = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return unit


def divided(model: nn.Module, update: Floats) -> Floats:
    """Divide the first layer's weight gradient by its bias gradient, neuron by neuron.

    Args:
        model: Begins with a Linear layer.
        update: The sum that was released, flat.

    Returns:
        float64 [neurons, features], those neurons that have a gradient.
    """
    weight, bias = list(model.parameters())[:2]
    size = weight.numel()
    rows = update[:size].reshape(weight.shape)
    base = update[size : size + bias.numel()]
    fired = np.abs(base) > 1e-9 * np.abs(base).max()
    candidates: Floats = rows[fired] / base[fired, None]
    return candidates


def matched(model: nn.Module, update: Floats, labels: np.ndarray, seed: int) -> Floats:
    """Search for records whose summed gradient has the direction of the update, by signed Adam steps.

    Args:
        model: At the weights the update was computed at.
        update: The sum that was released, flat.
        labels: Of the records, known to this attacker.
        seed: Of the search's start.

    Returns:
        float64 [records, features].
    """
    parameters = list(model.parameters())
    width = parameters[0].shape[1]
    target = torch.from_numpy(update).float()
    target = target / target.norm()
    start = np.random.default_rng(seed).standard_normal((len(labels), width)) * 0.1
    rows = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    wanted = torch.from_numpy(labels)
    first, second = torch.zeros_like(rows), torch.zeros_like(rows)
    for step in range(1, _SEARCH + 1):
        loss = nn.functional.cross_entropy(model(rows), wanted, reduction="sum")
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])
        apart = 1 - (gradient @ target) / (gradient.norm() + 1e-12) + _SMOOTH * rows.square().mean()
        (slope,) = torch.autograd.grad(apart, rows)
        with torch.no_grad():
            slope = slope.sign()
            first.mul_(0.9).add_(slope, alpha=0.1)
            second.mul_(0.999).add_(slope.square(), alpha=0.001)
            rate = 0.1 * (1 - step / (_SEARCH + 1))
            rows -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    found: Floats = rows.detach().double().numpy()
    return found
