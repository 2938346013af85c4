"""Differentially private training behind the seal: the table in, then round after round weights in and out.

Requests, in this order: ``ask`` (once), ``table`` (once), ``plan`` (once), ``round`` (any number). In a run
that has no keys, ``plain-table`` comes in place of the first two. Rules kept here:

1. The worker asks for its key itself: it says what the machine's quote has to seal in, and opens the answer.
   The table is opened with a key that was released to this worker, for this job, and for these records of
   this site. It is what its declared schema says, and the records that its commitment names, or nothing is
   trained; whether the node has ever read it makes no difference here. A worker that took a plain table asks
   for no key, and one that asked takes no plain table.
2. Features are made from it here, in a buffer of our own; no copy of a record is kept beside the two.
3. The model is built from its public definition, and is held against it before each round; a round's weights
   replace its own, whatever came before.
4. Noise and batches come from sources made here, after the fork. A test's seeded source is another kind that
   the node has to name, and its name goes into every answer.
5. An answer holds the weights, how many steps touched the records, the generator's name and the definition's
   hash; no loss, norm, batch size or time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from torch import nn

from cloister.core.canonical import JSON
from cloister.core.hashes import Sha256Field
from cloister.core.sealing import wipe
from cloister.enclave.errors import ReleaseError, SealedError
from cloister.enclave.keyrelease.hpke import EnclaveKey
from cloister.enclave.keyrelease.messages import MAX_SHORT_BYTES
from cloister.enclave.keyrelease.policy import table_dataset
from cloister.enclave.sealed.asking import KeyAsking
from cloister.enclave.sealed.definition import definition_sha256, structure_sha256
from cloister.enclave.sealed.frames import protocol_error
from cloister.enclave.sealed.memory import LockedBuffer
from cloister.enclave.sealed.plain_table import open_plain_table
from cloister.enclave.sealed.table import OpenedTable, open_table
from cloister.enclave.sealed.task import Answer, Payload
from cloister.enclave.sealed.weights import WeightsForm
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.evidence.transcript import Unit
from cloister.health.encrypted_table import MAX_HEADER_BYTES, read_table_header
from cloister.privacy.mock import MOCK_VARIABLE, MockTrainer
from cloister.privacy.models import build_model, load_arrays, state_arrays
from cloister.privacy.randomness import OsRandom, RandomSource
from cloister.privacy.testing import SeededTestRandom
from cloister.privacy.trainer import DPTrainer, TrainingData, TrainingPlan

_SCALED_ROWS: Final = 4096
_Label = Annotated[str, Field(min_length=1, max_length=200)]


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TableRequest(_Fields):
    """Fields of ``table``; the payload is the table's header, then its segments."""

    header_bytes: Annotated[int, Field(ge=2, le=MAX_HEADER_BYTES)]
    table_sha256: Sha256Field
    reply: Annotated[str, Field(max_length=MAX_SHORT_BYTES)]


class PlainTableRequest(_Fields):
    """Fields of ``plain-table``; the payload is the table's header, then its cells."""

    header_bytes: Annotated[int, Field(ge=2, le=MAX_HEADER_BYTES)]


class OsRandomness(_Fields):
    """Sources keyed by the kernel, as `cloister.privacy.randomness.OsRandom` makes them."""

    kind: Literal["os"] = "os"
    site: _Label
    job_id: _Label


class SeededTestRandomness(_Fields):
    """Sources that repeat, for tests alone."""

    kind: Literal["seeded-test"] = "seeded-test"
    site: _Label
    seed: Annotated[str, Field(pattern=r"^[0-9a-f]{1,16}$")]


Randomness = OsRandomness | SeededTestRandomness


class ModelDefinition(_Fields):
    """What a model is built from, all of it public."""

    architecture: _Label
    seed: Annotated[int, Field(ge=0, lt=2**53)]
    parameters: dict[str, JsonValue]


class RoundPlan(_Fields):
    """`TrainingPlan`, field by field; JSON writes 1.0 as 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    sampling_probability: float
    noise_multiplier: float
    max_grad_norm: float
    steps: int
    learning_rate: float
    momentum: float
    physical_batch: int


class PlanRequest(_Fields):
    """Fields of ``plan``."""

    mechanism: _Label
    unit: Unit
    model: ModelDefinition
    plan: RoundPlan
    randomness: Annotated[Randomness, Field(discriminator="kind")]


class TrainingTask:
    """Trains one model on one table.

    Args:
        key: the worker's, to which the data key is sealed.
    """

    NAME: ClassVar[str] = "dp-training"

    def __init__(self, key: EnclaveKey) -> None:
        self._asking = KeyAsking(key)
        self._table: OpenedTable | None = None
        self._features: LockedBuffer | None = None
        self._model: nn.Module | None = None
        self._trainer: DPTrainer | None = None
        self._data: TrainingData | None = None
        self._form: WeightsForm | None = None
        self._definition = self._structure = ""

    def handle(
        self, kind: str, fields: dict[str, JSON], payload: Payload, aborted: Callable[[], bool]
    ) -> Answer:
        """See `SealedTask.handle`."""
        try:
            match kind:
                case "ask":
                    return self._asking.ask(fields)
                case "table":
                    return self._take_table(TableRequest.model_validate(fields), payload)
                case "plain-table":
                    return self._take_plain_table(PlainTableRequest.model_validate(fields), payload)
                case "plan":
                    return self._take_plan(PlanRequest.model_validate(fields))
                case "round":
                    return self._round(payload, aborted)
        except ValidationError:
            raise protocol_error("a request has other fields than agreed") from None
        raise protocol_error("an unknown request came")

    def wipe(self) -> tuple[int, int]:
        """See `SealedTask.wipe`: both buffers, the model's weights and gradients."""
        buffers = [] if self._features is None else [self._features]
        if self._table is not None:
            buffers.append(self._table.buffer)
        count = sum(one.wipe() for one in buffers)
        model = self._model
        for parameter in model.parameters() if model is not None else ():
            parameter.data.zero_()
            parameter.grad = None
        # The buffers stay where they are: what is shown to be gone is gone by the wiping, not by unmapping.
        self._data = self._trainer = self._model = None
        return len(buffers), count

    def _take_table(self, request: TableRequest, payload: Payload) -> Answer:
        asked = self._asking.taken()
        if request.header_bytes > payload.size:
            raise protocol_error("a table comes with its header")
        header = bytearray(request.header_bytes)
        payload.fill(memoryview(header))
        public = read_table_header(bytes(header))
        if public.cipher_bytes != payload.size - len(header):
            raise SealedError("sealed.dataset", "The table has another size than its header says.")
        try:
            key = asked.open(
                request.reply.encode(), dataset=table_dataset(public.site, public.dataset_sha256)
            )
        except ReleaseError:
            raise SealedError("sealed.dataset", "The key is not for this worker and table.") from None
        digest = hashlib.sha256(hashlib.sha256(header).digest())

        def read_into(view: memoryview) -> bool:
            if not payload.fill(view):
                return False
            digest.update(view)
            return True

        try:
            table = open_table(bytes(header), key, read_into)
        finally:
            wipe(key)
        if digest.hexdigest() != request.table_sha256:
            table.buffer.wipe()
            raise SealedError("sealed.dataset", "The table is not the one that the key is for.")
        return self._hold(table)

    def _take_plain_table(self, request: PlainTableRequest, payload: Payload) -> Answer:
        if not self._asking.forgo() or request.header_bytes > payload.size:
            raise protocol_error("a plain table comes once, where no key was asked for, with its header")
        header = bytearray(request.header_bytes)
        payload.fill(memoryview(header))
        return self._hold(open_plain_table(bytes(header), payload.size - len(header), payload.fill))

    def _hold(self, table: OpenedTable) -> Answer:
        self._table, public = table, table.header
        width = len(public.declared.feature_names)
        self._features = LockedBuffer(4 * public.records * width)
        features = np.frombuffer(self._features.view, "<f4").reshape(public.records, width)
        for first in range(0, public.records, _SCALED_ROWS):
            rows = slice(first, first + _SCALED_ROWS)
            features[rows] = public.declared.scale(table.raw[rows])
        self._data = TrainingData(features, table.labels, table.subjects)
        return Answer({"locked": table.buffer.locked and self._features.locked})

    def _take_plan(self, request: PlanRequest) -> Answer:
        table, data = self._table, self._data
        if table is None or data is None or self._model is not None:
            raise protocol_error("a plan comes once, after the table")
        if request.unit == "subject" and data.subjects is None:
            raise protocol_error("subjects are to be protected, and the table names none")
        if request.unit == "record":
            data = self._data = TrainingData(data.features, data.labels, None)
        declared = table.header.declared
        model = build_model(
            request.model.architecture,
            len(declared.feature_names),
            len(declared.label.classes),
            request.model.seed,
            request.model.parameters,
        )
        make = DPTrainer
        if request.mechanism == MOCK_MECHANISM:
            # The node looked whether its machine's owner allows it; a worker has no environment of its own.
            os.environ[MOCK_VARIABLE] = "1"
            make = MockTrainer
        trainer = make(
            TrainingPlan(**request.plan.model_dump()),
            noise=_source(request.randomness, "noise"),
            sampling=_source(request.randomness, "sampling"),
        )
        trainer.check(model, data)
        self._model, self._trainer = model, trainer
        self._form = WeightsForm.of(state_arrays(model))
        self._structure = structure_sha256(model)
        self._definition = definition_sha256(
            request.model.architecture, request.model.seed, request.model.parameters
        )
        return Answer({"definition": self._definition, "noise_generator": trainer.noise_generator})

    def _round(self, payload: Payload, aborted: Callable[[], bool]) -> Answer:
        model, trainer, data, form = self._model, self._trainer, self._data, self._form
        if model is None or trainer is None or data is None or form is None:
            raise protocol_error("a round comes after table and plan")
        if structure_sha256(model) != self._structure:
            raise protocol_error("the model is another than was built from its definition")
        load_arrays(model, form.read(payload.whole(form.size)))
        fit = trainer.fit(model, data, abort=aborted)
        return Answer(
            {
                "aborted": fit.aborted,
                "definition": self._definition,
                "executed_steps": fit.executed_steps,
                "noise_generator": trainer.noise_generator,
            },
            b"" if fit.aborted else form.write(state_arrays(model)),
        )


def _source(randomness: Randomness, purpose: str) -> RandomSource:
    match randomness:
        case OsRandomness(site=site, job_id=job_id):
            return OsRandom(site, job_id, purpose)
        case SeededTestRandomness(seed=seed, site=site):
            return SeededTestRandom(int(seed, 16), site, purpose)
