"""A site that runs other code than the manifests allow gets no task, and the logs say so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.enclave.attestation.simulator import GuestSettings, SimulatedPlatform, SimulatedVendor
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    JobClosed,
    RoundAggregated,
    UpdateReleased,
)
from cloister.federation import AdmissionError
from cloister.federation.events import RoundStarted, SiteAdmitted, SiteRefused
from cloister.workflow.outcome import JobOutcome
from cloister.workflow.watching import RunEvent
from tests.system.example_job import FAST, SITES, Edits, ExampleJob, finished_jobs, run
from tests.system.reading import stated_in_log
from tests.system.tampering import judge

FOREIGN = "lakeview"
OTHER_CODE = b"\xab" * 48


@pytest.fixture(scope="module")
def foreign_code() -> Iterator[pytest.MonkeyPatch]:
    """On one site's machine another measurement is taken."""
    honest = SimulatedVendor.platform

    def platform(
        self: SimulatedVendor, name: str, measurement: bytes, settings: GuestSettings | None = None
    ) -> SimulatedPlatform:
        return honest(self, name, OTHER_CODE if name == FOREIGN else measurement, settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedVendor, "platform", platform)
        yield patch


@pytest.fixture(scope="module")
def without_one(
    foreign_code: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> tuple[JobOutcome, list[RunEvent]]:
    """A job that two of three sites may do."""
    folder = tmp_path_factory.mktemp("foreign")
    events: list[RunEvent] = []
    spec = ExampleJob(job={**FAST, "federation.min_clients": 2}).spec(folder)
    return run(spec, folder / "work", watch=events.append), events


WithoutOne = tuple[JobOutcome, list[RunEvent]]


def test_a_site_with_another_measurement_gets_no_task(without_one: WithoutOne) -> None:
    _, events = without_one
    assert SiteRefused(FOREIGN, "attestation.measurement") in events
    assert {event.site for event in events if isinstance(event, SiteAdmitted)} == {"northgate", "riverside"}
    assert all(
        event.sites == ("northgate", "riverside") for event in events if isinstance(event, RoundStarted)
    )


def test_its_records_are_not_touched_and_its_budget_not_spent(without_one: WithoutOne) -> None:
    workspace = without_one[0].folder.parents[1]
    made = stated_in_log(workspace, "site", FOREIGN)
    assert not [one for one in made if isinstance(one, BudgetSpend | UpdateReleased)]
    (refused,) = (one for one in without_one[0].sites if one.site == FOREIGN)
    assert (refused.steps, refused.epsilon, refused.epsilon_dataset) == (0, 0.0, 0.0)


def test_the_refusal_is_in_the_hubs_log_with_the_evidence_that_led_to_it(without_one: WithoutOne) -> None:
    made = stated_in_log(without_one[0].folder.parents[1], "hub", "hub")
    verdicts = {one.site: one for one in made if isinstance(one, AttestationVerdict)}
    assert {site: one.status for site, one in verdicts.items()} == {
        "lakeview": "UNTRUSTED",
        "northgate": "TRUSTED",
        "riverside": "TRUSTED",
    }
    assert verdicts[FOREIGN].measurement == OTHER_CODE.hex()
    assert verdicts[FOREIGN].evidence.report
    for average in (one for one in made if isinstance(one, RoundAggregated)):
        assert set(average.updates) == {"northgate", "riverside"}
        assert average.absent == {FOREIGN: "attestation.measurement"}


def test_the_refusal_is_in_the_machines_log(without_one: WithoutOne) -> None:
    outcome = without_one[0]
    log = outcome.folder.parents[1] / "logs" / f"{outcome.job_id}.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (refused,) = (line for line in lines if line["event"] == "site_refused")
    assert (refused["site"], refused["reason"]) == (FOREIGN, "attestation.measurement")
    assert refused["correlation_id"] == refused["experiment_id"] == outcome.job_id


def test_the_receipt_of_the_others_verifies_and_names_who_took_no_part(without_one: WithoutOne) -> None:
    outcome = without_one[0]
    assert judge(outcome).accepted
    assert outcome.refused_sites == {FOREIGN: "attestation.measurement"}
    assert "took no part: attestation.measurement" in outcome.report.read_text()


def test_a_job_that_needs_the_refused_site_fails_and_leaves_no_folder(
    foreign_code: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(AdmissionError) as refused:
        run(ExampleJob().spec(tmp_path), tmp_path / "work")
    assert refused.value.code == "federation.too_few_sites"
    assert refused.value.exit_code == 4
    assert refused.value.details == (f"{FOREIGN}: refused, attestation.measurement",)
    assert finished_jobs(tmp_path / "work") == []


def endings(workspace: Path) -> dict[str, str]:
    """How the job ended by each party's own log."""
    found = {}
    for role, name in (("hub", "hub"), *(("site", site) for site in SITES)):
        closed = stated_in_log(workspace, role, name)[-1]
        assert isinstance(closed, JobClosed)
        found[name] = closed.outcome
    return found


def test_a_site_that_was_refused_does_not_say_that_the_job_completed_for_it(without_one: WithoutOne) -> None:
    assert endings(without_one[0].folder.parents[1]) == {
        "hub": "completed",
        "northgate": "completed",
        "riverside": "completed",
        FOREIGN: "refused",
    }


def test_a_job_that_failed_is_closed_as_failed_by_whoever_was_not_refused(
    foreign_code: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(AdmissionError):
        run(ExampleJob().spec(tmp_path), tmp_path / "work")
    assert endings(tmp_path / "work") == {
        "hub": "failed",
        "northgate": "failed",
        "riverside": "failed",
        FOREIGN: "refused",
    }


def test_a_manifest_that_allows_no_simulation_admits_nobody_here(tmp_path: Path) -> None:
    asked: Edits = {
        "attestation.allow_simulated": False,
        "attestation.amd_lines": ["Milan"],
        "attestation.minimum_tcb": {"Milan": {"boot_loader": 4, "tee": 0, "snp": 24, "microcode": 219}},
    }
    spec = ExampleJob(manifest=asked).spec(tmp_path)
    with pytest.raises(AdmissionError) as refused:
        run(spec, tmp_path / "work")
    assert {line.rsplit(" ", 1)[-1] for line in refused.value.details} == {"attestation.simulated"}
    assert finished_jobs(tmp_path / "work") == []
