"""Who dies with whom, and what is fresh in each worker."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloister.enclave.errors import SealedError
from cloister.enclave.sealed import SealedHost, launching
from tests.enclave.sealed.scene import Violations, a_worker, started

Made = tuple[SealedHost, Violations]


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in listed]


def dead(pid: int, seconds: float = 3.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_four_sites_share_no_noise_no_sample_and_no_key(host_and_violations: Made) -> None:
    host, _ = host_and_violations
    drawn = []
    for _ in range(4):
        with a_worker(host) as worker:
            fields = worker.request("draw").fields
            assert fields["key"] == worker.public_key.hex()
            drawn.append(fields)
    for what in ("key", "noise", "sample", "torch", "numpy", "python", "urandom"):
        assert len({str(one[what]) for one in drawn}) == 4, what


def test_workers_can_be_asked_for_from_several_threads_at_once(sealed_host: SealedHost) -> None:
    a_worker(sealed_host).close()

    def one(_: int) -> str:
        with a_worker(sealed_host) as worker:
            return worker.public_key.hex()

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(one, range(8)))) == 8


def test_workers_die_with_their_server() -> None:
    with started("light_server") as (host, _):
        workers = [a_worker(host) for _ in range(2)]
        pids = children(host.server_pid)
        assert len(pids) == 2
        os.kill(host.server_pid, signal.SIGKILL)
        assert all(dead(pid) for pid in pids)
        for worker in workers:
            with pytest.raises(SealedError) as lost:
                worker.request("echo", {"size": 1})
            assert lost.value.code in ("sealed.died", "sealed.closed")
            outcomes = {one.name: one.outcome for one in worker.close().checks}
            assert outcomes["process-reaped"] == "failed"


_NODE = """
import sys, time
from cloister.enclave.sealed import host, launching
launching._SERVER = "tests.enclave.sealed.light_server"
made = host.SealedHost.start()
worker = made.worker("hostile", policy=None)
print(made.server_pid, flush=True)
time.sleep(60)
"""


def test_server_and_workers_die_with_their_node(sealed_host: SealedHost) -> None:
    a_worker(sealed_host).close()
    import sys

    path = os.pathsep.join(one for one in sys.path if one)
    node = subprocess.Popen(
        [sys.executable, "-c", _NODE], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        assert node.stdout is not None
        server = int(node.stdout.readline())
        (worker,) = children(server)
        node.kill()
        node.wait()
        assert dead(server)
        assert dead(worker)
    finally:
        node.kill()
        node.wait()


def test_a_closed_host_leaves_no_process_and_gives_no_worker() -> None:
    with started("light_server") as (host, _):
        a_worker(host)
        pids = children(host.server_pid)
    assert all(dead(pid) for pid in (*pids, host.server_pid))
    with pytest.raises(SealedError):
        host.worker("hostile")


def test_a_server_that_cannot_start_is_named_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_SERVER", "tests.enclave.sealed.no_such_server")
    with pytest.raises(SealedError):
        SealedHost.start()


def test_a_sink_that_fails_stops_everything() -> None:
    with started("light_server") as (host, _):

        def fail(_: object) -> None:
            raise OSError("the disk is full")

        host._on_violation = fail
        worker = a_worker(host)
        with pytest.raises(SealedError):
            worker.request("attack", {"name": "exec"})
        assert dead(host.server_pid)


test_a_sink_that_fails_stops_everything = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)(test_a_sink_that_fails_stops_everything)
