"""How long an audit is kept: what is old goes as a whole, named before; tampering is never tidied away."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from cloister.core.clock import Clock, fixed_clock, system_clock
from cloister.core.errors import StorageError
from cloister.immune.audit import AuditTrail
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.audit_export import verify_audit
from cloister.immune.audit_folder import AuditFolder, open_audit
from cloister.immune.audit_retention import AuditRetention
from tests.immune.test_audit import EVENT, Disk, exported


@pytest.fixture
def folder(tmp_path: Path) -> AuditFolder:
    return AuditFolder(tmp_path / "audit")


def wrote(folder: AuditFolder) -> str:
    """A closed segment of one writer; its name."""
    before = {path.name for path in folder.segments.iterdir()}
    trail = open_audit(folder)
    assert trail.record_durably(EVENT)
    trail.close()
    (name,) = {path.name for path in folder.segments.iterdir()} - before
    return name


def later(days: float) -> Clock:
    return fixed_clock(system_clock() + timedelta(days=days))


def test_what_is_older_than_it_is_kept_goes_with_its_checkpoints_and_the_rest_verifies(
    folder: AuditFolder, tmp_path: Path
) -> None:
    """PIC-X13: metadata is kept for 90 days."""
    old = wrote(folder)
    trail = open_audit(folder)
    assert AuditRetention(folder, trail, days=90, clock=later(89)).remove_expired() == ()
    assert AuditRetention(folder, trail, days=90, clock=later(91)).remove_expired() == (old,)
    trail.close()
    assert old not in {path.name for path in folder.segments.iterdir()}
    assert not list(folder.checkpoints.glob(f"{old.removesuffix('.jsonl')}*"))
    verdict = verify_audit(folder)
    assert verdict.accepted, verdict.problems
    (line,) = exported(folder, tmp_path / "out.jsonl")
    assert (line["event_type"], line["action"]) == ("retention", "remove")
    assert old.removesuffix(".jsonl") in str(line["reason"])


def test_what_a_running_process_writes_stays(folder: AuditFolder) -> None:
    trail = open_audit(folder)
    assert trail.record_durably(EVENT)
    assert AuditRetention(folder, trail, days=90, clock=later(1)).remove_expired() == ()
    trail.close()
    assert verify_audit(folder).entries == 1


def test_a_segment_that_was_tampered_with_is_never_tidied_away(folder: AuditFolder) -> None:
    name = wrote(folder)
    path = folder.segments / name
    path.write_bytes(path.read_bytes().replace(b'"score":97.25', b'"score":17.25'))
    trail = open_audit(folder)
    assert AuditRetention(folder, trail, days=90, clock=later(1000)).remove_expired() == ()
    trail.close()
    assert path.exists()


def test_a_parent_stays_as_long_as_a_process_that_was_forked_from_it(folder: AuditFolder) -> None:
    trail = open_audit(folder)
    assert trail.record_durably(EVENT)
    child = os.fork()
    if child == 0:
        done = trail.record_durably(EVENT)
        trail.close()
        os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    trail.close()
    parent, forked = sorted(folder.segments.iterdir(), key=lambda path: f".{child}." in path.name)
    aside = forked.read_bytes()
    forked.write_bytes(aside.replace(b'"score":97.25', b'"score":17.25'))
    going_on = open_audit(folder)
    assert AuditRetention(folder, going_on, days=90, clock=later(91)).remove_expired() == ()
    assert parent.exists()
    forked.write_bytes(aside)
    assert set(AuditRetention(folder, going_on, days=90, clock=later(91)).remove_expired()) == {
        parent.name,
        forked.name,
    }
    going_on.close()


def test_nothing_is_removed_that_could_not_be_named_before(folder: AuditFolder) -> None:
    name = wrote(folder)
    disk = Disk()
    disk.full = StorageError("storage.no_space", "There is no space left.")
    trail = AuditTrail(disk, alarm=lambda _: None)
    assert AuditRetention(folder, trail, days=90, clock=later(91)).remove_expired() == ()
    trail.close()
    assert (folder.segments / name).exists()


def test_a_file_that_is_no_segment_stops_nothing(folder: AuditFolder) -> None:
    name = wrote(folder)
    shutil.copy(folder.segments / name, folder.segments / "a.jsonl")
    trail = open_audit(folder)
    assert AuditRetention(folder, trail, days=90, clock=later(91)).remove_expired() == (name,)
    trail.close()
    assert (folder.segments / "a.jsonl").exists()


def test_the_entry_of_a_removal_is_of_the_kind_retention() -> None:
    assert (
        AuditEvent.from_json(
            AuditEvent(
                "2026-11-21T14:00:00.000000Z", AuditKind.RETENTION, "remove", "", None, "old", ""
            ).as_json()
        ).event_type
        is AuditKind.RETENTION
    )
