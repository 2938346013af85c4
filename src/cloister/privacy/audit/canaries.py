"""A lower bound on epsilon from one training run: canaries that are in or out by a coin, and a guesser.

Rules kept here:

1. Each canary is a unit that joins the data by an independent fair coin. From what the steps released, the
   auditor guesses the coins it is surest of. If the trainer is (epsilon, delta)-private under adding or
   removing a unit, too many right guesses are unlikely: that bound is inverted.
2. The auditor is as strong as the definition allows: it knows every step's weights and all records but the
   coins. The known records' expected part of each sum is taken off, and what remains is scored by the
   likelihood ratio of Poisson sampling with Gaussian noise.
3. Two scores and six numbers of guesses are tried, a fixed list; the confidence is divided over it. The
   second score compares each step with the one before, so that noise which repeats drops out.
4. The auditor's own coins have a seed: they protect nobody.

A bound below the claimed epsilon is not evidence that the claim holds: most faults leave it there.

Source: Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846), theorem 5.2 and algorithm 1; p-value as in its
appendix D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from cloister.privacy.audit.observation import Floats, Observed, TrainerFactory, observe
from cloister.privacy.errors import PrivacyError
from cloister.privacy.models import build_model
from cloister.privacy.trainer import TrainingData, TrainingPlan

_SHARES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of the canaries that are guessed; fixed before any data."""

_FAR: Final = 1000.0
_SMALL_STEP: Final = 1e-7
_MEDIAN_OF_NORMAL: Final = 0.6744897501960817


@dataclass(frozen=True, slots=True)
class CanaryAudit:
    """What one run gave away about its canaries.

    Args:
        canaries: How many took part in the game.
        guesses: How many coins were guessed, where the bound is largest.
        right: How many of them rightly.
        delta: The delta of the claim.
        confidence: With which the bound holds, over everything that was tried.
        bound: Lower bound on epsilon, 0 or more.
        claimed: The epsilon that the plan is accounted with.
        scores: float64 [canaries], high for "was in".
        inside: bool [canaries], the coins.
    """

    canaries: int
    guesses: int
    right: int
    delta: float
    confidence: float
    bound: float
    claimed: float
    scores: Floats = field(repr=False)
    inside: npt.NDArray[np.bool_] = field(repr=False)

    @property
    def refutes(self) -> bool:
        """Whether the run shows that the claim is false."""
        return self.bound > self.claimed

    def as_json(self) -> dict[str, object]:
        """The result as plain JSON, without the scores."""
        return {
            "canaries": self.canaries,
            "guesses": self.guesses,
            "right": self.right,
            "delta": self.delta,
            "confidence": self.confidence,
            "epsilon_lower_bound": self.bound,
            "epsilon_claimed": self.claimed,
            "refutes_the_claim": self.refutes,
        }


def audit_with_canaries(
    factory: TrainerFactory,
    plan: TrainingPlan,
    claimed: float,
    delta: float,
    *,
    canaries: int = 2000,
    records: TrainingData | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> CanaryAudit:
    """Train once with canaries of one coordinate each, and bound epsilon from below.

    The model is a logistic regression with one more feature for each canary. A canary's record is that
    feature alone and so large that its gradient is longer than the clip norm: it lies along its own
    coordinate, where it is seen best.

    Args:
        factory: Makes the trainer.
        plan: The plan that is claimed about. The auditor sets learning rate and momentum: privacy holds for
            all of them, and small steps keep the canaries' gradients long.
        claimed: Epsilon of the whole plan.
        delta: Delta of the claim.
        canaries: From 100.
        records: Known records that are trained on as well; None for none. Each is a unit.
        confidence: Of the bound, in (0.5, 1).
        seed: Of the auditor's coins.

    Returns:
        The bound, with the scores behind it.

    Raises:
        PrivacyError: ``privacy.audit_impossible``.
    """
    if canaries < 100 or not 0.5 < confidence < 1 or not 0 <= delta < 1:
        raise PrivacyError(
            "privacy.audit_impossible",
            "A canary audit needs 100 canaries or more, a confidence in (0.5, 1) and a delta in [0, 1).",
        )
    if records is not None and records.subjects is not None:
        raise PrivacyError("privacy.audit_impossible", "Canaries go with records, not with subjects.")
    inside = np.random.default_rng(seed).integers(0, 2, canaries).astype(np.bool_)
    data = _planted(canaries, records, inside)
    plan = replace(plan, momentum=0.0, learning_rate=_SMALL_STEP * plan.sampling_probability * data.units)
    model = build_model("logistic-regression", data.features.shape[1], 2, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    seen = observe(factory(plan, "site-a"), plan, model, data)
    tried = _scores(plan, seen, canaries, records)
    return _bounded(tried, inside, claimed, delta, confidence)


def _planted(canaries: int, records: TrainingData | None, inside: npt.NDArray[np.bool_]) -> TrainingData:
    """The known records and those canaries that are in; each canary has a feature of its own."""
    own = 0 if records is None else records.features.shape[1]
    planted = np.zeros((canaries, own + canaries), np.float32)
    planted[np.arange(canaries), own + np.arange(canaries)] = _FAR
    planted, labels = planted[inside], np.zeros(int(inside.sum()), np.int64)
    if records is None:
        return TrainingData(planted, labels)
    known = np.pad(records.features, ((0, 0), (0, canaries)))
    return TrainingData(np.concatenate((known, planted)), np.concatenate((records.labels, labels)))


def _scores(
    plan: TrainingPlan, seen: Observed, canaries: int, records: TrainingData | None
) -> tuple[Floats, Floats]:
    """Add up, over the steps, each canary's log likelihood ratio of "in" against "out", and its movement."""
    q, clip = plan.sampling_probability, plan.max_grad_norm
    claimed = plan.noise_multiplier * clip
    # A faulty trainer adds less than it says: the auditor believes what it sees, whatever the coins were.
    visible = float(np.median(np.abs(seen.sums))) / _MEDIAN_OF_NORMAL
    variance = min(claimed, max(visible, 0.05 * claimed)) ** 2
    chance_out = math.log1p(-q) if q < 1 else -math.inf
    known = None if records is None else records.features.astype(np.float64)
    labels = np.zeros(canaries, np.int64)
    ratios, movement, before = np.zeros(canaries), np.zeros(canaries), None
    for weights, released in zip(seen.weights[:-1], seen.sums, strict=True):
        matrix, bias = _layer(weights)
        rest, rest_bias = _layer(released)
        if known is not None and records is not None:
            own = known.shape[1]
            logits = known @ matrix[:, :own].T + bias
            errors = _clipped_errors(logits, records.labels, np.square(known).sum(axis=1), clip)
            rest = rest - np.pad(q * errors.T @ known, ((0, 0), (0, canaries)))
            rest_bias = rest_bias - q * errors.sum(axis=0)
        errors = _clipped_errors(
            _FAR * matrix[:, -canaries:].T + bias, labels, np.full(canaries, _FAR**2), clip
        )
        product = (errors * (_FAR * rest[:, -canaries:].T + rest_bias)).sum(axis=1)
        squares = np.square(errors).sum(axis=1) * (_FAR**2 + 1)
        ratios += np.logaddexp(chance_out, math.log(q) + (product - squares / 2) / variance)
        movement += 0.0 if before is None else np.square(product - before)
        before = product
    return ratios, movement


def _layer(flat: Floats) -> tuple[Floats, Floats]:
    """Take a flat vector of a layer of two outputs apart: weights [2, features], bias [2]."""
    return flat[:-2].reshape(2, -1), flat[-2:]


def _clipped_errors(logits: Floats, labels: npt.NDArray[np.int64], squares: Floats, clip: float) -> Floats:
    """Each record's gradient at the logits, cut so that the whole gradient is at most ``clip`` long.

    Args:
        logits: [records, 2].
        labels: [records].
        squares: The squared length of each record's features.
        clip: The clip norm.
    """
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors = share / share.sum(axis=1, keepdims=True)
    errors[np.arange(len(labels)), labels] -= 1
    lengths = np.linalg.norm(errors, axis=1) * np.sqrt(squares + 1)
    clipped: Floats = errors * np.minimum(1.0, clip / np.maximum(lengths, 1e-12))[:, None]
    return clipped


def _bounded(
    tried: tuple[Floats, Floats],
    inside: npt.NDArray[np.bool_],
    claimed: float,
    delta: float,
    confidence: float,
) -> CanaryAudit:
    count = len(inside)
    alarm = (1 - confidence) / (len(_SHARES) * len(tried))
    best = (-1.0, 0, 0, 0)
    for which, scores in enumerate(tried):
        order = np.argsort(-scores)
        for share in _SHARES:
            half = max(1, round(share * count / 2))
            right = int(inside[order[:half]].sum() + (~inside[order[-half:]]).sum())
            bound = epsilon_lower_bound(count, 2 * half, right, delta, alarm)
            best = max(best, (bound, 2 * half, right, which))
    bound, guesses, right, which = best
    return CanaryAudit(count, guesses, right, delta, confidence, bound, claimed, tried[which], inside)


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Bound on the chance of so many right guesses if the trainer is (epsilon, delta)-private.

    Args:
        canaries: All of them.
        guesses: Coins that were guessed, at most ``canaries``.
        right: Guessed rightly, at most ``guesses``.
        epsilon: 0 or more.
        delta: In [0, 1).
    """
    chances = _binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    beta = float(chances[right:].sum())
    below = np.cumsum(chances[:right][::-1])
    alpha = float((below / np.arange(1, right + 1)).max(initial=0.0))
    return min(1.0, beta + alpha * delta * 2 * canaries)


def epsilon_lower_bound(canaries: int, guesses: int, right: int, delta: float, alarm: float) -> float:
    """Return the largest epsilon that is refuted at level ``alarm``, within 1e-4; 0 if none is.

    Args:
        canaries: All of them.
        guesses: Coins that were guessed.
        right: Guessed rightly.
        delta: In [0, 1).
        alarm: One minus the confidence.
    """
    if p_value(canaries, guesses, right, 0.0, delta) >= alarm:
        return 0.0
    low, high = 0.0, 1.0
    while high < 64 and p_value(canaries, guesses, right, high, delta) < alarm:
        low, high = high, 2 * high
    while high - low > 1e-4:
        middle = (low + high) / 2
        if p_value(canaries, guesses, right, middle, delta) < alarm:
            low = middle
        else:
            high = middle
    return low


def _binomial(trials: int, probability: float) -> Floats:
    """Probabilities of 0 to ``trials`` successes."""
    counts = torch.arange(trials + 1, dtype=torch.float64)
    if probability >= 1:
        return (counts == trials).double().numpy()
    ways = torch.lgamma(torch.full_like(counts, trials + 1.0))
    ways -= torch.lgamma(counts + 1) + torch.lgamma(trials - counts + 1)
    logs = ways + counts * math.log(probability) + (trials - counts) * math.log1p(-probability)
    chances: Floats = logs.exp().numpy()
    return chances
