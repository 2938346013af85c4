"""A training plan from a budget: how much noise, how many steps, and the statement that goes with both.

Rules kept here:

1. A plan is made from public figures alone: the budget, the number of units, what the ledger holds.
2. Epsilon is never given without its unit, relation and delta, nor without what it does not cover: the
   statement's first line names the unit, its last ones every condition that no code can enforce.
3. A plan that can't be kept is refused before any record is touched.

Source: Ponomareva et al. 2023 (arXiv:2303.00654, section 5.3) for what a privacy claim has to state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cloister.evidence.transcript import ACCOUNTANTS, ADAPTIVE, Event, Mode, SampledGaussian, other_mode
from cloister.privacy.budget import PrivacyBudget, check_delta, check_group
from cloister.privacy.errors import BudgetExceeded, PrivacyError
from cloister.privacy.modes import calibrate, epsilon_in, held_in, require_mode, steps_within
from cloister.privacy.noise import GRID_SLACK, NORM_ERROR, SUM_SLACK
from cloister.privacy.randomness import OS_GENERATOR


@dataclass(frozen=True, slots=True)
class Plan:
    """What may be done, and what it costs.

    Args:
        sigma: Noise multiplier: standard deviation of the noise over the sensitivity of the clipped sum.
        steps: Steps that were asked for.
        max_steps: Steps that fit under the budget with this noise, at least ``steps``; checking one more step
            is a comparison with this number.
        sampling_probability: Chance of a unit to be in one step's batch.
        units: Number of units in the dataset.
        delta: At which every epsilon here is taken.
        unit: What is protected.
        relation: How neighbouring datasets differ.
        mode: How the spends are composed.
        epsilon: Of all that was spent before and the plan, as it is held against the budget: by the mode's
            accountant, in ``adaptive`` at the budget's own order.
        epsilon_plan: Of the plan alone, which is fixed here and now: in ``adaptive`` at the best order.
        epsilon_other: Of the plan alone, by the other accountant.
        slack: Largest share of the clip norm that rounding, errors of norms and sums add to the sensitivity;
            a plan for which they could add more is refused. It is in ``sigma``.
    """

    sigma: float
    steps: int
    max_steps: int
    sampling_probability: float
    units: int
    delta: float
    unit: str
    relation: str
    mode: Mode
    epsilon: float
    epsilon_plan: float
    epsilon_other: float
    slack: float

    @property
    def event(self) -> SampledGaussian:
        """What to reserve in the ledger before the first gradient."""
        return SampledGaussian(self.sampling_probability, self.sigma, self.steps)

    def statement(self) -> list[str]:
        """Return what has to be said with this plan, one sentence or two a line."""
        one = "one record" if self.unit == "record" else "one subject with all its records"
        other = ACCOUNTANTS[other_mode(self.mode)]
        validity = (
            "The budget is kept also where each job is chosen after seeing earlier ones, by one order that "
            "is fixed with the budget; steps not taken are given back."
            if self.mode == ADAPTIVE
            else "Valid only where every plan was fixed in advance, which nothing enforces; steps not taken "
            "are not given back."
        )
        return [
            f"Unit: {one}, added or removed ({self.relation}). Replacing one by another costs more, about "
            "twice as much. That a hospital took part is not hidden: with few sites no noise could hide it.",
            f"Groups: k {self.unit}s together are protected within k times epsilon at "
            "k * exp((k - 1) * epsilon) times delta.",
            f"Epsilon {self.epsilon_plan:.4f} at delta {self.delta:g} for this plan; {self.epsilon:.4f} is "
            "held against the budget, with all that was spent on the dataset before.",
            f"Accountant: {ACCOUNTANTS[self.mode]} ({self.mode}). {validity} {other} says "
            f"{self.epsilon_other:.4f}; it is reported, never chosen.",
            f"Sampling: every step draws each unit with probability {self.sampling_probability:g}, "
            "independently (Poisson). Any other way to make batches, shuffled or fixed ones too, would have "
            "to be accounted without amplification by sampling.",
            f"Steps: {self.steps} planned, reserved before the first gradient; at most {self.max_steps} fit.",
            f"Noise: standard deviation {self.sigma:g} times the sensitivity, from {OS_GENERATOR}. Nothing "
            "chooses its seed.",
            "Floating point: sum and noise are whole multiples of one grid step, added as integers. "
            f"Rounding, float64 sums and errors of computed norms add at most {self.slack:.3g} of the "
            "clip norm to the sensitivity, and the noise is scaled to it.",
            f"Public: the number of units ({self.units}), from which the sampling probability follows. If it "
            "has to be hidden, give a noisy lower bound of it instead.",
            f"Noise in one coordinate of the mean gradient: {self.mean_noise:.3g} of the clip norm a step. "
            "Where this drowns the signal the model is unusable: refuse it rather than release it.",
        ]

    @property
    def mean_noise(self) -> float:
        """Noise in one coordinate of a step's mean gradient, in units of the clip norm."""
        return self.sigma * (1 + self.slack) / (self.sampling_probability * self.units)


def plan(
    budget: PrivacyBudget,
    n: int,
    batch: int,
    epochs: int,
    mode: Mode = ADAPTIVE,
    spent: Sequence[Event] = (),
    *,
    minimum_units: int = 2,
) -> Plan:
    """Plan a training that keeps a dataset's budget.

    Args:
        budget: What all spends on the dataset may cost together, with the unit it protects.
        n: Number of units in the dataset, public.
        batch: Expected number of units in a step's batch.
        epochs: How often each unit is expected to be used.
        mode: Of the dataset's ledger.
        spent: What the ledger holds already.
        minimum_units: Fewest units that may be trained on.

    Returns:
        The plan with the least noise that keeps the budget.

    Raises:
        PrivacyError: ``privacy.plan_invalid``, ``privacy.group_too_small``, ``privacy.delta_too_large``,
            ``privacy.accountant_refused``, or ``privacy.unreachable_target`` where no noise suffices.
        BudgetExceeded: What was spent leaves nothing.
    """
    mode = require_mode(mode)
    check_group(n, minimum_units)
    check_delta(budget.delta, n)
    if not 1 <= batch <= n:
        raise PrivacyError(
            "privacy.plan_invalid", "A batch must hold at least one unit and no more than there are."
        )
    if epochs < 1:
        raise PrivacyError("privacy.plan_invalid", "A plan needs at least one epoch.")
    if not held_in(mode, spent, budget.delta, budget.epsilon) < budget.epsilon:
        raise BudgetExceeded(
            "ledger.budget_exceeded",
            "What was spent on the dataset leaves nothing of this budget.",
            "A spent budget does not come back.",
        )
    probability, steps = batch / n, math.ceil(epochs * n / batch)
    sigma = calibrate(mode, budget.epsilon, budget.delta, probability, steps, spent=spent)
    event = SampledGaussian(probability, sigma, steps)
    return Plan(
        sigma=sigma,
        steps=steps,
        max_steps=steps_within(mode, budget.epsilon, budget.delta, probability, sigma, spent=spent),
        sampling_probability=probability,
        units=n,
        delta=budget.delta,
        unit=budget.unit.kind,
        relation=budget.unit.relation,
        mode=mode,
        epsilon=held_in(mode, [*spent, event], budget.delta, budget.epsilon),
        epsilon_plan=epsilon_in(mode, [event], budget.delta),
        epsilon_other=epsilon_in(other_mode(mode), [event], budget.delta),
        slack=GRID_SLACK + NORM_ERROR + SUM_SLACK,
    )
