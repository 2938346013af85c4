"""The operator of an inference: a process that carries what it can't read to a sealed worker, and keeps
nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cloister.core.clock import system_clock
from cloister.core.errors import CloisterError, StorageError
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore
from cloister.enclave import Evidence, SimulatedVendor, TrustStore, Verifier, encode_model
from cloister.enclave.errors import CollectError, InferenceError, SealBroken, SealedError
from cloister.enclave.inference import (
    Hello,
    InferenceService,
    Metering,
    ModelDescription,
    Query,
    SocketEndpoint,
    open_session,
)
from cloister.enclave.inference import service as inference_service
from cloister.enclave.inference.card import USUAL_BUCKET
from cloister.enclave.inference.messages import MAX_SESSIONS, session_id
from cloister.enclave.keyrelease.hpke import OVERHEAD_BYTES
from cloister.enclave.sealed import SealedHost, SealLevel, SealPolicy
from cloister.evidence.extract import log_origin, log_stream
from cloister.evidence.log import EvidenceLog
from cloister.evidence.predicates import Destruction, Incident, InferenceMetered, Predicate, Role, Violation
from cloister.evidence.statement import Subject, open_statement
from cloister.evidence.writer import StatementWriter
from cloister.privacy.models import build_model, model_names, state_arrays
from tests.conftest import ROOT
from tests.enclave.attestation_scene import MEASUREMENT
from tests.enclave.inference.host import DESCRIPTION
from tests.enclave.inference.memory import occurrences
from tests.enclave.keyrelease.scene import appraisal
from tests.enclave.sealed.scene import started

NETWORK = build_model("logistic-regression", 8, 2, 7)
MODEL = encode_model(state_arrays(NETWORK))


def expected(rows: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.softmax(NETWORK(torch.from_numpy(rows)), dim=1).numpy()


def verifier(vendor: SimulatedVendor) -> Verifier:
    return Verifier(TrustStore.simulated(vendor.root_der), system_clock)


@dataclass(frozen=True)
class Host:
    """An operator's process that runs."""

    folder: Path
    pid: int
    server: int

    @property
    def worker(self) -> int:
        """The one sealed worker."""
        (pid,) = workers_of(self.server)
        return pid

    vendor: SimulatedVendor


def workers_of(server: int) -> list[int]:
    """The processes that a fork server is the parent of."""
    return [int(one) for one in Path(f"/proc/{server}/task/{server}/children").read_text().split()]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("operator")
    (folder / "model.safetensors").write_bytes(MODEL)
    vendor = SimulatedVendor.open(folder, system_clock)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.enclave.inference.host", str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=ROOT,
    )
    assert process.stdout is not None
    server = process.stdout.readline()
    if not server:
        pytest.skip("no sealed worker is to be had on this kernel")
    yield Host(folder, process.pid, int(server), vendor)
    process.terminate()
    process.wait()


def held(host: Host, needles: list[bytes]) -> int:
    """How often what a client asked or was answered is found with the operator: processes, files, log."""
    found = occurrences(host.pid, needles) + occurrences(host.server, needles)
    places = [host.folder, Path("/dev/shm")]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return found + sum(path.read_bytes().count(needle) for path in files for needle in needles)


def test_an_operators_memory_disk_and_log_hold_nothing_of_what_was_asked_and_answered(host: Host) -> None:
    endpoint = SocketEndpoint(str(host.folder / "socket"))
    found = open_session(endpoint, verifier(host.vendor), appraisal(), model_sha256=sha256_hex(MODEL))
    # Canaries: each row begins with the same two random numbers, and each answer is one nobody else computes.
    rows = np.random.default_rng().normal(size=(5_000, 8)).astype(np.float32)
    rows[:, :2] = rows[0, :2]
    answered = found.predict(rows)
    assert np.allclose(answered, expected(rows), atol=1e-6)
    needles = [rows[0, :2].tobytes(), answered[0].tobytes(), answered[-1].tobytes()]
    assert occurrences(host.pid, [MODEL[-16:]]) > 0, "the search finds what the operator does hold"
    assert occurrences(host.server, [MODEL[-16:]]) == 0, "not even the model passes through the fork server"
    assert held(host, needles) == 0, "after the answers"
    asked: list[int] = []
    ended = threading.Event()

    def ask_on() -> None:
        while not ended.is_set():
            asked.append(len(found.predict(rows)))

    asking = threading.Thread(target=ask_on)
    asking.start()
    try:
        for _ in range(2):
            before = len(asked)
            assert held(host, needles) == 0, "while queries pass"
            while len(asked) == before:
                ended.wait(0.01)
    finally:
        ended.set()
        asking.join()
    assert len(asked) >= 2
    endpoint.close()
    assert held(host, needles) == 0, "after the session"
    log = (host.folder / "operator.log").read_text()
    assert "inference.started" in log
    assert not any(f"{value:.4f}" in log for value in rows[:50].ravel())


def test_the_worker_has_no_files_no_network_no_rights_and_a_filter(host: Host) -> None:
    lines = Path(f"/proc/{host.worker}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    assert int(status["CapEff"], 16) == 0
    assert "0" not in status["Uid"].split()
    if os.getuid() != 0:
        pytest.skip("only root may look into a worker's namespaces")
    for kind in ("net", "mnt", "pid", "ipc", "uts", "user"):
        spaces = [Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in (host.worker, host.pid)]
        assert spaces[0] != spaces[1], kind
    assert list(Path(f"/proc/{host.worker}/root").iterdir()) == []


def test_garbage_on_the_socket_ends_that_connection_only(host: Host) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\x00\x00\x00\x01\x09x"):
        broken = SocketEndpoint(str(host.folder / "socket"))
        broken._socket.sendall(garbage)
        with pytest.raises(InferenceError):
            broken.hello(b"")
        broken.close()
    refused = SocketEndpoint(str(host.folder / "socket"))
    with pytest.raises(InferenceError) as caught:
        refused.hello(b"garbage")
    assert caught.value.code == "inference.refused"
    refused.close()
    endpoint = SocketEndpoint(str(host.folder / "socket"))
    rows = np.zeros((1, 8), np.float32)
    assert open_session(endpoint, verifier(host.vendor), appraisal()).predict(rows).shape == (1, 2)
    endpoint.close()


@pytest.fixture(scope="module")
def vendor() -> SimulatedVendor:
    return SimulatedVendor.create(system_clock)


@pytest.fixture(scope="module")
def forking() -> Iterator[SealedHost]:
    """The real fork server, and a model more that workers can build: one that does what it may not."""
    with started("reaching_out", "inference") as (made, _):
        yield made


@contextmanager
def log_of(folder: Path) -> Iterator[tuple[EvidenceLog, StatementWriter]]:
    """A provider's log."""
    key = EphemeralKeyStore().generate("provider")
    origin = log_origin(Role.HUB, "provider")
    with EvidenceLog.create(folder / "log", origin=origin, signer=key) as log:
        yield log, StatementWriter(log, key, "provider", log_stream(origin), system_clock)


def served(
    forking: SealedHost,
    vendor: SimulatedVendor,
    description: ModelDescription = DESCRIPTION,
    model: bytes = MODEL,
    policy: SealPolicy | None = None,
) -> InferenceService:
    """A service; the test is skipped, naming them, where the kernel doesn't give the measures."""
    quote = vendor.platform("provider", MEASUREMENT).quote
    try:
        return InferenceService.start(forking, description, model, quote=quote, simulated=True, policy=policy)
    except SealedError as error:
        if error.code == "sealed.measure_missing":
            pytest.skip(f"this kernel refuses: {', '.join(error.details)}")
        raise


@pytest.fixture(scope="module")
def service(forking: SealedHost, vendor: SimulatedVendor) -> Iterator[InferenceService]:
    with served(forking, vendor) as running:
        yield running


def test_what_was_used_is_stated_as_counts_and_nothing_else(
    service: InferenceService, vendor: SimulatedVendor, tmp_path: Path
) -> None:
    line = service.connect()
    found = open_session(line, verifier(vendor), appraisal())
    service.take_bill()
    with log_of(tmp_path) as (log, writer):
        metering = Metering(service, writer, system_clock)
        for count in (3, 40):
            found.predict(np.zeros((count, 8), np.float32))
        with pytest.raises(InferenceError):
            line.query(Query(session_id(found._welcome.public), 9, bytes(4096 + OVERHEAD_BYTES)).encode())
        open_session(service.connect(), verifier(vendor), appraisal())
        metering.meter()
        metering.meter()
        first, second = (open_statement(log.entry(index)).predicate for index in range(2))
    assert isinstance(first, InferenceMetered)
    assert isinstance(second, InferenceMetered)
    assert (first.sessions, first.requests, first.predictions, first.refused) == (1, 2, 43, 1)
    assert (second.sessions, second.requests, second.predictions, second.refused) == (0, 0, 0, 0)
    assert first.simulated
    assert first.model_sha256 == sha256_hex(MODEL)
    assert first.period_end == second.period_start
    own = set(first.model_dump()) - {"job_id", "party", "sequence", "previous", "recorded_at"}
    assert own == {
        *("model_sha256", "sessions", "requests", "predictions", "refused"),
        *("period_start", "period_end", "simulated"),
    }


def test_clients_at_the_same_time_each_get_their_own_answer(
    service: InferenceService, vendor: SimulatedVendor
) -> None:
    wrong: list[int] = []

    def client(number: int) -> None:
        found = open_session(service.connect(), verifier(vendor), appraisal())
        rows = np.full((4, 8), number / 10, dtype=np.float32)
        for _ in range(5):
            if not np.allclose(found.predict(rows), expected(rows), atol=1e-6):
                wrong.append(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("description", "model", "code"),
    [
        (ModelDescription("logistic-regression", {}, features=9), MODEL, "model.weights_mismatch"),
        (ModelDescription("no-such-model", {}, features=8), MODEL, "model.unknown"),
        (ModelDescription("logistic-regression", {}, features=8), b"garbage", "enclave.model_file"),
        (ModelDescription("logistic-regression", {}, features=0), MODEL, "inference.malformed"),
        (ModelDescription("logistic-regression", {}, features=8), b"", "enclave.model_file"),
    ],
    ids=["other features", "unknown", "no model file", "no features", "nothing"],
)
def test_a_model_that_does_not_fit_is_not_served_and_its_worker_is_gone(
    forking: SealedHost, vendor: SimulatedVendor, description: ModelDescription, model: bytes, code: str
) -> None:
    before = workers_of(forking.server_pid)
    with pytest.raises(CloisterError) as caught:
        served(forking, vendor, description, model)
    assert caught.value.code == code
    assert workers_of(forking.server_pid) == before


@pytest.mark.parametrize("family", model_names())
def test_each_family_of_models_predicts_behind_the_seal_as_it_does_outside(
    forking: SealedHost, vendor: SimulatedVendor, family: str
) -> None:
    if family not in forking.families:
        pytest.skip(f"{family} can't be built without parameters")
    network = build_model(family, 16, 3, 1)
    model = encode_model(state_arrays(network))
    rows = np.linspace(-1, 1, 5 * 16, dtype=np.float32).reshape(5, 16)
    network.eval()
    with torch.no_grad():
        wanted = torch.softmax(network(torch.from_numpy(rows)), dim=1).numpy()
    with served(forking, vendor, ModelDescription(family, {}, 16, 3), model) as running:
        found = open_session(running.connect(), verifier(vendor), appraisal(), model_sha256=sha256_hex(model))
        assert np.allclose(found.predict(rows), wanted, atol=1e-6)


def test_the_client_sees_what_holds_the_worker_as_its_host_saw_it(
    service: InferenceService, vendor: SimulatedVendor
) -> None:
    found = open_session(service.connect(), verifier(vendor), appraisal())
    assert found.seal == service.seal
    assert found.seal.level is SealLevel.NAMESPACES
    assert found.seal.missing == ()


def test_a_client_that_demands_namespaces_sends_nothing_to_a_worker_without(
    forking: SealedHost, vendor: SimulatedVendor
) -> None:
    without = SealPolicy((SealLevel.NO_NAMESPACES,))
    with served(forking, vendor, policy=without) as running:
        with pytest.raises(SealedError) as caught:
            open_session(running.connect(), verifier(vendor), appraisal())
        assert caught.value.code == "sealed.measure_missing"
        found = open_session(running.connect(), verifier(vendor), appraisal(), seal=without)
        assert found.predict(np.zeros((1, 8), np.float32)).shape == (1, 2)


def test_a_call_that_a_worker_may_not_make_kills_it_and_everything_after_is_refused_and_stated(
    forking: SealedHost, vendor: SimulatedVendor, tmp_path: Path
) -> None:
    model = encode_model({"weight": np.zeros((2, 4), np.float32)})
    ended: list[str] = []
    with served(forking, vendor, ModelDescription("reaches-out", {}, 4), model) as running:
        running.on_end = lambda: ended.append("told")
        found = open_session(running.connect(), verifier(vendor), appraisal())
        assert found.predict(np.zeros((1, 4), np.float32)).shape == (1, 2)
        before = workers_of(forking.server_pid)
        with pytest.raises(SealBroken) as broken:
            found.predict(np.ones((1, 4), np.float32))
        assert broken.value.code == "sealed.violation"
        assert ended == ["told"]
        assert len(workers_of(forking.server_pid)) == len(before) - 1
        for again in (lambda: found.predict(np.zeros((1, 4), np.float32)), running.require_running):
            with pytest.raises(SealedError):
                again()
        with log_of(tmp_path) as (log, writer):
            with Metering(running, writer, system_clock):
                pass
            stated = [open_statement(log.entry(index)).predicate for index in range(log.size)]
    violation, destroyed = stated
    assert isinstance(violation, Violation)
    assert (violation.rule, "socket" in violation.detail) == ("sealed-worker", True)
    assert isinstance(destroyed, Destruction)
    assert {one.name: one.outcome for one in destroyed.checks}["process-reaped"] == "passed"


def test_workers_of_one_server_draw_no_equal_session_key(
    forking: SealedHost, vendor: SimulatedVendor
) -> None:
    keys = set()
    for _ in range(3):
        with served(forking, vendor) as running:
            keys |= {
                open_session(running.connect(), verifier(vendor), appraisal())._welcome.public
                for _ in range(2)
            }
    assert len({key[:1184] for key in keys}) == len({key[1184:] for key in keys}) == 6


def test_a_worker_that_died_is_said_to_be_gone(forking: SealedHost, vendor: SimulatedVendor) -> None:
    before = set(workers_of(forking.server_pid))
    with served(forking, vendor) as running:
        found = open_session(running.connect(), verifier(vendor), appraisal())
        (pid,) = set(workers_of(forking.server_pid)) - before
        os.kill(pid, 9)
        with pytest.raises(SealedError) as caught:
            found.predict(np.zeros((1, 8), np.float32))
        assert caught.value.code == "sealed.died"
    assert not Path(f"/proc/{pid}").exists()


def test_the_end_of_a_service_is_stated_with_what_was_done_and_looked_at(
    forking: SealedHost, vendor: SimulatedVendor, tmp_path: Path
) -> None:
    with log_of(tmp_path) as (log, writer):
        with Metering(served(forking, vendor), writer, system_clock):
            pass
        _, destroyed = (open_statement(log.entry(index)).predicate for index in range(2))
        assert log.size == 2
    assert isinstance(destroyed, Destruction)
    assert (destroyed.what, sha256_hex(MODEL) in destroyed.artifacts) == ("worker-memory", True)
    outcomes = {one.name: one.outcome for one in destroyed.checks}
    for name in ("record-buffers-wiped", "process-reaped", "namespaces-empty", "no-core-file"):
        assert outcomes[name] == "passed", name


@dataclass(frozen=True)
class NoRoomForIncidents:
    """A log that takes all statements but one kind."""

    writer: StatementWriter

    def write(
        self, predicate_class: type[Predicate], subjects: Sequence[Subject], **fields: object
    ) -> object:
        if predicate_class is Incident:
            raise StorageError("storage.no_space", "The disk is full.")
        return self.writer.write(predicate_class, subjects, **fields)


def test_what_was_destroyed_is_stated_even_where_what_ended_it_cannot_be(
    forking: SealedHost, vendor: SimulatedVendor, tmp_path: Path
) -> None:
    before = set(workers_of(forking.server_pid))
    with log_of(tmp_path) as (log, writer):
        metering = Metering(served(forking, vendor), NoRoomForIncidents(writer), system_clock)
        metering.__enter__()
        (pid,) = set(workers_of(forking.server_pid)) - before
        os.kill(pid, 9)
        with pytest.raises(StorageError):
            metering.__exit__(None, None, None)
        assert [type(open_statement(log.entry(at)).predicate) for at in range(log.size)] == [Destruction]


def test_a_worker_that_died_is_stated_as_an_incident(
    forking: SealedHost, vendor: SimulatedVendor, tmp_path: Path
) -> None:
    before = set(workers_of(forking.server_pid))
    with log_of(tmp_path) as (log, writer):
        running = served(forking, vendor)
        with Metering(running, writer, system_clock):
            (pid,) = set(workers_of(forking.server_pid)) - before
            os.kill(pid, 9)
        incident, destroyed = (open_statement(log.entry(index)).predicate for index in range(2))
    assert isinstance(incident, Incident)
    assert incident.incident_class == "inference-worker-ended"
    assert isinstance(destroyed, Destruction)
    assert {one.name: one.outcome for one in destroyed.checks}["record-buffers-wiped"] == "not_run"


HELLO = Hello(bytes(32), "0" * 64).encode()


def test_sessions_beyond_what_the_worker_takes_are_refused_and_those_it_has_go_on(
    service: InferenceService, vendor: SimulatedVendor
) -> None:
    lines = [service.connect() for _ in range(MAX_SESSIONS + 3)]
    found = open_session(lines[0], verifier(vendor), appraisal())
    refused = 0
    for line in lines[1:]:
        try:
            line.hello(HELLO)
        except InferenceError as error:
            refused += error.code == "inference.busy"
    assert refused >= 3
    assert found.predict(np.zeros((1, 8), np.float32)).shape == (1, 2)
    late = lines[-1]
    lines[1].close()
    assert late.hello(HELLO), "who was told that it is busy may ask again"
    for line in lines:
        line.close()


def test_a_machine_that_gives_no_evidence_leaves_no_session(forking: SealedHost) -> None:
    def silent(report_data: bytes) -> Evidence:
        raise CollectError("collect.absent", "The attestation device is not on this machine.")

    with InferenceService.start(forking, DESCRIPTION, MODEL, quote=silent, simulated=True) as running:
        for _ in range(MAX_SESSIONS + 1):
            with pytest.raises(CollectError):
                running.connect().hello(HELLO)
        assert running.end is None


def test_a_machine_that_takes_its_time_to_give_evidence_holds_up_nobody_elses_queries(
    forking: SealedHost, vendor: SimulatedVendor
) -> None:
    quote, asked, go_on = vendor.platform("provider", MEASUREMENT).quote, threading.Event(), threading.Event()
    slow: list[bool] = []

    def dawdling(report_data: bytes) -> Evidence:
        if slow:
            asked.set()
            go_on.wait(30)
        return quote(report_data)

    with InferenceService.start(forking, DESCRIPTION, MODEL, quote=dawdling, simulated=True) as running:
        found = open_session(running.connect(), verifier(vendor), appraisal())
        slow.append(True)
        greeting = threading.Thread(target=running.connect().hello, args=(HELLO,))
        greeting.start()
        assert asked.wait(10)
        assert found.predict(np.zeros((1, 8), np.float32)).shape == (1, 2)
        go_on.set()
        greeting.join()


def test_a_message_that_has_waited_too_long_for_others_is_refused_as_one_too_many(
    service: InferenceService, vendor: SimulatedVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_session(service.connect(), verifier(vendor), appraisal())
    monkeypatch.setattr(inference_service, "WAIT_SECONDS", 0.05)
    with service._lock, pytest.raises(InferenceError) as caught:
        found.predict(np.zeros((1, 8), np.float32))
    assert caught.value.code == "inference.busy"
    assert found.predict(np.zeros((1, 8), np.float32)).shape == (1, 2)


def test_a_query_larger_than_the_cards_largest_is_not_given_to_the_worker(
    service: InferenceService, vendor: SimulatedVendor
) -> None:
    line = service.connect()
    public = open_session(line, verifier(vendor), appraisal())._welcome.public
    with pytest.raises(InferenceError) as caught:
        line.query(Query(session_id(public), 0, bytes(2 * USUAL_BUCKET + OVERHEAD_BYTES)).encode())
    assert caught.value.code == "inference.malformed"


def test_a_batch_of_many_rows_ends_nothing_and_others_are_served_in_between(
    service: InferenceService, vendor: SimulatedVendor
) -> None:
    many = np.random.default_rng(0).normal(size=(300_000, 8)).astype(np.float32)
    large, small = (open_session(service.connect(), verifier(vendor), appraisal()) for _ in range(2))
    between: list[int] = []
    over = threading.Event()

    def ask_little() -> None:
        while not over.is_set():
            between.append(len(small.predict(many[:1])))

    asking = threading.Thread(target=ask_little)
    asking.start()
    answered = large.predict(many)
    over.set()
    asking.join()
    assert np.allclose(answered, expected(many), atol=1e-6)
    assert len(between) >= 2


def test_at_its_end_the_weights_are_wiped_and_nothing_is_left(
    forking: SealedHost, vendor: SimulatedVendor
) -> None:
    running = served(forking, vendor)
    record = running.close()
    assert sha256_hex(MODEL) in record.artifacts
    assert record.method == "wiped, killed, reaped"
    wiped = {one.name: one for one in record.checks}["record-buffers-wiped"]
    said = "the worker says it overwrote at least the 72 bytes that it was handed"
    assert (wiped.outcome, wiped.detail.split("; ")[0]) == ("passed", said)
    with pytest.raises(SealedError):
        running.connect().hello(Hello(bytes(32), "0" * 64).encode())
