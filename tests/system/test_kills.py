"""A run killed at any instant has spent what it spent, shows no half a job, and stands in nobody's way."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.files import read_bounded
from cloister.core.hashes import sha256_file
from cloister.evidence import Predicate, Trust
from cloister.evidence.predicates import BudgetSpend, JobClosed, UpdateReleased
from cloister.evidence.transcript import epsilon, event_from_json
from cloister.evidence.verifier import Verifier, model_artifact
from cloister.privacy import BudgetLedger
from cloister.workflow.checks import full_registry
from tests.console import CLOISTER
from tests.nightly import nightly_seed, spread
from tests.system.example_job import FAST, SITES, ExampleJob, finished_jobs, run
from tests.system.reading import stated_in_log
from tests.system.tampering import judge

LONGEST = 0.8
JOB = ExampleJob(job={**FAST, "federation.rounds": 3, "privacy.target_epsilon": 0.4})


def run_and_be_stopped(job: Path, workspace: Path, after: float, how: signal.Signals) -> int:
    """Run a job in a process of its own and send it a signal; what the process ended with.

    Args:
        job: The job file.
        workspace: Where it runs.
        after: Seconds from the moment when the sites have their ledgers, just before training; below zero,
            from the moment when the workspace was opened.
        how: The signal.
    """
    command = [
        *CLOISTER,
        "run",
        str(job),
        "--workspace",
        str(workspace),
        "-q",
    ]
    child = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not has_begun(workspace, after) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(abs(after))
    child.send_signal(how)
    return child.wait(timeout=60)


def has_begun(workspace: Path, after: float) -> bool:
    return (workspace / ".lock").exists() if after < 0 else len(ledger_files(workspace)) == len(SITES)


def ledger_files(workspace: Path) -> list[Path]:
    return list(workspace.glob("parties/site/*/budget/*.sqlite"))


def budgets(workspace: Path) -> dict[str, float]:
    """Epsilon by site as the ledgers count it; 0 where a site has none yet."""
    found = dict.fromkeys(SITES, 0.0)
    for path in ledger_files(workspace):
        with BudgetLedger.open(path, path.stem) as ledger:
            found[path.parents[1].name] = ledger.epsilon()
    return found


def stated(workspace: Path, site: str) -> tuple[float, int, int]:
    """By a site's own log: epsilon it has stated, how many spends, how many updates it let out."""
    if not (workspace / "parties" / "site" / site / "log.sqlite").exists():
        return 0.0, 0, 0
    made = stated_in_log(workspace, "site", site)
    spends = [one for one in made if isinstance(one, BudgetSpend)]
    total = epsilon([event_from_json(one.event) for one in spends], 1e-4) if spends else 0.0
    return total, len(spends), sum(isinstance(one, UpdateReleased) for one in made)


def check_what_is_left(workspace: Path) -> dict[str, float]:
    """No ledger counts less than was stated, and every job that shows is a whole one."""
    spent = budgets(workspace)
    for site in SITES:
        total, spends, released = stated(workspace, site)
        assert spent[site] >= total - 1e-6
        assert released <= spends
    for name in finished_jobs(workspace):
        if not name.startswith(".unfinished-"):
            verify_folder(workspace / "jobs" / name)
    return spent


def check_that_every_chain_ends(made: list[Predicate], completed: str) -> None:
    """The last a party says about a job is how it ended; one that was killed has failed, if not completed."""
    last = {one.job_id: one for one in made}
    assert all(isinstance(one, JobClosed) for one in last.values())
    assert {one.outcome for one in last.values() if isinstance(one, JobClosed)} <= {"completed", "failed"}
    ending = last[completed]
    assert isinstance(ending, JobClosed)
    assert ending.outcome == "completed"


def verify_folder(folder: Path) -> None:
    model = read_bounded(folder / "model.safetensors", 10**6)
    verifier = Verifier(Trust.load(folder / "trust"), full_registry())
    assert verifier.verify((folder / "receipt.json").read_bytes(), model_artifact(model)).accepted
    assert (folder / "report.html").read_text().rstrip().endswith("</html>")
    assert sha256_file(folder / "model.safetensors")


def stop_and_run_again(folder: Path, after: float, how: signal.Signals) -> int:
    workspace = folder / "work"
    ended = run_and_be_stopped(JOB.write(folder / "job"), workspace, after, how)
    before = check_what_is_left(workspace)
    outcome = run(JOB.spec(folder / "job"), workspace)
    assert judge(outcome).accepted
    for role, name in (("hub", "hub"), *(("site", site) for site in SITES)):
        check_that_every_chain_ends(stated_in_log(workspace, role, name), outcome.job_id)
    after_again = check_what_is_left(workspace)
    assert all(after_again[site] > before[site] for site in SITES)
    for site in outcome.sites:
        assert site.epsilon_dataset == pytest.approx(after_again[site.site])
    assert not [name for name in finished_jobs(workspace) if name.startswith(".unfinished-")]
    return ended


def test_a_run_killed_in_the_middle_of_training_is_charged_and_the_next_one_runs(tmp_path: Path) -> None:
    assert stop_and_run_again(tmp_path, 0.2, signal.SIGKILL) in {-signal.SIGKILL, 0}


def test_an_interrupted_run_ends_with_130_and_the_next_one_runs(tmp_path: Path) -> None:
    assert stop_and_run_again(tmp_path, 0.2, signal.SIGINT) in {130, 0}


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_runs_killed_at_any_instant_lose_no_charge_and_leave_no_half_job(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    first = 40 * nightly_seed()
    for seed in spread(range(first, first + 40), record_property):
        draw = random.Random(seed)
        how = signal.SIGKILL if draw.random() < 0.8 else signal.SIGINT
        ended = stop_and_run_again(tmp_path / str(seed), draw.uniform(-LONGEST, LONGEST), how)
        assert ended in {-signal.SIGKILL, 130, 0}
