"""What a spend was for stands in the ledger, and whoever makes the release says it, not whoever pays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import Gaussian, SampledGaussian
from cloister.privacy.account import Account
from cloister.privacy.convex import LogisticProblem
from cloister.privacy.ledger import BudgetLedger, Purpose
from cloister.privacy.ledger_entries import Reserved
from cloister.privacy.noise import GaussianIntegers
from cloister.privacy.perturbation import ObjectivePure, OutputGaussian, OutputPure, fit_perturbed
from cloister.privacy.randomness import OsRandom
from cloister.privacy.release import release_count
from cloister.privacy.tuning import Outcome, SelectionPlan, SummedPlan, run_all, run_selection

TRIAL = SampledGaussian(0.1, 12.0, 10)


def trial(rate: float) -> Outcome[float]:
    return Outcome(rate, TRIAL, np.ones(20))


def test_each_release_is_charged_with_its_own_purpose(tmp_path: Path) -> None:
    noise, source = GaussianIntegers(OsRandom("noise")), OsRandom("source")
    rows = np.full((40, 2), 0.5)
    problem = LogisticProblem(rows, np.arange(40, dtype=np.int64) % 2, 40, 4.0)
    path = tmp_path / "budget.sqlite"
    with BudgetLedger.create(path, "wards", 1e-4) as ledger:
        account = Account(ledger, sha256_hex(b"records"), "job", 0, [])
        release_count(40, noise_multiplier=20.0, noise=noise, account=account)
        for mechanism in (OutputPure(0.2), OutputGaussian(20.0), ObjectivePure(0.3)):
            fit_perturbed(problem, mechanism, source=source, account=account)
        selection = SelectionPlan(TRIAL, 40.0, 2.0, 1.0)
        run_selection(selection, [0.1, 0.2], trial, source=source, noise=noise, account=account)
        run_all(SummedPlan(TRIAL, 40.0), [0.1, 0.2], trial, noise=noise, account=account)
    with BudgetLedger.open(path, "wards") as again:
        purposes = [one.entry.purpose for one in again.history() if isinstance(one.entry, Reserved)]
        assert purposes == [Purpose.EVALUATION, *[Purpose.PERTURBATION] * 3, *[Purpose.TUNING] * 3]
        assert again.unsettled == ()


@pytest.mark.parametrize("purpose", Purpose)
def test_a_purpose_counts_against_every_limit_like_any_other(tmp_path: Path, purpose: Purpose) -> None:
    event = Gaussian(20.0, 1)
    with BudgetLedger.create(tmp_path / "budget.sqlite", "wards", 1e-4) as ledger:
        Account(ledger, sha256_hex(b"records"), "job", 0, []).pay(event, purpose, lambda: None)
        assert ledger.events() == (event,)
        assert ledger.epsilon() > 0
