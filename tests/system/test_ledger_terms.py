"""A job under a ledger of fixed plans, limits over sites, ledgers set back together with their logs."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from cloister.core.errors import CloisterError
from cloister.evidence.predicates import BudgetSpend
from cloister.evidence.transcript import SampledGaussian, epsilon_pld, times
from cloister.privacy import BudgetExceeded, BudgetLedger, LedgerError
from cloister.workflow.admission import load_data
from tests.system.example_job import EASY, FAST, SITES, ExampleJob, run
from tests.system.reading import stated_in_log
from tests.system.tampering import judge

FIXED = {**EASY, "privacy_guardrails.accounting": "fixed_plan"}


def ledger(workspace: Path, site: str = "lakeview") -> BudgetLedger:
    (path,) = (workspace / "parties/site" / site / "budget").glob("*.sqlite")
    return BudgetLedger.open(path, path.stem)


def test_a_job_under_fixed_plans_reserves_all_of_it_first_and_its_receipt_counts_all_of_it(
    tmp_path: Path,
) -> None:
    spec = ExampleJob(job={**FAST, "federation.rounds": 3}, manifest=FIXED).spec(tmp_path)
    outcome = run(spec, tmp_path / "work")
    assert judge(outcome).accepted
    with ledger(tmp_path / "work") as held:
        (event,) = held.events()
        assert times(event) == 3 * 2
        assert [type(one.entry).__name__ for one in held.history()] == ["Header", "Reserved", "Settled"]
        assert isinstance(event, SampledGaussian)
        assert outcome.sites[0].epsilon == pytest.approx(epsilon_pld([event], 1e-4), abs=1e-6)
    spends = [
        one for one in stated_in_log(tmp_path / "work", "site", "lakeview") if isinstance(one, BudgetSpend)
    ]
    assert [(one.round, one.plan_steps, one.executed_steps) for one in spends] == [
        (0, 6, 2),
        (1, 6, 2),
        (2, 6, 2),
    ]
    adaptive = run(ExampleJob(job={**FAST, "federation.rounds": 3}).spec(tmp_path / "a"), tmp_path / "other")
    assert outcome.sites[0].noise_multiplier < adaptive.sites[0].noise_multiplier


def test_a_ledger_never_changes_its_mode(tmp_path: Path) -> None:
    run(ExampleJob().spec(tmp_path / "one"), tmp_path / "work")
    with pytest.raises(LedgerError) as refused:
        run(ExampleJob(manifest=FIXED).spec(tmp_path / "two"), tmp_path / "work")
    assert refused.value.code == "ledger.other_terms"


def test_losses_of_one_person_at_three_sites_add_up_unless_the_hospitals_linked_them(tmp_path: Path) -> None:
    """Each of three sites keeps to a third of the ceiling: epsilon 1 at each would be 3 for one person."""
    shared = {
        **EASY,
        "privacy_guardrails.cross_site_subjects": "sum",
        "privacy_guardrails.epsilon_per_subject": 2.4,
    }
    with pytest.raises(BudgetExceeded) as refused:
        run(ExampleJob(manifest=shared).spec(tmp_path / "sum"), tmp_path / "work")
    assert all("subject of epsilon 0.8" in line for line in refused.value.details)
    outcome = run(
        ExampleJob(job={**FAST, "privacy.target_epsilon": 0.7}, manifest=shared).spec(tmp_path / "less"),
        tmp_path / "work",
    )
    assert judge(outcome).accepted
    linked = {**shared, "privacy_guardrails.cross_site_subjects": "linked"}
    again = run(ExampleJob(manifest=linked).spec(tmp_path / "linked"), tmp_path / "other")
    assert judge(again).accepted


def test_a_person_at_three_sites_loses_no_more_by_jobs_of_one_site_each(tmp_path: Path) -> None:
    """Each hospital keeps to a third of the ceiling, however few of them a job runs at."""
    shared = {
        **EASY,
        "privacy_guardrails.cross_site_subjects": "sum",
        "privacy_guardrails.epsilon_per_subject": 2.4,
    }
    lost = 0.0
    for site in SITES:
        alone = {**FAST, "data.sites": [site], "federation.min_clients": 1}
        held = load_data(ExampleJob(job=alone, manifest=shared).spec(tmp_path / f"{site}-data"), None)
        digest = held.sites[site].dataset_sha256
        hospital = {"id": site, "name": site, "dataset_sha256": digest}
        asked = {"sites": [{"site": site, "dataset_sha256": digest}]}
        for epsilon in (1.0, 0.7):
            job = {**alone, "privacy.target_epsilon": epsilon}
            terms = {
                **shared,
                "hospitals": [{**hospital, "sample_size": held.sites[site].records}],
                "success_metrics.evaluation_method.test_set_sha256": held.test.sha256,
                "success_metrics.evaluation_method.test_set_records": held.test.records,
            }
            spec = ExampleJob(job=job, manifest=terms, request=asked).spec(tmp_path / f"{site}-{epsilon}")
            with suppress(BudgetExceeded):
                assert judge(run(spec, tmp_path / "work")).accepted
        with ledger(tmp_path / "work", site) as charged:
            assert 0 < charged.epsilon() <= 0.8
            lost += charged.epsilon()
    assert lost <= 2.4


def test_a_job_at_more_sites_than_share_one_persons_ceiling_is_refused(tmp_path: Path) -> None:
    few = {
        **EASY,
        "privacy_guardrails.cross_site_subjects": "sum",
        "privacy_guardrails.subject_sites": 2,
    }
    with pytest.raises(CloisterError) as refused:
        run(ExampleJob(manifest=few).spec(tmp_path), tmp_path / "work")
    assert refused.value.code == "policy.refused"
    assert all("job-subjects: the job runs at 3 sites" in line for line in refused.value.details)


def test_a_ledger_set_back_together_with_its_log_is_refused_by_who_saw_the_log_later(tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    run(ExampleJob().spec(tmp_path / "one"), workspace)
    site = workspace / "parties/site/lakeview"
    shutil.copytree(site, tmp_path / "backup")
    run(ExampleJob().spec(tmp_path / "two"), workspace)
    shutil.rmtree(site)
    shutil.copytree(tmp_path / "backup", site)
    with pytest.raises(CloisterError) as refused:
        run(ExampleJob().spec(tmp_path / "three"), workspace)
    assert refused.value.code == "evidence.log_rolled_back"


def test_ledgers_may_be_kept_in_postgresql(tmp_path: Path, postgresql: str) -> None:
    from cloister.core.settings import Settings
    from cloister.workflow.run import run_job
    from cloister.workflow.workspace import open_workspace

    for name in ("one", "two"):
        spec = ExampleJob().spec(tmp_path / name)
        with open_workspace(tmp_path / "work", settings=Settings(ledger_database=postgresql)) as opened:
            outcome = run_job(spec, opened, watch=lambda _: None)
        assert judge(outcome).accepted
    assert not list((tmp_path / "work").rglob("budget/*.sqlite"))
    for site in SITES:
        with BudgetLedger.open(postgresql, "breast-cancer-wisconsin", holder=site) as held:
            assert held.epsilon() > outcome.sites[0].epsilon
