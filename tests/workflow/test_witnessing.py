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
from cloister.evidence.witness.book import CheckpointBook, file_name
from cloister.evidence.witness.folder import create_witness, follow
from cloister.workflow.audit import log_keepers
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
    refused = refusal(tmp_path, east)
    assert refused.code == "evidence.log_rolled_back"
    assert "witness east" in refused.message
    assert finished_jobs(tmp_path / "work") == []


def refusal(folder: Path, *witnesses: Path) -> CloisterError:
    """Why a job with these witnesses didn't begin: no budget was touched and nothing stated."""
    work = folder / "work"
    before = sizes(work)
    with pytest.raises(CloisterError) as caught:
        run(folder, *witnesses)
    assert sizes(work) == before
    assert not list(work.glob("open/*"))
    return caught.value


def sizes(work: Path) -> dict[str, object]:
    """How many entries each log has, and what every ledger is."""
    with open_workspace(work) as opened:
        logs: dict[str, object] = {}
        for party in log_keepers(opened):
            with party.open_log_to_show() as log:
                logs[party.origin] = log.size
    logs = {origin: size for origin, size in logs.items() if size}
    return logs | {str(file): file.read_bytes() for file in work.glob("parties/site/*/budget/*")}


def test_a_witness_that_does_not_know_a_new_key_costs_no_budget(tmp_path: Path) -> None:
    (east,) = prepared(tmp_path, "east")
    run(tmp_path, east)
    with open_workspace(tmp_path / "work") as opened:
        renewed = opened.rotate_key(opened.party("site", "northgate"))
    refused = refusal(tmp_path, east)
    assert refused.code == "evidence.witness_refused"
    assert "east" in refused.message
    assert f"cloister witness follow {east} --log cloister/site/northgate --key FILE" in refused.hint
    follow(east, renewed.origin, renewed.signer.public_key)
    assert run(tmp_path, east).verdict.accepted


def test_a_witness_that_saw_more_of_a_log_or_another_one_costs_no_budget(tmp_path: Path) -> None:
    (east,) = prepared(tmp_path, "east")
    run(tmp_path)
    with open_workspace(tmp_path / "work") as opened:
        site = opened.party("site", "northgate")
        with site.open_log_to_show() as log:
            size = log.size
    for seen, code in ((size, "evidence.log_inconsistent"), (size + 9, "evidence.log_rolled_back")):
        head = sign_checkpoint(site.origin, seen, bytes(range(32)), site.signer)
        (east / "held").mkdir(exist_ok=True)
        (east / "held" / f"{file_name(site.origin)}.note").write_text(head.encode())
        refused = refusal(tmp_path, east)
        assert refused.code == code
        assert "witness east" in refused.message
    # The head that it was shown over as many entries is kept: the two prove two pasts.
    assert len(CheckpointBook(east / "held").conflicts(site.origin)) == 1


def test_a_witness_that_can_not_keep_what_it_sees_costs_no_budget(tmp_path: Path) -> None:
    (east,) = prepared(tmp_path, "east")
    (east / "held").write_text("no folder")
    refused = refusal(tmp_path, east)
    assert refused.code.startswith("storage.")
    assert "witness east" in refused.message
