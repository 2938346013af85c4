"""A whole job: real training, ledgers, airlocks, simulated attestation and logs, over NVFlare's runners."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cloister.core.canonical import canonicalize
from cloister.core.clock import Clock
from cloister.enclave.tensors import tensors_sha256
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    CheckpointHeld,
    RoundAggregated,
    UpdateReleased,
    Violation,
)
from cloister.federation import (
    AdmissionError,
    FederationJob,
    HubRuntime,
    JobFolder,
    LocalBackend,
    RefusalError,
    RoundFinished,
    SiteRoundFinished,
    compile_job,
    os_randomness,
)
from cloister.federation.compile import CLIENT_FILE
from cloister.federation.events import FederationEvent
from cloister.federation.site_training import RandomnessFor
from cloister.privacy.budget import Limit, Scope
from tests.federation.nodes import a_job
from tests.federation.parties import DELTA, Federation

JOB = a_job(
    rounds=6,
    training={"sampling_probability": 0.3, "local_steps": 2, "learning_rate": 1.0},
    privacy={"noise_multiplier": None, "target_epsilon": 3.0, "delta": DELTA},
)


class PrivateFederation(Federation):
    """The same parties with the operating system's randomness."""

    def randomness(self, site: str) -> RandomnessFor:
        return os_randomness(site, self.job.job_id)


@pytest.fixture
def federation(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Federation]]:
    made: list[Federation] = []

    def make(job: FederationJob = JOB, kind: type[Federation] = Federation, **others: object) -> Federation:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(kind(job, directory, clock, **others))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_job_learns_within_its_budget_and_states_every_step(federation: Callable[..., Federation]) -> None:
    parties = federation()
    seen: list[FederationEvent] = []
    result = parties.run(seen.append)
    assert result.rounds[-1].metrics["accuracy"] > 0.9
    for site in JOB.clients:
        kinds = [type(statement.predicate) for statement in parties.statements(site)]
        assert kinds == [BudgetSpend, UpdateReleased] * JOB.rounds
        assert parties.ledgers[site].epsilon(JOB.job_id) <= 3.0
    hub = [statement.predicate for statement in parties.statements("hub")]
    stated = [AttestationVerdict] * 3 + [CheckpointHeld, RoundAggregated] * JOB.rounds
    assert [type(one) for one in hub] == stated
    spent = [
        event.epsilon for event in seen if isinstance(event, SiteRoundFinished) and event.site == "north"
    ]
    assert spent == sorted(spent)
    assert len([event for event in seen if isinstance(event, RoundFinished)]) == JOB.rounds


def test_the_logs_of_hub_and_sites_fit_each_other(federation: Callable[..., Federation]) -> None:
    parties = federation()
    result = parties.run()
    rounds = [s.predicate for s in parties.statements("hub") if isinstance(s.predicate, RoundAggregated)]
    for earlier, later in pairwise(rounds):
        assert earlier.model_sha256_after == later.model_sha256_before
    assert rounds[-1].model_sha256_after == tensors_sha256(result.weights)
    for site in JOB.clients:
        released = [s.predicate for s in parties.statements(site) if isinstance(s.predicate, UpdateReleased)]
        for update, aggregated in zip(released, rounds, strict=True):
            assert update.update_sha256 == aggregated.updates[site]
            assert update.model_sha256 == aggregated.model_sha256_before


def test_equal_seeds_in_test_mode_give_the_same_model(federation: Callable[..., Federation]) -> None:
    other_id = JOB.model_copy(update={"job_id": "00000000-0000-4000-8000-000000000003"})
    hashes = [tensors_sha256(federation(job).run().weights) for job in (JOB, JOB, other_id)]
    assert len(set(hashes)) == 1
    assert tensors_sha256(federation(seed=6).run().weights) != hashes[0]


def test_private_randomness_never_gives_the_same_model_twice(federation: Callable[..., Federation]) -> None:
    hashes = set()
    for _ in range(2):
        parties = federation(kind=PrivateFederation)
        hashes.add(tensors_sha256(parties.run().weights))
        spend = parties.acts("north")[0].predicate
        assert isinstance(spend, BudgetSpend)
        assert spend.noise_generator == "aes-256-ctr/os-entropy"
    assert len(hashes) == 2


def test_a_site_that_runs_other_code_trains_nothing_and_spends_nothing(
    federation: Callable[..., Federation],
) -> None:
    parties = federation(measurements={"south": bytes(48)})
    result = parties.run()
    assert all(record.sites == ("north", "west") for record in result.rounds)
    assert parties.statements("south") == []
    assert parties.ledgers["south"].epsilon() == 0.0
    verdicts = [s.predicate for s in parties.statements("hub") if isinstance(s.predicate, AttestationVerdict)]
    assert {verdict.site: verdict.status for verdict in verdicts} == {
        "north": "TRUSTED",
        "south": "UNTRUSTED",
        "west": "TRUSTED",
    }
    last = parties.statements("hub")[-1].predicate
    assert isinstance(last, RoundAggregated)
    assert last.absent == {"south": "attestation.measurement"}


def test_too_few_trusted_sites_refuse_the_job(federation: Callable[..., Federation]) -> None:
    with pytest.raises(AdmissionError) as refusal:
        federation(measurements={"south": bytes(48), "west": bytes(48)}).run()
    assert refusal.value.exit_code == 4


def test_a_site_over_its_budget_leaves_and_the_others_go_on(federation: Callable[..., Federation]) -> None:
    parties = federation(limits={"west": [Limit("manifest", 1.5, Scope.DATASET)]})
    result = parties.run()
    (failure,) = result.failures
    assert (failure.site, failure.code) == ("west", "ledger.budget_exceeded")
    assert 0 < failure.round < JOB.rounds
    assert result.rounds[-1].sites == ("north", "south")
    assert parties.ledgers["west"].epsilon() <= 1.5
    assert isinstance(parties.statements("west")[-1].predicate, Violation)


def test_a_job_whose_sites_are_over_budget_ends_with_a_refusal(federation: Callable[..., Federation]) -> None:
    tight = [Limit("manifest", 1.5, Scope.DATASET)]
    with pytest.raises(RefusalError) as refusal:
        federation(limits={"west": tight, "south": tight}).run()
    assert refusal.value.exit_code == 3
    assert any("ledger.budget_exceeded" in line for line in refusal.value.details)


def test_the_hard_stop_holds_over_jobs(federation: Callable[..., Federation]) -> None:
    eager = JOB.model_copy(update={"privacy": JOB.privacy.model_copy(update={"target_epsilon": 6.0})})
    loose = [Limit("manifest", 100.0, Scope.DATASET)]
    parties = federation(eager, limits=dict.fromkeys(JOB.clients, loose))
    with pytest.raises(RefusalError):
        parties.run()
    assert all(parties.ledgers[site].epsilon() <= 5.0 for site in JOB.clients)


@pytest.mark.parametrize("architecture", ["mlp", "small-cnn"])
def test_other_models_run_by_name(federation: Callable[..., Federation], architecture: str) -> None:
    job = JOB.model_copy(
        update={"model": JOB.model.model_copy(update={"architecture": architecture}), "rounds": 2}
    )
    parties = federation(job)
    sites = {name: parties.site(name) for name in job.clients}
    hub = parties.hub()
    result = LocalBackend(parties.directory).run(job, compile_job(job), hub, sites)
    assert len(result.rounds) == 2


def test_a_hub_with_a_model_of_its_own_to_start_from_finds_no_site(
    federation: Callable[..., Federation],
) -> None:
    class OtherSeed(Federation):
        def hub(self) -> HubRuntime:
            job = self.job
            self.job = job.model_copy(update={"seed": 99})
            try:
                return super().hub()
            finally:
                self.job = job

    parties = federation(kind=OtherSeed)
    with pytest.raises(RefusalError) as refusal:
        parties.run()
    assert refusal.value.code == "federation.sites_refused"
    for site in JOB.clients:
        stated = [statement.predicate for statement in parties.statements(site)]
        assert [one.rule for one in stated if isinstance(one, Violation)] == ["federation.foreign_start"]
        assert parties.ledgers[site].epsilon() == 0.0


def without_airlock(folder: JobFolder) -> JobFolder:
    """The job's own folder, its hash still in it, but with the filter taken out."""
    config = json.loads(folder.files[CLIENT_FILE])
    config["task_result_filters"] = []
    return JobFolder({**folder.files, CLIENT_FILE: canonicalize(config)})


def with_more(folder: JobFolder) -> JobFolder:
    """The job's own folder with one more file."""
    return JobFolder({**folder.files, "app/custom/extra.py": b"import os"})


@pytest.mark.parametrize("tamper", [without_airlock, with_more])
def test_a_folder_other_than_the_agreed_jobs_is_refused_before_anything_is_built_from_it(
    federation: Callable[..., Federation], tamper: Callable[[JobFolder], JobFolder]
) -> None:
    foreign = tamper(compile_job(JOB))
    assert JOB.sha256.encode() in foreign.files[CLIENT_FILE]
    parties = federation()
    with pytest.raises(AdmissionError) as refusal:
        parties.run(folder=foreign)
    assert refusal.value.code == "federation.too_few_sites"
    assert all("not what the agreed job compiles to" in line for line in refusal.value.details)
    for site in JOB.clients:
        (stated,) = (statement.predicate for statement in parties.statements(site))
        assert isinstance(stated, Violation)
        assert (stated.rule, stated.artifact_sha256) == ("federation.foreign_folder", foreign.sha256)
        assert parties.ledgers[site].epsilon() == 0.0
