"""What a spend was for stands in the ledger, and whoever makes the release says it, not whoever pays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import Gaussian, SampledGaussian
from cloister.privacy.account import Account
from cloister.privacy.convex import LogisticProblem
from cloister.privacy.errors import PrivacyError
from cloister.privacy.ledger import BudgetLedger, Purpose
from cloister.privacy.ledger_entries import Reserved
from cloister.privacy.noise import GaussianIntegers
from cloister.privacy.perturbation import ObjectivePure, OutputGaussian, OutputPure, fit_perturbed
from cloister.privacy.randomness import OsRandom
from cloister.privacy.release import release_count
from cloister.privacy.testing import SeededTestRandom
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
        release_count(40, unit="record", noise_multiplier=20.0, noise=noise, account=account)
        for mechanism in (OutputPure(0.2), OutputGaussian(20.0), ObjectivePure(0.3)):
            fit_perturbed(problem, mechanism, source=source, account=account)
        selection = SelectionPlan(TRIAL, 40.0, 2.0, 1.0)
        run_selection(
            selection, [0.1, 0.2], trial, unit="record", source=source, noise=noise, account=account
        )
        run_all(SummedPlan(TRIAL, 40.0), [0.1, 0.2], trial, unit="record", noise=noise, account=account)
    with BudgetLedger.open(path, "wards") as again:
        purposes = [one.entry.purpose for one in again.history() if isinstance(one.entry, Reserved)]
        assert purposes == [Purpose.EVALUATION, *[Purpose.PERTURBATION] * 3, *[Purpose.TUNING] * 3]
        assert again.unsettled == ()


@pytest.mark.parametrize("purpose", Purpose)
def test_a_purpose_counts_against_every_limit_like_any_other(tmp_path: Path, purpose: Purpose) -> None:
    event = Gaussian(20.0, 1)
    with BudgetLedger.create(tmp_path / "budget.sqlite", "wards", 1e-4) as ledger:
        Account(ledger, sha256_hex(b"records"), "job", 0, []).pay(
            event, purpose, lambda: None, unit="record", noise_generator="seeded-test"
        )
        assert ledger.events() == (event,)
        assert ledger.epsilon() > 0


@pytest.mark.parametrize("kind", ["count", "selection", "all", "perturbed"])
def test_what_counts_by_record_is_refused_by_a_budget_of_subjects(tmp_path: Path, kind: str) -> None:
    """A person's many records would move a count by as many, and be charged as one."""
    source = SeededTestRandom(1, kind)
    noise = GaussianIntegers(source)
    problem = LogisticProblem(np.full((40, 2), 0.5), np.arange(40, dtype=np.int64) % 2, 40, 4.0)
    with BudgetLedger.create(tmp_path / "b.sqlite", "wards", 1e-5, unit="subject") as ledger:
        account = Account(ledger, sha256_hex(b"records"), "job", 0, [])
        attempts: dict[str, Callable[[], object]] = {
            "count": lambda: release_count(
                40, unit="record", noise_multiplier=20.0, noise=noise, account=account
            ),
            "selection": lambda: run_selection(
                SelectionPlan(TRIAL, 40.0, 3.0, 1.0),
                [0.1],
                trial,
                unit="record",
                source=source,
                noise=noise,
                account=account,
            ),
            "all": lambda: run_all(
                SummedPlan(TRIAL, 40.0), [0.1], trial, unit="record", noise=noise, account=account
            ),
            "perturbed": lambda: fit_perturbed(problem, OutputPure(0.1), source=source, account=account),
        }
        with pytest.raises(PrivacyError) as refused:
            attempts[kind]()
        assert refused.value.code == "privacy.wrong_unit"
        assert ledger.events() == ()
        counted = release_count(40, unit="subject", noise_multiplier=20.0, noise=noise, account=account)
        assert counted.event in ledger.events()
