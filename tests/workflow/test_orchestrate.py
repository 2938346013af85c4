"""A job can be run from Python, by a call that knows the workflow and by one that only knows its door."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from cloister.core.errors import InputError
from cloister.enclave import EnclaveError
from cloister.enclave.orchestrator import orchestrate as through_the_door
from cloister.workflow.orchestrate import JobHandle, orchestrate
from cloister.workflow.watching import RunEvent, Stage
from tests.system.example_job import ExampleJob, finished_jobs


def test_a_job_file_leads_to_a_handle_with_its_result(tmp_path: Path) -> None:
    events: list[RunEvent] = []
    handle = orchestrate(str(ExampleJob().write(tmp_path)), workspace=tmp_path / "work", watch=events.append)
    assert UUID(handle.job_id) == UUID(handle.result.job_id)
    assert handle.result.verdict.accepted
    assert finished_jobs(tmp_path / "work") == [f"tumour-{handle.job_id}"]
    assert isinstance(events[0], Stage)


def test_a_parsed_job_does_as_well_and_nobody_has_to_watch(tmp_path: Path) -> None:
    handle = orchestrate(ExampleJob().spec(tmp_path), workspace=str(tmp_path / "work"))
    assert handle.result.receipt.is_file()


def test_what_stops_a_job_is_raised(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        orchestrate(tmp_path / "nowhere.yaml", workspace=tmp_path / "work")


def test_the_enclaves_door_finds_the_installed_orchestrator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    handle = through_the_door(ExampleJob().write(tmp_path))
    assert isinstance(handle, JobHandle)
    assert handle.result.verdict.accepted
    assert finished_jobs(tmp_path / "cloister-work") == [f"tumour-{handle.job_id}"]


def test_an_orchestrator_nobody_installed_is_named_as_missing(tmp_path: Path) -> None:
    with pytest.raises(EnclaveError) as refused:
        through_the_door(ExampleJob().write(tmp_path), orchestrator="moon-base")
    assert refused.value.code == "enclave.no_orchestrator"
