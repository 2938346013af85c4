"""Differentially private training, its accountant, and the budget ledger that can't be overspent.

Importing this package is cheap: each name loads its module on first use, and only training loads torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.privacy.account import Account
    from cloister.privacy.accountant import calibrate_noise, epsilon_after, epsilon_of, max_steps, rdp_vector
    from cloister.privacy.budget import (
        HARD_STOP_EPSILON,
        Limit,
        PrivacyBudget,
        PrivacyUnit,
        Scope,
        check_delta,
        strictest,
    )
    from cloister.privacy.convex import LogisticProblem, scaled_rows
    from cloister.privacy.errors import BudgetExceeded, LedgerError, ModelError, PrivacyError
    from cloister.privacy.leaving import PublicFigure, TrainedWeights, may_leave
    from cloister.privacy.ledger import BudgetLedger, Purpose, Reservation
    from cloister.privacy.models import (
        build_model,
        check_model,
        load_arrays,
        model_names,
        register_model,
        state_arrays,
        suggest_fix,
    )
    from cloister.privacy.perturbation import fit_perturbed
    from cloister.privacy.randomness import OsRandom, RandomSource
    from cloister.privacy.release import (
        NoisyValue,
        Release,
        release_accuracy,
        release_count,
        release_histogram,
        release_mean,
        release_sum,
    )
    from cloister.privacy.sampling import PoissonSampler
    from cloister.privacy.trainer import DPTrainer, FitResult, TrainingData, TrainingPlan
    from cloister.privacy.tuning import plan_selection, run_all, run_public, run_selection

_HOMES = {
    "account": ("Account",),
    "accountant": ("calibrate_noise", "epsilon_after", "epsilon_of", "max_steps", "rdp_vector"),
    "budget": (
        "HARD_STOP_EPSILON",
        "Limit",
        "PrivacyBudget",
        "PrivacyUnit",
        "Scope",
        "check_delta",
        "strictest",
    ),
    "convex": ("LogisticProblem", "scaled_rows"),
    "errors": ("BudgetExceeded", "LedgerError", "ModelError", "PrivacyError"),
    "leaving": ("PublicFigure", "TrainedWeights", "may_leave"),
    "ledger": ("BudgetLedger", "Purpose", "Reservation"),
    "models": (
        "build_model",
        "check_model",
        "load_arrays",
        "model_names",
        "register_model",
        "state_arrays",
        "suggest_fix",
    ),
    "perturbation": ("fit_perturbed",),
    "randomness": ("OsRandom", "RandomSource"),
    "release": (
        "NoisyValue",
        "Release",
        "release_accuracy",
        "release_count",
        "release_histogram",
        "release_mean",
        "release_sum",
    ),
    "sampling": ("PoissonSampler",),
    "trainer": ("DPTrainer", "FitResult", "TrainingData", "TrainingPlan"),
    "tuning": ("plan_selection", "run_all", "run_public", "run_selection"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "HARD_STOP_EPSILON",
    "Account",
    "BudgetExceeded",
    "BudgetLedger",
    "DPTrainer",
    "FitResult",
    "LedgerError",
    "Limit",
    "LogisticProblem",
    "ModelError",
    "NoisyValue",
    "OsRandom",
    "PoissonSampler",
    "PrivacyBudget",
    "PrivacyError",
    "PrivacyUnit",
    "PublicFigure",
    "Purpose",
    "RandomSource",
    "Release",
    "Reservation",
    "Scope",
    "TrainedWeights",
    "TrainingData",
    "TrainingPlan",
    "build_model",
    "calibrate_noise",
    "check_delta",
    "check_model",
    "epsilon_after",
    "epsilon_of",
    "fit_perturbed",
    "load_arrays",
    "max_steps",
    "may_leave",
    "model_names",
    "plan_selection",
    "rdp_vector",
    "register_model",
    "release_accuracy",
    "release_count",
    "release_histogram",
    "release_mean",
    "release_sum",
    "run_all",
    "run_public",
    "run_selection",
    "scaled_rows",
    "state_arrays",
    "strictest",
    "suggest_fix",
]

__getattr__ = on_first_use(__name__, _HOME_OF)
