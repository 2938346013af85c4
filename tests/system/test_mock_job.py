"""A mock job shows the whole way without noise, says so everywhere, and gets past nobody."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.enclave.model_file import decode_model
from cloister.evidence.predicates import MOCK, BudgetSpend, Release, RequestDecided, UpdateReleased
from cloister.policy import PolicyError
from cloister.privacy import BudgetLedger, ModelError, PrivacyError, build_model, load_arrays
from cloister.privacy.mock import MockTrainer
from cloister.privacy.testing import SeededTestRandom
from cloister.privacy.trainer import TrainingPlan
from cloister.workflow.outcome import JobOutcome
from cloister.workflow.workspace import open_workspace
from tests.system.example_job import FAST, SITES, ExampleJob, finished_jobs, run
from tests.system.reading import stated_in_log
from tests.system.tampering import judge

MOCK_JOB = ExampleJob(job={**FAST, "privacy.mechanism": "MOCK"})


@dataclass(frozen=True)
class Mocked:
    workspace: Path
    outcome: JobOutcome


@pytest.fixture(scope="module")
def mocked(tmp_path_factory: pytest.TempPathFactory) -> Mocked:
    folder = tmp_path_factory.mktemp("mock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOCK_DP", "1")
        outcome = run(MOCK_JOB.spec(folder), folder / "work")
    return Mocked(folder / "work", outcome)


def test_the_variable_alone_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_DP", "1")
    outcome = run(ExampleJob().spec(tmp_path), tmp_path / "work")
    assert judge(outcome).accepted
    assert outcome.randomness != MOCK


@pytest.mark.parametrize("value", [None, "", "0", "true", "yes"])
def test_the_job_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("MOCK_DP", raising=False)
    if value is not None:
        monkeypatch.setenv("MOCK_DP", value)
    with pytest.raises(PrivacyError) as refused:
        run(MOCK_JOB.spec(tmp_path), tmp_path / "work")
    assert refused.value.code == "privacy.mock_refused"
    assert finished_jobs(tmp_path / "work") == []


def test_job_and_machine_together_are_refused_where_the_manifest_does_not_allow_a_mock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOCK_DP", "1")
    private = ExampleJob(job=MOCK_JOB.job, manifest={"privacy_guardrails.allow_mock": False})
    with pytest.raises(PolicyError) as refused:
        run(private.spec(tmp_path), tmp_path / "work")
    assert all("job-mock" in line for line in refused.value.details)
    assert not [
        one
        for site in SITES
        for one in stated_in_log(tmp_path / "work", "site", site)
        if isinstance(one, UpdateReleased)
    ]


def test_a_mock_trainer_is_not_made_where_mocks_are_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOCK_DP", raising=False)
    plan = TrainingPlan(0.5, 1.0, 1.0, 1, 0.1)
    with pytest.raises(PrivacyError):
        MockTrainer(plan, noise=SeededTestRandom(1, "a"), sampling=SeededTestRandom(1, "b"))


def test_a_mock_has_the_artifacts_of_a_job_and_each_is_marked(mocked: Mocked) -> None:
    outcome = mocked.outcome
    assert outcome.folder.name.startswith("MOCK-")
    assert outcome.randomness == MOCK
    assert "MOCK." in outcome.report.read_text()
    assert any("MOCK" in name for name in decode_model(outcome.model.read_bytes()))
    summary = json.loads(outcome.receipt.read_bytes())["body"]["summary"]
    assert {one["mechanism"] for one in summary["privacy"].values()} == {"MOCK"}
    assert all(one["noise_generators"] == [MOCK] for one in summary["privacy"].values())
    assert summary["policy"]["privacy_compliance"] is False
    spends = [
        one for one in stated_in_log(mocked.workspace, "site", "lakeview") if isinstance(one, BudgetSpend)
    ]
    assert {one.noise_generator for one in spends} == {MOCK}


def test_every_release_path_refuses_a_mock(mocked: Mocked) -> None:
    releases = [one for one in stated_in_log(mocked.workspace, "hub", "hub") if isinstance(one, Release)]
    assert [one.approved for one in releases] == [False]
    assert [one.name for one in releases[0].constraints if not one.satisfied] == ["private-training"]
    for site in ("lakeview", "northgate", "riverside"):
        decided = [
            one for one in stated_in_log(mocked.workspace, "site", site) if isinstance(one, RequestDecided)
        ]
        assert [one.approved for one in decided] == [False]
    with pytest.raises(ModelError):
        load_arrays(
            build_model("logistic-regression", 30, 2, 0), decode_model(mocked.outcome.model.read_bytes())
        )


def test_every_verifier_refuses_a_mock_also_one_that_accepts_test_randomness(mocked: Mocked) -> None:
    verdict = mocked.outcome.verdict
    assert not verdict.accepted
    failed = {check.id for check in verdict.checks if check.outcome.value == "failed"}
    assert failed >= {"policy", "epsilon", "randomness", "model-hash"}
    assert not judge(mocked.outcome).accepted


def test_a_mock_charges_no_budget_and_leaves_no_ledger(mocked: Mocked) -> None:
    with open_workspace(mocked.workspace):
        pass
    assert not list(mocked.workspace.rglob("mock/*"))
    assert not list(mocked.workspace.rglob("budget/*.sqlite"))


def test_a_private_job_after_a_mock_finds_its_whole_budget(mocked: Mocked, tmp_path: Path) -> None:
    outcome = run(ExampleJob().spec(tmp_path), mocked.workspace)
    assert judge(outcome).accepted
    (path,) = (mocked.workspace / "parties/site/lakeview/budget").glob("*.sqlite")
    with BudgetLedger.open(path, path.stem) as ledger:
        assert ledger.epsilon() == outcome.sites[0].epsilon
