"""What a sealed worker may not do: it is refused, reported by the kernel, and the worker is dead."""

from __future__ import annotations

import os
import platform
import time

import pytest

from cloister.enclave.errors import SealBroken, SealedError
from cloister.enclave.sealed import SealedHost, SealLevel, SealPolicy, WorkerLimits
from cloister.enclave.sealed.claims import SWAP_OFF
from tests.enclave.sealed.scene import Violations, a_worker, started

FORBIDDEN = {
    "connect": "socket",
    "socket-unix": "socket",
    "socket-netlink": "socket",
    "socket-raw": "socket",
    "write-file": "openat",
    "append-file": "openat",
    "temporary-file": "openat",
    "mkdir": "mkdir",
    "exec": "execve",
    "fork": "clone",
    "thread": "clone3",
    "ptrace": "ptrace",
    "process_vm_readv": "process_vm_readv",
    "pidfd_open": "pidfd_open",
    "kill-another": "kill",
    "io_uring": "io_uring_setup",
    "mount": "mount",
    "chroot": "chroot",
    "unshare": "unshare",
    "keyctl": "keyctl",
    "bpf": "bpf",
    "userfaultfd": "userfaultfd",
    "memfd_create": "memfd_create",
    "shmget": "shmget",
    "make-dumpable": "prctl",
    "perf_event_open": "perf_event_open",
}
BY_NUMBER = {"ptrace", "process_vm_readv", "io_uring", "mount", "unshare", "keyctl", "bpf"}
BY_NUMBER |= {"userfaultfd", "shmget", "perf_event_open", "fork", "mkdir"}
Made = tuple[SealedHost, Violations]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("attack", FORBIDDEN)
def test_a_forbidden_call_is_stopped_reported_by_name_and_ends_the_worker(
    host_and_violations: Made, attack: str
) -> None:
    if attack in BY_NUMBER and platform.machine() != "x86_64":
        pytest.skip(f"{attack}: its number is known for x86-64 only")
    host, violations = host_and_violations
    worker = a_worker(host)
    with pytest.raises(SealBroken) as broken:
        worker.request("attack", {"name": attack})
    assert broken.value.code == "sealed.violation"
    (violation,) = violations
    assert (violation.worker, violation.call) == (worker.number, FORBIDDEN[attack])
    record = worker.close()
    assert {one.name: one.outcome for one in record.checks}["process-reaped"] == "passed"
    with pytest.raises(SealedError):
        worker.request("attack", {"name": "open-for-reading"})


def test_a_report_holds_flags_and_kinds_and_no_pointer(host_and_violations: Made) -> None:
    host, violations = host_and_violations
    with pytest.raises(SealBroken):
        a_worker(host).request("attack", {"name": "write-file"})
    assert violations[0].word == "create"


def test_files_cannot_be_read_which_is_no_violation_as_libraries_try_it(host_and_violations: Made) -> None:
    host, violations = host_and_violations
    with a_worker(host) as worker:
        assert worker.request("attack", {"name": "open-for-reading"}).fields == {"survived": True}
    assert violations == []


@pytest.mark.parametrize("attack", ["segfault", "abort", "exit"])
def test_a_worker_that_dies_by_itself_is_told_from_a_violation(
    host_and_violations: Made, attack: str
) -> None:
    host, violations = host_and_violations
    worker = a_worker(host)
    with pytest.raises(SealedError) as died:
        worker.request("attack", {"name": attack})
    assert died.value.code == "sealed.died"
    assert violations == []
    assert not [one for one in worker.close().checks if one.outcome == "failed"]


@pytest.mark.parametrize("attack", ["allocate", "allocate-tensor"])
def test_memory_is_limited_and_the_error_says_so(host_and_violations: Made, attack: str) -> None:
    host, _ = host_and_violations
    with a_worker(host) as worker, pytest.raises(SealedError) as full:
        worker.request("attack", {"name": attack})
    assert full.value.code == "sealed.memory_limit"


def test_processor_time_is_limited_and_the_error_says_so(host_and_violations: Made) -> None:
    host, _ = host_and_violations
    worker = a_worker(host, limits=WorkerLimits(cpu_seconds=1, answer_seconds=20))
    with pytest.raises(SealedError) as spun:
        worker.request("attack", {"name": "spin"})
    assert spun.value.code == "sealed.cpu_limit"


def test_a_worker_that_is_late_is_killed(host_and_violations: Made) -> None:
    host, _ = host_and_violations
    worker = a_worker(host, limits=WorkerLimits(cpu_seconds=60, answer_seconds=0.3))
    began = time.monotonic()
    with pytest.raises(SealedError) as late:
        worker.request("attack", {"name": "spin"})
    assert late.value.code == "sealed.timeout"
    assert time.monotonic() - began < 3


def test_a_limit_cannot_be_raised(host_and_violations: Made) -> None:
    host, violations = host_and_violations
    with a_worker(host) as worker, pytest.raises(SealedError) as refused:
        worker.request("attack", {"name": "raise-limit"})
    assert refused.value.code == "sealed.task_failed"
    assert violations == []


def test_what_a_task_fails_of_leaves_as_a_code_alone(host_and_violations: Made) -> None:
    host, _ = host_and_violations
    with a_worker(host) as worker, pytest.raises(SealedError) as failed:
        worker.request("attack", {"name": "secret-in-an-error"})
    assert "canary" not in f"{failed.value.as_json()}{failed.value.__cause__}{failed.value.__context__}"


def test_what_a_task_prints_is_no_frame_and_ends_it(host_and_violations: Made) -> None:
    host, _ = host_and_violations
    worker = a_worker(host)
    with pytest.raises(SealedError) as stray:
        worker.request("attack", {"name": "print"})
    assert stray.value.code == "sealed.protocol"
    assert "canary" not in str(stray.value.as_json())


def test_the_claims_list_every_measure_with_its_outcome(host_and_violations: Made) -> None:
    host, _ = host_and_violations
    with a_worker(host) as worker:
        claims = worker.claims
    assert claims.level is SealLevel.NAMESPACES
    assert claims.missing == ()
    assert set(claims.level.measures) | {SWAP_OFF} == {one.name for one in claims.measures}
    assert claims.as_json()["level"] == "namespaces"


def test_root_is_an_ordinary_user_in_the_worker_and_each_worker_another(sealed_host: SealedHost) -> None:
    with a_worker(sealed_host) as one, a_worker(sealed_host) as other:
        uids = [
            measure.detail
            for worker in (one, other)
            for measure in worker.claims.measures
            if measure.name == "ordinary-user"
        ]
    assert "uid 0" not in uids
    assert len(set(uids)) == (2 if os.getuid() == 0 else 1)


def test_where_namespaces_are_refused_no_worker_is_had_unless_the_policy_names_the_other_level() -> None:
    with started("confined_server") as (host, violations):
        with pytest.raises(SealedError) as refused:
            host.worker("hostile")
        assert refused.value.code == "sealed.measure_missing"
        assert {line.split(":")[0] for line in refused.value.details} >= {"user-namespace", "empty-root"}
        policy = SealPolicy((SealLevel.NAMESPACES, SealLevel.NO_NAMESPACES))
        for attack in ("connect", "exec", "kill-another", "ptrace"):
            worker = a_worker(host, policy)
            assert worker.claims.level is SealLevel.NO_NAMESPACES
            with pytest.raises(SealBroken):
                worker.request("attack", {"name": attack})
            assert violations[-1].call == FORBIDDEN[attack]
        with a_worker(host, policy) as worker:
            worker.request("attack", {"name": "open-for-reading"})
        outcomes = {one.name: one.outcome for one in worker.close().checks}
        assert outcomes["namespaces-empty"] == "not_run"


def test_without_a_listener_the_level_says_so_and_the_call_stays_unknown() -> None:
    with started("overheard_server") as (host, violations):
        with pytest.raises(SealedError) as refused:
            host.worker("hostile")
        assert any(line.startswith("call-listener: failed") for line in refused.value.details)
        policy = SealPolicy((SealLevel.NAMESPACES_UNREPORTED,))
        worker = a_worker(host, policy)
        with pytest.raises(SealBroken) as broken:
            worker.request("attack", {"name": "connect"})
        assert "unknown" in broken.value.message
        assert violations[-1].call == "unknown"


def test_a_policy_that_accepts_nothing_or_asks_for_what_there_is_not_is_refused() -> None:
    for wrong in ({"accepts": ()}, {"also": ("invisibility",)}):
        with pytest.raises(SealedError):
            SealPolicy(**wrong)  # type: ignore[arg-type]
