"""The evidence log: append-only, durable, one signed head, refused as soon as anything in it was edited."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.errors import StorageError
from cloister.core.keys import Signer
from cloister.evidence.checkpoint import verify_checkpoint
from cloister.evidence.envelope import sign_envelope
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import extract_from_json, log_origin, log_owner, verify_entry
from cloister.evidence.log import EvidenceLog
from cloister.evidence.merkle import verify_consistency, verify_inclusion
from cloister.evidence.predicates import Role

ORIGIN = "cloister/site/north"
JOB = "job"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


def fill(log: EvidenceLog, signer: Signer, count: int, *, start: int = 0) -> None:
    for number in range(start, start + count):
        log.append(sign_envelope("text/plain", b"%d" % number, signer), stream=JOB, position=number)


def edit(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    changed = connection.execute(statement).rowcount
    connection.commit()
    connection.close()
    assert changed > 0


def test_what_was_appended_is_there_after_opening_again(path: Path, signer: Signer) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 5)
    with EvidenceLog.open(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 4, start=5)
        assert log.size == 9
        assert [one.payload for one in log.envelopes()] == [b"%d" % number for number in range(9)]
        assert [log.entry(number).payload for number in range(9)] == [b"%d" % number for number in range(9)]


def test_the_head_is_signed_by_the_logs_key(path: Path, signer: Signer) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        verify_checkpoint(log.checkpoint(), ORIGIN, signer.public_key)
        fill(log, signer, 3)
        verify_checkpoint(log.checkpoint(), ORIGIN, signer.public_key)


def test_each_entry_is_proven_at_every_size_and_each_size_extends_the_one_before(
    path: Path, signer: Signer
) -> None:
    heads, leaves = [], []
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        for number in range(11):
            envelope = sign_envelope("text/plain", b"%d" % number, signer)
            leaves.append(log.append(envelope, stream=JOB, position=number).leaf_hash)
            heads.append(log.checkpoint())
        for head in heads:
            for index in range(head.size):
                proof = log.inclusion_proof(index, head.size)
                verify_inclusion(leaves[index], index, head.size, proof, head.root)
        for old in heads:
            for new in heads[old.size - 1 :]:
                proof = log.consistency_proof(old.size, new.size)
                verify_consistency(old.size, new.size, proof, old.root, new.root)


def test_no_proof_is_given_for_a_size_the_log_has_not_reached(path: Path, signer: Signer) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 2)
        for ask in (
            lambda: log.inclusion_proof(0, 3),
            lambda: log.consistency_proof(1, 3),
            lambda: log.inclusion_proof(2, 2),
            lambda: log.entry(2),
        ):
            with pytest.raises(EvidenceError) as caught:
                ask()
            assert caught.value.code == "evidence.out_of_range"


def test_an_extract_holds_one_jobs_entries_proven_and_survives_the_way_to_another_machine(
    path: Path, signer: Signer
) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 3)
        log.append(sign_envelope("text/plain", b"other", signer), stream="other", position=0)
        extract = log.extract(JOB)
        assert log.extract("unknown").entries == ()
    assert extract_from_json(extract.as_json()) == extract
    assert [one.index for one in extract.entries] == [0, 1, 2]
    for entry in extract.entries:
        verify_entry(entry, extract.checkpoint)


@pytest.mark.parametrize("value", [None, {}, {"origin": 1, "checkpoint": "", "entries": []}])
def test_an_extract_that_is_none_is_refused(value: dict[str, object] | None) -> None:
    with pytest.raises(EvidenceError):
        extract_from_json(value)  # type: ignore[arg-type]


def test_a_position_in_a_stream_is_taken_once(path: Path, signer: Signer) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 2)
        with pytest.raises(EvidenceError, match="another writer"):
            fill(log, signer, 1, start=1)
        fill(log, signer, 1, start=2)
        assert log.size == 3


def test_many_threads_and_two_openings_append_to_one_tree(path: Path, signer: Signer) -> None:
    with (
        EvidenceLog.create(path, origin=ORIGIN, signer=signer) as first,
        EvidenceLog.open(path, origin=ORIGIN, signer=signer) as second,
    ):

        def work(number: int) -> None:
            log = (first, second)[number % 2]
            for position in range(5):
                log.append(sign_envelope("a", b"x", signer), stream=str(number), position=position)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert first.size == second.size == 30
        assert len(second.envelopes()) == 30


def test_a_log_is_never_begun_over_one_that_is_there(path: Path, signer: Signer) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 1)
    with pytest.raises(EvidenceError) as caught:
        EvidenceLog.create(path, origin=ORIGIN, signer=signer)
    assert caught.value.code == "evidence.log_exists"
    with EvidenceLog.open(path, origin=ORIGIN, signer=signer) as log:
        assert log.size == 1


def test_a_log_that_is_gone_is_not_begun_anew(path: Path, signer: Signer) -> None:
    with pytest.raises(EvidenceError) as caught:
        EvidenceLog.open(path, origin=ORIGIN, signer=signer)
    assert caught.value.code == "evidence.log_missing"
    assert not path.exists()


def test_a_log_opens_only_under_its_own_name_and_key(
    path: Path, signer: Signer, other_signer: Signer
) -> None:
    EvidenceLog.create(path, origin=ORIGIN, signer=signer).close()
    for origin, key in (("cloister/site/south", signer), (ORIGIN, other_signer)):
        with pytest.raises(EvidenceError) as caught:
            EvidenceLog.open(path, origin=origin, signer=key)
        assert caught.value.code == "evidence.log_mismatch"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE evidence_entries SET envelope = x'7b7d' WHERE idx = 6",
        "DELETE FROM evidence_entries WHERE idx = 6",
        "INSERT INTO evidence_entries VALUES (7, 'job', 7, x'7b7d')",
        "UPDATE evidence_nodes SET hash = zeroblob(32) WHERE id = 3",
        "DELETE FROM evidence_nodes WHERE id = 3",
        "UPDATE evidence_head SET checkpoint = replace(checkpoint, '7', '6')",
        "UPDATE evidence_head SET format = 1",
        "DELETE FROM evidence_head",
    ],
)
def test_an_edited_log_is_refused_when_it_is_opened(path: Path, signer: Signer, statement: str) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 7)
    edit(path, statement)
    with pytest.raises(EvidenceError) as caught:
        EvidenceLog.open(path, origin=ORIGIN, signer=signer)
    assert caught.value.code == "evidence.log_mismatch"
    assert "Restore" in caught.value.hint


@pytest.mark.parametrize("column", ["envelope", "idx"])
def test_an_old_entry_that_was_edited_is_never_handed_out(path: Path, signer: Signer, column: str) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 7)
        other = sign_envelope("text/plain", b"rewritten", signer).encode().hex()
        changes = {
            "envelope": f"UPDATE evidence_entries SET envelope = x'{other}' WHERE idx = 2",
            "idx": "DELETE FROM evidence_entries WHERE idx = 2",
        }
        edit(path, changes[column])
        for ask in (lambda: log.entry(2), lambda: log.extract(JOB), log.envelopes):
            if column == "idx" and ask is not log.envelopes:
                continue
            with pytest.raises(EvidenceError):
                ask()


def test_a_log_whose_tree_was_broken_refuses_to_append(path: Path, signer: Signer) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 6)
    with EvidenceLog.open(path, origin=ORIGIN, signer=signer) as log:
        edit(path, "UPDATE evidence_nodes SET hash = zeroblob(32) WHERE id = 3")
        with pytest.raises(EvidenceError):
            fill(log, signer, 1, start=6)
        edit(path, "UPDATE evidence_head SET checkpoint = ''")
        with pytest.raises(EvidenceError):
            fill(log, signer, 1, start=6)


def test_a_file_that_is_no_database_is_refused(path: Path, signer: Signer) -> None:
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError):
        EvidenceLog.open(path, origin=ORIGIN, signer=signer)


def test_a_failed_append_leaves_the_log_as_it_was(
    path: Path, new_signer: Callable[[str], Signer], monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = new_signer("a")
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 2)
        before = log.checkpoint()
        with monkeypatch.context() as patch:
            patch.setattr(type(signer), "sign", lambda *_: (_ for _ in ()).throw(OSError("the key is gone")))
            with pytest.raises(OSError, match="gone"):
                log.append(sign_envelope_with(signer, b"x"), stream=JOB, position=2)
        assert log.checkpoint() == before
        fill(log, signer, 3, start=2)
        assert log.size == 5
        assert len(log.envelopes()) == 5


def sign_envelope_with(signer: Signer, payload: bytes) -> object:
    from cloister.evidence.envelope import Envelope, Signature

    return Envelope("text/plain", payload, (Signature(signer.public_key.key_id, b"s" * 64),))


def test_names_of_logs_say_whose_they_are() -> None:
    assert log_owner(log_origin(Role.SITE, "north")) == (Role.SITE, "north")
    assert log_owner(log_origin(Role.HUB, "north")) == (Role.HUB, "north")
    for role, party in ((Role.DEVELOPER, "lab"), (Role.SITE, ""), (Role.SITE, "a/b"), (Role.SITE, "a\nb")):
        with pytest.raises(EvidenceError):
            log_origin(role, party)
    for origin in ("", "cloister/site/", "cloister/site/a/b", "cloister/hospital/a", "other/site/a"):
        with pytest.raises(EvidenceError):
            log_owner(origin)
