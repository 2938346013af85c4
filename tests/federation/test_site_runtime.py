"""One site's side of a job, with its real ledger, trainer, airlock and log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cloister.core.clock import Clock
from cloister.enclave.attestation import Evidence
from cloister.enclave.errors import AirlockViolation
from cloister.enclave.tensors import tensors_sha256
from cloister.evidence.predicates import BudgetSpend, UpdateReleased, Violation
from cloister.evidence.transcript import ADAPTIVE, SampledGaussian, epsilon, epsilon_held
from cloister.federation import (
    FederationError,
    FederationJob,
    JobError,
    RefusalError,
    SiteRuntime,
    initial_weights,
    plan_round,
)
from cloister.federation.node import Challenge
from cloister.federation.site_training import os_randomness
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.errors import BudgetExceeded, ModelError, PrivacyError
from tests.federation.nodes import a_job
from tests.federation.parties import CLASSES, DELTA, FEATURES, RECORDS, Federation

JOB = a_job(
    rounds=4,
    training={"sampling_probability": 0.25, "local_steps": 3, "learning_rate": 1.0},
    privacy={"noise_multiplier": None, "target_epsilon": 2.0, "delta": DELTA},
)
START = initial_weights(JOB, FEATURES, CLASSES)


def proceed() -> bool:
    return False


def first_refused_round(parties: Federation, site: SiteRuntime, job: FederationJob) -> int:
    for number in range(job.rounds):
        try:
            site.train_round(parties.task(number, START), proceed)
        except BudgetExceeded:
            return number
    return job.rounds


@pytest.fixture
def federation(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Federation]]:
    made: list[Federation] = []

    def make(job: FederationJob = JOB, **others: object) -> Federation:
        made.append(Federation(job, tmp_path, clock, **others))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_round_is_reserved_trained_settled_and_stated(federation: Callable[..., Federation]) -> None:
    parties = federation()
    site = parties.site("north")
    released = site.release(0, site.train_round(parties.task(0, START), proceed))
    spend, update = (statement.predicate for statement in parties.acts("north"))
    assert isinstance(spend, BudgetSpend)
    assert (spend.round, spend.purpose, spend.reserved_steps, spend.executed_steps) == (0, "training", 3, 3)
    assert spend.event["sampling_probability"] == 0.25
    assert spend.noise_generator == "seeded-test"
    assert spend.ledger_head == parties.ledgers["north"].head
    assert isinstance(update, UpdateReleased)
    assert update.model_sha256 == tensors_sha256(START)
    assert update.update_sha256 == released.sha256 == tensors_sha256(released.tensors)
    assert update.scalars == ()
    assert any((released.tensors[name] != START[name]).any() for name in START)


def test_the_spend_is_the_ledgers_and_anyone_can_recompute_it(federation: Callable[..., Federation]) -> None:
    parties = federation()
    site = parties.site("north")
    for number in range(JOB.rounds):
        site.release(number, site.train_round(parties.task(number, START), proceed))
    spends = [s.predicate for s in parties.acts("north") if isinstance(s.predicate, BudgetSpend)]
    events = [SampledGaussian(0.25, site.plan.noise_multiplier, one.executed_steps) for one in spends]
    assert epsilon(events, DELTA) == pytest.approx(site.epsilon_spent(), abs=1e-6)
    assert parties.ledgers["north"].epsilon(JOB.job_id) == pytest.approx(site.epsilon_spent())
    assert 1.9 < site.epsilon_spent() <= 2.0


def test_noise_is_calibrated_so_that_the_whole_job_just_fits(federation: Callable[..., Federation]) -> None:
    plan = plan_round(JOB, RECORDS["north"], DELTA)
    whole = SampledGaussian(0.25, plan.noise_multiplier, 12)
    assert 1.99 < epsilon_held(ADAPTIVE, [whole], DELTA, 2.0) <= 2.0
    assert epsilon([whole], DELTA) <= 2.0


def test_a_round_over_the_budget_is_refused_before_it_starts_and_the_refusal_is_stated(
    federation: Callable[..., Federation],
) -> None:
    parties = federation(limits={"north": [Limit("manifest", 1.2, Scope.DATASET)]})
    site = parties.site("north")
    refused = first_refused_round(parties, site, JOB)
    assert 0 < refused < JOB.rounds
    assert site.epsilon_spent() <= 1.2
    *_, last = parties.acts("north")
    assert isinstance(last.predicate, Violation)
    assert last.predicate.rule == "ledger.budget_exceeded"
    assert "manifest" in last.predicate.detail


def test_the_jobs_own_target_is_a_limit(federation: Callable[..., Federation]) -> None:
    job = a_job(
        rounds=50,
        training={"sampling_probability": 0.25, "local_steps": 3},
        privacy={"noise_multiplier": 2.0, "target_epsilon": 1.5, "delta": DELTA},
    )
    parties = federation(job)
    site = parties.site("north")
    assert 0 < first_refused_round(parties, site, job) < job.rounds
    assert site.epsilon_spent() <= 1.5


def test_the_reservation_is_durable_before_the_first_gradient(
    federation: Callable[..., Federation], clock: Clock
) -> None:
    parties = federation()
    site = parties.site("north")
    seen = []

    def look() -> bool:
        with parties.ledger("north") as other:
            seen.append(other.epsilon(JOB.job_id))
        return False

    site.train_round(parties.task(0, START), look)
    assert seen[0] == 0.0
    assert seen[1] == pytest.approx(site.epsilon_spent())


def test_an_abort_between_batches_settles_what_was_done(federation: Callable[..., Federation]) -> None:
    parties = federation()
    site = parties.site("north")
    answers = iter([False, False, True])
    with pytest.raises(FederationError) as stop:
        site.train_round(parties.task(0, START), lambda: next(answers))
    assert stop.value.code == "federation.aborted"
    (statement,) = parties.acts("north")
    assert isinstance(statement.predicate, BudgetSpend)
    assert (statement.predicate.reserved_steps, statement.predicate.executed_steps) == (3, 1)
    assert site.epsilon_spent() == pytest.approx(
        epsilon([SampledGaussian(0.25, site.plan.noise_multiplier, 1)], DELTA), abs=1e-6
    )


def test_an_abort_before_the_first_batch_costs_nothing(federation: Callable[..., Federation]) -> None:
    parties = federation()
    site = parties.site("north")
    for answers in (iter([True]), iter([False, True])):
        with pytest.raises(FederationError):
            site.train_round(parties.task(0, START), lambda answers=answers: next(answers))  # type: ignore[misc]
    assert parties.acts("north") == []
    assert parties.ledgers["north"].epsilon() == 0.0


def test_training_that_fails_midway_is_spent_in_full_and_stated(
    federation: Callable[..., Federation],
) -> None:
    parties = federation()
    site = parties.site("north")
    answers = iter([False, False])

    def explode() -> bool:
        try:
            return next(answers)
        except StopIteration:
            raise MemoryError from None

    with pytest.raises(MemoryError):
        site.train_round(parties.task(0, START), explode)
    (statement,) = parties.acts("north")
    assert isinstance(statement.predicate, BudgetSpend)
    assert statement.predicate.executed_steps == 3


def test_rounds_come_one_after_the_other(federation: Callable[..., Federation]) -> None:
    parties = federation()
    site = parties.site("north")
    site.train_round(parties.task(0, START), proceed)
    site.train_round(parties.task(1, START), proceed)
    spent = site.epsilon_spent()
    for number in (0, 1, 3, JOB.rounds):
        with pytest.raises(FederationError) as refusal:
            site.train_round(parties.task(number, START, rounds=99), proceed)
        assert refusal.value.code == "federation.bad_task"
    assert site.epsilon_spent() == spent


def test_a_hub_that_starts_from_weights_of_its_own_gets_nothing_and_that_is_stated(
    federation: Callable[..., Federation],
) -> None:
    parties = federation()
    site = parties.site("north")
    chosen = {name: value + np.float32(0.5) for name, value in START.items()}
    with pytest.raises(RefusalError) as refusal:
        site.train_round(parties.task(0, chosen), proceed)
    assert refusal.value.code == "federation.foreign_start"
    (statement,) = parties.acts("north")
    assert isinstance(statement.predicate, Violation)
    assert statement.predicate.rule == "federation.foreign_start"
    assert statement.predicate.artifact_sha256 == tensors_sha256(chosen)
    assert parties.ledgers["north"].epsilon() == 0.0


def test_a_hub_that_leaves_out_the_first_round_gets_nothing(federation: Callable[..., Federation]) -> None:
    parties = federation()
    chosen = {name: value + np.float32(0.5) for name, value in START.items()}
    with pytest.raises(FederationError) as refusal:
        parties.site("north").train_round(parties.task(1, chosen), proceed)
    assert refusal.value.code == "federation.bad_task"
    assert parties.ledgers["north"].epsilon() == 0.0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda weights: {**weights, "rows": np.zeros(3, np.float32)},
        lambda weights: dict(list(weights.items())[1:]),
        lambda weights: {name: value * np.float32(np.nan) for name, value in weights.items()},
        lambda weights: {name: value.astype(np.float64) for name, value in weights.items()},
    ],
)
def test_weights_of_another_form_cost_nothing(
    federation: Callable[..., Federation], spoil: Callable[[object], dict[str, np.ndarray]]
) -> None:
    parties = federation()
    site = parties.site("north")
    with pytest.raises(ModelError):
        site.train_round(parties.task(0, spoil(dict(START))), proceed)
    assert parties.ledgers["north"].epsilon() == 0.0


@pytest.mark.parametrize(
    "update",
    [
        {"params": {**START, "rows": np.zeros(3, np.float32)}},
        {"params": {name: np.full_like(value, np.nan) for name, value in START.items()}},
        {"params": dict.fromkeys(START, "patient Smith")},
        {"params": dict(START), "metrics": {"loss": 0.3}},
        {"params": dict(START), "note": "patient Smith"},
        {"params": {name: value[..., :1] for name, value in START.items()}},
        {},
    ],
)
def test_what_may_not_leave_does_not_and_that_is_stated(
    federation: Callable[..., Federation], update: dict[str, object]
) -> None:
    parties = federation()
    site = parties.site("north")
    site.train_round(parties.task(0, START), proceed)
    with pytest.raises(AirlockViolation):
        site.release(0, update)
    _, statement = parties.acts("north")
    assert isinstance(statement.predicate, Violation)
    assert statement.predicate.rule == "airlock.refused"
    assert "Smith" not in statement.predicate.detail


def test_the_first_spend_of_a_job_tells_what_earlier_jobs_did(federation: Callable[..., Federation]) -> None:
    earlier = federation()
    site = earlier.site("north")
    for number in range(2):
        site.train_round(earlier.task(number, START), proceed)
    for log in earlier.logs.values():
        log.close()
    directory = earlier.directory
    for path in [*directory.glob("*.log*"), *directory.glob("*.held/*.note")]:
        path.unlink()
    later_job = JOB.model_copy(update={"job_id": "00000000-0000-4000-8000-000000000002"})
    later = federation(later_job)
    site = later.site("north")
    for number in range(2):
        site.train_round(later.task(number, START), proceed)
    first, second = (statement.predicate for statement in later.acts("north"))
    assert isinstance(first, BudgetSpend)
    assert isinstance(second, BudgetSpend)
    assert [event["steps"] for event in first.prior_events] == [6]
    assert second.prior_events == ()


def test_a_ledger_with_a_larger_delta_than_the_job_states_is_refused(
    federation: Callable[..., Federation],
) -> None:
    job = a_job(privacy={"delta": DELTA / 10})
    with pytest.raises(JobError) as refusal:
        federation(job).site("north")
    assert refusal.value.code == "federation.wrong_delta"


def test_a_job_without_noise_is_refused(federation: Callable[..., Federation]) -> None:
    with pytest.raises(PrivacyError):
        federation(a_job(privacy={"noise_multiplier": 0.0, "delta": DELTA})).site("north")


def test_an_unknown_model_is_refused(federation: Callable[..., Federation]) -> None:
    with pytest.raises(ModelError):
        federation(a_job(model={"architecture": "oracle"}, privacy={"delta": DELTA})).site("north")


def test_the_public_seed_moves_the_start_and_never_the_noise(federation: Callable[..., Federation]) -> None:
    other = JOB.model_copy(update={"seed": 2})
    elsewhere = initial_weights(other, FEATURES, CLASSES)
    assert tensors_sha256(elsewhere) != tensors_sha256(START)
    parties = federation()
    site = parties.site("north")
    site.train_round(parties.task(0, START), proceed)
    first = site.train_round(parties.task(1, START), proceed)
    parties.job = other
    site = parties.site("north")
    site.train_round(parties.task(0, elsewhere), proceed)
    second = site.train_round(parties.task(1, START), proceed)
    assert tensors_sha256(first["params"]) == tensors_sha256(second["params"])  # type: ignore[arg-type]


def test_each_private_stream_is_another_one() -> None:
    streams = os_randomness("north", JOB.job_id)
    assert streams("noise").generator == "aes-256-ctr/os-entropy"
    assert streams("noise").words(4).tolist() != streams("noise").words(4).tolist()


def test_evidence_is_bound_to_this_job_and_no_other(federation: Callable[..., Federation]) -> None:
    site = federation().site("north")
    challenge = Challenge(bytes(32), JOB.job_id, "policy")
    assert Evidence.decode(site.quote(challenge)).report
    with pytest.raises(FederationError):
        site.quote(Challenge(bytes(32), "00000000-0000-4000-8000-000000000002", "policy"))


def test_a_site_that_was_shown_no_folder_proves_and_trains_nothing(
    federation: Callable[..., Federation],
) -> None:
    parties = federation()
    site = parties.newcomer("north")
    with pytest.raises(FederationError) as unproven:
        site.quote(Challenge(bytes(32), JOB.job_id, "policy"))
    with pytest.raises(FederationError) as untrained:
        site.train_round(parties.task(0, START), proceed)
    assert {unproven.value.code, untrained.value.code} == {"federation.bad_task"}
    assert parties.ledgers["north"].epsilon() == 0.0
