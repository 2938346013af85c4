"""What a job does with a change of measured code: everything stops, and every site signs that it happened."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest

from cloister.core.clock import system_clock
from cloister.core.keys import EphemeralKeyStore
from cloister.enclave.errors import SealBroken, SealedError
from cloister.enclave.measure import measured_packages
from cloister.enclave.sealed import SealedHost, WatchedFiles
from cloister.enclave.sealed.fingerprint import take_fingerprint
from cloister.evidence import StatementWriter
from cloister.evidence.log import EvidenceLog
from cloister.workflow import sealing
from cloister.workflow.sealing import Sealing, watched


class StoppedHost:
    """What is stopped."""

    running = True

    def __init__(self) -> None:
        self.reasons: list[SealedError] = []

    def stop(self, reason: SealedError) -> None:
        self.reasons.append(reason)


@pytest.fixture
def measured(tmp_path: Path) -> Sealing:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "model.py").write_text("one = 1\n")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "job.json").write_text('{"model": "mlp"}')
    files = WatchedFiles({"code": tmp_path / "code"})
    return Sealing(cast("SealedHost", StoppedHost()), files, take_fingerprint(files), os.getpid())


@pytest.mark.parametrize("changed", ["code/model.py", "job/job.json"])
def test_a_change_stops_the_job_in_under_a_second_and_every_site_signs_a_statement(
    measured: Sealing, tmp_path: Path, changed: str
) -> None:
    store, writers, logs = EphemeralKeyStore(), [], []
    for name in ("north", "south"):
        signer = store.generate(name)
        log = EvidenceLog.create(tmp_path / f"{name}.log", origin=f"cloister/site/{name}", signer=signer)
        logs.append(log)
        writers.append(StatementWriter(log, signer, name, str(uuid4()), system_clock))
    host = cast("StoppedHost", measured.host)
    with watched(measured, tmp_path / "job", writers, system_clock):
        (tmp_path / changed).write_text("changed")
        until = time.monotonic() + 1
        while not host.reasons and time.monotonic() < until:
            time.sleep(0.005)
        assert [one.code for one in host.reasons] == ["sealed.code_changed"]
    for log in logs:
        (entry,) = log.entries()
        statement = entry.envelope.payload.decode()
        assert '"code-changed"' in statement
        assert changed in statement


def test_a_change_since_the_server_started_refuses_the_job(measured: Sealing, tmp_path: Path) -> None:
    (tmp_path / "code" / "model.py").write_text("one = 2\n")
    with pytest.raises(SealBroken) as refused, watched(measured, tmp_path / "job", (), system_clock):
        raise AssertionError("the job ran")
    assert refused.value.code == "sealed.code_changed"


def test_a_server_is_not_used_again_when_a_package_that_offers_models_lies_elsewhere(
    measured: Sealing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = replace(measured, watched=WatchedFiles(measured_packages()))
    assert own.usable
    moved = {**measured_packages(), "cloister": tmp_path}
    monkeypatch.setattr(sealing, "measured_packages", lambda: moved)
    assert not own.usable


def test_a_server_that_was_on_its_way_when_a_package_was_installed_is_started_anew(
    measured: Sealing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packages = measured_packages()
    installed = {**packages, "clinicnets": tmp_path / "clinicnets"}
    before, after = (replace(measured, watched=WatchedFiles(one)) for one in (packages, installed))
    begun: list[Future[Sealing]] = []

    def start(future: Future[Sealing]) -> None:
        begun.append(future)
        if len(begun) == 2:
            future.set_result(after)

    monkeypatch.setattr(sealing, "_starting", None)
    monkeypatch.setattr(sealing, "_start", start)
    waiting = sealing.begin_sealing()
    while not begun:  # by a thread
        time.sleep(0.001)
    monkeypatch.setattr(sealing, "measured_packages", lambda: installed)
    assert sealing.begin_sealing() is waiting
    waiting.set_result(before)
    assert sealing.sealed_server() is after
    assert sealing.sealed_server() is after
    assert len(begun) == 2


def test_a_process_that_is_interrupted_while_it_ends_its_server_ends_without_a_traceback() -> None:
    script = """
import signal, subprocess
from cloister.workflow.sealing import begin_sealing
begin_sealing().result()
subprocess.Popen.wait = lambda *_: signal.raise_signal(signal.SIGINT)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=100)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
