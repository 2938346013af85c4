"""``cloister budget``: every figure is the ledger's own, and a ledger that can't be trusted is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cloister.cli import main as command_line
from cloister.core.clock import system_clock
from cloister.core.hashes import sha256_hex
from cloister.evidence import StatementWriter, Subject
from cloister.evidence.predicates import DataCommitment, ManifestAccepted
from cloister.privacy import BudgetLedger
from cloister.workflow.workspace import open_workspace
from tests.system.example_job import EASY, FAST, ExampleJob, run

SITE = "lakeview"


@pytest.fixture(scope="module")
def spent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which two small jobs ran."""
    folder = tmp_path_factory.mktemp("budget")
    for name in ("one", "two"):
        run(ExampleJob(job={**FAST, "name": name}).spec(folder / name), folder / "work")
    return folder / "work"


def main(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    assert main([*map(str, arguments), "--json"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def ledger(workspace: Path, site: str = SITE) -> BudgetLedger:
    (path,) = (workspace / "parties/site" / site / "budget").glob("*.sqlite")
    return BudgetLedger.open(path, path.stem)


def test_show_tells_each_sites_epsilon_as_its_ledger_does(
    spent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = told(capsys, "budget", "show", "-w", spent)["budgets"]
    assert isinstance(budgets, list)
    assert [one["site"] for one in budgets] == ["lakeview", "northgate", "riverside"]
    for one in budgets:
        with ledger(spent, one["site"]) as held:
            assert one["epsilon"] == held.epsilon()
            assert one["head"] == held.head
        assert (one["unit"], one["relation"], one["delta"]) == ("record", "add_or_remove_one", 1e-4)
        assert (one["limit"], one["limit_name"]) == (3.0, "newest manifest")
        assert len(one["jobs"]) == 2
        assert max(one["jobs"].values()) < one["epsilon"] < sum(one["jobs"].values())
        assert 0 < one["epsilon_other"] < one["epsilon"]


def test_history_lists_every_spend_and_draws_it(
    spent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "history.png"
    answer = told(capsys, "budget", "history", "-w", spent, "--site", SITE, "--plot", plot)
    (one,) = answer["budgets"]  # type: ignore[misc]
    after = [spend["epsilon_after"] for spend in one["spends"]]
    assert len(after) == 4
    assert after == sorted(after)
    assert after[-1] == one["epsilon"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_plot_is_a_picture(spent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", "history", "-w", str(spent), "--plot", str(tmp_path / "a.exe")]) == 2
    assert "input.schema" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_explain_names_unit_relation_delta_and_accountant(
    spent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["budget", "explain", "-w", str(spent), "--site", SITE]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("one record", "add_or_remove_one", "delta 0.0001", "RDP (adaptive)", "PLD would say"):
        assert part in text
    (one,) = told(capsys, "budget", "explain", "-w", spent, "--site", SITE)["budgets"]  # type: ignore[misc]
    assert one["fitting_steps"] > 0


def test_each_command_prints_for_people_too(spent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("show", "history"):
        assert main(["budget", command, "-w", str(spent)]) == 0
        assert SITE in capsys.readouterr().out


def test_a_crashed_jobs_reservation_is_shown_as_spent(
    spent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Path(shutil.copytree(spent, tmp_path / "work"))
    with ledger(workspace) as held:
        held.reserve(
            held.events()[0],
            dataset_sha256=held.head,
            job_id="crashed",
            round_number=0,
            purpose=held.history()[1].entry.purpose,  # type: ignore[union-attr]
            limits=[],
        )
        epsilon = held.epsilon()
    (one,) = told(capsys, "budget", "show", "-w", workspace, "--site", SITE)["budgets"]  # type: ignore[misc]
    assert one["unsettled"] == 1
    assert one["epsilon"] == epsilon


def test_a_ledger_that_was_set_back_is_not_shown(
    spent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Path(shutil.copytree(spent, tmp_path / "work"))
    (path,) = (workspace / "parties/site" / SITE / "budget").glob("*.sqlite")
    path.unlink()
    BudgetLedger.create(path, path.stem, 1e-4).close()
    assert main(["budget", "show", "-w", str(workspace)]) == 5
    assert "ledger.rolled_back" in capsys.readouterr().err


def test_a_workspace_without_budgets_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "parties").mkdir()
    assert main(["budget", "show", "-w", str(tmp_path)]) == 2
    assert "input.missing_file" in capsys.readouterr().err


def test_a_budget_is_held_against_its_own_datasets_manifest(
    spent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest manifest of the site may be about another dataset."""
    shutil.copytree(spent, tmp_path / "work")
    job = "6f2a7c1e-90d4-4c56-8a41-0d2b7e4f9c11"
    digest = sha256_hex(b"other")
    with open_workspace(tmp_path / "work") as opened:
        site = opened.party("site", SITE)
        with site.open_log() as log:
            writer = StatementWriter(log, site.signer, site.name, job, system_clock)
            writer.write(
                ManifestAccepted,
                [Subject("manifest", digest)],
                manifest_sha256=digest,
                hospital_id=SITE,
                manifest_id=job,
                version="1.0.0",
                epsilon_budget=0.1,
                delta_budget=1e-5,
            )
            writer.write(
                DataCommitment,
                [Subject("dataset", digest)],
                dataset_name="other",
                dataset_sha256=digest,
                records=40,
                subject_count=None,
                features=3,
                single_class=None,
                normalisation="declared-public-bounds",
                bounds_sha256=digest,
            )
    (one,) = told(capsys, "budget", "show", "-w", tmp_path / "work", "--site", SITE)["budgets"]  # type: ignore[misc]
    assert (one["limit"], one["limit_name"]) == (3.0, "newest manifest")


def test_a_budget_is_held_against_one_persons_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {
        **EASY,
        "privacy_guardrails.cross_site_subjects": "sum",
        "privacy_guardrails.epsilon_per_subject": 2.4,
    }
    job = {**FAST, "privacy.target_epsilon": 0.7}
    run(ExampleJob(job=job, manifest=shared).spec(tmp_path), tmp_path / "work")
    budgets = told(capsys, "budget", "show", "-w", tmp_path / "work")["budgets"]
    assert isinstance(budgets, list)
    for one in budgets:
        assert (one["limit"], one["limit_name"]) == (pytest.approx(0.8), "one person's share")
        assert one["epsilon"] <= one["epsilon_held"] <= 0.8
        assert one["left"] == pytest.approx(0.8 - one["epsilon_held"])
