"""Membership inference: does a model tell whether a record was in its training data?

Two attacks, a weak and a stronger one:

- *loss threshold*: a record with a small loss is taken for a member;
- *LiRA-lite*: shadow models are trained on random halves; a unit's confidence in models that held it and in
  models that didn't gives two normal laws, and the target model's confidence is held against both. A unit is
  a record, or a subject: all its records are in or out together, and its confidence is their mean.

An attack that fails proves nothing: a better one may not. One that succeeds far beyond what epsilon allows
proves a fault.

Sources: Yeom et al. 2018 (loss threshold); Carlini et al. 2022 (arXiv:2112.03570: LiRA, online, with one
variance for all records where models are few; true positives at a low rate of false ones); Mann and Whitney
1947 (spread of the area).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cloister.privacy.audit.observation import Floats
from cloister.privacy.errors import PrivacyError
from cloister.privacy.trainer import TrainingData

Train = Callable[[TrainingData, int], nn.Module]
"""Trains a new model on records; the number tells runs apart."""

LOW_RATE = 0.01


@dataclass(frozen=True, slots=True)
class Roc:
    """How well scores tell members from others.

    Args:
        area: Area under the curve; 0.5 is guessing.
        spread: Standard deviation of the area of an attack that guesses, for independent scores.
        at_low_rate: Share of members found where one percent of the others are taken for members.
        false_rates: Ascending, for a plot.
        true_rates: The share of members found at each.
    """

    area: float
    spread: float
    at_low_rate: float
    false_rates: Floats = field(repr=False)
    true_rates: Floats = field(repr=False)

    def as_json(self) -> dict[str, float]:
        """The figures without the curve."""
        return {
            "auc": self.area,
            "auc_spread_by_chance": self.spread,
            "tpr_at_1_percent_fpr": self.at_low_rate,
        }


@dataclass(frozen=True, slots=True)
class Membership:
    """What both attacks found about one way to train.

    Args:
        name: The way to train.
        models: Number of models that were trained.
        loss_threshold: The weak attack.
        lira: The stronger one.
    """

    name: str
    models: int
    loss_threshold: Roc
    lira: Roc

    def as_json(self) -> dict[str, object]:
        """The figures as plain JSON."""
        return {
            "name": self.name,
            "models": self.models,
            "loss_threshold": self.loss_threshold.as_json(),
            "lira": self.lira.as_json(),
        }


def roc(scores: Floats, members: npt.NDArray[np.bool_]) -> Roc:
    """Rank by score, the highest first, ties together.

    Args:
        scores: High for a member.
        members: The truth; at least one of each kind.

    Raises:
        PrivacyError: ``privacy.audit_impossible`` when everybody, or nobody, is a member.
    """
    inside, outside = int(members.sum()), int((~members).sum())
    if not inside or not outside:
        raise PrivacyError("privacy.audit_impossible", "An attack needs members and others to tell apart.")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true_rates = np.append(0.0, np.cumsum(members[order])[ends] / inside)
    false_rates = np.append(0.0, np.cumsum(~members[order])[ends] / outside)
    area = float(np.trapezoid(true_rates, false_rates))
    low = float(true_rates[false_rates <= LOW_RATE].max())
    spread = math.sqrt((inside + outside + 1) / (12 * inside * outside))
    return Roc(area, spread, low, false_rates, true_rates)


def most_true(false_rate: float, epsilon: float, delta: float) -> float:
    """Return the largest share of members that any attack may find under (epsilon, delta)-privacy.

    Args:
        false_rate: The share of others that it takes for members.
        epsilon: 0 or more.
        delta: In [0, 1).

    Source: Kairouz, Oh and Viswanath 2015, theorem 2.1.
    """
    grown = math.exp(min(epsilon, 700.0))
    return max(0.0, min(1.0, grown * false_rate + delta, 1 - (1 - delta - false_rate) / grown))


def confidences(model: nn.Module, data: TrainingData) -> Floats:
    """Return log(p / (1 - p)) of each record's own label: float64 [records], high where the loss is small."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(data.features)).double()
    model.train(was_training)
    rows = torch.arange(data.records)
    own = logits[rows, torch.from_numpy(data.labels)]
    logits[rows, torch.from_numpy(data.labels)] = -torch.inf
    found: Floats = (own - torch.logsumexp(logits, dim=1)).numpy()
    return found


def loss_threshold(model: nn.Module, members: TrainingData, others: TrainingData) -> Roc:
    """Attack a model that exists, with its training records and others of the same kind.

    Args:
        model: The model.
        members: Records it was trained on.
        others: Records it was not trained on. Where they differ in kind, the attack sees that too.
    """
    scores = np.concatenate([confidences(model, members), confidences(model, others)])
    return roc(scores, np.arange(len(scores)) < members.records)


def attack_training(
    name: str, train: Train, records: TrainingData, *, models: int = 24, targets: int = 8, seed: int = 0
) -> Membership:
    """Attack a way to train: shadow models on random halves, some of which are the targets in turn.

    Args:
        name: The way to train, for the report.
        train: Trains one model.
        records: What halves are taken of; each unit is in about half of the models.
        models: At least 8.
        targets: From 1 to ``models``; each is attacked with the statistics of all others.
        seed: Of the halves: they protect nobody.

    Returns:
        Both attacks over all targets together.

    Raises:
        PrivacyError: ``privacy.audit_impossible``.
    """
    if models < 8 or not 1 <= targets <= models or records.units < 20:
        raise PrivacyError(
            "privacy.audit_impossible",
            "Shadow models need 20 records or subjects, 8 models, and 1 to 8 targets of them.",
        )
    halves = _halves(models, records.units, seed)
    owner = _owners(records)
    found = np.stack(
        [
            _by_unit(confidences(train(_part(records, half[owner]), number), records), owner)
            for number, half in enumerate(halves)
        ]
    )
    # A model's mean confidence is known to the attacker and tells nothing about a unit.
    rank = np.stack([_ranked(one) for one in found[:targets]])
    ratio = np.stack([_likelihood_ratio(found, halves, target) for target in range(targets)])
    truth = halves[:targets].ravel()
    return Membership(name, models, roc(rank.ravel(), truth), roc(ratio.ravel(), truth))


def _owners(records: TrainingData) -> npt.NDArray[np.intp]:
    """The unit that each record belongs to, from 0: [records]."""
    if records.subjects is None:
        return np.arange(records.records)
    return np.unique(records.subjects, return_inverse=True)[1]


def _by_unit(found: Floats, owner: npt.NDArray[np.intp]) -> Floats:
    """The mean over each unit's records: [units]."""
    mean: Floats = np.bincount(owner, weights=np.clip(found, -50.0, 50.0)) / np.bincount(owner)
    return mean


def _halves(models: int, units: int, seed: int) -> npt.NDArray[np.bool_]:
    """Each unit is in half of the models: [models, units]."""
    order = np.argsort(np.random.default_rng(seed).random((models, units)), axis=0)
    halves: npt.NDArray[np.bool_] = order < models // 2
    return halves


def _part(records: TrainingData, rows: npt.NDArray[np.bool_]) -> TrainingData:
    subjects = None if records.subjects is None else records.subjects[rows]
    return TrainingData(records.features[rows], records.labels[rows], subjects)


def _ranked(scores: Floats) -> Floats:
    """Shares of the other units with a smaller score, so that targets can be thrown together."""
    return np.searchsorted(np.sort(scores), scores) / len(scores)


def _likelihood_ratio(level: Floats, halves: npt.NDArray[np.bool_], target: int) -> Floats:
    """Twice the log likelihood ratio, each side with its predictive variance.

    Without the latter a unit that is in the target, hence in one model fewer of the others, would have its
    mean known less well and score lower for that alone.
    """
    others = np.arange(len(level)) != target
    seen, inside = level[others], halves[others]
    squares = np.zeros(seen.shape)
    distance = []
    for members in (inside, ~inside):
        count = np.maximum(members.sum(axis=0), 1)
        mean = np.where(members, seen, 0.0).sum(axis=0) / count
        squares += np.where(members, np.square(seen - mean), 0.0)
        distance.append(np.square(level[target] - mean) / (1 + 1 / count))
    ratio: Floats = (distance[1] - distance[0]) / (squares.mean() + 1e-12)
    return ratio


def train_plainly(model: nn.Module, data: TrainingData, *, steps: int, learning_rate: float) -> nn.Module:
    """Train in place by plain gradient descent on all records, with no protection at all.

    Args:
        model: The model.
        data: The records.
        steps: Number of steps.
        learning_rate: Step size.
    """
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    parameters: Sequence[nn.Parameter] = list(model.parameters())
    velocity = [torch.zeros_like(parameter) for parameter in parameters]
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(features), labels)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, speed, gradient in zip(parameters, velocity, gradients, strict=True):
                speed.mul_(0.9).add_(gradient)
                parameter.sub_(speed, alpha=learning_rate)
    return model
