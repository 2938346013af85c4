"""What a stopped, starved or copied process leaves behind, and what its machine can still be made to tell."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloister.core.canonical import canonicalize
from cloister.core.errors import CloisterError, StorageError
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments import (
    Cipher,
    DescriptorSink,
    FileSink,
    SegmentLimits,
    SegmentWriter,
    parse_held,
    verify_directory,
)
from cloister.evidence.segments.chain import decrypt_event
from cloister.evidence.segments.file import SegmentFile
from cloister.evidence.segments.ratchet import Ratchet
from tests.evidence.segments.conftest import Stream, failing

NOBODY = f"{'0' * 8}-0000-0000-0000-{'0' * 12}.7.{'0' * 16}"


@pytest.mark.timed
def test_a_number_in_a_name_costs_nothing(stream: Stream) -> None:
    (stream.directory / f"{NOBODY}.999999999.jsonl").write_bytes(b"")
    since = time.monotonic()
    verdict = verify_directory(stream.directory, keys=[], held=None)
    assert time.monotonic() - since < 1
    assert (verdict.absent, len(verdict.missing)) == (999_999_998, 10)
    assert len(repr(verdict.checks)) < 1000
    assert not verdict.accepted


def test_every_gap_is_counted_and_the_first_are_named(stream: Stream) -> None:
    for number in (3, 5):
        (stream.directory / f"{NOBODY}.{number}.jsonl").write_bytes(b"")
    verdict = verify_directory(stream.directory, keys=[], held=None)
    assert verdict.missing == tuple(f"{NOBODY}.{number}" for number in (1, 2, 4))
    assert verdict.absent == 3


def test_a_folder_without_segments_is_no_stream(stream: Stream) -> None:
    for held in (None, []):
        verdict = verify_directory(stream.directory, keys=[stream.signer.public_key], held=held)
        assert not verdict.accepted
        assert [(one.id, one.outcome.value) for one in verdict.checks if one.id != "stream-clock"] == [
            ("stream-complete", "failed"),
            *([("segment-held", "not_run")] if held is None else []),
        ]


def test_two_continuations_of_one_memory_never_use_one_nonce_twice(stream: Stream) -> None:
    """A virtual machine put back to a snapshot goes on with the same keys, at the same line."""
    with stream.writer(cipher=Cipher.AES_256_GCM) as writer:
        writer.append_durable({"number": 0})
        assert writer._flow.segment is not None
        chain = writer._flow.segment.chain
        twin = copy(chain)
        twin._ratchet = Ratchet(bytes(chain._ratchet._key))
        at = "2026-11-21T14:00:00.000000Z"
        ours, theirs = chain.entry(at, b'{"patient":"AAAA"}'), twin.entry(at, b'{"patient":"BBBB"}')
    one, other = (base64.b64decode(json.loads(line)["event"]) for line in (ours, theirs))
    assert one[:12] != other[:12]
    assert bytes(a ^ b for a, b in zip(one[12:30], other[12:30], strict=True)) != bytes(
        a ^ b for a, b in zip(b'{"patient":"AAAA"}', b'{"patient":"BBBB"}', strict=True)
    )


def test_a_box_opens_at_its_own_line_of_its_own_segment_only(stream: Stream) -> None:
    from cloister.evidence.segments.chain import encrypt_event

    box = encrypt_event(b"\1" * 32, "one", 3, b"{}")
    assert decrypt_event(b"\1" * 32, "one", 3, box) == b"{}"
    for segment, number, sealed in (("one", 4, box), ("two", 3, box), ("one", 3, box[1:]), ("one", 3, b"")):
        with pytest.raises(CloisterError):
            decrypt_event(b"\1" * 32, segment, number, sealed)


def test_who_takes_the_machine_over_reads_no_event_that_was_written_before(stream: Stream) -> None:
    """All that the writer still has is held against each past event."""
    writer = stream.writer(cipher=Cipher.AES_256_GCM)
    for number in range(3):
        writer.append_durable({"patient": number})
    assert writer._flow.segment is not None
    chain, name = writer._flow.segment.chain, writer._flow.segment.name
    left = [value for value in vars(chain).values() if isinstance(value, bytes | bytearray)]
    left += [bytes(chain._ratchet._key), chain._ratchet.event_key()]
    lines = [json.loads(line) for line in stream.files()[-1].read_bytes().splitlines()]
    sealed = {line["n"]: base64.b64decode(line["event"]) for line in lines if line["kind"] == "entry"}
    assert len(sealed) == 3
    for number, box in sealed.items():
        for key in left:
            with pytest.raises(CloisterError):
                decrypt_event(bytes(key), name, number, box)
    writer.close()


def cut_writes(monkeypatch: pytest.MonkeyPatch, sink: FileSink, room: list[int]) -> None:
    """A disk that has so many bytes left for a sink, and no more until somebody makes room."""
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if descriptor != sink._descriptor or not room:
            return real(descriptor, data)
        taken = min(len(data), room[0])
        room[0] -= taken
        if not taken:
            raise OSError(28, "full")
        return real(descriptor, bytes(data)[:taken])

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("left", [1, 300, 700, 1500])
def test_a_hand_over_that_was_cut_takes_no_other_checkpoint_with_it(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    path, room = tmp_path / "held.jsonl", [left]
    sink = FileSink(path)
    cut_writes(monkeypatch, sink, room)
    with stream.writer(sink=sink) as writer:
        for number in range(4):
            with suppress(SegmentError):
                writer.append_durable({"number": number})
        room.clear()
        after = writer.append_durable({"number": 4})
    held = parse_held(path.read_bytes())
    assert held.unreadable == 1 or left == 1
    assert after.line in [one.lines for one in held]
    stream.held = list(held)
    assert stream.verify_all().accepted


def test_a_hand_over_that_another_process_was_killed_over_takes_no_other_with_it(
    stream: Stream, tmp_path: Path
) -> None:
    path = tmp_path / "held.jsonl"
    path.write_bytes(b'{"at":"2026-11-21T14:0')
    stream.written(2, sink=FileSink(path))
    held = parse_held(path.read_bytes())
    assert held.unreadable == 1
    stream.held = list(held)
    assert stream.verify_all().accepted


def test_a_descriptor_whose_last_line_was_cut_begins_a_new_one(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.written(1)
    one, other = stream.held[:2]
    reading, writing = os.pipe()
    sink, real = DescriptorSink(writing), os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:40]))
        with pytest.raises(SegmentError, match="cut"):
            sink(one)
    sink(one)
    sink(other)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        held = parse_held(pipe.read())
    assert (held.checkpoints, held.unreadable) == ((one, other), 1)


def test_a_file_of_anything_else_is_not_read_to_its_end() -> None:
    since = time.thread_time()
    with pytest.raises(SegmentError):
        parse_held(b"x\n" * 4_000_000)
    assert parse_held(b"\n" * 1_000_000).unreadable == 0
    assert time.thread_time() - since < 5


def starved(stream: Stream, monkeypatch: pytest.MonkeyPatch, count: int) -> SegmentWriter:
    """A writer that lost so many entries to a full disk."""
    writer = stream.writer()
    writer.append_durable({"number": 0})

    def full(_: SegmentFile, __: bytes) -> None:
        raise StorageError("storage.no_space", "full")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentFile, "append", full)
        tickets = [writer.append({"lost": number}) for number in range(count)]
        with pytest.raises(StorageError):
            tickets[-1].wait()
    return writer


def lost(stream: Stream) -> list[tuple[int, list[str]]]:
    """Each segment's loss, and the checks that fail by it."""
    verdict = stream.verify_all()
    ordered = sorted(verdict.segments.values(), key=lambda one: one.header.number if one.header else 0)
    return [(one.header.lost if one.header else -1, failing(one)) for one in ordered]


def test_lost_entries_fail_a_check_of_the_segment_behind_them_and_of_no_later_one(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with starved(stream, monkeypatch, 5) as writer:
        writer.append_durable({"number": 1})
        writer.rotate()
        writer.append_durable({"number": 2})
        assert writer.lost == 5
    assert lost(stream) == [(0, []), (5, ["segment-lost"]), (0, [])]
    assert not stream.verify_all().accepted


def test_a_writer_that_is_closed_says_what_no_segment_said_was_lost(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    starved(stream, monkeypatch, 3).close()
    assert lost(stream) == [(0, []), (3, ["segment-lost"])]


def test_a_machine_that_stops_between_two_clocks_is_not_told_as_a_clock_that_was_set(stream: Stream) -> None:
    """A virtual machine may be paused after one clock was read and before the other."""
    now, up, calls = datetime.now(UTC), 10**9, 0

    def clock() -> datetime:
        nonlocal calls, up
        calls += 1
        before = now + timedelta(microseconds=up - 10**9)
        if calls % 3 == 0:
            up += 3 * 10**6
        return before

    with SegmentWriter(
        stream.directory,
        "immune",
        stream.signer,
        stream.opening.sealing_key,
        sinks=[stream.held.append],
        clock=clock,
        uptime=lambda: up,
    ) as writer:
        for number in range(5):
            writer.append_durable({"number": number})
    assert stream.verify_all().accepted


def slept(stream: Stream, hours: int, between: Callable[[SegmentWriter], None]) -> list[str]:
    """The checks that fail where a process slept for so long between two entries."""
    now, up = [datetime.now(UTC)], [10**9]
    with SegmentWriter(
        stream.directory,
        "immune",
        stream.signer,
        stream.opening.sealing_key,
        sinks=[stream.held.append],
        limits=SegmentLimits(heartbeat_seconds=10),
        clock=lambda: now[0],
        uptime=lambda: up[0],
    ) as writer:
        writer.append_durable({"number": 0})
        between(writer)
        now[0] += timedelta(hours=hours)
        up[0] += hours * 3600 * 10**6
        writer.append_durable({"number": 1})
    verdict = stream.verify_all()
    inside = [check for one in verdict.segments.values() for check in failing(one)]
    return inside + [check.id for check in verdict.checks if check.outcome.value == "failed"]


def test_a_process_that_was_silent_for_longer_than_its_heartbeat_is_told(stream: Stream) -> None:
    assert slept(stream, 5, lambda _: None) == ["segment-clock"]
    assert slept(stream, 0, lambda _: None) == ["segment-clock"]  # the one of before, and no other


def test_a_process_that_was_silent_between_two_segments_is_told(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first entry after a write that failed begins the next segment, however much later."""

    def break_off(writer: SegmentWriter) -> None:
        def fail(_: SegmentFile, __: bytes) -> None:
            raise StorageError("storage.failed", "gone")

        with monkeypatch.context() as patch:
            patch.setattr(SegmentFile, "append", fail)
            with pytest.raises(StorageError):
                writer.append_durable({"lost": 1})

    assert slept(stream, 5, break_off) == ["segment-lost", "stream-clock"]


def test_a_writer_whose_keys_were_rotated_goes_on_signing_heartbeats(stream: Stream) -> None:
    with stream.writer(limits=SegmentLimits(heartbeat_seconds=1)) as writer:
        writer.append_durable({"number": 0})
        writer.rotate()
        before = len(stream.held)
        deadline = time.monotonic() + 10
        while len(stream.held) == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert stream.held[-1].segment.endswith(".2")
    assert stream.verify_all().accepted


def test_events_of_many_shapes_are_all_read(stream: Stream) -> None:
    events = [{f"name{number % 40}": [number, {"ü": "ü\n"}, None, 1e-9, -0.25]} for number in range(120)]
    data = stream.made(events)
    assert stream.verify(data).accepted
    assert stream.verify(data).entries == 120
    assert canonicalize(events[0]) in data
