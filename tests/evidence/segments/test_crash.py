"""Killed and forked processes: what was acknowledged is there, and a torn end is told from a cut one."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.keys import PublicKey
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments import (
    Ending,
    OpeningKey,
    SegmentLimits,
    parse_held,
    verify_directory,
    verify_segment,
)
from tests.evidence.segments.conftest import Stream, failing
from tests.nightly import nightly_seed, spread

PARTS = 10
"""In parts, so that each fits into its share of a night."""

WORKER = """
import sys, threading
from pathlib import Path
from cloister.core.keys import FileKeyStore
from cloister.evidence.segments import SealingKey, SegmentLimits, SegmentWriter, FileSink

place = Path(sys.argv[1])
signer = FileKeyStore(place / "keys").load("stream")
sealing = SealingKey.from_pem((place / "sealing.pem").read_bytes())
limits = SegmentLimits(max_bytes=40_000, entries_per_mark=32, mark_seconds=0.005)
sinks = [FileSink(place / "held")]
writer = SegmentWriter(place / "segments", "immune", signer, sealing, sinks=sinks, limits=limits)
lock = threading.Lock()

def run(thread):
    number = 0
    while True:
        writer.append({"thread": thread, "free": number})
        receipt = writer.append_durable({"thread": thread, "number": number})
        with lock:
            print(receipt.segment, receipt.line, receipt.head.hex(), flush=True)
        number += 1

threads = [threading.Thread(target=run, args=(thread,)) for thread in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


class Place:
    """A folder with everything that a worker process and its auditor need."""

    def __init__(self, directory: Path) -> None:
        from cloister.core.keys import FileKeyStore

        self.directory = directory
        (directory / "segments").mkdir(parents=True)
        self.opening = OpeningKey.generate()
        (directory / "sealing.pem").write_text(self.opening.sealing_key.pem)
        self.key: PublicKey = FileKeyStore(directory / "keys").generate("stream").public_key

    def kill_a_worker(self, after: float, acknowledgements: int = 1) -> list[tuple[str, int, str]]:
        """Run a worker, kill it a moment after it acknowledged that often; what it acknowledged."""
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(self.directory)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        first = "".join(worker.stdout.readline() for _ in range(acknowledgements))
        time.sleep(after)
        worker.send_signal(signal.SIGKILL)
        rest = worker.stdout.read()
        worker.stdout.close()
        worker.wait()
        whole = (first + rest).split("\n")[:-1]
        return [(name, int(line), head) for name, line, head in (one.split() for one in whole)]

    def judge(self, acknowledged: list[tuple[str, int, str]]) -> None:
        held = parse_held((self.directory / "held").read_bytes())
        verdict = verify_directory(
            self.directory / "segments", keys=[self.key], held=held, secrets=self.opening
        )
        # Killed before anybody outside had its first checkpoint: nothing in it was acknowledged.
        unheard = {name for name, one in verdict.segments.items() if not one.vouched}
        assert unheard.isdisjoint(f"{name}.jsonl" for name, _, _ in acknowledged)
        assert verdict.missing == ()
        for name, one in verdict.segments.items():
            assert one.broken_at is None, (name, one)
            assert one.accepted or name in unheard, (name, one.checks)
        folder = self.directory / "segments"
        lines = {name: (folder / name).read_bytes().split(b"\n") for name in verdict.segments}
        for name, line, head in acknowledged:
            assert lines[f"{name}.jsonl"][line - 1].endswith(f'"tip":"{head}"}}'.encode())
            assert verdict.segments[f"{name}.jsonl"].vouched > line


def test_after_kills_every_acknowledged_entry_is_there_and_vouched_for(tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    acknowledged = []
    for after, acknowledgements in ((0.0, 1), (0.01, 3), (0.05, 10), (0.2, 100)):
        killed = place.kill_a_worker(after, acknowledgements)
        assert len(killed) >= acknowledgements
        acknowledged += killed
    place.judge(acknowledged)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_after_many_kills_every_acknowledged_entry_is_there(
    tmp_path: Path, part: int, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(nightly_seed() * PARTS + part)
    for number in spread(range(part, 500, PARTS), record_property):
        place = Place(tmp_path / str(number))
        place.judge(place.kill_a_worker(chance.uniform(0.0, 0.3)))


def test_a_file_cut_at_any_byte_is_torn_behind_what_was_vouched_for_and_tampered_before(
    stream: Stream,
) -> None:
    writer = stream.writer(limits=SegmentLimits(mark_seconds=60.0, entries_per_mark=1000))
    writer.append_durable({"number": 0})
    vouched = stream.files()[0].stat().st_size
    held = list(stream.held)
    for number in range(1, 4):
        writer.append({"number": number})
    writer.flush()
    data = stream.files()[0].read_bytes()
    writer.close()
    for length in range(vouched - 500, len(data)):
        verdict = verify_segment(data[:length], keys=[stream.signer.public_key], held=held)
        if length < vouched:
            assert failing(verdict) == ["segment-held"], length
        else:
            assert verdict.accepted, length
            whole = data[:length].endswith(b"\n")
            assert verdict.ending is (Ending.OPEN if whole else Ending.TORN)
            assert verdict.vouched == 4
    # With the checkpoint that was made last, cutting anything off is found.
    for length in range(vouched, len(data)):
        assert failing(stream.verify(data[:length])) == ["segment-held"], length


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child that ends without cleaning up; its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_writes_a_segment_of_its_own_that_names_where_its_parent_stood(
    stream: Stream, tmp_path: Path
) -> None:
    from cloister.evidence.segments import FileSink

    sink = FileSink(tmp_path / "held")
    writer = stream.writer(sink=sink, limits=SegmentLimits(mark_seconds=60.0))
    parent = writer.append_durable({"who": "parent"})
    unwritten = writer.append({"who": "parent, not waited for"})

    def child() -> None:
        assert writer._flow.segment is None
        with pytest.raises(SegmentError, match="forked"):
            unwritten.wait()
        for number in range(5):
            writer.append_durable({"who": "child", "number": number})
        assert in_child(lambda: writer.append_durable({"who": "grandchild"}) and None) == 0
        writer.close()

    codes = [in_child(child) for _ in range(2)]
    writer.append_durable({"who": "parent again"})
    writer.close()
    assert codes == [0, 0]
    stream.held = list(parse_held((tmp_path / "held").read_bytes()))
    verdict = stream.verify_all()
    assert verdict.accepted, verdict
    headers = [one.header for one in verdict.segments.values() if one.header]
    parents = [one.parent.segment for one in headers if one.parent]
    assert len(headers) == 5
    assert parents.count(parent.segment) == 2
    assert len({(one.pid, one.process) for one in headers}) == 5
    # Shortening the parent's segment contradicts what its children say, also without held checkpoints.
    path = stream.directory / f"{parent.segment}.jsonl"
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:2]) + b"\n")
    alone = verify_directory(stream.directory, keys=[stream.signer.public_key], held=None)
    assert "segment-links" in failing(alone.segments[path.name])


def test_a_fork_while_threads_append_neither_hangs_nor_mixes_streams(stream: Stream, tmp_path: Path) -> None:
    import threading

    from cloister.evidence.segments import FileSink

    writer = stream.writer(sink=FileSink(tmp_path / "held"))
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            writer.append_durable({"who": "parent"})

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        codes = [in_child(lambda: writer.append_durable({"who": "child"}) and None) for _ in range(10)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    writer.close()
    assert codes == [0] * 10
    stream.held = list(parse_held((tmp_path / "held").read_bytes()))
    verdict = stream.verify_all()
    assert verdict.accepted, verdict
    assert len(verdict.segments) == 11


def test_a_writer_is_not_pickled(stream: Stream) -> None:
    with stream.writer() as writer, pytest.raises(TypeError):
        multiprocessing.reduction.ForkingPickler.dumps(writer)


def test_a_process_that_ends_normally_closes_its_segment(tmp_path: Path) -> None:
    place = Place(tmp_path)
    ending = WORKER.split("lock =", maxsplit=1)[0] + "writer.append({'number': 1})\n"
    subprocess.run([sys.executable, "-c", ending, str(tmp_path)], check=True, timeout=60)
    verdict = verify_segment(
        next((tmp_path / "segments").iterdir()),
        keys=[place.key],
        held=parse_held((tmp_path / "held").read_bytes()),
    )
    assert verdict.accepted
    assert (verdict.ending, verdict.entries) == (Ending.CLOSED, 1)
