"""Edits that leave every hash in place: rows under another label, and a file set back while it is open."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.core.keys import Signer
from cloister.evidence.errors import EvidenceError
from cloister.evidence.log import EvidenceLog, LogReader
from cloister.evidence.predicates import Violation
from cloister.evidence.statement import Subject
from cloister.evidence.writer import StatementWriter
from tests.evidence.log.places import ORIGIN, Place, edit, fill, item

JOB_ID = "11111111-2222-4333-8444-555555555555"
OTHER = "22222222-2222-4333-8444-555555555555"


def writer(log: EvidenceLog, signer: Signer, job_id: str = JOB_ID) -> StatementWriter:
    return StatementWriter(log, signer, "north", job_id, lambda: datetime(2026, 11, 21, tzinfo=UTC))


def state(chain: StatementWriter, detail: str) -> None:
    subject = Subject("job", sha256_hex(b"job"))
    chain.write(Violation, [subject], rule="r", detail=detail, artifact_sha256=None)


def code(work: Callable[[], object]) -> str | None:
    try:
        work()
    except CloisterError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("where", "relabelled"),
    [
        ("position >= 1", "stream = 'w', position = position - 1"),
        ("position = 2", f"stream = '{OTHER}', position = 0"),
        ("position = 2", "position = 7"),
    ],
)
def test_a_statement_hidden_under_another_label_is_found_before_another_is_signed_in_its_place(
    place: Place, signer: Signer, where: str, relabelled: str
) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        chain = writer(log, signer)
        state(chain, "first")
        state(chain, "the breach to hide")
        chain.close("failed")
        state(writer(log, signer, "33333333-2222-4333-8444-555555555555"), "of another job")
    edit(place, f"UPDATE evidence_entries SET {relabelled} WHERE stream = '{JOB_ID}' AND {where}")
    with EvidenceLog.open(place, origin=ORIGIN, signer=signer) as log:
        assert code(lambda: writer(log, signer)) == "evidence.log_mismatch"
        assert code(log.verify) == "evidence.log_mismatch"
        hidden = "w" if "'w'" in relabelled else OTHER if OTHER in relabelled else JOB_ID
        assert code(lambda: log.extract(hidden)) == "evidence.log_mismatch"
        assert code(lambda: log.last(hidden)) == "evidence.log_mismatch"


def test_a_log_opens_only_if_its_last_entry_lies_where_it_states(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        state(writer(log, signer), "first")
    edit(place, "UPDATE evidence_entries SET stream = 'w'")
    assert code(lambda: EvidenceLog.open(place, origin=ORIGIN, signer=signer)) == "evidence.log_mismatch"


def test_a_statement_is_logged_nowhere_else_than_it_states(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        state(writer(log, signer), "first")
        again = log.entry(0)
        for stream, position in ((OTHER, 0), (JOB_ID, 1)):
            with pytest.raises(EvidenceError) as caught:
                log.append(again, stream=stream, position=position)
            assert caught.value.code == "evidence.statement_refused"
        assert log.size == 1


def test_what_was_compared_once_is_not_read_again(
    path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        chain = writer(log, signer)
        for number in range(10):
            state(chain, f"{number}")
        log.check_places()
        starts: list[int] = []
        entries = log.entries

        def noted(start: int = 0, end: int | None = None) -> object:
            starts.append(start)
            return entries(start, end)

        monkeypatch.setattr(log, "entries", noted)
        writer(log, signer, OTHER)
        assert starts == [10]


def copy_of(path: Path) -> sqlite3.Connection:
    """What the file holds now."""
    source, copy = sqlite3.connect(path), sqlite3.connect(":memory:", check_same_thread=False)
    source.backup(copy)
    source.close()
    return copy


def put_back(copy: sqlite3.Connection, path: Path) -> None:
    target = sqlite3.connect(path)
    copy.backup(target)
    target.close()


def test_a_file_that_is_set_back_under_an_open_log_takes_no_entry_and_shows_no_head(
    path: Path, signer: Signer
) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 5)
        log.checkpoint()
        old = copy_of(path)
        fill(log, signer, 15, start=5)
        put_back(old, path)
        assert code(lambda: log.append_many([item(signer, 0, stream="q")])) == "evidence.log_rolled_back"
        assert code(log.checkpoint) == "evidence.log_rolled_back"
        assert code(lambda: log.root_at(5)) == "evidence.log_rolled_back"


@pytest.mark.parametrize("count", [15, 20])
def test_a_past_that_was_set_back_and_written_on_is_refused_by_who_saw_the_other(
    path: Path, signer: Signer, count: int
) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 5)
        with LogReader.open_for_reading(path, origin=ORIGIN, keys=[signer.public_key]) as reader:
            old = copy_of(path)
            fill(log, signer, 15, start=5)
            assert reader.size == 20
            put_back(old, path)
            with EvidenceLog.open(path, origin=ORIGIN, signer=signer) as restored:
                restored.append_many([item(signer, number, stream="q") for number in range(count)])
            for work in (log.checkpoint, reader.checkpoint, lambda: fill(log, signer, 1, start=20)):
                assert code(work) == "evidence.log_rolled_back"


def test_no_reader_takes_a_writer_for_a_roll_back(place: Place, signer: Signer) -> None:
    with (
        EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log,
        EvidenceLog.open(place, origin=ORIGIN, signer=signer) as other,
    ):
        over = threading.Event()
        failed: list[BaseException] = []

        def read(shown: EvidenceLog) -> None:
            try:
                while not over.is_set():
                    shown.checkpoint()
            except BaseException as error:
                failed.append(error)

        def write(shown: EvidenceLog, stream: str) -> None:
            try:
                for number in range(40):
                    shown.append_many([item(signer, number, stream=stream)])
            except BaseException as error:
                failed.append(error)

        readers = [threading.Thread(target=read, args=(one,)) for one in (log, other, log, other)]
        writers = [threading.Thread(target=write, args=(one, str(n))) for n, one in enumerate((log, other))]
        for thread in (*readers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        over.set()
        for thread in readers:
            thread.join()
        assert not failed
        assert log.size == 80
