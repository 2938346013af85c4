"""A refused log: how far it is still good is told by what others hold, and nothing is repaired by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.core.keys import Signer
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import LogError
from cloister.evidence.log import EvidenceLog, recover_log, recoverable_size
from cloister.evidence.writer import StatementWriter
from tests.evidence.log.places import ORIGIN, Place, drop_table, edit, fill, item


def heads_of(place: Place, signer: Signer, sizes: tuple[int, ...]) -> list[Checkpoint]:
    heads = []
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        for size in sizes:
            log.append_many([item(signer, number) for number in range(log.size, size)])
            heads.append(log.checkpoint())
    return heads


@pytest.mark.parametrize(
    ("statement", "good"),
    [
        ("UPDATE evidence_head SET checkpoint = ''", 600),
        ("DELETE FROM evidence_nodes", 600),
        ("DELETE FROM evidence_entries WHERE idx = 599", 300),
        ("UPDATE evidence_entries SET envelope = x'7b7d' WHERE idx = 299", 7),
        ("DELETE FROM evidence_entries WHERE idx = 3", 0),
    ],
)
def test_entries_are_good_up_to_the_newest_head_they_lead_to(
    place: Place, signer: Signer, statement: str, good: int
) -> None:
    heads = heads_of(place, signer, (7, 300, 600))
    edit(place, statement)
    assert recoverable_size(place, origin=ORIGIN, checkpoints=heads) == good
    assert recoverable_size(place, origin=ORIGIN, checkpoints=[]) == 0


def test_a_refused_log_says_how_to_recover_and_is_moved_only_on_request(
    path: Path, tmp_path: Path, signer: Signer
) -> None:
    old, new = heads_of(path, signer, (300, 600))
    edit(path, "UPDATE evidence_nodes SET hash = x'00' WHERE id = 511")
    with pytest.raises(LogError) as caught:
        EvidenceLog.open(path, origin=ORIGIN, signer=signer)
    assert "cloister log recover" in caught.value.hint
    before = path.read_bytes()
    with recover_log(path, tmp_path / "new", checkpoint=new, signer=signer) as log:
        assert log.verify().root == new.root
        assert log.root_at(old.size) == old.root
        fill(log, signer, 1, start=600)
    assert path.read_bytes() == before
    with EvidenceLog.open(tmp_path / "new", origin=ORIGIN, signer=signer) as log:
        assert log.verify().size == 601


def test_a_log_without_its_tree_and_with_edited_labels_is_moved_to_where_its_statements_say(
    place: Place, tmp_path: Path, signer: Signer
) -> None:
    job_id = "11111111-2222-4333-8444-555555555555"
    with EvidenceLog.create(place, origin=ORIGIN, signer=signer) as log:
        writer = StatementWriter(log, signer, "north", job_id, lambda: datetime(2026, 11, 21, tzinfo=UTC))
        writer.close("failed")
        fill(log, signer, 2)
        head = log.checkpoint()
    edit(place, f"UPDATE evidence_entries SET stream = 'elsewhere', position = 5 WHERE stream = '{job_id}'")
    drop_table(place, "evidence_nodes")
    with recover_log(place, tmp_path / "new", checkpoint=head, signer=signer) as log:
        assert (log.size, log.checkpoint().root) == (3, head.root)
        assert [log.length(stream) for stream in (job_id, "elsewhere")] == [1, 0]


def test_what_doesnt_lead_to_the_checkpoint_is_not_moved(path: Path, tmp_path: Path, signer: Signer) -> None:
    (head,) = heads_of(path, signer, (20,))
    edit(path, "UPDATE evidence_entries SET envelope = x'7b7d' WHERE idx = 11")
    with pytest.raises(LogError) as caught:
        recover_log(path, tmp_path / "new", checkpoint=head, signer=signer)
    assert caught.value.code == "evidence.log_mismatch"
    assert not (tmp_path / "new").exists()


def test_a_log_is_recovered_from_a_place_of_its_kind_or_another(
    place: Place, tmp_path: Path, signer: Signer
) -> None:
    (head,) = heads_of(place, signer, (20,))
    with recover_log(place, tmp_path / "new", checkpoint=head, signer=signer) as log:
        assert log.checkpoint() == head
    with pytest.raises(LogError) as caught:
        recover_log(place, tmp_path / "new", checkpoint=head, signer=signer)
    assert caught.value.code == "evidence.log_exists"
