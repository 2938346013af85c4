"""What the fork server does once, so that a worker finds everything in memory: import and use each part.

A worker has no files, so whatever is imported at first use has to have been used here: every model family,
the trainer, the ciphers, key agreement, an inference's session. Rules kept here:

1. Numbers of threads are set before anything is imported: a fork of a process with threads can hang for ever.
2. Only made-up numbers are used, with a seeded source; no key, record or random state of use is left behind.
3. Garbage is not collected, neither meanwhile nor at the end: looking again and again through what is
   imported, and stays, is a sixth of the start; and what is freed leaves holes, which each worker would fill
   by a copy of their pages.
4. Packages that offer models are imported here as well, so that a worker can build them; one that fails is
   left out, and its models are unknown in workers.
"""

from __future__ import annotations

import gc
import io
import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cloister.enclave.sealed.claims import SealClaims

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_INPUTS: Final = 16
_ROWS: Final = 12


def warm_up() -> tuple[str, ...]:
    """Import and use everything once.

    Returns:
        The names of the model families that workers can build.
    """
    gc.disable()
    try:
        return _warm_all()
    finally:
        gc.freeze()
        gc.enable()


def _warm_all() -> tuple[str, ...]:
    for name in THREAD_VARIABLES:
        os.environ[name] = "1"
    import numpy as np
    import torch

    torch.set_num_threads(1)
    from cloister.enclave.inference.task import InferenceTask
    from cloister.enclave.sealed.tasks import register_task
    from cloister.enclave.sealed.training_task import TrainingTask
    from cloister.privacy.models import ENTRY_POINT_GROUP, build_model, model_names, register_model
    from cloister.privacy.randomness import OsRandom
    from cloister.privacy.testing import SeededTestRandom
    from cloister.privacy.trainer import DPTrainer, TrainingData, TrainingPlan

    register_task(TrainingTask.NAME, TrainingTask)
    register_task(InferenceTask.NAME, InferenceTask)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            register_model(point.name, point.load())
        except Exception:  # noqa: S112 - somebody else's package
            continue
    plan = TrainingPlan(0.5, 1.0, 1.0, 1, 0.1)
    rows = np.linspace(-1, 1, _ROWS * _INPUTS, dtype=np.float32).reshape(_ROWS, _INPUTS)
    labels = np.arange(_ROWS, dtype=np.int64) % 2

    def train_once(name: str) -> None:
        model = build_model(name, _INPUTS, 2, 0)
        for subjects in (None, np.arange(_ROWS, dtype=np.int64) // 2):
            noise, sampling = SeededTestRandom(0, "noise"), SeededTestRandom(0, "sampling")
            trainer = DPTrainer(plan, noise=noise, sampling=sampling)
            data = TrainingData(rows.copy(), labels, subjects)
            trainer.check(model, data)
            trainer.fit(model, data)

    warmed = []
    for name in model_names():
        try:
            train_once(name)
        except Exception:  # noqa: S112 - a family may need parameters that only a job knows
            continue
        warmed.append(name)
    OsRandom("warm").words(1)
    _warm_border()
    _warm_inference()
    return tuple(warmed)


def _warm_border() -> None:
    """Encrypt and open a table and a key, read and write weights."""
    import numpy as np

    from cloister.enclave.keyrelease.hpke import EnclaveKey, seal_to, sealing_info
    from cloister.enclave.keyrelease.messages import Ask, Challenge, Reply, release_binding
    from cloister.enclave.keyrelease.policy import table_dataset
    from cloister.enclave.keyrelease.request import KeyRequest
    from cloister.enclave.sealed.claims import SealClaims
    from cloister.enclave.sealed.table import encrypt_table, open_table
    from cloister.enclave.sealed.weights import WeightsForm
    from cloister.health.data import make_site
    from cloister.health.schema import Column, LabelColumn, TableSchema

    schema = TableSchema(
        name="warm",
        columns=(Column(name="a", lower=0, upper=1), Column(name="b", lower=0, upper=1)),
        label=LabelColumn(name="y", classes=("no", "yes")),
        basis="made up",
    )
    data_key = "dk-" + "0" * 32
    site = make_site("warm", schema, np.ones((4, 2)), np.array([0, 1, 0, 1]), salt=bytes(32))
    table = encrypt_table(site, schema, bytes(32), data_key=data_key)
    dataset = table_dataset(site.name, site.dataset_sha256)
    ask, nonce, enclave = Ask("warm", "0" * 64), bytes(32), EnclaveKey()
    seal = SealClaims.from_json(_held().as_json())
    request = KeyRequest(ask.scope, ask.policy_id, seal, enclave)
    request.bind(Challenge(nonce).encode())
    info = sealing_info(release_binding(ask, nonce, enclave.public_bytes, seal), data_key, dataset)
    reply = Reply(data_key, dataset, seal_to(enclave.public_bytes, bytes(32), info))
    opened = request.open(reply.encode(), dataset=dataset)
    stream = io.BytesIO(table.segments)
    open_table(table.header, opened, lambda view: stream.readinto(view) == len(view))
    form = WeightsForm.of({"w": np.ones((2, 2), np.float32)})
    form.read(form.write({"w": np.zeros((2, 2), np.float32)}))


def _held() -> SealClaims:
    from cloister.enclave.sealed.claims import MEASURES, Measure, SealClaims, SealLevel

    return SealClaims(SealLevel.NAMESPACES, tuple(Measure(name, "held") for name in MEASURES), "")


def _warm_inference() -> None:
    """Open a session with a model of zeros, and ask it once."""
    import numpy as np

    from cloister.enclave.inference.card import INPUT_HEAD, ModelDescription, card_of, padded_size
    from cloister.enclave.inference.messages import Hello, Query, inference_binding, session_id
    from cloister.enclave.inference.network import load_network
    from cloister.enclave.inference.worker import InferenceWorker
    from cloister.enclave.keyrelease.hpke import seal_to, sealing_info
    from cloister.enclave.model_file import encode_model
    from cloister.enclave.sealed.claims import SealClaims
    from cloister.privacy.models import build_model, state_arrays

    model = encode_model(state_arrays(build_model("logistic-regression", 2, 2, 0)))
    card = card_of(ModelDescription("logistic-regression", {}, 2).as_json(), model)
    seal = SealClaims.from_json(_held().as_json())
    worker = InferenceWorker(card, seal, load_network(card, model))
    worker.try_out()
    hello = Hello(bytes(32), "0" * 64)
    public = worker.hello(hello.encode())
    info = sealing_info(inference_binding(hello, public, card, seal), "query", "0")
    plain = bytearray(padded_size(INPUT_HEAD.size + 8))
    INPUT_HEAD.pack_into(plain, 0, bytes(32), 1, 2)
    plain[INPUT_HEAD.size : INPUT_HEAD.size + 8] = np.zeros(2, "<f4").tobytes()
    session = session_id(public)
    worker.query(Query(session, 0, seal_to(public, plain, info)).encode())
    worker.end(session)
    worker.take_counts()
    _warm_package(model)


def _warm_package(model: bytes) -> None:
    """Check and open a package, signed in each of the ways that one may be."""
    from cloister.core.keys import ALGORITHMS, EphemeralKeyStore
    from cloister.enclave.inference.card import ModelDescription
    from cloister.enclave.inference.packaging import MODEL_FILE, model_in, packaged_card
    from cloister.enclave.package import check_package, seal_package

    description = ModelDescription("logistic-regression", {}, 2).as_json()
    for algorithm in ALGORITHMS:
        signer = EphemeralKeyStore().generate("warm", algorithm)
        image = seal_package(
            {MODEL_FILE: model},
            name="warm",
            version="1",
            data_key="dk-" + "0" * 32,
            key=bytes(32),
            developer=signer,
            description=description,
        )
        package = check_package(image, signer.public_key)
        packaged_card(package, signer.public_key)
        model_in(package, bytes(32))
