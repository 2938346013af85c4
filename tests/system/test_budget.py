"""Budgets belong to datasets, not to jobs: what one job spent, the next one finds spent."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.core.hashes import sha256_hex
from cloister.evidence.predicates import BudgetSpend, Destruction, JobClosed, Violation
from cloister.evidence.predicates.training import MAX_PRIOR_EVENTS
from cloister.evidence.transcript import SampledGaussian
from cloister.federation.events import RoundStarted
from cloister.health import load_source
from cloister.privacy import BudgetExceeded, BudgetLedger, LedgerError
from cloister.privacy.ledger import Purpose
from cloister.workflow.outcome import JobOutcome
from cloister.workflow.watching import RunEvent
from tests.system.example_job import EASY, FAST, SITES, ExampleJob, finished_jobs, run
from tests.system.reading import stated_in_log
from tests.system.tampering import judge

BUDGET = 3.0
HOSPITALS = ("northgate", "riverside", "lakeview")
"""In the order of the example's manifest and request."""


def ledgers(workspace: Path) -> dict[str, float]:
    """Epsilon spent on each site's dataset, as the ledgers say."""
    spent = {}
    for site in SITES:
        (path,) = (workspace / "parties" / "site" / site / "budget").glob("*.sqlite")
        with BudgetLedger.open(path, path.stem) as ledger:
            spent[site] = ledger.epsilon()
    return spent


@dataclass(frozen=True)
class Spent:
    """A workspace in which jobs of epsilon 2 ran, one after another, until the hospitals refused one."""

    workspace: Path
    outcomes: list[JobOutcome]
    refusal: BudgetExceeded
    events_of_refused: list[RunEvent]


@pytest.fixture(scope="module")
def spent(tmp_path_factory: pytest.TempPathFactory) -> Spent:
    folder = tmp_path_factory.mktemp("budget")
    spec = ExampleJob(job={**FAST, "privacy.target_epsilon": 2.0}).spec(folder)
    outcomes: list[JobOutcome] = []
    for _ in range(10):
        events: list[RunEvent] = []
        try:
            outcomes.append(run(spec, folder / "work", watch=events.append))
        except BudgetExceeded as refusal:
            return Spent(folder / "work", outcomes, refusal, events)
    pytest.fail("ten jobs of epsilon 2 fitted into a budget of 3")


def test_the_epsilons_of_successive_jobs_compose_on_the_dataset(spent: Spent) -> None:
    totals = [outcome.sites[0].epsilon_dataset for outcome in spent.outcomes]
    assert len(totals) >= 2
    assert totals == sorted(totals)
    assert all(outcome.sites[0].epsilon == pytest.approx(totals[0]) for outcome in spent.outcomes)
    assert totals[0] < totals[1] < 2 * totals[0]
    assert totals[-1] <= BUDGET


def test_every_receipt_up_to_the_refusal_verifies_with_what_was_spent_before_it(
    spent: Spent,
) -> None:
    for outcome in spent.outcomes:
        assert judge(outcome).accepted


def test_the_job_that_would_pass_the_budget_is_refused_before_its_first_round(spent: Spent) -> None:
    assert spent.refusal.exit_code == 3
    assert {line.split(":")[0] for line in spent.refusal.details} == set(SITES)
    assert not any(isinstance(event, RoundStarted) for event in spent.events_of_refused)
    assert ledgers(spent.workspace) == {site.site: site.epsilon_dataset for site in spent.outcomes[-1].sites}


def test_a_refused_job_leaves_no_folder_and_the_earlier_ones_as_they_were(spent: Spent) -> None:
    assert finished_jobs(spent.workspace) == sorted(one.folder.name for one in spent.outcomes)


def test_every_site_states_its_refusal_and_closes_the_job_as_refused(spent: Spent) -> None:
    done = {outcome.job_id for outcome in spent.outcomes}
    for site in SITES:
        *earlier, violation, destroyed, closed = stated_in_log(spent.workspace, "site", site)
        assert isinstance(violation, Violation)
        assert isinstance(destroyed, Destruction)
        assert isinstance(closed, JobClosed)
        assert violation.rule == "ledger.budget_exceeded"
        assert closed.outcome == "refused"
        assert violation.job_id == closed.job_id not in done
        assert {one.job_id for one in earlier if isinstance(one, BudgetSpend)} == done


def test_a_smaller_job_still_fits_after_a_refusal(spent: Spent, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(spent.workspace, tmp_path / "work"))
    left = ExampleJob(job={**FAST, "federation.rounds": 1, "privacy.target_epsilon": 0.1}).spec(tmp_path)
    assert judge(run(left, workspace)).accepted
    before = spent.outcomes[-1].sites[0].epsilon_dataset
    assert all(before < after <= BUDGET for after in ledgers(workspace).values())


def test_a_fixed_noise_that_the_job_itself_cannot_afford_is_refused_before_its_first_round(
    tmp_path: Path,
) -> None:
    events: list[RunEvent] = []
    spec = ExampleJob(job={"federation.rounds": 50, "privacy.noise_multiplier": 1.0}).spec(tmp_path)
    with pytest.raises(BudgetExceeded, match="budget") as refused:
        run(spec, tmp_path / "work", watch=events.append)
    assert any("job target" in line for line in refused.value.details)
    assert not any(isinstance(event, RoundStarted) for event in events)


def test_epsilon_above_five_halts_whatever_the_manifest_says(tmp_path: Path) -> None:
    generous = {
        **EASY,
        "privacy_guardrails.epsilon_budget": 5.0,
        "privacy_guardrails.epsilon_per_subject": 15.0,
    }
    job = {**FAST, "privacy.target_epsilon": 4.0}
    spec = ExampleJob(job=job, manifest=generous, request={"privacy.epsilon": 4.0}).spec(tmp_path)
    run(spec, tmp_path / "work")
    with pytest.raises(BudgetExceeded):
        run(spec, tmp_path / "work")


def test_a_deleted_ledger_is_not_made_anew(tmp_path: Path) -> None:
    spec = ExampleJob().spec(tmp_path)
    first = run(spec, tmp_path / "work")
    for path in (tmp_path / "work" / "parties" / "site" / "lakeview" / "budget").iterdir():
        path.unlink()
    with pytest.raises(LedgerError) as refused:
        run(spec, tmp_path / "work")
    assert refused.value.code == "ledger.missing"
    assert "backup" in refused.value.hint
    assert finished_jobs(tmp_path / "work") == [first.folder.name]


def test_another_split_of_the_same_patients_gets_no_new_budget(spent: Spent, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    shutil.copytree(spent.workspace, workspace)
    data = load_source("breast-cancer-wisconsin", seed=7)
    hashes = {site: table.dataset_sha256 for site, table in data.sites.items()}
    spec = ExampleJob(
        job={**FAST, "privacy.target_epsilon": 2.0, "data.split_seed": 7},
        manifest={
            **EASY,
            **{f"hospitals.{at}.dataset_sha256": hashes[site] for at, site in enumerate(HOSPITALS)},
            "success_metrics.evaluation_method.test_set_sha256": data.test.sha256,
        },
        request={f"sites.{at}.dataset_sha256": hashes[site] for at, site in enumerate(HOSPITALS)},
    ).spec(tmp_path / "job")
    before = ledgers(workspace)
    with pytest.raises(BudgetExceeded):
        run(spec, workspace)
    assert ledgers(workspace) == before


def test_an_emptied_ledger_stops_the_next_job(spent: Spent, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    shutil.copytree(spent.workspace, workspace)
    (path,) = (workspace / "parties" / "site" / "lakeview" / "budget").glob("*.sqlite")
    path.unlink()
    BudgetLedger.create(path, path.stem, 1e-4).close()
    with pytest.raises(LedgerError) as refused:
        run(ExampleJob().spec(tmp_path), workspace)
    assert refused.value.code == "ledger.rolled_back"


def test_a_job_whose_spend_could_not_be_stated_is_refused_before_anything_is_reserved(tmp_path: Path) -> None:
    """As many mechanisms as a statement names, none of them costly; then one more."""
    run(ExampleJob().spec(tmp_path / "one"), tmp_path / "work")
    (path,) = (tmp_path / "work/parties/site/lakeview/budget").glob("*.sqlite")
    with BudgetLedger.open(path, path.stem) as ledger:
        for number in range(MAX_PRIOR_EVENTS - 1):
            ledger.reserve(
                SampledGaussian(0.001, 5000 + number / 1000, 1),
                dataset_sha256=sha256_hex(b"records"),
                job_id=f"job {number}",
                round_number=0,
                purpose=Purpose.TRAINING,
                limits=(),
            )
        head = ledger.head
    other = ExampleJob(job={**FAST, "privacy.target_epsilon": 0.5}).spec(tmp_path / "two")
    with pytest.raises(BudgetExceeded) as refused:
        run(other, tmp_path / "work")
    assert any("lakeview" in line and "different mechanisms" in line for line in refused.value.details)
    with BudgetLedger.open(path, path.stem) as ledger:
        assert ledger.head == head
    run(ExampleJob().spec(tmp_path / "three"), tmp_path / "work")
