"""Every chain in a log has an end that says what became of the job for that party."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloister.core.clock import Clock
from cloister.core.hashes import sha256_hex
from cloister.evidence import EvidenceError, Subject, open_statement
from cloister.evidence.checkpoint import sign_checkpoint
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
    found: dict[str, str] = {}
    for role, name in (("hub", "hub"), *(("site", site) for site in JOB.clients)):
        with workspace.party(role, name).open_log() as log:
            entries = log.extract(JOB.job_id).entries
        last = open_statement(entries[-1].envelope).predicate if entries else None
        found[name] = last.outcome if isinstance(last, JobClosed) else "nothing" if last is None else "open"
    return found


def die(root: Path, clock: Clock, rules: dict[str, UnwitnessedLog] = RULES) -> None:
    """Run a job in a child process that is gone after the hub and one site stated something."""
    child = os.fork()
    if child == 0:
        try:
            with (
                open_workspace(root, clock=clock) as workspace,
                open_parties(workspace, JOB, rules, clock=clock) as parties,
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


def test_what_a_killed_run_left_open_and_cannot_be_closed_is_told_and_kept(
    tmp_path: Path, clock: Clock
) -> None:
    """Everything that doesn't need the log that is gone goes on; the rest of the job's chains are closed."""
    die(tmp_path, clock)
    for path in (tmp_path / "parties" / "site" / "northgate").glob("log.sqlite*"):
        path.unlink()
    for _ in range(2):
        told: list[str] = []
        with open_workspace(tmp_path, clock=clock, report=told.append) as workspace:
            with workspace.party("hub", "hub").open_log() as log:
                last = log.last(JOB.job_id)
            assert last is not None
            assert isinstance(open_statement(last.envelope).predicate, JobClosed)
            with pytest.raises(EvidenceError) as refused:
                workspace.party("site", "northgate").open_log()
            assert refused.value.code == "evidence.log_missing"
        (line,) = told
        assert JOB.job_id in line
        assert "site/northgate" in line
        assert "evidence.log_missing" in line
    assert [path.name for path in (tmp_path / "open").iterdir()] == [JOB.job_id]


def test_after_a_killed_run_under_the_strict_rule_its_logs_can_still_be_shown(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody outside has seen the logs yet. Whoever is to see them gets what a witness asks for."""
    die(tmp_path, clock, dict.fromkeys(JOB.clients, UnwitnessedLog.REFUSE))
    with open_workspace(tmp_path, clock=clock) as workspace:
        with workspace.party("hub", "hub").open_log_to_show() as log:
            assert log.checkpoint().size == 1
        workspace.party("hub", "hub").agree_on_log(UnwitnessedLog.ALLOW)
    assert "evidence.log_unwitnessed" in capsys.readouterr().err
    with open_workspace(tmp_path, clock=clock, report=lambda _: None) as workspace:
        with workspace.party("hub", "hub").open_log() as log:
            last = log.last(JOB.job_id)
        assert last is not None
        assert isinstance(open_statement(last.envelope).predicate, JobClosed)


def test_what_is_no_mark_is_told_and_left_alone(tmp_path: Path, clock: Clock) -> None:
    marks = tmp_path / "open"
    (marks / ".d").mkdir(parents=True)
    (marks / f"{JOB.job_id}-folder").mkdir()
    (marks / ".DS_Store").write_bytes(b"\xff")
    (marks / f".{JOB.job_id}.0011.tmp").write_bytes(b"hub hub")
    junk = {
        "notes.txt": b"hub hub\n",
        "a\x1b[31m": b"hub hub\n",
        "00000000-0000-4000-8000-000000000001": b"\xff\xfe",
        "00000000-0000-4000-8000-000000000002": b"",
        "00000000-0000-4000-8000-000000000003": b"hub hub\nsite ../../../elsewhere\n",
        "00000000-0000-4000-8000-000000000004": b"developer lab\n",
        "00000000-0000-4000-8000-000000000005": b"hub hub\n" * 200_000,
    }
    for name, data in junk.items():
        (marks / name).write_bytes(data)
    told: list[str] = []
    with open_workspace(tmp_path, clock=clock, report=told.append):
        pass
    assert len(told) == len(junk) + 1
    assert all(line.isprintable() for line in told)
    assert {path.name for path in marks.iterdir()} == {".d", ".DS_Store", f"{JOB.job_id}-folder", *junk}
    assert not (tmp_path / "parties").exists()


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


def closings(workspace: Workspace) -> dict[str, JobClosed]:
    found = {}
    for role, name in (("hub", "hub"), *(("site", site) for site in JOB.clients)):
        with workspace.party(role, name).open_log() as log:
            last = log.last(JOB.job_id)
        assert last is not None
        closed = open_statement(last.envelope).predicate
        assert isinstance(closed, JobClosed)
        found[name] = closed
    return found


def test_the_hub_closes_first_and_each_site_states_how(tmp_path: Path, clock: Clock) -> None:
    with open_workspace(tmp_path, clock=clock) as workspace:
        with open_parties(workspace, JOB, RULES, clock=clock) as parties:
            for seat in parties.seats:
                say_something(seat)
            parties.left("lakeview", "refused")
            parties.close("completed")
        found = closings(workspace)
        with workspace.party("hub", "hub").open_log() as log:
            last, head = log.last(JOB.job_id), log.checkpoint()
    assert last is not None
    assert found["hub"].hub_ending is None
    for site in JOB.clients:
        ending = found[site].hub_ending
        assert ending is not None
        assert ending.statement_sha256 == last.envelope.payload_sha256
        assert (ending.origin, ending.size, ending.root) == (head.origin, head.size, head.root.hex())


def test_a_site_that_is_shown_another_past_at_the_end_says_so_and_ends_as_failed(
    tmp_path: Path, clock: Clock
) -> None:
    """The hub's log is not the one that the site saw: the site states no ending, and there is no receipt."""
    with open_workspace(tmp_path, clock=clock) as workspace:
        with open_parties(workspace, JOB, RULES, clock=clock) as parties:
            for seat in parties.seats:
                say_something(seat)
            hub = parties.hub
            seen = sign_checkpoint(hub.log.origin, 1, bytes(range(32)), hub.party.signer)
            parties.sites["northgate"].party.book.hold(seen, (), hub.log.public_key)
            parties.close("completed")
            stated = [
                open_statement(one.envelope).predicate
                for one in parties.sites["northgate"].log.extract(JOB.job_id).entries
            ]
        (tmp_path / "parties" / "site" / "northgate" / "held" / "cloister%2Fhub%2Fhub.note").unlink()
        found = closings(workspace)
    assert [one.outcome for one in found.values()] == ["completed", "completed", "failed", "completed"]
    assert found["northgate"].hub_ending is None
    assert isinstance(stated[-2], Violation)
    assert stated[-2].rule == "evidence.log_inconsistent"


def test_where_the_hub_never_opened_the_job_there_is_no_ending_of_it(tmp_path: Path, clock: Clock) -> None:
    with open_workspace(tmp_path, clock=clock) as workspace:
        with open_parties(workspace, JOB, RULES, clock=clock) as parties:
            say_something(parties.sites["northgate"])
            parties.close("refused")
        assert endings(workspace)["northgate"] == "refused"
