"""What is charged beside the training: each purpose by its own mechanisms, all of it counted in epsilon."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import get_args

import pytest
from pydantic import ValidationError

from cloister.core.errors import CloisterError
from cloister.evidence.predicates import BudgetSpend
from cloister.evidence.transcript import (
    Approximate,
    Event,
    Gaussian,
    Pure,
    RepeatAndSelect,
    SampledGaussian,
    epsilon,
    event_to_json,
    times,
)
from cloister.evidence.verification.training import MECHANISMS
from cloister.privacy.ledger import Purpose
from tests.evidence.attacks.test_dishonest_site import step
from tests.evidence.synthetic import Step, SyntheticJob, digest, failing, verify

TRAINED = SampledGaussian(0.1, 8.0, 5)
SELECTION = RepeatAndSelect(0.1, 12.0, 20, 40.0, 3.0, 1.0, 1)
CHARGED = [
    ("evaluation", Gaussian(20.0, 2)),
    ("perturbation", Gaussian(20.0, 1)),
    ("perturbation", Pure(0.3, 1)),
    ("perturbation", Approximate(0.3, 1e-7, 1)),
    ("tuning", SELECTION),
    ("tuning", SampledGaussian(0.1, 12.0, 40)),
    ("tuning", Gaussian(30.0, 2)),
]


def beside(purpose: str, event: Event, **changes: object) -> Callable[[list[Step]], None]:
    """The site states one more spend after those of its rounds."""

    def add(steps: list[Step]) -> None:
        fields = dict(step(steps, BudgetSpend, 1))
        fields |= {
            "purpose": purpose,
            "event": dict(event_to_json(event)),
            "executed_steps": times(event),
            "reserved_steps": times(event),
            "ledger_head": digest("ledger after the rest"),
        }
        steps.append((BudgetSpend, fields | changes))

    return add


def stated_epsilon(receipt: bytes) -> float:
    found: float = json.loads(receipt)["body"]["summary"]["privacy"]["north"]["epsilon"]
    return found


def test_statement_ledger_and_verifier_know_the_same_purposes() -> None:
    stated = get_args(BudgetSpend.model_fields["purpose"].annotation)
    assert set(stated) == {one.value for one in Purpose} == set(MECHANISMS)


@pytest.mark.parametrize(("purpose", "event"), CHARGED, ids=lambda one: type(one).__name__)
def test_whatever_is_charged_beside_the_training_counts_in_the_jobs_epsilon(
    honest_job: SyntheticJob, purpose: str, event: Event
) -> None:
    receipt = honest_job.lying_site("north", beside(purpose, event))
    assert verify(honest_job, receipt).accepted
    rounds = sum(1 for kind, _ in honest_job.site_steps("north") if kind is BudgetSpend)
    assert stated_epsilon(receipt) == pytest.approx(epsilon([TRAINED] * rounds + [event], 1e-5), abs=2e-6)


def test_a_tuning_that_passes_the_jobs_limit_fails_the_receipt(honest_job: SyntheticJob) -> None:
    receipt = honest_job.lying_site("north", beside("tuning", SampledGaussian(0.5, 1.5, 40)))
    assert "epsilon" in failing(verify(honest_job, receipt))


@pytest.mark.parametrize(
    ("purpose", "event"),
    [
        ("evaluation", SELECTION),
        ("evaluation", TRAINED),
        ("perturbation", TRAINED),
        ("tuning", Pure(0.3, 1)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_purpose_is_not_charged_as_another_mechanism(
    honest_job: SyntheticJob, purpose: str, event: Event
) -> None:
    receipt = honest_job.lying_site("north", beside(purpose, event))
    assert failing(verify(honest_job, receipt)) == {"budget-ledger"}


@pytest.mark.parametrize("purpose", ["evaluation", "perturbation", "tuning"])
def test_training_stated_under_another_purpose_is_a_round_without_its_charge(
    honest_job: SyntheticJob, purpose: str
) -> None:
    with pytest.raises(CloisterError):
        honest_job.lying_site("north", lambda steps: step(steps, BudgetSpend, 1).update(purpose=purpose))


def test_a_purpose_that_nobody_knows_is_no_statement(honest_job: SyntheticJob) -> None:
    with pytest.raises((CloisterError, ValidationError)):
        honest_job.lying_site("north", beside("curiosity", Gaussian(20.0, 1)))


def test_only_training_has_a_plan_that_was_fixed(honest_job: SyntheticJob) -> None:
    with pytest.raises((CloisterError, ValidationError)):
        honest_job.lying_site("north", beside("tuning", SELECTION, mode="fixed_plan", plan_steps=1))
