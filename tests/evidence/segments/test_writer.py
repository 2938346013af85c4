"""What the writer promises to who appends, and to the memory, disk and sinks it uses."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from cloister.core.errors import InputError, StorageError
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments import (
    Cipher,
    DescriptorSink,
    Ending,
    FileSink,
    HeldCheckpoints,
    OpeningKey,
    SegmentCheckpoint,
    SegmentLimits,
    SegmentWriter,
    parse_held,
    read_entries,
    verify_segment,
)
from cloister.evidence.segments.checkpoint import State
from cloister.evidence.segments.file import SegmentFile
from tests.evidence.segments.conftest import Stream, failing

SLOW = SegmentLimits(mark_seconds=60.0)


def events(stream: Stream, path: Path) -> list[object]:
    found = read_entries(path, keys=[stream.signer.public_key], held=stream.held, secrets=stream.opening)
    return [entry.event for entry in found]


def test_each_line_is_json_and_the_file_is_its_owners_alone(stream: Stream) -> None:
    path = stream.written(3)
    parsed = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["kind"] for line in parsed] == ["open", "mark", *["entry", "mark"] * 3, "mark"]
    assert [line["n"] for line in parsed] == list(range(1, len(parsed) + 1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_acknowledged_entry_is_in_the_file_and_vouched_for_outside(stream: Stream) -> None:
    with stream.writer(limits=SLOW) as writer:
        receipt = writer.append_durable({"blocked": "call"})
        lines = stream.files()[0].read_bytes().split(b"\n")
        assert lines[receipt.line - 1][-66:-2] == receipt.head.hex().encode()
        assert stream.held[-1].lines == receipt.line
        assert stream.held[-1].head == receipt.head
        stream.held[-1].verify(stream.signer.public_key)


def test_who_does_not_wait_is_vouched_for_within_the_limit_of_time(stream: Stream) -> None:
    with stream.writer(limits=SegmentLimits(mark_seconds=0.05)) as writer:
        ticket = writer.append({"number": 0})
        deadline = time.monotonic() + 10
        while not stream.held or stream.held[-1].lines < ticket.receipt.line:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_no_more_entries_than_the_limit_lie_between_two_marks(stream: Stream) -> None:
    with stream.writer(limits=SegmentLimits(entries_per_mark=16, mark_seconds=60.0)) as writer:
        for number in range(200):
            writer.append({"number": number})
    sizes = [one.lines for one in stream.held]
    assert max(b - a for a, b in pairwise(sizes)) == 17
    assert stream.verify(stream.files()[0]).entries == 200


def test_an_idle_process_signs_heartbeats(stream: Stream) -> None:
    with stream.writer(limits=SegmentLimits(heartbeat_seconds=1)) as writer:
        writer.append_durable({})
        before = len(stream.held)
        deadline = time.monotonic() + 10
        while len(stream.held) == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert stream.held[-1].state is State.RUNNING
        assert writer.append_durable({}).line == stream.held[-1].lines


def test_many_threads_share_synchronisations_and_none_loses_an_entry(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(fd), real(fd)))
    receipts: list[tuple[int, int]] = []

    def run(thread: int) -> None:
        for number in range(25):
            receipts.append((writer.append_durable({"thread": thread, "number": number}).line, thread))

    with stream.writer() as writer:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({line for line, _ in receipts}) == 400
    found = events(stream, stream.files()[0])
    for thread in range(16):
        mine = [event for event in found if isinstance(event, dict) and event["thread"] == thread]
        assert [event["number"] for event in mine] == list(range(25))
    assert len(synced) < 200
    assert stream.verify(stream.files()[0]).accepted


def test_segments_end_by_size_and_by_age_and_lead_on(stream: Stream) -> None:
    with stream.writer(limits=SegmentLimits(max_bytes=6000)) as writer:
        for number in range(60):
            writer.append_durable({"number": number})
    sizes = [path.stat().st_size for path in stream.files()]
    assert len(sizes) > 3
    assert max(sizes) < 7500
    with stream.writer(limits=SegmentLimits(max_seconds=0.0)) as writer:
        for number in range(3):
            writer.append({"number": number})
    verdict = stream.verify_all()
    assert verdict.accepted, verdict
    assert len(verdict.segments) == len(sizes) + 3
    assert all(one.ending is Ending.CLOSED for one in verdict.segments.values())


def test_rotated_keys_leave_old_segments_verifiable(stream: Stream) -> None:
    old_signer, old_opening = stream.signer, stream.opening
    new_signer, new_opening = EphemeralKeyStore().generate("new"), OpeningKey.generate()
    with stream.writer(cipher=Cipher.AES_256_GCM) as writer:
        writer.append_durable({"number": 0})
        writer.rotate(new_signer, new_opening.sealing_key)
        writer.append_durable({"number": 1})
    keys = [new_signer.public_key, old_signer.public_key]
    for path, opening, number in zip(stream.files(), (old_opening, new_opening), (0, 1), strict=True):
        assert verify_segment(path, keys=keys, held=stream.held, secrets=opening).accepted
        found = list(read_entries(path, keys=keys, held=stream.held, secrets=opening))
        assert [entry.event for entry in found] == [{"number": number}]
        other = new_opening if opening is old_opening else old_opening
        with pytest.raises(SegmentError) as refused:
            list(read_entries(path, keys=keys, held=stream.held, secrets=other))
        assert refused.value.code == "evidence.segment_secrets"


def test_encrypted_events_are_ciphertext_and_third_parties_verify_them_all_the_same(stream: Stream) -> None:
    path = stream.written(5, cipher=Cipher.AES_256_GCM)
    data = path.read_bytes()
    assert b'"what"' not in data
    assert b"call" not in data
    assert stream.verify_as_third_party(path).accepted
    assert events(stream, path) == [{"number": number, "what": "call"} for number in range(5)]
    with pytest.raises(SegmentError) as refused:
        read_entries(path, keys=[stream.signer.public_key], held=stream.held)
    assert refused.value.code == "evidence.segment_secrets"


def test_equal_events_are_never_equal_ciphertext(stream: Stream) -> None:
    for _ in range(2):
        with stream.writer(cipher=Cipher.AES_256_GCM) as writer:
            for _ in range(50):
                writer.append({"same": True})
    sealed = [
        json.loads(line)["event"]
        for path in stream.files()
        for line in path.read_text().splitlines()
        if '"kind":"entry"' in line
    ]
    assert len(set(sealed)) == 100


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"number": float("nan")}, "input.not_json"),
        ({"number": 2**60}, "input.not_json"),
        ({"text": "\ud800"}, "input.not_json"),
        ({"bytes": b"x"}, "input.not_json"),
        ({"text": "x" * 70_000}, "input.too_large"),
    ],
)
def test_an_event_that_cannot_be_written_is_refused_and_takes_no_line(
    stream: Stream, event: dict[str, object], code: str
) -> None:
    with stream.writer() as writer:
        first = writer.append_durable({"number": 0})
        with pytest.raises(InputError) as refused:
            writer.append(event)  # type: ignore[arg-type]
        assert refused.value.code == code
        assert writer.append_durable({"number": 1}).line == first.line + 2
    assert stream.verify(stream.files()[0]).accepted


def test_an_event_nested_deeper_than_can_be_read_again_is_refused(stream: Stream) -> None:
    deep: object = 0
    for _ in range(32):
        deep = [deep]
    with stream.writer() as writer:
        with pytest.raises(InputError):
            writer.append({"deep": deep})  # type: ignore[dict-item]
        writer.append({"wide": [[0]] * 200, "deep": deep[0]})  # type: ignore[index]
    assert len(events(stream, stream.files()[0])) == 1


def assert_lost(stream: Stream) -> None:
    """All is as it was written, but for what one header says was lost."""
    verdict = stream.verify_all()
    assert verdict.missing == ()
    assert [check for one in verdict.segments.values() for check in failing(one)] == ["segment-lost"]


@contextmanager
def failing_writes(monkeypatch: pytest.MonkeyPatch, after_bytes: int) -> Iterator[None]:
    """A disk that takes so many bytes of the next write, and then is full."""
    real, left = os.write, [after_bytes]

    def write(descriptor: int, data: bytes) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "full")
        taken = real(descriptor, bytes(data)[: left[0]])
        left[0] -= taken
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


def test_a_full_disk_is_an_error_to_who_waits_and_the_next_segment_says_what_was_lost(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stream.writer(limits=SLOW) as writer:
        writer.append_durable({"number": 0})
        lost = writer.append({"number": 1})
        with failing_writes(monkeypatch, 100):
            with pytest.raises(StorageError) as refused:
                writer.append_durable({"number": 2})
            assert refused.value.code == "storage.no_space"
            with pytest.raises(StorageError):
                lost.wait()
            for _ in range(3):
                with pytest.raises(StorageError):
                    writer.append_durable({"number": 3})
        assert writer.lost == 5
        writer.append_durable({"number": 4})
    torn, after = stream.files()
    verdict = stream.verify(torn)
    assert verdict.accepted, verdict
    assert (verdict.ending, verdict.entries) == (Ending.TORN, 1)
    later = stream.verify(after)
    assert later.header is not None
    assert (later.header.lost, later.header.number) == (5, 2)
    assert_lost(stream)
    assert events(stream, torn) == [{"number": 0}]
    assert events(stream, after) == [{"number": 4}]


def test_a_synchronisation_that_failed_acknowledges_nothing_and_is_not_tried_again(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fdatasync, []

    def fail_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, "bad sector")
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fail_once)
    with stream.writer(limits=SLOW) as writer:
        writer.append_durable({"number": 0})
        with pytest.raises(StorageError):
            writer.append_durable({"number": 1})
        writer.append_durable({"number": 2})
    assert len(stream.files()) == 2
    assert_lost(stream)


def test_a_file_system_that_is_really_full_is_survived(stream: Stream) -> None:
    import resource

    def child() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        acknowledged = 0
        with stream.writer(sink=lambda _: None) as writer:
            for number in range(40):
                try:
                    writer.append_durable({"number": number, "text": "x" * 200})
                    acknowledged += 1
                except StorageError:
                    pass
        return acknowledged

    pid = os.fork()
    if pid == 0:
        try:
            os._exit(child())
        except BaseException:
            os._exit(255)
    acknowledged = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert 20 < acknowledged < 40
    verdicts = [verify_segment(path, keys=[stream.signer.public_key], held=None) for path in stream.files()]
    assert len(verdicts) > 3
    assert all(one.broken_at is None for one in verdicts)
    assert sum(one.entries for one in verdicts) >= acknowledged


def test_a_sink_that_fails_denies_the_acknowledgement_and_gets_the_newest_checkpoint_later(
    stream: Stream,
) -> None:
    def sink(checkpoint: SegmentCheckpoint) -> None:
        if broken:
            raise broken[0]
        stream.held.append(checkpoint)

    broken: list[Exception] = []
    with stream.writer(limits=SLOW, sink=sink) as writer:
        writer.append_durable({"number": 0})
        for error in (ConnectionError("gone"), SegmentError("evidence.segment_unsent", "gone")):
            broken[:] = [error]
            with pytest.raises(SegmentError) as refused:
                writer.append_durable({"number": 1})
            assert refused.value.code == "evidence.segment_unsent"
        broken.clear()
        writer.flush()
        assert stream.held[-1].lines == 7
        writer.append_durable({"number": 3})
    verdict = stream.verify(stream.files()[0])
    assert verdict.accepted
    assert verdict.entries == 4
    assert writer.lost == 0


def test_closing_with_a_sink_that_fails_says_so_and_still_closes(stream: Stream) -> None:
    def sink(_: SegmentCheckpoint) -> None:
        raise ConnectionError("gone")

    writer = stream.writer(sink=sink)
    writer.append({"number": 0})
    with pytest.raises(SegmentError):
        writer.close()
    writer.close()
    with pytest.raises(SegmentError) as refused:
        writer.append({"number": 1})
    assert refused.value.code == "evidence.segment_closed"
    verdict = verify_segment(stream.files()[0], keys=[stream.signer.public_key], held=None)
    assert verdict.ending is Ending.CLOSED


def test_a_signer_that_fails_loses_nothing_silently(stream: Stream) -> None:
    class Moody:
        public_key = stream.signer.public_key
        broken = False

        def sign(self, message: bytes) -> bytes:
            if self.broken:
                raise RuntimeError("the module was pulled out")
            return honest.sign(message)

    honest, moody = stream.signer, Moody()
    stream.signer = moody
    with stream.writer(limits=SLOW) as writer:
        writer.append_durable({"number": 0})
        moody.broken = True
        with pytest.raises(SegmentError) as refused:
            writer.append_durable({"number": 1})
        assert refused.value.code == "evidence.segment_lost"
        assert writer.lost == 1
        moody.broken = False
        writer.append_durable({"number": 2})
    assert_lost(stream)


def test_memory_is_bounded_where_the_disk_cannot_follow(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    real = SegmentFile.append

    def slow(self: SegmentFile, data: bytes) -> None:
        gate.wait()
        real(self, data)

    monkeypatch.setattr(SegmentFile, "append", slow)
    writer = stream.writer(limits=SegmentLimits(max_waiting_bytes=20_000, mark_seconds=0.01))
    taken = []

    def fill() -> None:
        for number in range(200):
            writer.append({"text": "x" * 1000})
            taken.append(number)

    thread = threading.Thread(target=fill)
    thread.start()
    time.sleep(0.5)
    assert thread.is_alive()
    assert len(taken) < 60
    gate.set()
    thread.join()
    writer.close()
    assert stream.verify(stream.files()[0]).entries == 200


def test_checkpoints_written_to_a_file_and_a_pipe_are_read_again(stream: Stream, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    file = FileSink(tmp_path / "held.jsonl")
    sinks = [file, DescriptorSink(writing), stream.held.append]
    with SegmentWriter(
        stream.directory, "immune", stream.signer, stream.opening.sealing_key, sinks=sinks
    ) as writer:
        for number in range(3):
            writer.append_durable({"number": number})
    file.close()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        piped = pipe.read()
    assert stat.S_IMODE((tmp_path / "held.jsonl").stat().st_mode) == 0o600
    for data in (piped, (tmp_path / "held.jsonl").read_bytes(), piped + b'{"at":'):
        assert parse_held(data) == HeldCheckpoints(tuple(stream.held), 0)
    for wrong in (piped.replace(b"running", b"walking"), piped.replace(b'{"at"', b'{ "at"')):
        assert parse_held(wrong).unreadable > 0


def test_a_closed_pipe_is_a_sink_that_fails() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    checkpoint = SegmentCheckpoint("x", 1, b"\0" * 32, State.RUNNING, "", 0, b"")
    with pytest.raises(SegmentError) as refused:
        DescriptorSink(writing)(checkpoint)
    os.close(writing)
    assert refused.value.code == "evidence.segment_unsent"


def test_lines_carry_the_clocks_time_also_when_it_is_set_back(stream: Stream) -> None:
    start = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
    now = [start]
    with stream.writer(clock=lambda: now[0]) as writer:
        writer.append_durable({"number": 0})
        now[0] = start - timedelta(hours=1)
        writer.append_durable({"number": 1})
    verdict = stream.verify(stream.files()[0])
    assert verdict.broken_at is None
    assert failing(verdict) == ["segment-clock"]


def test_nothing_is_opened_or_started_before_the_first_entry(stream: Stream) -> None:
    before = threading.active_count()
    writer = stream.writer()
    writer.flush()
    assert threading.active_count() == before
    writer.close()
    assert stream.files() == []


def test_a_folder_that_is_not_there_is_an_error_and_the_writer_lives_on(stream: Stream) -> None:
    stream.directory.rmdir()
    with stream.writer() as writer:
        with pytest.raises(StorageError):
            writer.append({"number": 0})
        stream.directory.mkdir()
        writer.append_durable({"number": 1})
    assert stream.verify_all().accepted


def test_a_segment_has_its_name_only_once_its_beginning_is_on_disk(stream: Stream) -> None:
    writer = stream.writer(limits=SLOW)
    ticket = writer.append({"number": 0})
    assert stream.files() == []
    ticket.wait()
    assert [path.name for path in stream.directory.iterdir()] == [f"{ticket.receipt.segment}.jsonl"]
    writer.close()


def test_a_name_that_is_taken_is_an_error_and_what_has_it_is_left_alone(stream: Stream) -> None:
    with stream.writer(limits=SLOW) as writer:
        ticket = writer.append({"number": 0})
        taken = stream.directory / f"{ticket.receipt.segment}.jsonl"
        taken.write_text("somebody's")
        with pytest.raises(StorageError) as refused:
            ticket.wait()
        assert refused.value.code == "storage.exists"
        assert [path.read_text() for path in stream.directory.iterdir()] == ["somebody's"]
        taken.unlink()
        writer.append_durable({"number": 1})
    assert_lost(stream)


def test_a_streams_name_is_one_that_can_be_written(stream: Stream) -> None:
    with pytest.raises(InputError):
        SegmentWriter(stream.directory, "a b", stream.signer, stream.opening.sealing_key, sinks=[])


def test_a_key_that_passed_is_gone_from_the_ratchet(stream: Stream) -> None:
    with stream.writer() as writer:
        writer.append_durable({"number": 0})
        assert writer._flow.segment is not None
        ratchet = writer._flow.segment.chain._ratchet
        first = bytes(ratchet._key)
        writer.append_durable({"number": 1})
        assert bytes(ratchet._key) != first
        assert first.hex() not in repr(ratchet)
    assert bytes(ratchet._key) == bytes(32)


def test_where_no_thread_can_be_started_everybody_is_told_and_nobody_waits(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the end of the main thread, from Python 3.12 on."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    writer = stream.writer()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(SegmentError) as caught:
                writer.append_durable({"number": 1})
            assert caught.value.code == "evidence.segment_closed"
    assert stream.files() == []
    assert writer.append_durable({"number": 1}).line == 3
    writer.close()
    assert stream.verify_all().accepted
