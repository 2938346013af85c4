"""What a hostile worker, an old kernel or a full machine can do to the fork server and to other workers."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.enclave.errors import SealBroken, SealedError
from cloister.enclave.sealed import SealedHost, SealedWorker, kernel, launching
from cloister.enclave.sealed import host as host_module
from cloister.enclave.sealed import worker as worker_module
from cloister.enclave.sealed.frames import Frame
from tests.enclave.sealed.scene import LIMITS, Violations, a_worker, started
from tests.enclave.sealed.test_lifetime import children, dead

Made = tuple[SealedHost, Violations]


@pytest.fixture(scope="module")
def _light() -> Iterator[tuple[SealedHost, Violations]]:
    with started("light_server") as made:
        yield made


@pytest.fixture
def light(_light: tuple[SealedHost, Violations]) -> Iterator[tuple[SealedHost, Violations]]:
    """A host of this file's own; every test leaves it without a worker."""
    _light[1].clear()
    yield _light
    assert children(_light[0].server_pid) == []


def pid_of(host: SealedHost, others: tuple[int, ...] = ()) -> int:
    (pid,) = set(children(host.server_pid)) - set(others)
    return pid


def descriptors(host: SealedHost) -> int:
    return len(list(Path(f"/proc/{host.server_pid}/fd").iterdir()))


def answers(worker: SealedWorker) -> bool:
    return len(worker.request("echo", {"size": 3}, most=3).payload) == 3


def soon(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.01)
    return False


def test_on_kernels_whose_receive_waits_a_dead_worker_holds_nobody_up() -> None:
    with started("old_kernel_server") as (host, violations):
        sibling = a_worker(host)
        for attack in ("exit", "segfault"):
            with pytest.raises(SealedError) as died:
                a_worker(host).request("attack", {"name": attack})
            assert died.value.code == "sealed.died"
        a_worker(host).kill()
        assert answers(sibling)
        assert violations == []


def test_a_notification_that_vanishes_after_the_poll_is_looked_for_again() -> None:
    with started("old_kernel_server") as (host, violations):
        sibling = a_worker(host)
        with pytest.raises(SealBroken):
            a_worker(host).request("attack", {"name": "connect"})
        assert [one.call for one in violations] == ["socket"]
        assert answers(sibling)


def test_a_call_that_is_held_back_when_the_worker_is_ended_is_a_violation_and_no_plain_end() -> None:
    with started("late_server") as (host, violations):
        worker = a_worker(host)
        done = Frame("done", 2).head().hex()
        worker.request("answer-then-attack", {"name": "connect", "bytes": done})
        time.sleep(0.3)
        record = worker.kill()
        assert [(one.call, one.word) for one in violations] == [("socket", "inet")]
        (reaped,) = [one for one in record.checks if one.name == "process-reaped"]
        assert reaped.detail.endswith("cause: violation")


def test_a_violation_that_nobody_waits_for_is_told_at_once(light: Made) -> None:
    host, violations = light
    worker = a_worker(host)
    done = Frame("done", 2).head().hex()
    worker.request("answer-then-attack", {"name": "exec", "bytes": done})
    assert soon(lambda: len(violations) == 1)
    with pytest.raises(SealBroken):
        worker.request("echo", {"size": 1})
    worker.close()
    assert [one.call for one in violations] == ["execve"]


def test_a_worker_that_cannot_be_forked_is_refused_by_name_and_the_others_go_on() -> None:
    with started("full_server") as (host, _):
        first = a_worker(host)
        held = descriptors(host)
        for _ in range(2):
            with pytest.raises(SealedError) as refused:
                host.worker("hostile")
            assert refused.value.code == "sealed.unavailable"
            assert "EAGAIN" in refused.value.message
            assert answers(first)
        fourth = a_worker(host)
        assert answers(fourth)
        fourth.close()
        assert descriptors(host) == held
        assert children(host.server_pid) == [pid_of(host)]


def test_a_server_without_room_for_descriptors_refuses_one_worker_and_has_room_again() -> None:
    with started("crowded_server") as (host, _):
        workers = [a_worker(host)]
        with pytest.raises(SealedError) as refused:  # noqa: PT012 - which one is refused depends on the machine
            for _ in range(72):
                workers.append(host.worker("hostile"))
        assert refused.value.code == "sealed.unavailable"
        assert "EMFILE" in refused.value.message
        assert len(workers) > 5
        assert all(answers(one) for one in workers)
        workers.pop().close()
        workers.append(a_worker(host))
        assert answers(workers[-1])
        for one in workers:
            one.close()
        assert children(host.server_pid) == []


def test_a_worker_that_does_not_end_is_killed_and_reaped_in_its_time(
    monkeypatch: pytest.MonkeyPatch, light: Made
) -> None:
    monkeypatch.setattr(worker_module, "CLOSE_SECONDS", 0.3)
    host, violations = light
    worker = a_worker(host)
    pid = pid_of(host)
    worker.request("never-end")
    began = time.monotonic()
    outcomes = {one.name: one.outcome for one in worker.close().checks}
    assert time.monotonic() - began < 3
    assert outcomes["record-buffers-wiped"] == "not_run"
    assert outcomes["process-reaped"] == outcomes["namespaces-empty"] == "passed"
    assert not Path(f"/proc/{pid}").exists()
    assert violations == []


def test_a_worker_that_somebody_stopped_is_killed_and_reaped_in_its_time(
    monkeypatch: pytest.MonkeyPatch, light: Made
) -> None:
    monkeypatch.setattr(worker_module, "CLOSE_SECONDS", 0.3)
    host, _ = light
    sibling = a_worker(host)
    (other,) = children(host.server_pid)
    worker = a_worker(host)
    pid = pid_of(host, (other,))
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    outcomes = {one.name: one.outcome for one in worker.close().checks}
    assert time.monotonic() - began < 3
    assert outcomes["process-reaped"] == outcomes["namespaces-empty"] == "passed"
    assert not Path(f"/proc/{pid}").exists()
    assert answers(sibling)
    sibling.close()


def test_a_stopped_server_is_not_waited_for_beyond_its_time(
    monkeypatch: pytest.MonkeyPatch, light: Made
) -> None:
    monkeypatch.setattr(host_module, "_END_SECONDS", 0.3)
    host, _ = light
    worker = a_worker(host)
    os.kill(host.server_pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        outcomes = {one.name: one.outcome for one in worker.kill().checks}
        assert outcomes["process-reaped"] == "failed"
        assert time.monotonic() - began < 3
    finally:
        os.kill(host.server_pid, signal.SIGCONT)
    assert soon(lambda: children(host.server_pid) == [])
    with a_worker(host) as another:
        assert answers(another)


def test_ended_workers_leave_no_zombie_and_no_descriptor(light: Made) -> None:
    host, _ = light
    a_worker(host).close()
    held = descriptors(host)
    for attack in ("exit", "connect", "segfault", "exec") * 3:
        with pytest.raises(SealedError):
            a_worker(host).request("attack", {"name": attack})
    assert children(host.server_pid) == []
    assert descriptors(host) == held


def test_an_interrupted_end_still_kills_the_worker(monkeypatch: pytest.MonkeyPatch, light: Made) -> None:
    host, _ = light
    worker = a_worker(host)
    pid = pid_of(host)

    def interrupted(*_: object, **__: object) -> Frame:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "request", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.close()
    assert dead(pid)
    assert {one.name: one.outcome for one in worker.close().checks}["process-reaped"] == "passed"


def test_a_violation_nobody_owns_reaches_whoever_runs_the_process(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cloister.core.logging import LogLevel, configure_logging, stop_logging

    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    monkeypatch.setattr(launching, "_SERVER", "tests.enclave.sealed.light_server")
    log = tmp_path / "log"
    with SealedHost.start() as host:
        for kept in (False, True):
            if kept:
                configure_logging(path=log, level=LogLevel.WARNING, experiment_id="one")
            with pytest.raises(SealBroken):
                a_worker(host).request("attack", {"name": "connect"})
    stop_logging()
    (shown,) = [line for line in capfd.readouterr().err.splitlines() if "socket(inet)" in line]
    assert shown.startswith("cloister: a sealed worker called")
    (line,) = [line for line in log.read_text().splitlines() if "sealed.violation" in line]
    assert '"call": "socket"' in line
    assert '"word": "inet"' in line


def test_a_workers_own_sink_is_told_and_the_hosts_is_not(light: Made) -> None:
    host, violations = light
    own = Violations()
    a_worker(host).close()
    worker = host.worker("hostile", on_violation=own.append)
    with pytest.raises(SealBroken):
        worker.request("attack", {"name": "mount"})
    assert len(own) == 1
    assert violations == []


NOT_FOR_A_WORKER = (
    "sealed.violation",
    "sealed.code_changed",
    "sealed.died",
    "sealed.timeout",
    "sealed.cpu_limit",
    "sealed.closed",
    "sealed.unavailable",
    "sealed.measure_missing",
    "attestation.measurement",
    "release.refused",
    "airlock.refused",
    "budget.exceeded",
    "federation.aborted",
    "evidence.job_closed",
    "storage.exists",
    "privacy.patient_17_has_diabetes",
    "privacy.",
    "",
)


def test_a_worker_names_no_finding_of_the_nodes_and_no_code_that_nobody_declares(light: Made) -> None:
    host, violations = light
    for code in NOT_FOR_A_WORKER:
        worker = a_worker(host)
        with pytest.raises(SealedError) as refused:
            worker.request("fail-with", {"code": code})
        assert refused.value.code == "sealed.protocol", code
        assert not worker.alive
        assert "diabetes" not in str(refused.value.as_json())
    assert violations == []


def test_a_refusal_of_the_tasks_own_rooms_passes_with_the_catalogues_words_and_the_worker_lives(
    light: Made,
) -> None:
    host, _ = light
    with a_worker(host) as worker:
        for code in ("model.mixes_records", "health.out_of_range", "privacy.plan_invalid", "sealed.dataset"):
            with pytest.raises(Exception) as refused:  # noqa: PT011 - its code is looked at
                worker.request("fail-with", {"code": code})
            assert getattr(refused.value, "code", "") == code
        assert answers(worker)


def test_a_worker_that_is_late_to_seal_itself_leaves_nothing_whatever_it_was_at(light: Made) -> None:
    host, violations = light
    a_worker(host).close()
    held = descriptors(host)
    for milliseconds in (1, 2, 4, 8, 12, 16, 20, 24):
        limits = replace(LIMITS, start_seconds=milliseconds / 1000)
        with suppress(SealedError):
            host.worker("hostile", limits=limits).close()
    assert soon(lambda: children(host.server_pid) == [])
    assert soon(lambda: descriptors(host) == held)
    assert violations == []
    with a_worker(host) as worker:
        assert answers(worker)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTCONN, errno.EINTR])
def test_a_notification_that_is_gone_is_none_and_anything_else_an_error(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Library:
        @staticmethod
        def ioctl(*_: object) -> int:
            ctypes.set_errno(number)
            return -1

    with pytest.raises(OSError, match="notification"):
        kernel.receive_notification(0)
    monkeypatch.setattr(kernel, "_libc", Library)
    assert kernel.receive_notification(0) is None
