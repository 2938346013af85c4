"""An audit that its own folder's owner cuts: what is held elsewhere and what came later tell of it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloister.cli.pic import main
from cloister.core.clock import Clock
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.audit_export import AuditVerdict, verify_audit
from cloister.immune.audit_folder import AuditFolder, open_audit
from cloister.immune.audit_retention import AuditRetention
from cloister.immune.kept_state import AUDIT
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.settings import ImmuneSettings


@pytest.fixture
def folder(tmp_path: Path) -> AuditFolder:
    return AuditFolder(tmp_path / "audit")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "checkpoints"


def wrote(folder: AuditFolder, outside: Path | None, entries: int = 3) -> str:
    """A process that wrote some entries and ended: its segment."""
    before = {one.name for one in folder.segments.iterdir()}
    trail = open_audit(folder, checkpoints=outside)
    for number in range(entries):
        event = AuditEvent(
            "2026-11-22T10:00:00.000000Z", AuditKind.DECISION, "block", "a:b", 90.0, "", f"{number}"
        )
        trail.record(event)
    trail.close()
    (name,) = {one.name for one in folder.segments.iterdir()} - before
    return name


def cut_whole(folder: AuditFolder, name: str) -> None:
    (folder.segments / name).unlink()
    for one in folder.checkpoints.glob(f"{name.removesuffix('.jsonl')}*"):
        one.unlink()


def verdict(folder: AuditFolder, outside: Path | None) -> AuditVerdict:
    return verify_audit(folder, outside=outside)


def test_a_whole_segment_that_vanished_with_its_checkpoints_is_missed_by_the_second_folder(
    folder: AuditFolder, outside: Path
) -> None:
    first = wrote(folder, outside)
    assert verdict(folder, outside).accepted
    assert verdict(folder, outside).vouched_outside
    cut_whole(folder, first)
    found = verdict(folder, outside)
    assert not found.accepted
    assert any(first.removesuffix(".jsonl") in one and "isn't here" in one for one in found.problems)


def test_without_one_the_verdict_says_that_nothing_outside_vouched(
    folder: AuditFolder, outside: Path
) -> None:
    wrote(folder, None)
    found = verdict(folder, None)
    assert (found.accepted, found.vouched_outside) == (True, False)
    assert found.as_json()["vouched_outside"] is False
    assert not verdict(folder, outside).vouched_outside


def test_a_segment_that_a_later_one_goes_on_from_can_not_vanish(folder: AuditFolder) -> None:
    first, second, third = wrote(folder, None), wrote(folder, None), wrote(folder, None)
    assert verdict(folder, None).accepted, verdict(folder, None).problems
    cut_whole(folder, second)
    found = verdict(folder, None)
    assert not found.accepted
    assert any(second.removesuffix(".jsonl") in one for one in found.problems)
    assert not any(one.startswith((first, third)) for one in found.problems)


def test_only_the_newest_one_can_and_nothing_but_a_second_folder_tells(
    folder: AuditFolder, outside: Path
) -> None:
    wrote(folder, outside)
    newest = wrote(folder, outside)
    cut_whole(folder, newest)
    assert verdict(folder, None).accepted
    assert not verdict(folder, outside).accepted


def test_lines_that_were_cut_with_their_checkpoints_are_missed(folder: AuditFolder, outside: Path) -> None:
    first = wrote(folder, outside, entries=400)
    wrote(folder, outside)
    lines = (folder.segments / first).read_bytes().splitlines(keepends=True)
    (folder.segments / first).write_bytes(b"".join(lines[:-60]))
    (folder.checkpoints / f"{first.removesuffix('.jsonl')}.held").unlink()
    assert not verdict(folder, outside).accepted
    assert not verdict(folder, None).accepted


def later(days: float) -> Clock:
    return lambda: datetime.now(UTC) + timedelta(days=days)


def test_what_was_removed_for_its_age_is_not_missed(folder: AuditFolder, outside: Path) -> None:
    first = wrote(folder, outside)
    wrote(folder, outside)
    trail = open_audit(folder, checkpoints=outside)
    outside.chmod(0o700)
    assert first in AuditRetention(folder, trail, days=30, clock=later(31)).remove_expired()
    trail.close()
    found = verdict(folder, outside)
    assert found.accepted, found.problems


def test_it_is_tidied_once_a_day_and_by_one_process(folder: AuditFolder, outside: Path) -> None:
    first = wrote(folder, outside)
    trail = open_audit(folder, checkpoints=outside)
    os.utime(folder.segments / first, (0, 0))

    def tidied(after: float) -> tuple[str, ...]:
        return AuditRetention(folder, trail, 30.0, outside, later(after)).tidy_once_a_day()

    assert tidied(31) == (first,)
    assert not list(outside.glob(f"{first.removesuffix('.jsonl')}*"))
    second = wrote(folder, outside)
    os.utime(folder.segments / second, (0, 0))
    assert tidied(31.5) == ()
    assert second in tidied(63)
    trail.close()


def test_nothing_is_verified_while_no_file_is_old(
    folder: AuditFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote(folder, None)
    trail = open_audit(folder)
    monkeypatch.setattr(
        "cloister.immune.audit_retention.AuditRetention.remove_expired", lambda *_, **__: pytest.fail("read")
    )
    assert AuditRetention(folder, trail, days=30.0, clock=later(29)).tidy_once_a_day() == ()
    trail.close()


def test_the_settings_name_the_second_folder_and_the_days_for_a_protection(tmp_path: Path) -> None:
    state, outside = tmp_path / "state", tmp_path / "elsewhere"
    settings = ImmuneSettings.model_validate(
        {"storage": {"directory": str(state), "checkpoint_directory": str(outside), "audit_days": 30}}
    )
    with Protection(settings).start() as protection:
        protection.notes.note(AuditKind.FAULT, "a", "", "of the first process")
    (first,) = (state / AUDIT / "segments").iterdir()
    os.utime(first, (0, 0))
    assert list(outside.glob("*.held"))
    with Operator(state, "tester", checkpoints=outside) as operator:
        found = operator.export(tmp_path / "out.jsonl")
        assert (found.accepted, found.vouched_outside) == (True, True), found.problems
    with Protection(settings).start() as protection:
        for _ in range(30):
            protection._beat()
        assert first.exists(), "its entries are young, whatever the file's time says"
    cut_whole(AuditFolder(state / AUDIT), first.name)
    with Operator(state, "tester", checkpoints=outside) as operator:
        assert not operator.export(tmp_path / "again.jsonl").accepted


def test_the_command_takes_the_second_folder_from_the_settings_and_says_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state").mkdir(mode=0o700)

    def pic(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code, capfd.readouterr()
        return capfd.readouterr().out

    (tmp_path / "pic.yaml").write_text("storage: {directory: state}\n")
    pic("off")
    assert "Nothing outside of the folder vouched" in pic("logs", "export", "1.jsonl")
    (tmp_path / "pic.yaml").write_text("storage: {directory: state, checkpoint_directory: elsewhere}\n")
    pic("on")
    assert "Nothing outside" not in pic("logs", "export", "2.jsonl")
    assert json.loads((tmp_path / "2.jsonl.verdict.json").read_text())["vouched_outside"] is True


def test_a_second_folder_that_can_not_be_written_is_told_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("a file")
    settings = ImmuneSettings.model_validate(
        {
            "storage": {
                "directory": str(tmp_path / "state"),
                "checkpoint_directory": str(tmp_path / "elsewhere"),
            }
        }
    )
    with Protection(settings).start() as protection:
        protection.notes.note(AuditKind.FAULT, "a", "", "something")
        assert protection.notes.trail is not None
        protection.notes.trail.flush()
        audit = protection.status()["audit"]
        assert isinstance(audit, dict)
        assert audit["failing"]
