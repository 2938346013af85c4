"""The statement writer: the chain, the role and the end of a job are not left to the caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloister.core.clock import Clock
from cloister.core.keys import Signer
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import log_origin, log_stream
from cloister.evidence.log import EvidenceLog
from cloister.evidence.predicates import HubEnding, JobClosed, Release, Role, Violation
from cloister.evidence.statement import Subject, open_statement
from cloister.evidence.writer import StatementWriter
from tests.evidence.synthetic import JOB_ID, OTHER_JOB_ID, digest

SUBJECT = Subject("thing", digest("thing"))
VIOLATION = {"rule": "airlock", "detail": "refused", "artifact_sha256": None}


@pytest.fixture
def log(tmp_path: Path, signer: Signer) -> Iterator[EvidenceLog]:
    with EvidenceLog.create(tmp_path / "l", origin=log_origin(Role.SITE, "north"), signer=signer) as log:
        yield log


def test_statements_form_a_chain(log: EvidenceLog, signer: Signer, ticking_clock: Clock) -> None:
    writer = StatementWriter(log, signer, "north", JOB_ID, ticking_clock)
    first = writer.write(Violation, [SUBJECT], **VIOLATION)
    second = writer.write(Violation, [SUBJECT], **VIOLATION)
    closing = writer.close("completed")
    chain = [one.statement.predicate for one in (first, second, closing)]
    assert [one.sequence for one in chain] == [0, 1, 2]
    assert [one.previous for one in chain] == [None, first.sha256, second.sha256]
    assert {one.job_id for one in chain} == {JOB_ID}
    assert {one.party for one in chain} == {"north"}
    assert [one.recorded_at for one in chain] == sorted({one.recorded_at for one in chain})
    assert isinstance(chain[2], JobClosed)
    assert chain[2].statements == 3


def test_a_statement_is_in_the_log_when_write_returns(log: EvidenceLog, signer: Signer, clock: Clock) -> None:
    written = StatementWriter(log, signer, "north", JOB_ID, clock).write(Violation, [SUBJECT], **VIOLATION)
    assert log.entry(written.entry.index) == written.envelope
    assert open_statement(written.envelope) == written.statement


def test_a_writer_made_anew_continues_the_chain(log: EvidenceLog, signer: Signer, clock: Clock) -> None:
    last = StatementWriter(log, signer, "north", JOB_ID, clock).write(Violation, [SUBJECT], **VIOLATION)
    other = StatementWriter(log, signer, "north", OTHER_JOB_ID, clock)
    assert other.write(Violation, [SUBJECT], **VIOLATION).statement.predicate.sequence == 0
    again = StatementWriter(log, signer, "north", JOB_ID, clock).write(Violation, [SUBJECT], **VIOLATION)
    assert again.statement.predicate.sequence == 1
    assert again.statement.predicate.previous == last.sha256


def test_two_writers_cannot_both_make_the_next_statement(
    log: EvidenceLog, signer: Signer, clock: Clock
) -> None:
    first = StatementWriter(log, signer, "north", JOB_ID, clock)
    second = StatementWriter(log, signer, "north", JOB_ID, clock)
    first.write(Violation, [SUBJECT], **VIOLATION)
    with pytest.raises(EvidenceError) as caught:
        second.write(Violation, [SUBJECT], **VIOLATION)
    assert caught.value.code == "evidence.log_mismatch"
    assert log.size == 1


def test_after_the_closing_nothing_is_written_even_by_a_new_writer(
    log: EvidenceLog, signer: Signer, clock: Clock
) -> None:
    writer = StatementWriter(log, signer, "north", JOB_ID, clock)
    writer.close("refused")
    for late in (writer, StatementWriter(log, signer, "north", JOB_ID, clock)):
        with pytest.raises(EvidenceError) as caught:
            late.write(Violation, [SUBJECT], **VIOLATION)
        assert caught.value.code == "evidence.job_closed"
        with pytest.raises(EvidenceError):
            late.close("completed")


def test_a_logs_own_statements_are_never_closed(log: EvidenceLog, signer: Signer, clock: Clock) -> None:
    """A job by the name of the log's own stream would end the record of who read the log."""
    own = StatementWriter(log, signer, "north", log_stream(log.origin), clock)
    own.write(Violation, [SUBJECT], **VIOLATION)
    with pytest.raises(EvidenceError) as caught:
        own.close("completed")
    assert caught.value.code == "evidence.statement_refused"
    own.write(Violation, [SUBJECT], **VIOLATION)
    assert log.length(log_stream(log.origin)) == 2


def test_a_site_states_how_the_hub_ended_the_job_and_a_hub_does_not(
    log: EvidenceLog, tmp_path: Path, signer: Signer, clock: Clock
) -> None:
    ending = HubEnding(statement_sha256=digest("end"), origin="cloister/hub/hub", size=7, root=digest("root"))
    written = StatementWriter(log, signer, "north", JOB_ID, clock).close("completed", hub_ending=ending)
    closed = open_statement(written.envelope).predicate
    assert isinstance(closed, JobClosed)
    assert closed.hub_ending == ending
    with EvidenceLog.create(tmp_path / "h", origin=log_origin(Role.HUB, "hub"), signer=signer) as hub:
        writer = StatementWriter(hub, signer, "hub", JOB_ID, clock)
        with pytest.raises(EvidenceError) as caught:
            writer.close("completed", hub_ending=ending)
        assert caught.value.code == "evidence.statement_refused"
        writer.close("completed")


def test_times_in_a_chain_never_run_backwards(log: EvidenceLog, signer: Signer) -> None:
    start = datetime(2026, 11, 21, tzinfo=UTC)
    moments = iter([start, start - timedelta(hours=1), start - timedelta(hours=1)])
    writer = StatementWriter(log, signer, "north", JOB_ID, lambda: next(moments))
    times = [
        writer.write(Violation, [SUBJECT], **VIOLATION).statement.predicate.recorded_at for _ in range(2)
    ]
    anew = StatementWriter(log, signer, "north", JOB_ID, lambda: next(moments))
    times.append(anew.write(Violation, [SUBJECT], **VIOLATION).statement.predicate.recorded_at)
    assert len(set(times)) == 1


def test_a_party_writes_into_its_own_log_with_its_own_key(
    log: EvidenceLog, signer: Signer, other_signer: Signer, clock: Clock
) -> None:
    for key, party in ((signer, "south"), (other_signer, "north")):
        with pytest.raises(EvidenceError) as caught:
            StatementWriter(log, key, party, JOB_ID, clock)
        assert caught.value.code == "evidence.statement_refused"


def test_a_site_cannot_state_what_only_a_hub_may(log: EvidenceLog, signer: Signer, clock: Clock) -> None:
    writer = StatementWriter(log, signer, "north", JOB_ID, clock)
    with pytest.raises(EvidenceError, match="site may not state"):
        writer.write(Release, [SUBJECT])


@pytest.mark.parametrize(
    "fields",
    [{}, {**VIOLATION, "extra": 1}, {**VIOLATION, "detail": ""}, {**VIOLATION, "artifact_sha256": "x"}],
)
def test_fields_that_do_not_fit_are_refused_by_name_and_nothing_is_logged(
    log: EvidenceLog, signer: Signer, clock: Clock, fields: dict[str, object]
) -> None:
    writer = StatementWriter(log, signer, "north", JOB_ID, clock)
    with pytest.raises(EvidenceError) as caught:
        writer.write(Violation, [SUBJECT], **fields)
    assert caught.value.code == "evidence.statement_refused"
    assert caught.value.details
    assert log.size == 0


def test_a_caller_cannot_choose_its_place_in_the_chain(
    log: EvidenceLog, signer: Signer, clock: Clock
) -> None:
    writer = StatementWriter(log, signer, "north", JOB_ID, clock)
    written = writer.write(Violation, [SUBJECT], **VIOLATION, sequence=7, party="south", job_id=OTHER_JOB_ID)
    assert (written.statement.predicate.sequence, written.statement.predicate.party) == (0, "north")
    assert written.statement.predicate.job_id == JOB_ID


def test_a_statement_without_subject_is_refused(log: EvidenceLog, signer: Signer, clock: Clock) -> None:
    writer = StatementWriter(log, signer, "north", JOB_ID, clock)
    with pytest.raises(EvidenceError):
        writer.write(Violation, [], **VIOLATION)


def test_the_closing_is_left_to_close(log: EvidenceLog, signer: Signer, clock: Clock) -> None:
    writer = StatementWriter(log, signer, "north", JOB_ID, clock)
    with pytest.raises(EvidenceError):
        writer.write(JobClosed, [SUBJECT], statements=1, outcome="completed")


@pytest.mark.parametrize("closing", [False, True])
def test_a_writer_interrupted_after_the_log_answered_goes_on_from_what_the_log_holds(
    closing: bool, log: EvidenceLog, signer: Signer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StatementWriter(log, signer, "north", JOB_ID, clock)
    append = log.append

    def interrupted(*arguments: object, **named: object) -> None:
        append(*arguments, **named)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(log, "append", interrupted)
    state = (
        (lambda: writer.close("completed"))
        if closing
        else lambda: writer.write(Violation, [SUBJECT], **VIOLATION)
    )
    with pytest.raises(KeyboardInterrupt):
        state()
    monkeypatch.undo()
    if closing:
        with pytest.raises(EvidenceError) as refused:
            writer.close("failed")
        assert refused.value.code == "evidence.job_closed"
    else:
        closed = writer.close("failed").statement.predicate
        assert isinstance(closed, JobClosed)
        assert (closed.sequence, closed.statements) == (1, 2)
    assert len(log.extract(JOB_ID).entries) == (1 if closing else 2)


def test_a_chain_whose_places_were_edited_is_not_continued(
    tmp_path: Path, log: EvidenceLog, signer: Signer, clock: Clock
) -> None:
    writer = StatementWriter(log, signer, "north", JOB_ID, clock)
    for _ in range(3):
        writer.write(Violation, [SUBJECT], **VIOLATION)
    with sqlite3.connect(tmp_path / "l") as database:
        database.execute("UPDATE evidence_entries SET position = 9 WHERE idx = 1")
    database.close()
    with pytest.raises(EvidenceError) as caught:
        StatementWriter(log, signer, "north", JOB_ID, clock)
    assert caught.value.code == "evidence.log_mismatch"
