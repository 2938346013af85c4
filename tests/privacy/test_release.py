"""Figures about private records leave only with noise that the ledger paid for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import Gaussian
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.errors import BudgetExceeded, PrivacyError
from cloister.privacy.ledger import BudgetLedger
from cloister.privacy.randomness import OsRandom
from cloister.privacy.release import NoisyAccuracy, release_accuracy, release_count
from cloister.privacy.testing import SeededTestRandom

RECORDS = sha256_hex(b"records")
LIMITS = [Limit("manifest", 3.0, Scope.DATASET)]


@pytest.fixture
def ledger(tmp_path: Path) -> BudgetLedger:
    return BudgetLedger.create(tmp_path / "budget.sqlite", "wards", 1e-5)


def accuracy(ledger: BudgetLedger, correct: int, records: int, noise: float) -> NoisyAccuracy:
    return release_accuracy(
        correct,
        records,
        noise_multiplier=noise,
        source=OsRandom("metrics"),
        ledger=ledger,
        dataset_sha256=RECORDS,
        job_id="job",
        round_number=0,
        limits=LIMITS,
    )


def test_a_release_is_charged_to_the_ledger(ledger: BudgetLedger) -> None:
    released = accuracy(ledger, 80, 100, 10.0)
    assert ledger.events("job") == (released.event,) == (Gaussian(10.0, 1),)
    assert released.noise_generator == "aes-256-ctr/os-entropy"


def test_a_release_over_the_budget_does_not_happen(ledger: BudgetLedger) -> None:
    with pytest.raises(BudgetExceeded):
        accuracy(ledger, 80, 100, 1.0)
    assert ledger.events() == ()


class Unlimited(BudgetLedger):
    """Lets everything through, to look at many releases."""

    def __init__(self) -> None:
        pass

    def reserve(self, event: object, **_: object) -> object:  # type: ignore[override]
        return event

    def settle(self, reservation: object, executed: int) -> None:  # type: ignore[override]
        assert executed == 1


def test_noise_on_a_count_has_the_stated_scale() -> None:
    source, noise, draws = OsRandom("metrics"), 5.0, 20_000
    values = np.array(
        [
            release_count(
                40,
                noise_multiplier=noise,
                source=source,
                ledger=Unlimited(),
                dataset_sha256=RECORDS,
                job_id="job",
                round_number=0,
                limits=[],
            )
            for _ in range(draws)
        ]
    )
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], draws)
    assert low < float((((values - 40) / noise) ** 2).sum()) < high
    assert stats.kstest((values - 40) / noise, "norm").pvalue > 1e-6


def test_the_interval_holds_the_accuracy_at_least_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    source, records, truth = SeededTestRandom(1, "metrics"), 80, 0.7
    hits = 0
    for _ in range(1000):
        released = release_accuracy(
            int(generator.binomial(records, truth)),
            records,
            noise_multiplier=6.0,
            source=source,
            ledger=Unlimited(),
            dataset_sha256=RECORDS,
            job_id="job",
            round_number=0,
            limits=[],
        )
        assert 0 <= released.low <= released.high <= 1
        assert 0 <= released.value <= 1
        hits += released.low <= truth <= released.high
    assert hits >= 940


@pytest.mark.parametrize(("correct", "records"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused_and_cost_nothing(
    ledger: BudgetLedger, correct: int, records: int
) -> None:
    with pytest.raises(PrivacyError):
        accuracy(ledger, correct, records, 10.0)
    assert ledger.events() == ()
