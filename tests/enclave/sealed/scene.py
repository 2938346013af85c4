"""A host of hostile workers, a small table, and a setup to train on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cloister.enclave.attestation.binding import NONCE_BYTES
from cloister.enclave.errors import SealedError
from cloister.enclave.keyrelease import Ask, Challenge, Reply, seal_to, sealing_info
from cloister.enclave.keyrelease.messages import release_binding
from cloister.enclave.keyrelease.policy import table_dataset
from cloister.enclave.sealed import (
    SealedHost,
    SealedTrainer,
    SealedWorker,
    SealPolicy,
    SealViolation,
    SeededTestStreams,
    TrainingSetup,
    launching,
)
from cloister.enclave.sealed.asking import let_ask
from cloister.enclave.sealed.host import WorkerLimits
from cloister.enclave.sealed.table import encrypt_table
from cloister.enclave.sealed.trainer import Streams
from cloister.health.data import SiteData, make_site
from cloister.health.encrypted_table import EncryptedTable
from cloister.health.schema import Column, LabelColumn, TableSchema
from cloister.health.subjects import Subjects
from cloister.privacy.models import build_model, state_arrays
from cloister.privacy.trainer import TrainingPlan

COLUMNS, RECORDS = 16, 60
SEED = 11
DATA_KEY = "dk-" + "0" * 32
LIMITS = WorkerLimits(cpu_seconds=60, answer_seconds=20)
SCHEMA = TableSchema(
    name="wards",
    columns=tuple(Column(name=f"c{i}", lower=-1, upper=1) for i in range(COLUMNS)),
    label=LabelColumn(name="y", classes=("no", "yes")),
    basis="made up",
)


STATED = {
    "job_id": "6f2a7c1e-90d4-4c56-8a41-0d2b7e4f9c11",
    "party": "north",
    "sequence": 0,
    "previous": None,
    "recorded_at": "2026-11-21T14:00:00.000000Z",
}
"""What every statement has beside what it states."""


class Violations(list[SealViolation]):
    """A sink that keeps what it was told."""


@contextmanager
def started(module: str, room: str = "sealed") -> Iterator[tuple[SealedHost, Violations]]:
    """A host whose server is one of the test servers here, or of another room."""
    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    seen = Violations()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "_SERVER", f"tests.enclave.{room}.{module}")
        made = SealedHost.start(on_violation=seen.append)
    with made:
        yield made, seen


def workers_of(host: SealedHost) -> list[int]:
    """The processes that a host's server has forked and not reaped."""
    server = host.server_pid
    return [int(one) for one in Path(f"/proc/{server}/task/{server}/children").read_text().split()]


def a_worker(
    of: SealedHost, policy: SealPolicy | None = None, task: str = "hostile", limits: WorkerLimits = LIMITS
) -> SealedWorker:
    """A worker; the test is skipped, naming them, where the kernel doesn't give the measures."""
    try:
        return of.worker(task, policy=policy, limits=limits)
    except SealedError as error:
        if error.code == "sealed.measure_missing" and policy is None:
            pytest.skip(f"this kernel refuses: {', '.join(error.details)}")
        raise


def a_table(*, subjects: bool = False, seed: int = 5, salt: bytes = b"") -> SiteData:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, RECORDS).astype(np.int64)
    raw = np.clip(random.normal(size=(RECORDS, COLUMNS)) * 0.3 + (2 * labels[:, None] - 1) * 0.4, -1, 1)
    whose = Subjects("person", np.arange(RECORDS, dtype=np.int64) // 3) if subjects else None
    return make_site("north", SCHEMA, raw, labels, salt=salt, subjects=whose)


def a_setup(
    architecture: str = "mlp", *, streams: Streams | None = None, unit: str = "record", steps: int = 4
) -> TrainingSetup:
    model = build_model(architecture, COLUMNS, 2, 3, {})
    return TrainingSetup(
        mechanism="DP_SGD",
        unit=unit,  # type: ignore[arg-type]
        architecture=architecture,
        seed=3,
        parameters={},
        start=state_arrays(model),
        plan=TrainingPlan(0.3, 1.0, 1.0, steps, 0.5),
        streams=streams or SeededTestStreams("north", SEED),
    )


def a_trainer(
    of: SealedHost, data: SiteData, setup: TrainingSetup, limits: WorkerLimits = LIMITS
) -> SealedTrainer:
    """A trainer whose worker has the table; where it refuses, its worker is gone."""
    worker = a_worker(of, task="dp-training", limits=limits)
    key = os.urandom(32)
    try:
        trainer = SealedTrainer(worker, setup)
        give(trainer, encrypted(data, key), key)
        trainer.prepare()
    except BaseException:
        worker.close()
        raise
    return trainer


def encrypted(data: SiteData, key: bytes) -> EncryptedTable:
    """The table as its hospital encrypts it."""
    return encrypt_table(data, SCHEMA, key, data_key=DATA_KEY)


def dataset_of(table: EncryptedTable) -> str:
    """What its key is released for."""
    return table_dataset(table.public.site, table.public.dataset_sha256)


def give(
    trainer: SealedTrainer,
    table: EncryptedTable,
    key: bytes,
    *,
    public: bytes | None = None,
    scope: str = "job",
    dataset: str | None = None,
) -> None:
    """Hand over a table and its key as a keeper would, released to this worker unless told otherwise."""
    nonce, policy_id = os.urandom(NONCE_BYTES), "0" * 64
    report_data = let_ask(trainer.worker, Ask("job", policy_id), Challenge(nonce).encode())
    own = release_binding(Ask("job", policy_id), nonce, trainer.worker.public_key, trainer.worker.claims)
    assert report_data == own.report_data()
    public = public or trainer.worker.public_key
    named = dataset or dataset_of(table)
    binding = release_binding(Ask(scope, policy_id), nonce, public, trainer.worker.claims)
    sealed = seal_to(public, key, sealing_info(binding, DATA_KEY, named))
    trainer.load(table, Reply(DATA_KEY, named, sealed).encode())


Start = Callable[[str], SealedHost]
__all__ = [
    "COLUMNS",
    "DATA_KEY",
    "LIMITS",
    "RECORDS",
    "SCHEMA",
    "SEED",
    "STATED",
    "EncryptedTable",
    "Start",
    "Violations",
    "a_setup",
    "a_table",
    "a_trainer",
    "a_worker",
    "dataset_of",
    "encrypted",
    "give",
    "started",
    "workers_of",
]
