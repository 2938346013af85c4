"""Every chain in a log has an end that says what became of the job for that party."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloister.core.clock import Clock
from cloister.core.hashes import sha256_hex
from cloister.evidence import EvidenceError, Subject, open_statement
from cloister.evidence.predicates import JobClosed, Violation
from cloister.federation import AdmissionError, RefusalError
from cloister.policy import PolicyError, UnwitnessedLog
from cloister.workflow.jobfile import load_job
from cloister.workflow.parties import Parties, Seat, open_parties
from cloister.workflow.workspace import Workspace, open_workspace
from tests.system.example_job import TUMOUR

JOB = load_job(TUMOUR).federation_job()
RULES = dict.fromkeys(JOB.clients, UnwitnessedLog.ALLOW)


def say_something(seat: Seat) -> None:
    seat.writer.write(
        Violation, (Subject("job", sha256_hex(b"job")),), rule="rule", detail="seen", artifact_sha256=None
    )


def endings(workspace: Workspace) -> dict[str, str]:
    found = {}
    for role, name in (("hub", "hub"), *(("site", site) for site in JOB.clients)):
        with workspace.party(role, name).open_log() as log:
            entries = log.extract(JOB.job_id).entries
        last = open_statement(entries[-1].envelope).predicate if entries else None
        found[name] = last.outcome if isinstance(last, JobClosed) else "nothing" if last is None else "open"
    return found


def die(root: Path, clock: Clock) -> None:
    """Run a job in a child process that is gone after the hub and one site stated something."""
    child = os.fork()
    if child == 0:
        try:
            with (
                open_workspace(root, clock=clock) as workspace,
                open_parties(workspace, JOB, RULES, clock=clock) as parties,
            ):
                say_something(parties.hub)
                say_something(parties.sites["northgate"])
                say_something(parties.sites["riverside"])
                parties.sites["riverside"].writer.close("refused")
                os._exit(9)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_whoever_opens_the_workspace_after_a_killed_run_closes_its_chains_as_failed(
    tmp_path: Path, clock: Clock
) -> None:
    die(tmp_path, clock)
    for _ in range(2):
        with open_workspace(tmp_path, clock=clock) as workspace:
            assert endings(workspace) == {
                "hub": "failed",
                "northgate": "failed",
                "riverside": "refused",
                "lakeview": "nothing",
            }
    assert not list((tmp_path / "open").iterdir())


def test_a_workspace_in_which_a_killed_runs_log_is_gone_is_not_opened(tmp_path: Path, clock: Clock) -> None:
    die(tmp_path, clock)
    for path in (tmp_path / "parties" / "site" / "northgate").glob("log.sqlite*"):
        path.unlink()
    with pytest.raises(EvidenceError) as refused, open_workspace(tmp_path, clock=clock):
        pass
    assert refused.value.code == "evidence.log_missing"


def stop_with(error: BaseException, root: Path, clock: Clock) -> dict[str, str]:
    def state_and_stop(parties: Parties) -> None:
        for seat in parties.seats:
            say_something(seat)
        parties.left("lakeview", "refused")
        raise error

    with open_workspace(root, clock=clock) as workspace:
        with pytest.raises(type(error)), open_parties(workspace, JOB, RULES, clock=clock) as parties:
            state_and_stop(parties)
        assert not list((root / "open").iterdir())
        return endings(workspace)


@pytest.mark.parametrize(
    "error",
    [
        AdmissionError("federation.too_few_sites", "too few"),
        KeyboardInterrupt(),
        OSError(),
    ],
)
def test_a_job_that_failed_is_closed_as_failed_except_where_it_was_refused(
    error: BaseException, tmp_path: Path, clock: Clock
) -> None:
    assert stop_with(error, tmp_path, clock) == {
        "hub": "failed",
        "northgate": "failed",
        "riverside": "failed",
        "lakeview": "refused",
    }


@pytest.mark.parametrize(
    "error", [PolicyError("policy.refused", "no"), RefusalError("federation.sites_refused", "no")]
)
def test_a_job_that_was_refused_is_closed_as_refused(error: Exception, tmp_path: Path, clock: Clock) -> None:
    assert set(stop_with(error, tmp_path, clock).values()) == {"refused"}


def test_a_completed_job_is_completed_for_those_who_took_part_to_the_end(
    tmp_path: Path, clock: Clock
) -> None:
    with open_workspace(tmp_path, clock=clock) as workspace:
        with open_parties(workspace, JOB, RULES, clock=clock) as parties:
            for seat in parties.seats:
                say_something(seat)
            parties.left("lakeview", "refused")
            parties.left("riverside", "failed")
            parties.close("completed")
        assert endings(workspace) == {
            "hub": "completed",
            "northgate": "completed",
            "riverside": "failed",
            "lakeview": "refused",
        }
