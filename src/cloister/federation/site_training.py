"""Where a site's rounds are trained: in a sealed worker, or, for tests and simulators, in the node's process.

The node decides when a round is trained, and what it costs; a `RoundTrainer` has the records and does it.
Rules kept here:

1. Sealed is what sites do, and the key to the records goes from the hospital's keeper to the worker or
   nowhere; an insecure run has no key. The trainer in the node's own process is another function that a
   caller has to name; nothing chooses it by itself where a worker can't be had.
2. Both train the same: from one seeded test source, to the same bits.
3. Noise and batches come from the site's own source, and what kind that is goes into every spend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from cloister.enclave.errors import ReleaseError
from cloister.enclave.sealed import (
    DestructionRecord,
    OsStreams,
    SealedHost,
    SealedTrainer,
    SealPolicy,
    SeededTestStreams,
    TrainingSetup,
)
from cloister.enclave.sealed.ends import ViolationSink
from cloister.enclave.sealed.trainer import TASK, TrainedRound
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.evidence.transcript import Unit
from cloister.federation.handover import Handover
from cloister.federation.job import FederationJob
from cloister.federation.node import Abort
from cloister.health import SiteRecords, require_readable
from cloister.health.schema import TableSchema
from cloister.privacy.mock import MockTrainer
from cloister.privacy.models import build_model, load_arrays, state_arrays
from cloister.privacy.randomness import OsRandom, RandomSource
from cloister.privacy.testing import SeededTestRandom
from cloister.privacy.trainer import DPTrainer, TrainingData, TrainingPlan

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

Weights32 = Mapping[str, npt.NDArray[np.float32]]
DestructionSink = Callable[[DestructionRecord], None]
RandomnessFor = Callable[[str], RandomSource]
"""Gives the stream for a purpose ("noise", "sampling")."""


@dataclass(frozen=True)
class SiteTraining:
    """What a site trains in one job.

    Attributes:
        job: the job it agreed to.
        data: its records.
        classes: number of classes of the labels.
        unit: what its ledger protects.
        plan: what one round is here.
        start: the weights that the job's model and public seed give.
        on_violation: states that its sealed worker made a forbidden call, whenever it does.
        on_destruction: states the end of a sealed worker that never became a trainer.
    """

    job: FederationJob
    data: SiteRecords
    classes: int
    unit: Unit
    plan: TrainingPlan
    start: Weights32
    on_violation: ViolationSink
    on_destruction: DestructionSink

    @property
    def parameters(self) -> dict[str, JSON]:
        """The model's public parameters."""
        parameters: dict[str, JSON] = self.job.model.model_dump(mode="json")["parameters"]
        return parameters


class RoundTrainer(Protocol):
    """Trains the rounds of one job at one site."""

    @property
    def noise_generator(self) -> str:
        """The generator's name for the statement of each spend."""
        ...

    def require_key(self) -> None:
        """Refuse before anything is reserved for a round.

        Raises:
            ReleaseError: ``release.refused``: it has no key to the records.
        """
        ...

    def train(self, weights: Weights32, abort: Abort) -> TrainedRound:
        """Train one round from these weights.

        Raises:
            CloisterError: It failed; how many steps touched the records is unknown then.
        """
        ...

    def close(self) -> DestructionRecord | None:
        """Give back what it holds.

        Returns:
            What was destroyed, and what was looked at; None where there was nothing to destroy.
        """
        ...


TrainerFor = Callable[[SiteTraining], RoundTrainer]
"""Makes a site's trainer, once its plan is known; refuses what a round would refuse."""


def os_randomness(site: str, job_id: str) -> RandomnessFor:
    """Streams keyed by the operating system's entropy: the only ones that protect anybody."""
    return lambda purpose: OsRandom(site, job_id, purpose)


def seeded_test_randomness(seed: int, site: str) -> RandomnessFor:
    """Streams that repeat, for tests. Every spend states that they were used, and receipts fail for it."""
    return lambda purpose: SeededTestRandom(seed, site, purpose)


def sealed_training(
    host: SealedHost, schema: TableSchema, policy: SealPolicy, handover: Handover, *, test_seed: int | None
) -> TrainerFor:
    """Trainers in sealed workers.

    The records go to the worker encrypted, under a key that the hospital's keeper releases to the key pair
    which the worker made behind its seal, if the machine attests itself. Where the keeper refuses, there is a
    trainer that trains nothing: the hub judges the machine by itself, and others may go on without the site.
    In a run that was started as insecure there is no keeper and no key.

    Args:
        host: forks and seals the workers.
        schema: what is declared of the records; the worker holds them against it.
        policy: which levels of sealing are acceptable here.
        handover: the hospital's keeper, with the site's machine; or what an insecure run has instead.
        test_seed: None takes noise and batches from the operating system's entropy, in the worker.
    """

    def make(training: SiteTraining) -> RoundTrainer:
        return _SealedRounds(host, schema, policy, handover, test_seed, training)

    return make


def training_in_this_process(randomness: RandomnessFor) -> TrainerFor:
    """Trainers in the caller's own process, for tests and simulators: whoever reads its memory reads the
    records.

    Args:
        randomness: where noise and batches come from.
    """

    def make(training: SiteTraining) -> RoundTrainer:
        return _RoundsHere(training, randomness)

    return make


class _SealedRounds:
    def __init__(
        self,
        host: SealedHost,
        schema: TableSchema,
        policy: SealPolicy,
        handover: Handover,
        test_seed: int | None,
        training: SiteTraining,
    ) -> None:
        job, site = training.job, training.data.name
        streams = OsStreams(site, job.job_id) if test_seed is None else SeededTestStreams(site, test_seed)
        setup = TrainingSetup(
            mechanism=job.privacy.mechanism,
            unit=training.unit,
            architecture=job.model.architecture,
            seed=job.seed,
            parameters=training.parameters,
            start=training.start,
            plan=training.plan,
            streams=streams,
        )
        self._refusal: ReleaseError | None = None
        worker = host.worker(TASK, policy=policy, on_violation=training.on_violation)
        try:
            self._trainer = SealedTrainer(worker, setup)
            handover.state_seal(worker)
            handover.give(self._trainer, job.job_id, training.data, schema)
            self._trainer.prepare()
        except BaseException as error:
            # It may hold records already: it wipes them, as at the end of a job.
            record = worker.close()
            if not isinstance(error, ReleaseError) or error.code != "release.refused":
                training.on_destruction(record)
                raise
            self._refusal = error

    @property
    def noise_generator(self) -> str:
        return self._trainer.noise_generator

    def require_key(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def train(self, weights: Weights32, abort: Abort) -> TrainedRound:
        return self._trainer.train(weights, abort)

    def close(self) -> DestructionRecord:
        return self._trainer.worker.close()


class _RoundsHere:
    def __init__(self, training: SiteTraining, randomness: RandomnessFor) -> None:
        job = training.job
        data = require_readable(training.data, "Training in the node's own process")
        subjects = data.subjects.copy() if training.unit == "subject" and data.subjects is not None else None
        # Copies, because torch warns of arrays that are read-only, as a site's are.
        self._data = TrainingData(data.features.copy(), data.labels.copy(), subjects)
        self._model = build_model(
            job.model.architecture, data.features.shape[1], training.classes, job.seed, training.parameters
        )
        make = MockTrainer if job.privacy.mechanism == MOCK_MECHANISM else DPTrainer
        self._trainer = make(training.plan, noise=randomness("noise"), sampling=randomness("sampling"))
        self._trainer.check(self._model, self._data)

    @property
    def noise_generator(self) -> str:
        return self._trainer.noise_generator

    def require_key(self) -> None:
        pass

    def train(self, weights: Weights32, abort: Abort) -> TrainedRound:
        load_arrays(self._model, weights)
        fit = self._trainer.fit(self._model, self._data, abort=abort)
        return TrainedRound(state_arrays(self._model), fit.executed_steps, fit.aborted)

    def close(self) -> None:
        return None
