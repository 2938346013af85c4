"""Commands for predictions from an enclave: who serves, and who asks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cloister.core.hashes import sha256_hex
from cloister.core.keys import open_key_store
from cloister.core.settings import Settings
from cloister.enclave import encode_model
from cloister.enclave.errors import InferenceError
from cloister.enclave.inference import Hello, SocketEndpoint
from cloister.evidence.predicates import Destruction, Incident, InferenceMetered, Predicate
from cloister.evidence.statement import open_statement
from cloister.privacy.models import build_model, state_arrays
from cloister.workflow import sealing
from cloister.workflow.party import Party
from tests.cli.conftest import Cloister, Ended
from tests.conftest import ROOT
from tests.console import CLOISTER

JOB = ROOT / "examples" / "tumour" / "job.yaml"
MEASUREMENT = "ab" * 48
MILAN = {
    "amd_lines": ["Milan"],
    "minimum_tcb": {"Milan": {"boot_loader": 4, "tee": 0, "snp": 24, "microcode": 219}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    path.write_bytes(encode_model(state_arrays(build_model("logistic-regression", 30, 2, 7))))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    np.savetxt(path, np.random.default_rng(0).normal(size=(2, 30)), delimiter=",")
    return path


@dataclass(frozen=True)
class Operator:
    """A provider's command that serves, in a process of its own."""

    process: subprocess.Popen[bytes]
    folder: Path
    facts: dict[str, str]

    def stop(self, how: signal.Signals) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(how)
        return self.process.wait(60)

    def stated(self) -> list[Predicate]:
        """What is in the provider's log."""
        return stated_in(self.folder / "bills", "lab")


def stated_in(folder: Path, name: str) -> list[Predicate]:
    """What is in a provider's log."""
    signer = open_key_store(Settings(), folder / "keys", owner=f"hub/{name}").load("hub")
    with Party(name, "hub", signer, folder).open_log_to_show() as log:
        return [open_statement(log.entry(index)).predicate for index in range(log.size)]


@contextmanager
def operator(model: Path, folder: Path, listen: str | None = None, *more: str) -> Iterator[Operator]:
    words = [*CLOISTER, "serve-inference", "--model", str(model)]
    words += ["--job", str(JOB), "--features", "30", "--listen", listen or str(folder / "socket")]
    words += [
        "--simulated-enclave",
        "--json",
        "--metering",
        str(folder / "bills"),
        "--provider",
        "lab",
        *more,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=folder
    )
    try:
        assert process.stdout is not None
        yield Operator(process, folder, json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def of_error(ended: Ended) -> str:
    return code_in(ended.out)


def code_in(printed: str) -> str:
    return str(json.loads(printed)["error"]["code"])


# both in one


def test_a_prediction_from_a_simulated_enclave_says_that_it_is_one(
    cloister: Cloister, model: Path, rows: Path
) -> None:
    words = ("infer", "--model", model, "--input", rows, "--job", JOB, "--simulated-enclave")
    answer = cloister(*words, "--json").json()
    assert answer["simulated"] is True
    predicted = np.array(answer["probabilities"])
    assert predicted.shape == (2, 2)
    assert np.allclose(predicted.sum(axis=1), 1, atol=1e-5)
    assert "NOT HARDWARE" in cloister(*words).out


def test_without_being_asked_for_no_simulation_is_used(cloister: Cloister, model: Path, rows: Path) -> None:
    ended = cloister("infer", "--model", model, "--input", rows, "--job", JOB)
    assert ended.code == 2
    assert "[input.schema]" in ended.err
    served = cloister(
        "serve-inference", "--model", model, "--job", JOB, "--features", "30", "--listen", "127.0.0.1:0"
    )
    assert served.code == 78
    assert "[launch.unprotected]" in served.err


# an operator and its clients


def test_a_client_asks_an_operator_in_another_process_whose_log_says_what_was_used_and_how_it_ended(
    cloister: Cloister, model: Path, rows: Path, tmp_path: Path
) -> None:
    with operator(model, tmp_path, None, "--root-out", str(tmp_path / "root.pem")) as provider:
        facts = provider.facts
        to = ("infer", "--input", rows, "--endpoint", facts["listening"], "--json")
        root = ("--simulated-root", tmp_path / "root.pem", "--without-revocation")
        right = ("--measurement", facts["measurement"])
        (tmp_path / "policy.json").write_text(json.dumps({"measurements": [facts["measurement"]], **MILAN}))
        answered = cloister(*to, *root, *right, "--model", model)
        assert np.array(answered.json()["probabilities"]).shape == (2, 2)
        named = cloister(*to, *root, *right, "--model-sha256", facts["model_sha256"].upper())
        assert named.json()["probabilities"] == answered.json()["probabilities"]
        for words, code in (
            ((*root, "--measurement", MEASUREMENT, "--model", model), "attestation.measurement"),
            (("--policy", tmp_path / "policy.json", "--model", model), "attestation.untrusted_root"),
            ((*root, *right, "--model-sha256", "0" * 64), "inference.other_model"),
            ((*root, *right, "--seal", "no-namespaces", "--model", model), "sealed.measure_missing"),
        ):
            refused = cloister(*to, *words)
            assert of_error(refused) == code
        assert provider.stop(signal.SIGTERM) == 0
    bill, destroyed = provider.stated()
    assert isinstance(bill, InferenceMetered)
    assert (bill.requests, bill.predictions, bill.refused, bill.simulated) == (2, 4, 0, True)
    assert isinstance(destroyed, Destruction)
    assert sha256_hex(model.read_bytes()) in destroyed.artifacts
    assert not (tmp_path / "socket").exists()


def test_a_provider_that_serves_again_goes_on_in_its_log_and_an_address_has_one_service(
    cloister: Cloister, model: Path, tmp_path: Path
) -> None:
    with operator(model, tmp_path) as first:
        second = cloister(
            *("serve-inference", "--model", model, "--job", JOB, "--features", "30", "--json"),
            *("--listen", first.facts["listening"], "--simulated-enclave"),
        )
        assert (second.code, of_error(second)) == (5, "storage.in_use")
        assert first.stop(signal.SIGINT) == 0
    with operator(model, tmp_path) as again:
        assert again.stop(signal.SIGTERM) == 0
    assert [type(one) for one in again.stated()] == [InferenceMetered, Destruction] * 2


def test_a_worker_that_dies_ends_the_command_with_its_reason_and_statements(
    model: Path, tmp_path: Path
) -> None:
    with operator(model, tmp_path, "127.0.0.1:0") as provider:
        (server,) = _children(provider.process.pid)
        (worker,) = _children(server)
        os.kill(worker, signal.SIGKILL)
        host, _, port = provider.facts["listening"].rpartition(":")
        # It is noticed by the next who asks.
        with socket.create_connection((host, int(port)), timeout=10) as client:
            hello = b'{"nonce":"' + b"A" * 43 + b'=","policy_id":"' + b"0" * 64
            hello += b'","schema":"urn:cloister:inference-hello:v1"}'
            client.sendall(len(hello).to_bytes(4, "big") + b"\x01" + hello)
            assert client.recv(100).endswith(b"inference.worker")
        assert provider.process.wait(60) == 5
        assert provider.process.stdout is not None
        assert b"sealed.died" in provider.process.stdout.read()
    incident, destroyed = provider.stated()
    assert isinstance(incident, Incident)
    assert isinstance(destroyed, Destruction)


def _children(pid: int) -> list[int]:
    """The processes that any thread of a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(one) for one in (task / "children").read_text().split()]
    return found


def test_a_stop_in_the_terminal_says_how_the_worker_ended(
    cloister: Cloister, model: Path, tmp_path: Path
) -> None:
    def stop_when_served() -> None:
        while not (tmp_path / "socket").exists():
            time.sleep(0.02)
        while _answers(tmp_path / "socket") is False:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stopping = threading.Thread(target=stop_when_served)
    stopping.start()
    words = ("serve-inference", "--model", model, "--job", JOB, "--features", "30", "--simulated-enclave")
    ended = cloister(*words, "--listen", tmp_path / "socket", "--metering", tmp_path / "bills")
    stopping.join()
    assert ended.code == 0
    assert "SIMULATED - NOT HARDWARE" in ended.out
    assert "process-reaped passed" in ended.out
    assert signal.getsignal(signal.SIGTERM) == before


def _answers(path: Path) -> bool:
    """Whether a service answers a hello; who isn't served yet waits."""
    endpoint = SocketEndpoint(str(path), patience=60)
    try:
        return bool(endpoint.hello(Hello(bytes(32), "0" * 64).encode()))
    except InferenceError:
        return False
    finally:
        endpoint.close()


def test_a_change_of_the_measured_code_ends_the_command_and_is_stated(
    cloister: Cloister, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sealing.begin_sealing().result()
    one = next(iter(real.baseline.hashes))
    baseline = replace(real.baseline, hashes={**real.baseline.hashes, one: "0" * 96})
    changed: Future[sealing.Sealing] = Future()
    changed.set_result(replace(real, baseline=baseline))
    monkeypatch.setattr(sealing, "begin_sealing", lambda: changed)
    words = ("serve-inference", "--model", model, "--job", JOB, "--features", "30", "--simulated-enclave")
    ended = cloister(*words, "--listen", tmp_path / "socket", "--metering", tmp_path / "bills", "--json")
    # A service that is listening says so before a re-read finds the file.
    assert (code_in(ended.out[ended.out.index("{\n") :]), ended.code) == ("sealed.code_changed", 3)
    incident, destroyed = stated_in(tmp_path / "bills", "provider")
    assert isinstance(incident, Incident)
    assert isinstance(destroyed, Destruction)


def test_code_for_amds_hardware_alone_is_said_to_allow_no_machine_before_any_is_asked(
    cloister: Cloister, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("0.1\n")
    (tmp_path / "policy.json").write_text(json.dumps({"measurements": ["ab" * 48]}))
    asked = (
        "infer",
        "--input",
        tmp_path / "rows.csv",
        "--endpoint",
        "127.0.0.1:9",
        "--model-sha256",
        "ab" * 32,
    )
    for code in (("--measurement", "ab" * 48), ("--policy", tmp_path / "policy.json")):
        ended = cloister(*asked, *code)
        assert ended.code == 2
        assert "This allows no machine" in ended.err
        assert "minimum_tcb" in ended.err


# what an operator gets wrong


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"--model": "absent.safetensors"}, "input.missing_file"),
        ({"--model": "garbage"}, "enclave.model_file"),
        ({"--job": "absent.yaml"}, "input.missing_file"),
        ({"--features": "31"}, "model.weights_mismatch"),
        ({"--listen": "nowhere"}, "input.syntax"),
        ({"--listen": "192.0.2.1:80"}, "storage.in_use"),
        ({"--listen": "absent/socket"}, "storage.in_use"),
        ({"--root-out": "garbage"}, "storage.exists"),
        ({"--metering": "garbage"}, "storage.exists"),
    ],
    ids=lambda one: " ".join(map(" ".join, one.items())) if isinstance(one, dict) else "",
)
def test_what_an_operator_gets_wrong_is_said_and_nothing_is_left_behind(
    cloister: Cloister,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    code: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("garbage").write_bytes(b"garbage")
    words = {"--model": str(model), "--job": str(JOB), "--features": "30"}
    words["--listen"] = str(tmp_path / "socket")
    typed = [part for pair in {**words, **change}.items() for part in pair]
    ended = cloister("serve-inference", *typed, "--simulated-enclave", "--json")
    assert (of_error(ended), ended.code != 70) == (code, True)
    assert not (tmp_path / "socket").exists()
    assert [one.name for one in tmp_path.iterdir()] == ["garbage"]


def test_a_root_is_written_for_a_simulation_only(cloister: Cloister, model: Path, tmp_path: Path) -> None:
    words = ("serve-inference", "--model", model, "--job", JOB, "--features", "30", "--json")
    assert of_error(cloister(*words, "--root-out", tmp_path / "root.pem")) == "input.schema"


def test_a_stop_before_anything_is_served_leaves_nothing(model: Path, tmp_path: Path) -> None:
    words = [*CLOISTER, "serve-inference", "--model", str(model)]
    words += ["--job", str(JOB), "--features", "30", "--listen", str(tmp_path / "socket")]
    process = subprocess.Popen(
        [*words, "--simulated-enclave", "--json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    for _ in range(1000):
        if (tmp_path / "socket").exists():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert not (tmp_path / "socket").exists()


# what a client gets wrong


@pytest.mark.parametrize("content", ["", "a,b\n", "1,2\n3\n", "1,nan\n", "1,1e60\n"])
def test_an_input_that_is_none_is_refused_without_repeating_it(
    cloister: Cloister, model: Path, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    words = ("infer", "--model", model, "--input", path, "--job", JOB, "--simulated-enclave")
    assert "[input.schema]" in cloister(*words).err


@pytest.mark.parametrize(
    "words",
    [
        ("--endpoint", "127.0.0.1:1", "--simulated-enclave", "--model", "M", "--job", "J"),
        ("--simulated-enclave", "--model", "M"),
        ("--simulated-enclave", "--job", "J"),
        ("--endpoint", "127.0.0.1:1", "--model", "M"),
        ("--endpoint", "127.0.0.1:1", "--measurement", MEASUREMENT),
        (
            "--endpoint",
            "127.0.0.1:1",
            "--measurement",
            MEASUREMENT,
            "--model",
            "M",
            "--model-sha256",
            "0" * 64,
        ),
        ("--endpoint", "127.0.0.1:1", "--measurement", MEASUREMENT, "--model-sha256", "x"),
        ("--endpoint", "127.0.0.1:1", "--measurement", MEASUREMENT, "--policy", "P", "--model", "M"),
        ("--endpoint", "127.0.0.1:1", "--measurement", "ab", "--model-sha256", "0" * 64),
        ("--endpoint", "127.0.0.1:1", "--measurement", MEASUREMENT, "--model", "M", "--seal", "x"),
    ],
)
def test_what_a_client_leaves_out_or_says_twice_is_asked_for(
    cloister: Cloister, model: Path, rows: Path, words: tuple[str, ...]
) -> None:
    typed = [{"M": str(model), "J": str(JOB)}.get(one, one) for one in words]
    ended = cloister("infer", "--input", rows, *typed, "--json")
    assert (ended.code, of_error(ended)) == (2, "input.schema")


def test_where_nobody_serves_a_client_hears_so(cloister: Cloister, model: Path, rows: Path) -> None:
    words = ("infer", "--input", rows, "--model", model, "--measurement", "ab" * 32, "--json")
    assert of_error(cloister(*words, "--endpoint", "127.0.0.1:1")) == "inference.worker"
    assert of_error(cloister(*words, "--endpoint", "nowhere")) == "input.syntax"
