"""Choosing hyper-parameters on private records, as one job with one price.

Rules kept here:

1. The best of a fixed number of trials is not private at the price of one. Three ways are honest:
   :class:`SelectionPlan`, a random number of trials of which only the best leaves, charged once;
   :class:`SummedPlan`, every trial charged; :class:`PublicPlan`, trials that touch public records alone.
2. A selection's number of trials follows a law that was fixed beforehand, is drawn without looking at the
   records, and is never released; nor is any trial but the best.
3. What is compared are noisy scores, each part of its trial's price. Candidates are public and drawn
   uniformly; all have the same price.
4. The whole selection is reserved before the first trial, and nothing is given back: a trial that fails
   leaves it spent.
5. The law that is drawn from is as near to the stated one as `cloister.privacy.trials_law` says.

What is not hidden: how long a selection takes, and so about how many trials it made, from whoever can watch
the machine. Hand its result out at a time that was fixed beforehand.

Sources: Liu and Talwar 2019 (STOC); Papernot and Steinke 2022 (arXiv:2110.03620, Theorems 2 and 6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from cloister.core.errors import InputError
from cloister.evidence.transcript import POISSON, Event, Gaussian, RepeatAndSelect, SampledGaussian, Unit
from cloister.privacy.account import Account
from cloister.privacy.accountant import AGREEMENT, epsilon_of, held_of
from cloister.privacy.errors import PrivacyError
from cloister.privacy.ledger import Purpose
from cloister.privacy.noise import IntegerNoise, choose_grid
from cloister.privacy.randomness import RandomSource
from cloister.privacy.release import MOST_UNITS
from cloister.privacy.trials_law import draw_index, draw_number

Candidate = TypeVar("Candidate")
Model = TypeVar("Model")

MOST_TRIALS_MEAN: Final = 200.0

_SENSITIVITY: Final = 0.5


@dataclass(frozen=True, slots=True)
class SelectionPlan:
    """The best of a random number of trials.

    Args:
        trial: What one trial's training does.
        score_noise_multiplier: Standard deviation of the noise on a trial's score, divided by one half: the
            score is how many units are classified rightly, less one half of them.
        mean: Mean number of trials, 1 to 200.
        shape: Of the law of that number: 1 geometric, 0 logarithmic, other values up to 100 truncated
            negative binomial; ``POISSON``, which may also be no trial at all.

    Raises:
        PrivacyError: ``privacy.tuning_invalid``.
    """

    trial: SampledGaussian
    score_noise_multiplier: float
    mean: float
    shape: float

    def __post_init__(self) -> None:
        try:
            _ = self.event
        except InputError as error:
            raise PrivacyError("privacy.tuning_invalid", error.message) from None
        if self.mean > MOST_TRIALS_MEAN:
            raise PrivacyError("privacy.tuning_invalid", "The mean number of trials must be 200 at most.")

    @property
    def event(self) -> RepeatAndSelect:
        """What the whole selection costs."""
        return RepeatAndSelect(
            self.trial.sampling_probability,
            self.trial.noise_multiplier,
            self.trial.steps,
            self.score_noise_multiplier,
            self.mean,
            self.shape,
            1,
        )

    def draw_trials(self, source: RandomSource) -> int:
        """Return a number of trials: private, never released."""
        return draw_number(self.shape, self.mean, source)

    def statement(self, delta: float) -> list[str]:
        """Say what the selection costs, and what it is compared to."""
        trial = [*self.event.trial]
        law = "Poisson" if self.shape == POISSON else f"truncated negative binomial, shape {self.shape:g}"
        return [
            f"Tuning: the best of a random number of trials ({law}, mean {self.mean:g}), by a noisy score.",
            f"Epsilon of the whole selection: {epsilon_of([self.event], delta):.4f} at delta {delta:g}.",
            f"Of one trial: {epsilon_of(trial, delta):.4f}; "
            f"of {math.ceil(self.mean)} trials, all released: "
            f"{epsilon_of(trial * math.ceil(self.mean), delta):.4f}.",
            "How long it takes is not hidden from whoever watches the machine.",
        ]


@dataclass(frozen=True, slots=True)
class SummedPlan:
    """Every trial and every score is charged, and may leave.

    Args:
        trial: What one trial's training does.
        score_noise_multiplier: As in :class:`SelectionPlan`.
    """

    trial: SampledGaussian
    score_noise_multiplier: float

    def events(self, trials: int) -> tuple[Event, ...]:
        """What a number of trials costs."""
        return (
            SampledGaussian(
                self.trial.sampling_probability, self.trial.noise_multiplier, self.trial.steps * trials
            ),
            Gaussian(self.score_noise_multiplier, trials),
        )


@dataclass(frozen=True, slots=True)
class PublicPlan:
    """Trials that train and score on records that are public, or whose subjects consented to this use.

    Args:
        dataset: Its name, stated with the result.
        basis: Why its records may be used without a budget.
    """

    dataset: str
    basis: Literal["public", "consented"]

    def __post_init__(self) -> None:
        if not self.dataset.strip():
            raise PrivacyError("privacy.tuning_invalid", "A public dataset needs its name.")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Model]):
    """One finished trial, private until it is chosen.

    Args:
        model: What was trained.
        executed: What the training did; it must be the plan's trial exactly.
        correct: float64 or bool of shape [units], in [0, 1]: whether each unit was classified rightly.
    """

    model: Model
    executed: SampledGaussian
    correct: npt.NDArray[np.float64] | npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Chosen(Generic[Candidate, Model]):
    """The result of a tuning.

    Args:
        candidate: The hyper-parameters.
        model: What was trained with them.
        score: Units classified rightly less one half of them; with noise, unless the records are public.
        events: What the tuning cost, all together.
        basis: How it was made private.
    """

    candidate: Candidate
    model: Model
    score: float
    events: tuple[Event, ...]
    basis: str


def plan_selection(
    target_epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    *,
    score_noise_multiplier: float,
    mean: float,
    shape: float = 1.0,
) -> SelectionPlan:
    """Find the smallest training noise, to three decimals, with which a whole selection keeps its target.

    Args:
        target_epsilon: Above 0; the limit that a ledger in the mode ``adaptive`` admits the selection under.
        delta: In (0, 1).
        sampling_probability: Of a trial's steps.
        steps: Of one trial.
        score_noise_multiplier: As in :class:`SelectionPlan`.
        mean: Mean number of trials.
        shape: Of the law of their number.

    Raises:
        PrivacyError: ``privacy.unreachable_target`` when the scores alone cost more, or no noise suffices;
            ``privacy.budget_invalid`` or ``privacy.tuning_invalid`` for impossible values.
    """
    if not (math.isfinite(target_epsilon) and target_epsilon > 0 and 0 < delta < 1):
        raise PrivacyError("privacy.budget_invalid", "Epsilon must be above 0 and delta between 0 and 1.")

    def plan(thousandths: int) -> SelectionPlan:
        try:
            trial = SampledGaussian(sampling_probability, thousandths / 1000, steps)
        except InputError as error:
            raise PrivacyError("privacy.tuning_invalid", error.message) from None
        return SelectionPlan(trial, score_noise_multiplier, mean, shape)

    def fits(thousandths: int) -> bool:
        return held_of([plan(thousandths).event], delta, target_epsilon) + AGREEMENT <= target_epsilon

    low, high = 0, 1000
    while not fits(high):
        low, high = high, high * 2
        if high > 10**7:
            raise PrivacyError(
                "privacy.unreachable_target",
                "No usable amount of training noise keeps this selection within the target epsilon.",
                "Ask for a larger epsilon, fewer trials, or more noise on their scores.",
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return plan(high)


def run_selection(
    plan: SelectionPlan,
    candidates: Sequence[Candidate],
    trial: Callable[[Candidate], Outcome[Model]],
    *,
    unit: Unit,
    source: RandomSource,
    noise: IntegerNoise,
    account: Account,
) -> Chosen[Candidate, Model] | None:
    """Make the trials and return the best alone; charged once, before the first.

    Args:
        plan: Fixed beforehand.
        candidates: Hyper-parameters, public.
        trial: Trains with a candidate and scores the result. It leaves nothing behind.
        unit: What the trials train and are scored by, one value of each; the ledger has to protect it.
        source: Where the number of trials and the candidates come from.
        noise: Where the scores' noise comes from.
        account: Who pays.

    Returns:
        The best trial; None where no trial was drawn, which a Poisson law allows.

    Raises:
        BudgetExceeded: The selection would pass a limit; no trial was made.
        PrivacyError: ``privacy.tuning_invalid`` for no candidates, or a trial other than planned; the latter
            stays spent.
    """
    if not candidates:
        raise PrivacyError("privacy.tuning_invalid", "A tuning needs at least one candidate.")

    def select() -> Chosen[Candidate, Model] | None:
        best: Chosen[Candidate, Model] | None = None
        for _ in range(plan.draw_trials(source)):
            candidate = candidates[draw_index(len(candidates), source)]
            outcome = _as_planned(plan.trial, trial(candidate))
            score = _noisy_score(outcome.correct, plan.score_noise_multiplier, noise)
            if best is None or score > best.score:
                best = Chosen(candidate, outcome.model, score, (plan.event,), "best of random trials")
        return best

    return account.pay(plan.event, Purpose.TUNING, select, unit=unit, noise_generator=noise.generator)


def run_all(
    plan: SummedPlan,
    candidates: Sequence[Candidate],
    trial: Callable[[Candidate], Outcome[Model]],
    *,
    unit: Unit,
    noise: IntegerNoise,
    account: Account,
) -> tuple[Chosen[Candidate, Model], ...]:
    """Try every candidate once, each trial and score charged; all results may leave, the best first.

    Raises:
        BudgetExceeded: A limit would be passed; all of it is reserved before the first trial.
        PrivacyError: ``privacy.tuning_invalid``, as :func:`run_selection` says.
    """
    if not candidates:
        raise PrivacyError("privacy.tuning_invalid", "A tuning needs at least one candidate.")
    events = plan.events(len(candidates))

    def one(candidate: Candidate) -> Chosen[Candidate, Model]:
        outcome = _as_planned(plan.trial, trial(candidate))
        score = _noisy_score(outcome.correct, plan.score_noise_multiplier, noise)
        return Chosen(candidate, outcome.model, score, events, "every trial charged")

    done = account.pay_all(
        events,
        Purpose.TUNING,
        lambda: [one(candidate) for candidate in candidates],
        unit=unit,
        noise_generator=noise.generator,
    )
    return tuple(sorted(done, key=lambda chosen: -chosen.score))


def run_public(
    plan: PublicPlan,
    candidates: Sequence[Candidate],
    trial: Callable[[Candidate], tuple[Model, float]],
) -> Chosen[Candidate, Model]:
    """Try every candidate once on public records, and return the best; nothing is charged.

    Raises:
        PrivacyError: ``privacy.tuning_invalid`` for no candidates.
    """
    if not candidates:
        raise PrivacyError("privacy.tuning_invalid", "A tuning needs at least one candidate.")
    basis = f"{plan.basis} records: {plan.dataset}"
    done = [
        Chosen(candidate, model, score, (), basis)
        for candidate, (model, score) in ((candidate, trial(candidate)) for candidate in candidates)
    ]
    return max(done, key=lambda chosen: chosen.score)


def _as_planned(planned: SampledGaussian, outcome: Outcome[Model]) -> Outcome[Model]:
    if outcome.executed != planned:
        raise PrivacyError(
            "privacy.tuning_invalid",
            "A trial did something other than what was planned and paid for.",
            "Train every candidate with the plan's noise, sampling and steps.",
        )
    correct = outcome.correct
    if correct.ndim != 1 or len(correct) > MOST_UNITS or not ((correct >= 0) & (correct <= 1)).all():
        raise PrivacyError("privacy.tuning_invalid", "A trial's score is not one value in [0, 1] a unit.")
    return outcome


def _noisy_score(
    correct: npt.NDArray[np.float64] | npt.NDArray[np.bool_], noise_multiplier: float, noise: IntegerNoise
) -> float:
    grid = choose_grid(_SENSITIVITY, noise_multiplier, parameters=1, units=MOST_UNITS, summands=1)
    exact = math.fsum((correct.astype(np.float64) - 0.5).tolist())
    return (round(exact / grid.step) + int(noise.draw(1, grid.bits)[0])) * grid.step
