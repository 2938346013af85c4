"""One public test seed gives one model; real noise never repeats, and no receipt hides which it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.cli.main import main
from cloister.core.hashes import sha256_file
from cloister.evidence.predicates import BudgetSpend
from cloister.evidence.verifier import TestRandomness
from cloister.workflow.outcome import JobOutcome
from tests.system.example_job import ExampleJob, run
from tests.system.reading import stated_in_log
from tests.system.tampering import failed, judge


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, JobOutcome]:
    """One small job, each time in a workspace of its own."""
    folder = tmp_path_factory.mktemp("runs")
    spec = ExampleJob().spec(folder)
    seeds = {"seed 5": 5, "seed 5 again": 5, "seed 6": 6, "entropy": None, "entropy again": None}
    return {name: run(spec, folder / name, test_seed=seed) for name, seed in seeds.items()}


def model_hash(outcome: JobOutcome) -> str:
    return sha256_file(outcome.model)


def test_two_runs_with_one_test_seed_give_the_same_model(runs: dict[str, JobOutcome]) -> None:
    assert model_hash(runs["seed 5"]) == model_hash(runs["seed 5 again"])
    assert runs["seed 5"].job_id != runs["seed 5 again"].job_id


def test_another_test_seed_gives_another_model(runs: dict[str, JobOutcome]) -> None:
    assert model_hash(runs["seed 5"]) != model_hash(runs["seed 6"])


def test_two_runs_without_a_seed_give_different_models(runs: dict[str, JobOutcome]) -> None:
    assert model_hash(runs["entropy"]) != model_hash(runs["entropy again"])


def test_a_seeded_receipt_is_refused_for_its_randomness_and_nothing_else(
    runs: dict[str, JobOutcome],
) -> None:
    verdict = judge(runs["seed 5"])
    assert failed(verdict) == ["randomness"]
    assert verdict.test_randomness


def test_a_seeded_receipt_is_accepted_by_who_accepts_test_randomness(runs: dict[str, JobOutcome]) -> None:
    assert judge(runs["seed 5"], accept=TestRandomness.ACCEPT).accepted


def test_a_seeded_run_says_so_in_its_statements_and_its_report(runs: dict[str, JobOutcome]) -> None:
    outcome = runs["seed 5"]
    workspace = outcome.folder.parents[1]
    generators = {
        one.noise_generator
        for one in stated_in_log(workspace, "site", "lakeview")
        if isinstance(one, BudgetSpend)
    }
    assert generators == {"seeded-test"} == {outcome.randomness}
    assert "TEST RANDOMNESS" in outcome.report.read_text()


def verify(outcome: JobOutcome, *options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(outcome.receipt), "--trust", str(outcome.trust), "--json", *options])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_verify_refuses_a_seeded_receipt_until_told_otherwise(
    runs: dict[str, JobOutcome], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(runs["seed 5"]) == 1
    assert json.loads(capsys.readouterr().out)["test_randomness"] is True
    assert verify(runs["seed 5"], "--accept-test-randomness") == 0


def test_verify_refuses_simulated_attestation_in_production(
    runs: dict[str, JobOutcome], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(runs["entropy"]) == 0
    capsys.readouterr()
    assert verify(runs["entropy"], "--production") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["simulated"] is True
    assert answer["accepted"] is False


def test_the_seed_of_the_job_is_public_and_changes_the_model_not_the_noise(tmp_path: Path) -> None:
    job = {"federation.rounds": 1, "privacy.target_epsilon": 0.5, "model.architecture": "mlp"}
    request = {"model_specification.architecture": "mlp"}
    hashes = {
        seed: model_hash(
            run(
                ExampleJob(job={**job, "federation.seed": seed}, request=request).spec(tmp_path / str(seed)),
                tmp_path / f"work-{seed}",
                test_seed=5,
            )
        )
        for seed in (7, 8)
    }
    assert hashes[7] != hashes[8]
