"""A site's rounds, trained in a sealed worker: the node's side of `training_task`.

Equal to training in the node's own process to the bit, where both draw from the same seeded test source.
What a worker answers is held against what it was asked: the number of steps, whether it was stopped, the
model's definition, the generator, the weights' names, shapes and types.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cloister.core.canonical import JSON
from cloister.enclave.errors import SealedError
from cloister.enclave.sealed.definition import definition_sha256
from cloister.enclave.sealed.frames import Frame, protocol_error
from cloister.enclave.sealed.weights import WeightsForm
from cloister.enclave.sealed.worker import SealedWorker
from cloister.evidence.predicates.training import MOCK, OS_ENTROPY, SEEDED_TEST
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.evidence.transcript import Unit
from cloister.privacy.mock import require_mock_allowed

if TYPE_CHECKING:
    from cloister.enclave.sealed.plain_table import PlainTable
    from cloister.health.encrypted_table import EncryptedTable, TableShape
    from cloister.privacy.trainer import TrainingPlan

TASK = "dp-training"
Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class OsStreams:
    """Noise and batches from the kernel's entropy, drawn in the worker."""

    site: str
    job_id: str

    def as_json(self) -> dict[str, JSON]:
        """For the request."""
        return {"kind": "os", "site": self.site, "job_id": self.job_id}

    generator = OS_ENTROPY


@dataclass(frozen=True, slots=True)
class SeededTestStreams:
    """Noise and batches that repeat; every spend says so, and receipts fail for it."""

    site: str
    seed: int

    def as_json(self) -> dict[str, JSON]:
        """For the request."""
        return {"kind": "seeded-test", "site": self.site, "seed": f"{self.seed:x}"}

    generator = SEEDED_TEST


Streams = OsStreams | SeededTestStreams


@dataclass(frozen=True)
class TrainingSetup:
    """All that is public about what a worker trains.

    Attributes:
        mechanism: the job's mechanism.
        unit: what is protected.
        architecture: name of the model.
        seed: public seed of its weights.
        parameters: its public parameters.
        start: weights of that model, for their names and shapes.
        plan: what one round is.
        streams: where noise and batches come from.
    """

    mechanism: str
    unit: Unit
    architecture: str
    seed: int
    parameters: dict[str, JSON]
    start: Arrays
    plan: TrainingPlan
    streams: Streams


@dataclass(frozen=True, eq=False)
class TrainedRound:
    """What one round left.

    Attributes:
        params: the weights; empty where the round was stopped.
        executed_steps: steps that touched records.
        aborted: whether it was stopped before its end.
    """

    params: dict[str, npt.NDArray[np.float32]]
    executed_steps: int
    aborted: bool


class SealedTrainer:
    """Trains one job's rounds on one table in one worker.

    Args:
        worker: a fresh one, with the task `TASK`.
        setup: what is trained.

    Raises:
        PrivacyError: ``privacy.mock_refused`` for a mock where this machine allows none.
    """

    def __init__(self, worker: SealedWorker, setup: TrainingSetup) -> None:
        self._worker, self._setup = worker, setup
        self._form = WeightsForm.of(setup.start)
        self._definition = definition_sha256(setup.architecture, setup.seed, setup.parameters)
        self._mock = setup.mechanism == MOCK_MECHANISM
        if self._mock:
            require_mock_allowed()

    @property
    def worker(self) -> SealedWorker:
        """The worker."""
        return self._worker

    @property
    def noise_generator(self) -> str:
        """The generator's name, as it stands in statements: what was asked for, and what the worker has to
        confirm in each answer."""
        return MOCK if self._mock else self._setup.streams.generator

    def load(self, table: EncryptedTable, reply: bytes) -> None:
        """Hand over the table and the keeper's reply, which holds its key, sealed to this worker.

        Args:
            table: the encrypted records.
            reply: what the keeper answered.

        Raises:
            SealedError: ``sealed.dataset`` where it does not open, or holds other records than it says.
            HealthError: the records are not what is declared.
        """
        worker = self._worker
        table_sha256 = table.sha256
        self._hand_over(table_sha256, hashlib.sha256(reply).hexdigest())
        answer = worker.request(
            "table",
            {
                "header_bytes": len(table.header),
                "table_sha256": table_sha256,
                "reply": reply.decode("utf-8", "replace"),
            },
            table.header + table.segments,
        )
        self._state_held(table.public, answer)

    def load_plain(self, table: PlainTable) -> None:
        """Hand over a table without a key, in a run that has none.

        Args:
            table: the records.

        Raises:
            SealedError: ``sealed.protocol`` after a key was asked for, or a second time.
            HealthError: the records are not what is declared.
        """
        worker = self._worker
        header = table.header
        # By the commitment, which is salted: a hash of the cells could be tried against guesses.
        self._hand_over(table.public.dataset_sha256)
        answer = worker.request("plain-table", {"header_bytes": len(header)}, header + table.cells)
        self._state_held(table.public, answer)

    def _hand_over(self, *artifacts: str) -> None:
        held = self._worker.held
        self._worker.held = replace(held, artifacts=(*held.artifacts, *artifacts))

    def _state_held(self, public: TableShape, answer: Frame) -> None:
        locked = answer.fields.get("locked") is True
        self._worker.held = replace(self._worker.held, bytes=public.opened_bytes, locked=locked)

    def prepare(self) -> None:
        """Build model and trainer in the worker, and refuse there what a round would refuse.

        Raises:
            ModelError: the model cannot be built, or mixes records.
            PrivacyError: the plan or data don't fit.
        """
        setup = self._setup
        plan: dict[str, JSON] = asdict(setup.plan)
        answer = self._worker.request(
            "plan",
            {
                "mechanism": setup.mechanism,
                "unit": setup.unit,
                "model": {
                    "architecture": setup.architecture,
                    "seed": setup.seed,
                    "parameters": setup.parameters,
                },
                "plan": plan,
                "randomness": setup.streams.as_json(),
            },
        )
        self._require_as_asked(answer.fields)

    def train(self, weights: Arrays, abort: Callable[[], bool]) -> TrainedRound:
        """One round.

        Args:
            weights: what it begins with, in the form of the setup's.
            abort: asked now and then; the worker looks between two batches.

        Raises:
            SealedError: the worker ended, or answered what can't be; count every step of the plan then.
            ModelError: the weights are not the model's.
        """
        asked = False

        def look() -> bool:
            nonlocal asked
            asked = asked or abort()
            return asked

        answer = self._worker.request(
            "round", payload=self._form.write(weights), most=self._form.size, abort=look
        )
        executed, aborted = answer.fields.get("executed_steps"), answer.fields.get("aborted")
        steps = self._setup.plan.steps
        if type(executed) is not int:
            raise self._refused("the worker does not say how many steps it took")
        whole = aborted is False and executed == steps
        stopped = aborted is True and asked and 0 <= executed <= steps
        if not (whole or stopped):
            raise self._refused("the worker answers a round that was not asked for")
        self._require_as_asked(answer.fields)
        params = {} if stopped else self._read(answer.payload)
        return TrainedRound(params, executed, stopped)

    def _read(self, payload: bytes | bytearray | memoryview) -> dict[str, npt.NDArray[np.float32]]:
        try:
            return self._form.read(payload)
        except SealedError:
            self._worker.kill()
            raise

    def _require_as_asked(self, fields: dict[str, JSON]) -> None:
        if fields.get("definition") != self._definition:
            raise self._refused("the worker trains another model than it was told to")
        if fields.get("noise_generator") != self.noise_generator:
            raise self._refused("the worker draws from another generator than it was told to")

    def _refused(self, what: str) -> SealedError:
        self._worker.kill()
        return protocol_error(what)
