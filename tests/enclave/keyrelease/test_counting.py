"""What a release costs: nothing where it fails before it is stated, one where it was stated, whatever becomes
of the process, of the store of keys, and of the book's file."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import b64encode
from cloister.core.errors import KeyStoreError, StorageError
from cloister.core.keys import FileWrappingKey
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease import REFUSAL, DataKeyBook, sign_release_policy
from cloister.enclave.keyrelease.book import Release
from cloister.enclave.keyrelease.stated import StatedReleases, _in_base64
from cloister.evidence.log import LogReader
from cloister.evidence.predicates import KeyRelease, Predicate
from cloister.evidence.statement import Subject
from tests.enclave.attestation_scene import NOW
from tests.enclave.keyrelease.scene import FailingLog, Hospital


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def started_anew(hospital: Hospital) -> None:
    hospital.book.close()
    hospital.book = DataKeyBook.open(hospital.folder / "keys.db")
    hospital.service = hospital.new_service()


class Crash(BaseException):
    """The process is gone at this point."""


def crash(*_: object, **__: object) -> object:
    raise Crash


def after(whole: Callable[..., object]) -> Callable[..., object]:
    def crashing(*arguments: object, **named: object) -> object:
        whole(*arguments, **named)
        raise Crash

    return crashing


class LogThatCrashes:
    """The process ends before, or after, the statement is durable."""

    def __init__(self, hospital: Hospital, *, stated: bool) -> None:
        self._hospital, self._stated = hospital, stated

    @property
    def log(self) -> LogReader:
        return self._hospital.log

    def write(self, kind: type[Predicate], subjects: Sequence[Subject], **fields: object) -> object:
        if self._stated:
            self._hospital.writer.write(kind, subjects, **fields)
        raise Crash


def before_the_key_is_unwrapped(hospital: Hospital, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hospital.book, "unwrap", crash)


def after_the_key_is_unwrapped(hospital: Hospital, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hospital.book, "unwrap", after(hospital.book.unwrap))


def before_the_count(hospital: Hospital, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hospital.book, "counting", crash)


def before_the_statement(hospital: Hospital, patch: pytest.MonkeyPatch) -> None:
    hospital.service = hospital.new_service(LogThatCrashes(hospital, stated=False))


def after_the_statement(hospital: Hospital, patch: pytest.MonkeyPatch) -> None:
    hospital.service = hospital.new_service(LogThatCrashes(hospital, stated=True))


def before_the_answer_leaves(hospital: Hospital, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hospital.service, "_released", after(hospital.service._released))


POINTS: dict[Callable[[Hospital, pytest.MonkeyPatch], None], int] = {
    before_the_key_is_unwrapped: 0,
    after_the_key_is_unwrapped: 0,
    before_the_count: 0,
    before_the_statement: 0,
    after_the_statement: 1,
    before_the_answer_leaves: 1,
}


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
def test_a_crash_costs_a_release_from_its_statement_on_and_never_gains_one(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, point: Callable[..., None]
) -> None:
    policy_id = hospital.admitted(releases=2)
    with monkeypatch.context() as patch:
        point(hospital, patch)
        _, request = hospital.request(policy_id)
        with pytest.raises(Crash):
            hospital.service.release(request)
    started_anew(hospital)
    assert hospital.service.release(request) == REFUSAL
    for _ in range(2 - POINTS[point]):
        hospital.ask_for_key(policy_id)
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "release.count"
    numbers = [one.number for one in hospital.statements() if one.outcome == "released"]
    assert numbers == [1, 2]


def test_a_key_service_that_fails_costs_no_release(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy_id = hospital.admitted(releases=1)

    def throttled(*_: object) -> bytearray:
        raise KeyStoreError("key.service", "The key management service answered ThrottlingException.")

    with monkeypatch.context() as patch:
        patch.setattr(FileWrappingKey, "unwrap", throttled)
        for _ in range(3):
            assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "key.service"
    assert hospital.book.all_policies()[0].released == 0
    assert hospital.ask_for_key(policy_id) == hospital.data_key()


def test_a_full_log_costs_no_release_and_gives_none(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=1)
    hospital.service = hospital.new_service(
        FailingLog(hospital.log, StorageError("storage.no_space", "Full."))
    )
    with pytest.raises(ReleaseError, match="refuses"):
        hospital.ask_for_key(policy_id)
    hospital.service = hospital.new_service()
    assert hospital.ask_for_key(policy_id) == hospital.data_key()


def test_a_count_that_cannot_be_kept_after_its_statement_gives_nothing_and_counts(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy_id = hospital.admitted(releases=1)
    counting = hospital.book.counting

    @contextmanager
    def lost(*arguments: object) -> Iterator[int]:
        with counting(*arguments) as number:  # type: ignore[arg-type]
            yield number
            raise StorageError("storage.failed", "The disk is gone.")

    with monkeypatch.context() as patch:
        patch.setattr(hospital.book, "counting", lost)
        with pytest.raises(ReleaseError, match="refuses"):
            hospital.ask_for_key(policy_id)
    assert [one.outcome for one in hospital.statements()] == ["released", "refused"]
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "release.count"


def release_two_and_put_back_the_book(hospital: Hospital, policy_id: str) -> None:
    """Two keys are released, and the book is then the one from before."""
    hospital.book.close()
    backup = hospital.folder / "backup.db"
    shutil.copy(hospital.folder / "keys.db", backup)
    started_anew(hospital)
    hospital.ask_for_key(policy_id)
    hospital.ask_for_key(policy_id)
    hospital.book.close()
    shutil.copy(backup, hospital.folder / "keys.db")
    started_anew(hospital)


def test_an_older_copy_of_the_book_put_back_releases_no_more_than_the_policy_allows(
    hospital: Hospital,
) -> None:
    policy_id = hospital.admitted(releases=2)
    release_two_and_put_back_the_book(hospital, policy_id)
    assert hospital.book.all_policies()[0].released == 0
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "release.count"


def test_an_older_copy_of_the_book_goes_on_where_the_log_is(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=3)
    release_two_and_put_back_the_book(hospital, policy_id)
    hospital.ask_for_key(policy_id)
    assert [one.number for one in hospital.statements()] == [1, 2, 3]
    assert hospital.book.all_policies()[0].released == 3
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "release.count"


def test_a_challenge_that_the_log_has_is_not_counted_again(hospital: Hospital) -> None:
    policy = hospital.policy(releases=3)
    hospital.book.admit(sign_release_policy(policy, hospital.owner), hospital.owner.public_key, NOW)
    hospital.ask_for_key(policy.sha256)
    stated = StatedReleases(hospital.log).under(policy.sha256)
    with sqlite3.connect(hospital.folder / "keys.db") as book:
        (nonce,) = book.execute("SELECT nonce FROM releases").fetchone()
        book.execute("DELETE FROM releases")
    with (
        pytest.raises(ReleaseError) as caught,
        hospital.book.counting(Release(policy, nonce, "sha256:" + "0" * 64, b""), stated, NOW),
    ):
        pytest.fail("counted")
    assert caught.value.code == "release.count"


def test_releases_under_other_policies_and_refusals_do_not_count(hospital: Hospital) -> None:
    first, second = hospital.admitted(releases=1), hospital.admitted(releases=2)
    hospital.ask_for_key(first)
    for _ in range(3):
        hospital.refusal(lambda: hospital.ask_for_key(first))
    found = StatedReleases(hospital.log)
    assert len(found.under(first)) == 1
    assert found.under(second) == frozenset()
    hospital.ask_for_key(second)
    assert len(found.under(second)) == 1


def test_two_releases_at_once_are_stated_one_after_the_other(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=4)
    requests = [hospital.request(policy_id)[1] for _ in range(4)]
    threads = [threading.Thread(target=hospital.service.release, args=(one,)) for one in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.number for one in hospital.statements()] == [1, 2, 3, 4]


def test_a_book_of_the_first_version_is_taken_over_with_all_it_counted(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=1)
    hospital.ask_for_key(policy_id)
    hospital.book.close()
    with sqlite3.connect(hospital.folder / "keys.db") as book:
        book.execute("DROP TABLE refusals")
        book.execute("PRAGMA user_version = 1")
    started_anew(hospital)
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "release.count"
    assert hospital.book.policy(policy_id).refused == 1


@pytest.mark.parametrize("version", [3, -1])
def test_a_book_of_a_later_version_is_refused(hospital: Hospital, version: int) -> None:
    hospital.book.close()
    with sqlite3.connect(hospital.folder / "keys.db") as book:
        book.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(ReleaseError) as caught:
        DataKeyBook.open(hospital.folder / "keys.db")
    assert caught.value.code == "release.book"


@given(prefix=st.binary(max_size=40), suffix=st.binary(max_size=40))
def test_the_name_of_a_kind_is_found_in_base64_wherever_it_begins(prefix: bytes, suffix: bytes) -> None:
    name = KeyRelease.TYPE.encode("ascii")
    inside = b64encode(prefix + name + suffix).encode("ascii")
    assert any(one in inside for one in _in_base64(name))
    assert all(len(one) >= len(name) for one in _in_base64(name))
