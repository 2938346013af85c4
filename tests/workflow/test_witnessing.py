"""Witnesses see the logs' heads before a receipt is composed over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.core.errors import CloisterError
from cloister.core.keys import FileKeyStore
from cloister.core.settings import Settings
from cloister.evidence import Trust
from cloister.evidence.checkpoint import sign_checkpoint
from cloister.evidence.checks import Outcome
from cloister.evidence.verifier import TestRandomness, VerificationPolicy, Verifier, model_artifact
from cloister.evidence.witness.book import CheckpointBook
from cloister.evidence.witness.folder import create_witness, follow
from cloister.workflow.checks import full_registry
from cloister.workflow.outcome import JobOutcome
from cloister.workflow.run import run_job
from cloister.workflow.workspace import Workspace, open_workspace
from tests.system.example_job import ExampleJob, finished_jobs, ignore

SITES = ("lakeview", "northgate", "riverside")


def witness(folder: Path, name: str, workspace: Workspace, *, sites: tuple[str, ...] = SITES) -> Path:
    place = folder / name
    create_witness(place, lambda: FileKeyStore(place / "keys"), name)
    for party in (workspace.party("hub", "hub"), *(workspace.party("site", site) for site in sites)):
        follow(place, party.origin, party.signer.public_key)
    return place


def run(folder: Path, *witnesses: Path) -> JobOutcome:
    settings = Settings(witnesses=witnesses)
    with open_workspace(folder / "work", settings=settings) as opened:
        return run_job(ExampleJob().spec(folder / "job"), opened, watch=ignore, test_seed=3)


def prepared(folder: Path, *names: str, sites: tuple[str, ...] = SITES) -> list[Path]:
    with open_workspace(folder / "work") as opened:
        return [witness(folder, name, opened, sites=sites) for name in names]


def test_a_receipt_with_two_witnesses_passes_where_two_are_wanted_and_not_three(tmp_path: Path) -> None:
    outcome = run(tmp_path, *prepared(tmp_path, "east", "west"))
    trust, data = Trust.load(outcome.trust), outcome.receipt.read_bytes()
    model = model_artifact(outcome.model.read_bytes())
    for wanted, expected in ((0, Outcome.PASSED), (2, Outcome.PASSED), (3, Outcome.FAILED)):
        policy = VerificationPolicy(test_randomness=TestRandomness.ACCEPT, witnesses=wanted)
        verdict = Verifier(trust, full_registry(), policy).verify(data, model)
        assert {one.id: one.outcome for one in verdict.checks}["witnesses"] is expected
        assert verdict.accepted is (expected is Outcome.PASSED)
    assert len(CheckpointBook(tmp_path / "east" / "held").logs()) == 4


def test_a_witness_that_does_not_follow_every_log_is_noticed_before_training(tmp_path: Path) -> None:
    (east,) = prepared(tmp_path, "east", sites=("lakeview",))
    with pytest.raises(CloisterError) as refused:
        run(tmp_path, east)
    assert refused.value.code == "evidence.witness_refused"
    assert "cloister/site/northgate, cloister/site/riverside" in refused.value.message
    assert not list((tmp_path / "work").rglob("budget"))


def test_a_folder_without_a_witness_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CloisterError) as refused:
        run(tmp_path, tmp_path / "nobody")
    assert refused.value.code == "evidence.witness_refused"


def test_a_witness_that_has_seen_another_past_gives_no_receipt(tmp_path: Path) -> None:
    (east,) = prepared(tmp_path, "east")
    with open_workspace(tmp_path / "work") as opened:
        site = opened.party("site", "northgate")
        seen = sign_checkpoint(site.origin, 3, bytes(range(32)), site.signer)
    CheckpointBook(east / "held").hold(seen, (), site.signer.public_key)
    with pytest.raises(CloisterError) as refused:
        run(tmp_path, east)
    assert refused.value.code == "evidence.log_inconsistent"
    assert finished_jobs(tmp_path / "work") == []
