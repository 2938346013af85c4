"""Private logistic regression without private training: noise on the minimiser, or on its objective.

Rules kept here:

1. Only for regularised logistic regression (:class:`LogisticProblem`): rows bounded by 1, strongly convex,
   one minimum. There is no way to hand in a network; for those, train with DP-SGD, whose final weights are
   post-processing and need no noise again.
2. Guarantees are for one unit added or removed, with the regularisation of the whole sum held fixed.
   Replacing one unit is one removed and one added: twice the epsilon. (Chaudhuri et al. state replacement:
   there the minimiser moves by ``2 / regularisation``.)
3. The minimiser is computed, not exact. How far it may be off is certified (:mod:`cloister.privacy.convex`)
   and is part of the sensitivity, or hidden by noise of its own, paid with ``HIDING`` of the epsilon.
4. Released weights are points of a grid.
5. The spend is reserved before the records are touched.

The arguments, with R the regularisation, rows of norm at most 1 and losses of curvature at most 1/4:

- Output: one term more moves the minimiser by ``1 / R`` at most. Noise with density ``exp(-rate |b|)`` and
  rate ``epsilon * R`` is epsilon-private; a Gaussian one is a Gaussian mechanism of sensitivity ``1 / R``.
- Objective: the shift b is recovered from the released minimiser as minus the gradient there. One term more
  moves it by at most 1 and changes the determinant of the change of variables by ``1 + 1 / (4 R)`` at most.
  So noise of rate r is ``r + log(1 + 1 / (4 R))``-private. With a Gaussian shift of deviation s, the term
  moves it along its own row, where b is normal: with ``t`` standard deviations, the loss passes
  ``1 / (2 s^2) + t / s + log(1 + 1 / (4 R))`` with a chance of ``2 Q(t)`` at most, which is delta.

Sources: Chaudhuri, Monteleoni, Sarwate 2011 (JMLR 12, algorithms 1 and 2, theorems 6 and 9); Kifer, Smith,
Thakurta 2012 (COLT, Gaussian objective perturbation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from cloister.core.errors import InputError
from cloister.evidence.transcript import Approximate, Event, Gaussian, Pure, Unit
from cloister.privacy.account import Account
from cloister.privacy.convex import CURVATURE, LIPSCHITZ, LogisticProblem
from cloister.privacy.errors import PrivacyError
from cloister.privacy.ledger import Purpose
from cloister.privacy.noise import GaussianIntegers, choose_grid
from cloister.privacy.pure_noise import NORMAL_ERROR, finish, normals, radial_noise
from cloister.privacy.randomness import RandomSource

Vector = npt.NDArray[np.float64]

HIDING: Final = 1 / 64
"""Share of epsilon that hides how far a computed minimiser is off."""


@dataclass(frozen=True, slots=True)
class OutputPure:
    """Noise of Gamma-distributed length on the minimiser: epsilon, no delta (algorithm 1)."""

    epsilon: float

    @property
    def event(self) -> Event:
        """What it costs."""
        return Pure(self.epsilon, 1)


@dataclass(frozen=True, slots=True)
class OutputGaussian:
    """Gaussian noise on the minimiser; the noise multiplier is in units of its sensitivity."""

    noise_multiplier: float

    @property
    def event(self) -> Event:
        """What it costs."""
        return Gaussian(self.noise_multiplier, 1)


@dataclass(frozen=True, slots=True)
class ObjectivePure:
    """Noise of Gamma-distributed length in the objective: epsilon, no delta (algorithm 2)."""

    epsilon: float

    @property
    def event(self) -> Event:
        """What it costs."""
        return Pure(self.epsilon, 1)


@dataclass(frozen=True, slots=True)
class ObjectiveGaussian:
    """Gaussian noise in the objective: epsilon and delta."""

    epsilon: float
    delta: float

    @property
    def event(self) -> Event:
        """What it costs."""
        return Approximate(self.epsilon, self.delta, 1)


Perturbation = OutputPure | OutputGaussian | ObjectivePure | ObjectiveGaussian


@dataclass(frozen=True, slots=True)
class PerturbedModel:
    """Weights that may leave.

    Args:
        weights: float64 of shape [features].
        event: What they cost.
        noise_generator: Name of the generator that made the noise.
    """

    weights: Vector
    event: Event
    noise_generator: str


def fit_perturbed(
    problem: LogisticProblem, perturbation: Perturbation, *, source: RandomSource, account: Account
) -> PerturbedModel:
    """Fit a logistic regression and release it privately, charged to the ledger.

    Args:
        problem: The records, private, and the public regularisation.
        perturbation: Which mechanism, and its price.
        source: Where the noise comes from.
        account: Who pays.

    Raises:
        BudgetExceeded: The spend would pass a limit; the records weren't touched.
        PrivacyError: ``privacy.wrong_unit`` for rows of records under a budget of subjects, or the reverse;
            ``privacy.plan_invalid`` for an impossible price, or a regularisation too small for it;
            ``privacy.not_minimised``: the spend stays spent.
    """
    try:
        event = perturbation.event
    except InputError as error:
        raise PrivacyError("privacy.plan_invalid", error.message) from None
    work: Callable[[], Vector]
    match perturbation:
        case OutputPure():
            work = partial(_output_pure, problem, perturbation.epsilon, source)
        case OutputGaussian():
            work = partial(_output_gaussian, problem, perturbation.noise_multiplier, source)
        case ObjectivePure() | ObjectiveGaussian():
            left = _left_for_noise(problem, perturbation.epsilon)
            work = partial(_objective, problem, perturbation, left, source)
    unit: Unit = "record" if problem.subjects is None else "subject"
    weights = account.pay(event, Purpose.PERTURBATION, work, unit=unit, noise_generator=source.generator)
    return PerturbedModel(weights, event, source.generator)


def _output_pure(problem: LogisticProblem, epsilon: float, source: RandomSource) -> Vector:
    weights, off = problem.minimise(np.zeros(problem.features), 0.0)
    rate = epsilon * (1 - HIDING) * problem.regularisation / LIPSCHITZ
    noise, error = radial_noise(problem.features, rate, GaussianIntegers(source))
    return finish(weights + noise, off + error, epsilon * HIDING, source)


def _output_gaussian(problem: LogisticProblem, noise_multiplier: float, source: RandomSource) -> Vector:
    weights, off = problem.minimise(np.zeros(problem.features), 0.0)
    # The minimiser's norm is below (units + 1) times its sensitivity, so the grid holds it.
    grid = choose_grid(
        LIPSCHITZ / problem.regularisation + 2 * off,
        noise_multiplier,
        parameters=problem.features,
        units=problem.units + 1,
        summands=1,
    )
    steps = np.rint(weights / grid.step).astype(np.int64)
    steps += GaussianIntegers(source).draw(problem.features, grid.bits)
    return (steps * grid.step).astype(np.float64)


def _left_for_noise(problem: LogisticProblem, epsilon: float) -> float:
    """What of epsilon is left for the noise once the determinant and the hiding are paid."""
    determinant = math.log1p(CURVATURE * LIPSCHITZ**2 / problem.regularisation)
    left = epsilon * (1 - HIDING) - determinant
    if not left > epsilon / 16:
        raise PrivacyError(
            "privacy.plan_invalid",
            "The regularisation is too small for objective perturbation at this epsilon.",
            f"Use a regularisation of {CURVATURE / math.expm1(epsilon / 2):.3g}, or a larger epsilon.",
        )
    return left


def _objective(
    problem: LogisticProblem,
    perturbation: ObjectivePure | ObjectiveGaussian,
    left: float,
    source: RandomSource,
) -> Vector:
    features, noise = problem.features, GaussianIntegers(source)
    if isinstance(perturbation, ObjectivePure):
        rate = left / LIPSCHITZ
        shift, error = radial_noise(features, rate, noise)
        largest = (4 * features + 80) / rate
    else:
        deviation = gaussian_shift(left, perturbation.delta) * LIPSCHITZ
        shift, error = deviation * normals(features, noise), deviation * NORMAL_ERROR * math.sqrt(features)
        error *= 2  # float64's own rounding
        largest = deviation * 16 * math.sqrt(features)
    weights, off = problem.minimise(shift, largest)
    off += error / problem.regularisation
    return finish(weights, off, perturbation.epsilon * HIDING, source)


def gaussian_shift(epsilon: float, delta: float) -> float:
    """Return the deviation s with ``1 / (2 s^2) + t / s = epsilon``, where ``2 Q(t) = delta``."""
    tail = -NormalDist().inv_cdf(delta / 2)
    # A quadratic in 1 / s.
    return (tail + math.sqrt(tail * tail + 2 * epsilon)) / (2 * epsilon) * (1 + 1e-9)
