"""What the sealed worker costs: the server once, each further worker, an update's way out, a violation's end.

The violation is a real one: a model family that a package offers, whose building makes a socket. Private
memory is read from /proc as root; another user can't look into a sealed worker.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cloister.enclave.airlock import AirlockPolicy, screen
from cloister.enclave.errors import SealedError
from cloister.enclave.keyrelease import Ask, Challenge, Reply, seal_to, sealing_info
from cloister.enclave.keyrelease.messages import release_binding
from cloister.enclave.keyrelease.policy import table_dataset
from cloister.enclave.sealed import (
    SealedHost,
    SealedTrainer,
    SealViolation,
    SeededTestStreams,
    TrainingSetup,
    encrypt_table,
)
from cloister.enclave.sealed.asking import let_ask
from cloister.health.data import SiteData, make_site
from cloister.health.schema import Column, LabelColumn, TableSchema
from cloister.privacy.models import build_model, load_arrays, state_arrays
from cloister.privacy.testing import SeededTestRandom
from cloister.privacy.trainer import DPTrainer, TrainingData, TrainingPlan
from shared_data import AbsentError

_STARTS, _WORKERS, _ROUNDS = 3, 20, 20
_COLUMNS, _RECORDS = 600, 400
_WIDE = {"hidden": [4096]}
"""600 x 4096 + 4096 x 2 weights and biases: 9.9 MB."""
_PLUGIN = """
import socket
def build(inputs, classes, parameters):
    socket.socket(socket.AF_INET, socket.SOCK_STREAM)
"""
_POINT = "[cloister.models]\nbenchmark-intruder = benchmark_intruder:build\n"


def measure() -> dict[str, float]:
    """Measure; medians."""
    seen: list[SealViolation] = []
    with tempfile.TemporaryDirectory() as folder:
        _offer_intruder(Path(folder))
        starts, used = [], []
        for _ in range(_STARTS):
            begin = time.perf_counter()
            try:
                host = SealedHost.start(on_violation=seen.append)
            except SealedError as error:
                raise AbsentError(error.message) from None
            starts.append(time.perf_counter() - begin)
            used.append(_cpu_seconds(host.server_pid))
            if len(starts) < _STARTS:
                host.close()
        with host:
            figures = {
                "server_start_s": statistics.median(starts),
                "server_start_cpu_s": statistics.median(used),
            }
            figures |= _workers(host)
            figures |= _updates(host)
            figures |= _violations(host, seen)
    return figures


def table(figures: dict[str, float]) -> str:
    """The figures beside their targets."""
    private = figures["private_mib"]
    shown = "not measured (needs root)" if math.isnan(private) else f"{private:.1f} MiB"
    return (
        f"fork server, Opacus and every model family warmed: {figures['server_start_s']:.2f} s (below 4.5), "
        f"{figures['server_start_cpu_s']:.2f} s of processor time\n"
        f"each further worker, sealed: {figures['worker_ms']:.1f} ms (below 60); "
        f"slowest of {_WORKERS} {figures['worker_slowest_ms']:.1f} ms; "
        f"{figures['worker_cpu_ms']:.1f} ms of processor time from fork to reaped\n"
        f"end: wiped, killed, reaped, looked after: {figures['close_ms']:.1f} ms\n"
        f"9.9 MB of weights in, out and through the airlock: {figures['update_ms']:.1f} ms (below 60)\n"
        f"violation to reaped worker: {figures['violation_ms']:.1f} ms (below 20); to the caller's error "
        f"{figures['violation_seen_ms']:.1f} ms\n"
        f"private memory of an idle worker: {shown} (below 10)\n"
        f"training, sealed against not: {figures['training_ratio']:.3f} times as long"
    )


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begin)


def _workers(host: SealedHost) -> dict[str, float]:
    started, closed = [], []
    private = math.nan
    used = _cpu_seconds(host.server_pid)
    for _ in range(_WORKERS):
        begin = time.perf_counter()
        worker = host.worker("dp-training")
        started.append(1000 * (time.perf_counter() - begin))
        if os.getuid() == 0:
            private = _private_mib(host.server_pid)
        closed.append(_timed(worker.close))
    return {
        "worker_ms": statistics.median(started),
        "worker_slowest_ms": max(started),
        "worker_cpu_ms": 1000 * (_cpu_seconds(host.server_pid) - used) / _WORKERS,
        "close_ms": statistics.median(closed),
        "private_mib": private,
    }


def _cpu_seconds(pid: int) -> float:
    """Of a process and of its children that it has waited for: user and system (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(one) for one in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _private_mib(server: int) -> float:
    (worker,) = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    lines = Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()
    return sum(int(one.split()[1]) for one in lines if one.startswith("Private_")) / 1024


def _site() -> tuple[TableSchema, SiteData]:
    schema = TableSchema(
        name="benchmark",
        columns=tuple(Column(name=f"c{i}", lower=-1, upper=1) for i in range(_COLUMNS)),
        label=LabelColumn(name="y", classes=("no", "yes")),
        basis="made up",
    )
    random = np.random.default_rng(1)
    raw = random.uniform(-1, 1, (_RECORDS, _COLUMNS))
    return schema, make_site("north", schema, raw, random.integers(0, 2, _RECORDS), salt=b"")


def _trainer(host: SealedHost, setup: TrainingSetup) -> SealedTrainer:
    schema, data = _site()
    trainer = SealedTrainer(host.worker("dp-training"), setup)
    key = os.urandom(32)
    data_key = "dk-" + "0" * 32
    sealed = encrypt_table(data, schema, key, data_key=data_key)
    ask, nonce, public = Ask("job", "0" * 64), os.urandom(32), trainer.worker.public_key
    let_ask(trainer.worker, ask, Challenge(nonce).encode())
    dataset = table_dataset(data.name, data.dataset_sha256)
    info = sealing_info(release_binding(ask, nonce, public, trainer.worker.claims), data_key, dataset)
    trainer.load(sealed, Reply(data_key, dataset, seal_to(public, key, info)).encode())
    return trainer


def _setup(parameters: dict[str, list[int]], steps: int, sampling: float) -> TrainingSetup:
    start = state_arrays(build_model("mlp", _COLUMNS, 2, 0, parameters))  # type: ignore[arg-type]
    plan = TrainingPlan(sampling, 1.0, 1.0, steps, 0.1)
    streams = SeededTestStreams("north", 1)
    return TrainingSetup("DP_SGD", "record", "mlp", 0, dict(parameters), start, plan, streams)  # type: ignore[arg-type]


def _updates(host: SealedHost) -> dict[str, float]:
    """Rounds of one step, airlock included, less the same step taken here."""
    setup = _setup(_WIDE, 1, 1e-6)
    trainer = _trainer(host, setup)
    policy = AirlockPolicy.for_tensors(setup.start)
    whole, alone = [], []
    model, data, outside = _outside(setup)
    with trainer.worker:
        trainer.prepare()
        for _ in range(_ROUNDS):
            begin = time.perf_counter()
            screen({"params": trainer.train(setup.start, lambda: False).params}, policy)
            whole.append(1000 * (time.perf_counter() - begin))
            load_arrays(model, setup.start)
            alone.append(_timed(lambda: outside.fit(model, data)))
    longer = _setup({"hidden": [64]}, 60, 0.25)
    trainer = _trainer(host, longer)
    model, data, outside = _outside(longer)
    ratios = []
    with trainer.worker:
        trainer.prepare()
        for _ in range(7):
            sealed = _timed(lambda: trainer.train(longer.start, lambda: False))
            load_arrays(model, longer.start)
            ratios.append(sealed / _timed(lambda: outside.fit(model, data)))
    return {
        "update_ms": statistics.median(whole) - statistics.median(alone),
        "round_ms": statistics.median(whole),
        "training_ratio": statistics.median(ratios),
    }


def _outside(setup: TrainingSetup) -> tuple[object, TrainingData, DPTrainer]:
    import torch

    torch.set_num_threads(1)
    _, data = _site()
    model = build_model("mlp", _COLUMNS, 2, 0, setup.parameters)
    noise, sampling = (SeededTestRandom(1, "north", one) for one in ("noise", "sampling"))
    trainer = DPTrainer(setup.plan, noise=noise, sampling=sampling)
    return model, TrainingData(data.features.copy(), data.labels.copy()), trainer


def _offer_intruder(folder: Path) -> None:
    (folder / "benchmark_intruder.py").write_text(_PLUGIN)
    details = folder / "benchmark_intruder-1.dist-info"
    details.mkdir()
    (details / "METADATA").write_text("Metadata-Version: 2.1\nName: benchmark-intruder\nVersion: 1\n")
    (details / "entry_points.txt").write_text(_POINT)
    sys.path.append(str(folder))


def _violations(host: SealedHost, seen: list[SealViolation]) -> dict[str, float]:
    told = []
    for _ in range(_WORKERS):
        setup = replace(_setup({"hidden": [4]}, 1, 0.5), architecture="benchmark-intruder", parameters={})
        trainer = _trainer(host, setup)
        begin = time.perf_counter()
        try:
            trainer.prepare()
        except SealedError as error:
            if error.code != "sealed.violation":
                raise
        told.append(1000 * (time.perf_counter() - begin))
        trainer.worker.close()
    assert len(seen) == _WORKERS
    return {
        "violation_ms": statistics.median(one.reaped_after_ms for one in seen),
        "violation_seen_ms": statistics.median(told),
    }
