"""The evidence log: append-only, durable, one signed head, refused as soon as anything in it was edited."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.errors import StorageError
from cloister.core.keys import Signer
from cloister.evidence.checkpoint import verify_checkpoint
from cloister.evidence.envelope import sign_envelope
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.extract import extract_from_json, log_origin, log_owner, verify_entry
from cloister.evidence.log import EvidenceLog, LogReader
from cloister.evidence.log.group import Ticket
from cloister.evidence.log.log import pending
from cloister.evidence.merkle import verify_consistency, verify_inclusion
from cloister.evidence.predicates import Role
from tests.evidence.log.places import JOB, ORIGIN, Place, drop_logs, drop_table, edit, fill, item, server

ZEROS = "x'" + "00" * 32 + "'"


def test_what_was_appended_is_there_after_opening_again(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 5)
    with EvidenceLog.open(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 4, start=5)
        assert log.size == 9
        assert [one.payload for one in log.envelopes()] == [b"%d" % number for number in range(9)]
        assert [log.entry(number).payload for number in range(9)] == [b"%d" % number for number in range(9)]


def test_the_head_is_signed_by_the_logs_key(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        verify_checkpoint(log.checkpoint(), ORIGIN, signer.public_key)
        fill(log, signer, 3)
        verify_checkpoint(log.checkpoint(), ORIGIN, signer.public_key)


def test_each_entry_is_proven_at_every_size_and_each_size_extends_the_one_before(
    place: Place, signer: Signer
) -> None:
    heads, leaves = [], []
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
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


def test_no_proof_is_given_for_a_size_the_log_has_not_reached(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
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
    place: Place, signer: Signer
) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
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


def test_a_position_in_a_stream_is_taken_once(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 2)
        with pytest.raises(EvidenceError, match="another writer"):
            fill(log, signer, 1, start=1)
        fill(log, signer, 1, start=2)
        assert log.size == 3


def test_many_threads_and_two_openings_append_to_one_tree(place: Place, signer: Signer) -> None:
    with (
        EvidenceLog.create(place, origin=ORIGIN, signer=signer) as first,
        EvidenceLog.open(place, origin=ORIGIN, signer=signer) as second,
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


def test_a_log_is_never_begun_over_one_that_is_there(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 1)
    with pytest.raises(EvidenceError) as caught:
        EvidenceLog.create(place, origin=ORIGIN, signer=signer)
    assert caught.value.code == "evidence.log_exists"
    with EvidenceLog.open(place, origin=ORIGIN, signer=signer) as log:
        assert log.size == 1


def test_a_log_whose_tables_are_gone_is_missing_and_one_of_them_is_a_mismatch(
    place: Place, signer: Signer
) -> None:
    for tables, code in (
        (["evidence_nodes"], "evidence.log_mismatch"),
        (["evidence_entries", "evidence_head"], "evidence.log_missing"),
    ):
        if code == "evidence.log_mismatch":
            EvidenceLog.create(place, origin=ORIGIN, signer=signer).close()
        for table in tables:
            drop_table(place, table)
        with pytest.raises(LogError) as caught:
            EvidenceLog.open(place, origin=ORIGIN, signer=signer)
        assert caught.value.code == code
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        assert log.size == 0


def test_a_log_that_is_gone_is_not_begun_anew(place: Place, signer: Signer) -> None:
    with pytest.raises(LogError) as caught:
        EvidenceLog.open(place, origin=ORIGIN, signer=signer)
    assert caught.value.code == "evidence.log_missing"
    assert caught.value.exit_code == 5
    assert not isinstance(place, Path) or not place.exists()


def test_a_log_opens_only_under_its_own_name_and_key(
    place: Place, signer: Signer, other_signer: Signer
) -> None:
    EvidenceLog.create(place, origin=ORIGIN, signer=signer).close()
    for origin, key in (("cloister/site/south", signer), (ORIGIN, other_signer)):
        with pytest.raises(EvidenceError) as caught:
            EvidenceLog.open(place, origin=origin, signer=key)
        shared = isinstance(place, str) and origin != ORIGIN
        assert caught.value.code == ("evidence.log_missing" if shared else "evidence.log_mismatch")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE evidence_entries SET envelope = x'7b7d' WHERE idx = 6",
        "DELETE FROM evidence_entries WHERE idx = 6",
        "INSERT INTO evidence_entries VALUES (7, 'job', 7, x'7b7d')",
        f"UPDATE evidence_nodes SET hash = {ZEROS} WHERE id = 3",
        "DELETE FROM evidence_nodes WHERE id = 3",
        "UPDATE evidence_head SET checkpoint = replace(checkpoint, '7', '6')",
        "UPDATE evidence_head SET format = 1",
        "DELETE FROM evidence_head",
    ],
)
def test_an_edited_log_is_refused_when_it_is_opened(place: Place, signer: Signer, statement: str) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 7)
    edit(place, statement)
    with pytest.raises(EvidenceError) as caught:
        EvidenceLog.open(place, origin=ORIGIN, signer=signer)
    assert caught.value.code == "evidence.log_mismatch"
    assert "Restore" in caught.value.hint


@pytest.mark.parametrize("column", ["envelope", "idx"])
def test_an_old_entry_that_was_edited_is_never_handed_out(place: Place, signer: Signer, column: str) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 7)
        other = sign_envelope("text/plain", b"rewritten", signer).encode().hex()
        changes = {
            "envelope": f"UPDATE evidence_entries SET envelope = x'{other}' WHERE idx = 2",
            "idx": "DELETE FROM evidence_entries WHERE idx = 2",
        }
        edit(place, changes[column])
        for ask in (lambda: log.entry(2), lambda: log.extract(JOB), log.envelopes):
            if column == "idx" and ask is not log.envelopes:
                continue
            with pytest.raises(EvidenceError):
                ask()


def test_a_log_whose_tree_was_broken_refuses_to_append(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 6)
    with EvidenceLog.open(place, origin=ORIGIN, signer=signer) as log:
        edit(
            place,
            f"UPDATE evidence_nodes SET hash = {ZEROS} WHERE id = 3",
        )
        with pytest.raises(EvidenceError):
            fill(log, signer, 1, start=6)
        edit(place, "UPDATE evidence_head SET checkpoint = ''")
        with pytest.raises(EvidenceError):
            fill(log, signer, 1, start=6)


def test_a_file_that_is_no_database_is_refused(path: Path, signer: Signer) -> None:
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError):
        EvidenceLog.open(path, origin=ORIGIN, signer=signer)


def test_a_failed_append_leaves_the_log_as_it_was(
    place: Place, new_signer: Callable[[str], Signer], monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = new_signer("a")
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
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


def test_several_entries_are_logged_together_or_not_at_all(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        placed = log.append_many([item(signer, number) for number in range(5)])
        assert [one.index for one in placed] == [0, 1, 2, 3, 4]
        for batch in ([item(signer, 5), item(signer, 4)], [item(signer, 5), item(signer, 5)]):
            with pytest.raises(LogError) as caught:
                log.append_many(batch)
            assert caught.value.code == "evidence.log_mismatch"
        assert log.append_many([]) == ()
        assert log.size == 5
        assert log.append_many([item(signer, 5)])[0].index == 5
        assert len(log.envelopes()) == 6


def test_an_entry_that_no_bundle_of_tiles_can_hold_is_refused(place: Place, signer: Signer) -> None:
    largest = 65_535 - len(sign_envelope("a", b"", signer).encode())
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        for payload, fits in ((bytes(largest // 4 * 3), True), (bytes(largest // 4 * 3 + 3), False)):
            envelope = sign_envelope("a", payload, signer)
            assert (len(envelope.encode()) <= 65_535) == fits
            if fits:
                log.append(envelope, stream=JOB, position=0)
                continue
            with pytest.raises(LogError) as caught:
                log.append(envelope, stream=JOB, position=1)
            assert caught.value.code == "evidence.entry_too_large"
            assert caught.value.exit_code == 5
        assert log.size == 1


@pytest.mark.parametrize(("stream", "position"), [("", 0), ("a b", 0), ("x" * 65, 0), ("\x00", 0), ("a", -1)])
def test_a_place_that_is_none_is_refused(place: Place, signer: Signer, stream: str, position: int) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log, pytest.raises(EvidenceError):
        log.append(sign_envelope("a", b"", signer), stream=stream, position=position)


def test_a_streams_newest_entry_and_length_are_found_without_reading_the_stream(
    place: Place, signer: Signer
) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 9)
        last = log.last(JOB)
        assert last is not None
        assert last.envelope.payload == b"8"
        verify_entry(last, log.checkpoint())
        assert log.length(JOB) == 9
        assert log.last("other") is None
        assert log.length("other") == 0


def test_the_root_at_every_size_is_the_one_that_was_signed(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        heads = [log.checkpoint()]
        for number in range(9):
            fill(log, signer, 1, start=number)
            heads.append(log.checkpoint())
        assert [log.root_at(head.size) for head in heads] == [head.root for head in heads]
        with pytest.raises(EvidenceError):
            log.root_at(10)


def test_entries_come_in_order_block_by_block(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        log.append_many([item(signer, number) for number in range(1200)])
        for start, end in ((0, 1200), (0, 0), (5, 6), (511, 513), (1023, 1200), (1200, 1200)):
            found = list(log.entries(start, end))
            assert [one.index for one in found] == list(range(start, end))
            assert all(one.envelope.payload == b"%d" % one.index for one in found)
        for start, end in ((-1, 5), (0, 1201), (6, 5)):
            with pytest.raises(EvidenceError):
                log.entries(start, end)
        moving = log.entries()
        next(moving)
        log.append_many([item(signer, 1200)])
        assert len(list(moving)) == 1199


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE evidence_entries SET envelope = x'7b7d' WHERE idx = 530",
        "DELETE FROM evidence_entries WHERE idx = 530",
        "UPDATE evidence_entries SET idx = 5000 WHERE idx = 530",
        "INSERT INTO evidence_entries VALUES (-1, 'job', -1, x'7b7d')",
        f"UPDATE evidence_nodes SET hash = {ZEROS} WHERE id = 1060",
        "UPDATE evidence_nodes SET hash = x'00' WHERE id = 1061",
        "DELETE FROM evidence_nodes WHERE id = 511",
    ],
)
def test_an_edit_anywhere_is_found_when_the_whole_log_is_read(
    place: Place, signer: Signer, statement: str
) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        log.append_many([item(signer, number) for number in range(550)])
        assert log.verify() == log.checkpoint()
        edit(place, statement)
        with pytest.raises(LogError) as caught:
            log.verify()
        assert caught.value.code == "evidence.log_mismatch"


def test_no_proof_is_handed_out_from_a_tree_that_was_broken(place: Place, signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 11)
        edit(
            place,
            f"UPDATE evidence_nodes SET hash = {ZEROS} WHERE id = 3",
        )
        for ask in (
            lambda: log.inclusion_proof(5, 8),
            lambda: log.inclusion_proof(5, 11),
            lambda: log.consistency_proof(4, 7),
            lambda: log.consistency_proof(6, 11),
            lambda: log.root_at(5),
            lambda: list(log.entries(4, 6)),
            lambda: log.extract(JOB),
        ):
            with pytest.raises(LogError) as caught:
                ask()
            assert caught.value.code == "evidence.log_mismatch"


def test_a_head_under_the_partys_former_key_is_taken_on_when_that_is_said(
    place: Place, signer: Signer, other_signer: Signer, new_signer: Callable[[str], Signer]
) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 3)
    former = (new_signer("older").public_key, signer.public_key)
    with pytest.raises(LogError):
        EvidenceLog.open(place, origin=ORIGIN, signer=other_signer, accepted_keys=former[:1])
    with EvidenceLog.open(place, origin=ORIGIN, signer=other_signer, accepted_keys=former) as log:
        verify_checkpoint(log.checkpoint(), ORIGIN, signer.public_key)
        fill(log, other_signer, 1, start=3)
        verify_checkpoint(log.checkpoint(), ORIGIN, other_signer.public_key)
    with EvidenceLog.open(place, origin=ORIGIN, signer=other_signer) as log:
        assert log.verify().size == 4


def test_a_log_is_read_with_its_public_key_alone(place: Place, signer: Signer, other_signer: Signer) -> None:
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 3)
    with LogReader.open_for_reading(place, origin=ORIGIN, keys=[signer.public_key]) as reader:
        assert reader.verify().size == 3
        assert not hasattr(reader, "append")
    with pytest.raises(LogError):
        LogReader.open_for_reading(place, origin=ORIGIN, keys=[other_signer.public_key])


def test_names_of_logs_say_whose_they_are() -> None:
    assert log_owner(log_origin(Role.SITE, "north")) == (Role.SITE, "north")
    assert log_owner(log_origin(Role.HUB, "north")) == (Role.HUB, "north")
    for role, party in ((Role.DEVELOPER, "lab"), (Role.SITE, ""), (Role.SITE, "a/b"), (Role.SITE, "a\nb")):
        with pytest.raises(EvidenceError):
            log_origin(role, party)
    for origin in ("", "cloister/site/", "cloister/site/a/b", "cloister/hospital/a", "other/site/a"):
        with pytest.raises(EvidenceError):
            log_owner(origin)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE evidence_entries SET envelope = 'text' WHERE idx = 2",
        "UPDATE evidence_entries SET envelope = 7 WHERE idx = 2",
        "UPDATE evidence_entries SET position = 'x' WHERE idx = 2",
        "UPDATE evidence_nodes SET hash = 'text' WHERE id = 4",
        "UPDATE evidence_nodes SET hash = 12 WHERE id = 4",
        "UPDATE evidence_head SET checkpoint = x'00'",
        "UPDATE evidence_head SET format = 'x'",
        "ALTER TABLE evidence_entries RENAME COLUMN envelope TO other",
    ],
)
def test_values_of_another_kind_in_a_file_are_an_edit_like_any_other(
    path: Path, signer: Signer, statement: str
) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 4)
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()
        with pytest.raises((LogError, StorageError)):
            log.verify()
        for ask in (log.envelopes, lambda: log.extract(JOB), lambda: log.inclusion_proof(2, 4)):
            with contextlib.suppress(LogError, StorageError):
                ask()


def test_several_logs_share_a_database(postgresql: str, signer: Signer) -> None:
    drop_logs(postgresql)
    origins = [f"cloister/site/s{number}" for number in range(3)]
    logs = [EvidenceLog.create(postgresql, origin=origin, signer=signer) for origin in origins]
    for number, log in enumerate(logs):
        fill(log, signer, number + 1)
    assert [log.size for log in logs] == [1, 2, 3]
    for log in logs:
        log.close()
    with EvidenceLog.open(postgresql, origin=origins[1], signer=signer) as log:
        assert log.verify().size == 2
    drop_logs(postgresql)


def test_what_an_interrupted_commit_may_have_logged_is_looked_up_and_never_logged_twice(
    place: Place, signer: Signer
) -> None:
    def again(number: int, *, stream: str = JOB) -> Ticket:
        ticket = Ticket((pending(item(signer, number, stream=stream)),))
        ticket.uncertain = True
        return ticket

    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 2)
        log.append(sign_envelope("a", b"another's", signer), stream="other", position=5)
        logged, new, taken = again(1), again(2), again(5, stream="other")
        log.commit_tickets((logged, new, taken))
        assert [ticket.result()[0].index for ticket in (logged, new)] == [1, 3]
        with pytest.raises(LogError):
            taken.result()
        assert log.verify().size == 4


def test_a_server_that_drops_its_connections_loses_nothing_and_is_used_again(
    postgresql: str, signer: Signer
) -> None:
    drop_logs(postgresql)
    with EvidenceLog.create(postgresql, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 2)
        engine = server(postgresql)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        engine.dispose()
        with pytest.raises(StorageError):
            fill(log, signer, 1, start=2)
        fill(log, signer, 1, start=2)
        assert log.verify().size == 3
    drop_logs(postgresql)
