"""The audit: every decision has an entry that nobody changes unseen, and no entry costs a caller much."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.canonical import JSON
from cloister.core.clock import fixed_clock
from cloister.core.errors import InputError, StorageError
from cloister.core.keys import FileKeyStore
from cloister.core.symmetric import hmac_sha256
from cloister.evidence.segments import OpeningKeys, SegmentCheckpoint
from cloister.evidence.segments.layout import BEFORE_THE_FIRST, TAG_BYTES, TIP_BYTES, parse_opening
from cloister.evidence.segments.ratchet import next_key
from cloister.immune.audit import AuditTrail
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.audit_export import VERDICT_SUFFIX, export_audit, verify_audit
from cloister.immune.audit_folder import AuditFolder, open_audit
from cloister.immune.errors import ImmuneError
from cloister.immune.observation import Action, Decision
from tests.conftest import START

ROOT = Path(__file__).resolve().parents[2]
AT = "2026-11-21T14:00:00.000000Z"
EVENT = AuditEvent(AT, AuditKind.DECISION, "block", "shop:pay", 97.25, "duration 5.1x median, p=0.0004", "e1")

anything = st.text(max_size=40) | st.characters(categories=["Cs"]) | st.text(min_size=400, max_size=1200)
events = st.builds(
    AuditEvent,
    timestamp=st.just(AT),
    event_type=st.sampled_from(AuditKind),
    action=st.sampled_from(["allow", "quarantine", "block"]) | anything,
    function=anything,
    score=st.none() | st.floats(),
    reason=anything,
    event_id=st.text("0123456789abcdef", min_size=16, max_size=16),
)


def numbered(number: int) -> AuditEvent:
    return AuditEvent(AT, AuditKind.DECISION, "allow", "shop:pay", 12.5, "nothing unusual", f"{number:016x}")


@pytest.fixture
def folder(tmp_path: Path) -> AuditFolder:
    return AuditFolder(tmp_path / "audit")


@contextmanager
def trail_in(folder: AuditFolder, **options: object) -> Iterator[AuditTrail]:
    trail = open_audit(folder, **options)  # type: ignore[arg-type]
    try:
        yield trail
    finally:
        trail.close()


def written(folder: AuditFolder, count: int, **options: object) -> Path:
    """One closed segment with so many entries, each durable before the next."""
    with trail_in(folder, **options) as trail:
        for number in range(count):
            assert trail.record_durably(numbered(number))
    (path,) = folder.segments.glob("*.jsonl")
    return path


def exported(folder: AuditFolder, out: Path) -> list[dict[str, JSON]]:
    export_audit(folder, out)
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(0.005)


# An entry.


@settings(max_examples=200)
@given(event=events)
def test_any_event_can_be_written_and_is_read_as_it_was_written(event: AuditEvent) -> None:
    first = AuditEvent.from_json(event.as_json())
    assert AuditEvent.from_json(first.as_json()) == first
    assert first.event_type is event.event_type
    assert first.score is None or abs(first.score) < float("inf")


@pytest.mark.parametrize(
    "change",
    [
        {"event_type": "unheard-of"},
        {"score": "97"},
        {"score": True},
        {"function": None},
        {"more": 1},
        {"reason": ["a"]},
    ],
)
def test_what_has_not_the_form_of_an_entry_is_none(change: dict[str, JSON]) -> None:
    with pytest.raises(ImmuneError, match="form") as refused:
        AuditEvent.from_json({**EVENT.as_json(), **change})
    assert refused.value.code == "immune.audit_invalid"


def test_a_decision_becomes_an_entry_with_its_score_and_reason() -> None:
    decision = Decision(Action.BLOCK, "duration 5.1x median, p=0.0004", 97.25, "e1")
    assert AuditEvent.of_decision(AT, "shop:pay", decision) == EVENT


# Writing.


def test_a_block_is_on_the_disk_when_it_is_said_to_be(folder: AuditFolder) -> None:
    with trail_in(folder) as trail:
        assert trail.record_durably(EVENT)
        (path,) = folder.segments.glob("*.jsonl")
        assert b'"action":"block"' in path.read_bytes()
        assert verify_audit(folder).accepted


def test_other_entries_are_on_the_disk_soon_and_all_in_their_order(
    folder: AuditFolder, tmp_path: Path
) -> None:
    with trail_in(folder) as trail:
        for number in range(200):
            assert trail.record(numbered(number))
        assert trail.flush(20)
        assert trail.status().written == 200
    lines = exported(folder, tmp_path / "out.jsonl")
    assert [line["event_id"] for line in lines] == [f"{number:016x}" for number in range(200)]


def test_every_decision_of_many_threads_has_exactly_one_entry(folder: AuditFolder, tmp_path: Path) -> None:
    numbers = itertools.count()

    def work() -> None:
        for turn in range(50):
            event = numbered(next(numbers))
            assert trail.record_durably(event) if turn % 10 == 0 else trail.record(event)

    with trail_in(folder) as trail:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = sorted(str(line["event_id"]) for line in exported(folder, tmp_path / "out.jsonl"))
    assert found == [f"{number:016x}" for number in range(400)]


def test_nothing_is_written_and_no_thread_started_before_the_first_entry(folder: AuditFolder) -> None:
    before = threading.active_count()
    with trail_in(folder):
        assert threading.active_count() == before
    assert list(folder.segments.iterdir()) == []


def test_what_operators_say_is_redacted_before_it_is_written(folder: AuditFolder) -> None:
    with trail_in(folder, redact=lambda text: text.replace("ada@example.org", "[EMAIL]")) as trail:
        trail.record_durably(
            AuditEvent(AT, AuditKind.APPROVE, "approve", "f", None, "by ada@example.org", "")
        )
    (path,) = folder.segments.glob("*.jsonl")
    assert b"[EMAIL]" in path.read_bytes()
    assert b"ada@" not in path.read_bytes()


def test_what_can_not_be_redacted_is_withheld(folder: AuditFolder) -> None:
    def broken(_: str) -> str:
        raise ZeroDivisionError

    with trail_in(folder, redact=broken) as trail:
        assert trail.record_durably(EVENT)
    (path,) = folder.segments.glob("*.jsonl")
    assert b'"reason":"[withheld]"' in path.read_bytes()


def test_a_forked_child_writes_a_segment_of_its_own_that_names_its_parents(
    folder: AuditFolder, tmp_path: Path
) -> None:
    with trail_in(folder) as trail:
        assert trail.record_durably(numbered(1))
        child = os.fork()
        if child == 0:
            done = trail.record_durably(numbered(2)) and trail.status().written == 1
            trail.close()
            os._exit(0 if done else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert trail.record_durably(numbered(3))
    first, second = (
        parse_opening(path.read_bytes().split(b"\n")[0])[1] for path in folder.segments.glob("*.jsonl")
    )
    parent, forked = (first, second) if first.pid == os.getpid() else (second, first)
    assert (parent.pid, forked.pid) == (os.getpid(), child)
    assert forked.parent is not None
    assert forked.parent.segment == str(parent.id)
    verdict = verify_audit(folder)
    assert verdict.accepted, verdict.problems
    assert verdict.entries == 3


def test_a_fork_while_threads_record_neither_hangs_nor_takes_the_parents_entries(folder: AuditFolder) -> None:
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            trail.record(numbered(1))
            time.sleep(0.0002)

    with trail_in(folder) as trail:
        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    signal.alarm(30)
                    clean = trail.status().waiting == 0
                    done = trail.record_durably(numbered(2))
                    os._exit(0 if done and clean else 1)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            over.set()
            thread.join()


def test_a_signal_handler_may_record_whatever_it_interrupts(folder: AuditFolder) -> None:
    seen = itertools.count()

    def handler(*_: object) -> None:
        next(seen)
        trail.record(AuditEvent(AT, AuditKind.KILL_SWITCH, "off", "", None, "signal", ""))

    with trail_in(folder) as trail:
        before = signal.signal(signal.SIGUSR1, handler)
        sender = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import os,signal,sys,time\n"
                "for _ in range(300): os.kill(int(sys.argv[1]), signal.SIGUSR1); time.sleep(.001)",
                str(os.getpid()),
            ]
        )
        try:
            while sender.poll() is None:
                for _ in range(50):
                    trail.record(numbered(1))
                trail.flush(20)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert trail.flush(20)
        assert next(seen) > 50
    assert verify_audit(folder).accepted


def test_a_process_that_ends_in_order_has_written_everything_and_closed_its_segment(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from cloister.immune.audit_folder import AuditFolder, open_audit\n"
        "from tests.immune.test_audit import numbered\n"
        "trail = open_audit(AuditFolder(Path(sys.argv[1])))\n"
        "trail.record(numbered(0)); time.sleep(1)\n"
        "for number in range(29): trail.record(numbered(number))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "audit")], check=True, cwd=ROOT, timeout=60)
    verdict = verify_audit(AuditFolder(tmp_path / "audit"))
    assert verdict.accepted, verdict.problems
    assert verdict.entries == 30


def test_a_kill_right_after_a_block_takes_nothing_of_it(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from cloister.immune.audit_folder import AuditFolder, open_audit\n"
        "from tests.immune.test_audit import EVENT\n"
        "trail = open_audit(AuditFolder(Path(sys.argv[1])))\n"
        "assert trail.record_durably(EVENT)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "audit")], check=False, cwd=ROOT, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    verdict = verify_audit(AuditFolder(tmp_path / "audit"))
    assert (verdict.accepted, verdict.entries) == (True, 1), verdict.problems


# The audit can't be written.


class Disk:
    """A log on a disk that fails when told to, at taking entries or at synchronising them."""

    def __init__(self) -> None:
        self.full: Exception | None = None
        self.broken: Exception | None = None
        self.stuck = threading.Event()
        self.stuck.set()
        self.taken: list[str] = []
        self.durable: list[str] = []
        self.lost = 0

    def append(self, event: dict[str, JSON]) -> None:
        if self.full is not None:
            raise self.full
        if event["action"] == "poison":
            raise InputError("input.not_json", "It can't be written.")
        self.taken.append(str(event["event_id"]) or str(event["reason"]))

    def flush(self) -> None:
        self.stuck.wait()
        if self.broken is not None:
            self.lost += len(self.taken)
            self.taken.clear()
            raise self.broken
        self.durable += self.taken
        self.taken.clear()

    def close(self) -> None:
        self.full = StorageError("storage.failed", "closed")


FULL = StorageError("storage.no_space", "There is no space left.")


def test_while_the_disk_is_full_calls_go_on_and_an_operator_sees_it(caplog: pytest.LogCaptureFixture) -> None:
    disk, alarms = Disk(), []
    disk.full = FULL
    trail = AuditTrail(disk, alarm=alarms.append, patience=20.0)
    assert not trail.record_durably(numbered(1))
    started = time.monotonic()
    for number in range(2, 12):
        assert not trail.record_durably(numbered(number))
    assert time.monotonic() - started < 5.0, "no call waits for a disk that is known to be full"
    status = trail.status()
    assert (status.failing, status.waiting, status.late, status.whole) == ("storage.no_space", 11, 11, False)
    assert alarms == ["storage.no_space"]
    trail.close()
    assert trail.status().lost == 11


def test_what_waited_for_a_full_disk_is_written_when_it_is_freed() -> None:
    disk = Disk()
    disk.full = FULL
    trail = AuditTrail(disk, alarm=lambda _: None)
    for number in range(5):
        trail.record(numbered(number))
    until(lambda: bool(trail.status().failing))
    disk.full = None
    until(lambda: len(disk.durable) == 5)
    until(lambda: trail.status().whole)
    assert disk.durable == [f"{number:016x}" for number in range(5)]
    trail.close()


def test_a_disk_that_hangs_costs_a_call_no_more_than_the_patience() -> None:
    disk = Disk()
    disk.stuck.clear()
    trail = AuditTrail(disk, alarm=lambda _: None, patience=0.05)
    started = time.monotonic()
    assert not trail.record_durably(EVENT)
    assert 0.04 < time.monotonic() - started < 5.0
    assert trail.status().late == 1
    disk.stuck.set()
    until(lambda: disk.durable == ["e1"])
    trail.close()


def test_entries_that_find_no_room_are_counted_and_the_audit_says_how_many() -> None:
    disk = Disk()
    disk.full = FULL
    trail = AuditTrail(disk, alarm=lambda _: None, capacity=10, clock=fixed_clock(START))
    taken = [trail.record(numbered(number)) for number in range(30)]
    until(lambda: bool(trail.status().failing))
    dropped = taken.count(False)
    assert dropped >= 15
    assert trail.status().dropped == dropped
    disk.full = None
    until(lambda: any(f"{dropped} entries were dropped" in one for one in disk.durable))
    trail.close()


def test_blocks_find_room_where_other_entries_find_none_any_more() -> None:
    disk = Disk()
    disk.full = FULL
    trail = AuditTrail(disk, alarm=lambda _: None, capacity=20, patience=20.0)
    while trail.record(numbered(1)):
        pass
    until(lambda: trail.status().waiting >= 20 and bool(trail.status().failing))
    before = trail.status().waiting
    assert not trail.record_durably(EVENT)
    assert trail.status().waiting == before + 1
    disk.full = None
    until(lambda: "e1" in disk.durable)
    trail.close()


def test_entries_lost_behind_a_broken_synchronisation_are_counted_and_nobody_is_told_otherwise() -> None:
    disk, alarms = Disk(), []
    disk.broken = StorageError("storage.failed", "Writing failed.")
    trail = AuditTrail(disk, alarm=alarms.append, patience=20.0)
    assert not trail.record_durably(numbered(1))
    assert (trail.status().lost, trail.status().failing, alarms) == (1, "storage.failed", ["storage.failed"])
    disk.broken = None
    assert trail.record_durably(numbered(2))
    assert (trail.status().failing, trail.status().written) == ("", 1)
    trail.close()


def test_one_entry_that_is_refused_takes_no_other_with_it() -> None:
    disk = Disk()
    trail = AuditTrail(disk, alarm=lambda _: None, patience=20.0)
    trail.record(AuditEvent(AT, AuditKind.FAULT, "poison", "", None, "", "bad"))
    assert trail.record_durably(numbered(2))
    assert disk.durable == [f"{2:016x}"]
    assert trail.status().lost == 1
    trail.close()


def test_an_alarm_that_fails_and_a_log_with_a_defect_stop_no_call() -> None:
    def broken(_: str) -> None:
        raise ZeroDivisionError

    disk = Disk()
    disk.broken = KeyError("defect")
    trail = AuditTrail(disk, alarm=broken, patience=20.0)
    assert not trail.record_durably(EVENT)
    assert trail.status().failing == "KeyError"
    disk.broken = None
    assert trail.record_durably(EVENT)
    trail.close()
    assert not trail.record_durably(EVENT)


def test_without_an_alarm_of_the_callers_the_log_tells(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    disk.full = FULL
    with caplog.at_level(logging.ERROR, "cloister.immune"):
        trail = AuditTrail(disk, patience=20.0)
        trail.record_durably(EVENT)
        trail.close()
    assert ["storage.no_space" in one for one in caplog.messages] == [True]


def test_a_folder_that_is_gone_fails_open_with_the_real_writer(folder: AuditFolder) -> None:
    with trail_in(folder, alarm=lambda _: None) as trail:
        shutil.rmtree(folder.segments)
        assert not trail.record_durably(EVENT)
        assert trail.status().failing.startswith("storage.")
        folder.segments.mkdir()
        until(lambda: trail.status().whole)
    assert verify_audit(folder).entries == 1


# Verification.


def test_a_segment_is_opened_for_appending_only_and_is_one_json_object_on_each_line(
    folder: AuditFolder,
) -> None:
    """PIC-7.1: an append-only file of JSON Lines."""
    with trail_in(folder) as trail:
        assert trail.record_durably(EVENT)
        (path,) = folder.segments.glob("*.jsonl")
        written_to = path.stat().st_ino
        (descriptor,) = (
            one.name
            for one in Path("/proc/self/fd").iterdir()
            if one.exists() and one.stat().st_ino == written_to
        )
        flags = Path(f"/proc/self/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0]
        assert int(flags, 8) & os.O_APPEND
        assert int(flags, 8) & os.O_ACCMODE == os.O_WRONLY
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["n"] for line in lines] == list(range(1, len(lines) + 1))


def test_verification_names_the_line_that_was_edited(folder: AuditFolder) -> None:
    path = written(folder, 6)
    lines = path.read_bytes().split(b"\n")
    place = next(number for number, line in enumerate(lines, 1) if f"{3:016x}".encode() in line)
    path.write_bytes(path.read_bytes().replace(f"{3:016x}".encode(), f"{4:016x}".encode(), 1))
    (problem,) = [one for one in verify_audit(folder).problems if "segment-chain" in one]
    assert f"line {place}:" in problem


def test_who_cuts_the_audit_and_the_checkpoints_beside_it_is_found_by_those_held_elsewhere(
    folder: AuditFolder,
) -> None:
    """PIC-X6: chained signatures find a truncation."""
    outside: list[SegmentCheckpoint] = []
    with trail_in(folder, sinks=[outside.append]) as trail:
        assert trail.record_durably(numbered(1))
        kept = {path: path.read_bytes() for path in folder.checkpoints.iterdir()}
        (path,) = folder.segments.glob("*.jsonl")
        before = path.read_bytes()
        assert trail.record_durably(EVENT)
    path.write_bytes(before)
    for one, data in kept.items():
        one.write_bytes(data)
    assert verify_audit(folder).accepted, "who can write everything here fools who looks only here"
    verdict = verify_audit(folder, held=outside)
    assert not verdict.accepted
    assert any("segment-held" in problem for problem in verdict.problems)


@settings(max_examples=120)
@given(data=st.data())
def test_an_entry_that_is_edited_deleted_moved_or_cut_off_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """PIC-P21: each decision has an entry that cannot be changed or deleted."""
    folder, path, original = _shared_audit(tmp_path_factory)
    lines = original.split(b"\n")[:-1]
    place = data.draw(st.integers(0, len(lines) - 1), label="line")
    match data.draw(st.sampled_from(["edit", "delete", "swap", "double", "truncate", "torn"])):
        case "edit":
            at = data.draw(st.integers(0, len(lines[place]) - 1))
            changed = bytes([lines[place][at] ^ (1 << data.draw(st.integers(0, 6)))])
            lines[place] = lines[place][:at] + changed + lines[place][at + 1 :]
        case "delete":
            del lines[place]
        case "swap":
            other = data.draw(st.integers(0, len(lines) - 1).filter(lambda one: one != place))
            lines[place], lines[other] = lines[other], lines[place]
        case "double":
            lines.insert(place, lines[place])
        case "truncate":
            del lines[place:]
        case "torn":
            del lines[place + 1 :]
            lines[place] = lines[place][: data.draw(st.integers(1, len(lines[place]) - 1))]
    changed = b"".join(line + b"\n" for line in lines)
    if changed == original:
        return
    path.write_bytes(changed)
    try:
        verdict = verify_audit(folder)
    finally:
        path.write_bytes(original)
    assert not verdict.accepted
    assert verdict.problems


_made: list[tuple[AuditFolder, Path, bytes]] = []


def _shared_audit(factory: pytest.TempPathFactory) -> tuple[AuditFolder, Path, bytes]:
    if not _made:
        folder = AuditFolder(factory.mktemp("audit") / "audit")
        path = written(folder, 6)
        assert verify_audit(folder).accepted
        _made.append((folder, path, path.read_bytes()))
    return _made[0]


def test_a_segment_that_was_removed_is_named(folder: AuditFolder) -> None:
    """PIC-P21: each decision has an entry that cannot be changed or deleted."""
    path = written(folder, 3)
    path.unlink()
    verdict = verify_audit(folder)
    assert not verdict.accepted
    assert any(path.stem in problem for problem in verdict.problems)


@settings(max_examples=100)
@given(chosen=st.integers(0, 5), data=st.data())
def test_each_entry_is_authenticated_over_its_content_and_its_time(
    chosen: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """PIC-P56: each entry has HMAC-SHA256 over content and timestamp."""
    folder, _, original = _shared_audit(tmp_path_factory)
    lines = original.split(b"\n")[:-1]
    keys, secrets = folder.opening_keys(), parse_opening(lines[0])[1]
    assert keys is not None
    key, before = keys.open(secrets).root, BEFORE_THE_FIRST
    seen = 0
    for line in lines:
        content, tag, tip = (
            line[: -TIP_BYTES - TAG_BYTES],
            line[-TIP_BYTES - 64 : -TIP_BYTES],
            line[-66:-2],
        )
        assert hmac_sha256(key, before + content).hex().encode() == tag
        if b'"kind":"entry"' in content:
            assert content.startswith(b'{"at":"20')
            if seen == chosen:
                at = data.draw(st.integers(0, len(content) - 1))
                flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
                assert hmac_sha256(key, before + flipped).hex().encode() != tag
            seen += 1
        key, before = next_key(key), bytes.fromhex(tip.decode())
    assert seen == 6


def test_an_entry_that_something_else_wrote_with_the_right_keys_is_named(folder: AuditFolder) -> None:
    with folder.writer() as writer:
        writer.append_durable({"what": "no entry of the audit"})
    verdict = verify_audit(folder)
    assert not verdict.accepted
    assert "form" in verdict.problems[0]


def test_an_empty_audit_proves_nothing(folder: AuditFolder) -> None:
    assert not verify_audit(folder).accepted


def test_a_third_party_verifies_with_public_keys_and_checkpoints_alone(
    folder: AuditFolder, tmp_path: Path
) -> None:
    written(folder, 3)
    keys = folder.public_keys()
    shutil.move(tmp_path / "audit" / "opening", tmp_path / "elsewhere")
    verdict = verify_audit(folder, keys=keys)
    assert verdict.accepted, verdict.problems
    stranger = FileKeyStore(tmp_path / "stranger").generate("stranger").public_key
    assert not verify_audit(folder, keys=[stranger]).accepted


# Export.


def test_an_export_is_json_lines_with_signatures_and_a_verdict_that_names_it(
    folder: AuditFolder, tmp_path: Path
) -> None:
    path = written(folder, 3)
    out = tmp_path / "out.jsonl"
    verdict = export_audit(folder, out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [AuditEvent.from_json({name: line[name] for name in EVENT.as_json()}) for line in lines] == [
        numbered(number) for number in range(3)
    ]
    assert all(line["signature"].encode() in path.read_bytes() for line in lines)
    beside = json.loads(out.with_name(out.name + VERDICT_SUFFIX).read_text())
    assert beside["accepted"] is True
    assert (beside["entries"], beside["segments"], beside["problems"]) == (3, 1, [])
    assert beside["export_sha256"] == verdict.export
    with pytest.raises(StorageError, match="already there"):
        export_audit(folder, out)


def test_of_a_segment_that_was_changed_nothing_is_exported_and_the_verdict_says_so(
    folder: AuditFolder, tmp_path: Path
) -> None:
    path = written(folder, 3)
    with trail_in(folder) as trail:
        assert trail.record_durably(EVENT)
    path.write_bytes(path.read_bytes().replace(b'"score":12.5', b'"score":92.5', 1))
    verdict = export_audit(folder, tmp_path / "out.jsonl")
    assert not verdict.accepted
    assert verdict.entries == 1
    assert any(path.name in problem for problem in verdict.problems)


# Encryption at rest.


def test_an_encrypted_audit_is_ciphertext_on_the_disk_and_readable_with_the_opening_key(
    folder: AuditFolder, tmp_path: Path
) -> None:
    """PIC-P22: encryption at rest (PIC-D7): the file is ciphertext under AES-256."""
    path = written(folder, 4, encrypted=True)
    data = path.read_bytes()
    assert b"aes-256-gcm" in data
    for clear in (b"shop:pay", b"allow", b"unusual", b"decision"):
        assert clear not in data
    assert [line["function"] for line in exported(folder, tmp_path / "out.jsonl")] == ["shop:pay"] * 4


def test_who_takes_the_writing_machine_over_reads_nothing_once_the_opening_key_is_elsewhere(
    folder: AuditFolder, tmp_path: Path
) -> None:
    """PIC-D7: encryption at rest."""
    written(folder, 2, encrypted=True)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(tmp_path / "audit" / "opening", elsewhere)
    with trail_in(folder, encrypted=True) as trail:
        assert trail.record_durably(numbered(2)), "writing needs no key that opens"
    assert verify_audit(folder).entries == 0
    verdict = verify_audit(folder, secrets=OpeningKeys(elsewhere))
    assert (verdict.accepted, verdict.entries) == (True, 3), verdict.problems


def test_after_a_rotation_of_keys_old_and_new_segments_open_and_verify(folder: AuditFolder) -> None:
    """PIC-D7: key rotation."""
    writer = folder.writer(encrypted=True)
    trail = AuditTrail(writer)
    assert trail.record_durably(numbered(1))
    folder.rotate(writer)
    assert trail.record_durably(numbered(2))
    trail.close()
    headers = [
        parse_opening(path.read_bytes().split(b"\n")[0])[1] for path in folder.segments.glob("*.jsonl")
    ]
    assert len({header.key for header in headers}) == 2
    assert len({header.secrets.key for header in headers}) == 2
    verdict = verify_audit(folder)
    assert (verdict.accepted, verdict.entries) == (True, 2), verdict.problems
    assert not verify_audit(folder, keys=folder.public_keys()[1:]).accepted, "the former key counts too"


def test_two_processes_that_begin_at_once_use_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from cloister.immune.audit_folder import AuditFolder, open_audit\n"
        "from tests.immune.test_audit import EVENT\n"
        "trail = open_audit(AuditFolder(Path(sys.argv[1])))\n"
        "assert trail.record_durably(EVENT)\n"
    )
    begun = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "audit")], cwd=ROOT) for _ in range(2)
    ]
    assert [one.wait(60) for one in begun] == [0, 0]
    folder = AuditFolder(tmp_path / "audit")
    assert len(folder.public_keys()) == 1
    verdict = verify_audit(folder)
    assert (verdict.accepted, verdict.entries) == (True, 2), verdict.problems


def test_importing_the_trail_loads_neither_pydantic_nor_cryptography() -> None:
    program = (
        "import sys, cloister.immune.audit\n"
        "print(*[one for one in ('pydantic', 'cryptography', 'cloister.evidence') if one in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert ended.stdout.strip() == ""
