"""A site's node: its data, budget, airlock, key and log, and what it does in a round.

Rules, in the order of a round:
0. The site compiles the job it agreed to by itself. Until a back end has shown it a folder with the same
   content, it proves nothing and trains nothing; a hash that travels inside a folder says nothing about it.
1. Nothing happens out of turn: rounds come one after the other, from the first, and only for the job this
   site agreed to. The first begins with the weights that the job's model and public seed give, or not at all.
   Each comes with the hub's log, which must be proven to continue what this site has seen of it; else nothing
   is done, and that is stated.
2. The round's cost is reserved in the dataset's ledger, durably, before the first gradient; where plans are
   fixed in advance, all rounds' cost before the first round's. A round over any limit does not start; the
   refusal is stated.
3. Noise and sampling come from this site's own source. Nothing in a job or a message can choose it.
4. After training the ledger is settled with the steps that were executed, and the spend is stated, also when
   the training failed or was stopped: a step that touched records is never forgotten. A call that the seal
   forbids ends the worker and is stated once, whenever it is made: by the worker's making, by its end or
   between.
5. What leaves is what the airlock rebuilt, and the release is stated before it leaves, together with what
   the site holds of the hub's log since the round began. What the airlock refuses is stated too. With the
   update goes what the site shows of its own log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from cloister.core.errors import CloisterError, SignatureInvalid
from cloister.core.hashes import Sha256, sha256_hex
from cloister.enclave.airlock import screen
from cloister.enclave.airlock_policy import AirlockPolicy
from cloister.enclave.attestation import Binding, Evidence
from cloister.enclave.change import Received
from cloister.enclave.errors import AirlockViolation, SealBroken
from cloister.enclave.sealed import SealViolation
from cloister.enclave.sealed.destruction import DestructionRecord, state_destruction
from cloister.enclave.tensors import tensors_sha256
from cloister.evidence.checks import escaped
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import UpdateReleased, Violation
from cloister.evidence.statement import Subject
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.evidence.transcript import SampledGaussian
from cloister.evidence.writer import StatementWriter
from cloister.federation.compile import JobFolder, compile_job
from cloister.federation.errors import FederationError, JobError, RefusalError
from cloister.federation.exchange import SiteLogs
from cloister.federation.job import FederationJob
from cloister.federation.node import Abort, Challenge, ReleasedUpdate, RoundTask
from cloister.federation.site_airlock import OutputTerms, job_airlock, output_statement
from cloister.federation.site_budget import SiteBudget
from cloister.federation.site_plan import plan_round, units_of
from cloister.federation.site_training import SiteTraining, TrainerFor
from cloister.health import SiteRecords
from cloister.privacy.budget import Limit, check_delta, check_group
from cloister.privacy.errors import BudgetExceeded
from cloister.privacy.ledger import BudgetLedger, Reservation
from cloister.privacy.mock import require_mock_allowed
from cloister.privacy.models import build_model, check_model, load_arrays, state_arrays
from cloister.privacy.trainer import TrainingPlan


class Platform(Protocol):
    """The machine's attestation device."""

    def quote(self, report_data: bytes) -> Evidence:
        """Signs 64 bytes together with the measurement of the code that runs."""
        ...


class SiteRuntime:
    """The `SiteNode` of one hospital in one job.

    Args:
        job: the job this site agreed to.
        data: its records.
        classes: number of classes of the labels.
        ledger: the budget ledger of these records.
        statements: the writer of this site's statements in this job.
        logs: takes what the hub shows of its log, and shows this site's.
        site_key_id: key id of the site's public key, to which its evidence is bound.
        platform: its attestation device.
        trainer: where its rounds are trained: sealed, unless a caller names another place.
        limits: ceilings of the hospital's manifest; the job's target epsilon is added, over this job alone.
        outputs: what that manifest lets out, and which one it is.
        minimum_units: fewest records or subjects that may be trained on.

    Raises:
        JobError: `federation.wrong_delta`, or `federation.wrong_unit` if subjects are protected and the
            records don't say whose they are.
        PrivacyError: the plan or the delta is impossible for this many units, or the job is a mock and this
            machine doesn't allow one.
        ModelError: the job's model cannot be built, or mixes records; nothing was reserved.
    """

    def __init__(
        self,
        job: FederationJob,
        data: SiteRecords,
        classes: int,
        *,
        ledger: BudgetLedger,
        statements: StatementWriter,
        logs: SiteLogs,
        site_key_id: str,
        platform: Platform,
        trainer: TrainerFor,
        limits: Sequence[Limit],
        outputs: OutputTerms,
        minimum_units: int = 2,
    ) -> None:
        if job.privacy.mechanism == MOCK_MECHANISM:
            require_mock_allowed()
        units = units_of(data, ledger.unit)
        check_group(units, minimum_units)
        check_delta(ledger.delta, units)
        if ledger.delta > job.privacy.delta:
            raise JobError(
                "federation.wrong_delta",
                f"the ledger of {data.name} counts with a larger delta than the job asks for",
                "state the ledger's delta in the job",
            )
        self._job = job
        self._data = data
        self._statements = statements
        self._logs = logs
        self._site_key_id = site_key_id
        self._platform = platform
        self._plan = plan_round(job, units, ledger.delta, ledger.mode)
        self._budget = SiteBudget(job, data, self._plan, ledger=ledger, statements=statements, limits=limits)
        self._model = build_model(
            job.model.architecture,
            len(data.feature_names),
            classes,
            job.seed,
            job.model.model_dump(mode="json")["parameters"],
        )
        check_model(self._model, len(data.feature_names))
        start = state_arrays(self._model)
        self._start_sha256 = tensors_sha256(start)
        self._outputs = outputs
        self._airlock = job_airlock(outputs, start, self._plan, units, job.rounds)
        self._ended = False
        self._accepted = False
        self._last_round = -1
        self._received: Received = {}
        self._received_sha256 = ""
        self.job_sha256 = job.sha256
        self._trainer = trainer(
            SiteTraining(
                job,
                data,
                classes,
                ledger.unit,
                self._plan,
                start,
                on_violation=self._state_seal_violation,
                on_destruction=self._state_destruction,
            )
        )

    @property
    def site(self) -> str:
        """The hospital's name."""
        return self._data.name

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._job.job_id

    @property
    def plan(self) -> TrainingPlan:
        """What one round is here."""
        return self._plan

    @property
    def whole_plan(self) -> SampledGaussian:
        """What all rounds of the job are here together."""
        return self._budget.whole_plan

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The ceilings each round here is reserved under; the ledger adds its hard stop."""
        return self._budget.limits

    @property
    def airlock(self) -> AirlockPolicy:
        """What may leave here."""
        return self._airlock

    def epsilon_spent(self) -> float:
        """Epsilon of this job's spends at the ledger's delta."""
        return self._budget.epsilon_spent()

    def accept_folder(self, folder: JobFolder) -> None:
        """Compares the folder that arrived with what this site's own job compiles to.

        Raises:
            RefusalError: `federation.foreign_folder`; that is stated.
        """
        if folder.sha256 != compile_job(self._job).sha256:
            refusal = RefusalError(
                "federation.foreign_folder",
                "the job folder that arrived is not what the agreed job compiles to",
                "the hub has to send the folder that `compile_job` makes of the job, with the same release",
            )
            self._state_violation(refusal, folder.sha256)
            raise refusal
        self._accepted = True

    def quote(self, challenge: Challenge) -> bytes:
        """Evidence bound to the challenge, this site's key and the job this site agreed to.

        Raises:
            FederationError: `federation.bad_task` for a challenge that belongs to another job, or before the
                job's folder was accepted.
        """
        self._require_accepted()
        if challenge.job_id != self._job.job_id:
            raise FederationError("federation.bad_task", "a challenge belongs to another job")
        binding = Binding(challenge.nonce, self._site_key_id, challenge.job_id, challenge.policy_id)
        return self._platform.quote(binding.report_data()).encode()

    def hub_log_seen(self) -> int:
        """How many entries of the hub's log this site has seen."""
        return self._logs.hub_size()

    def train_round(self, task: RoundTask, abort: Abort) -> Mapping[str, object]:
        """Reserves, trains, settles and states; see the module's rules.

        Raises:
            BudgetExceeded: the round does not fit the budget; nothing was done.
            FederationError: `federation.bad_task` out of turn, `federation.aborted` when stopped.
            RefusalError: `federation.foreign_start` if the first round has other weights than the job's.
            EvidenceError: the hub's log isn't proven to continue what this site has seen of it.
            ReleaseError: the hospital's keeper refused the worker its key; nothing was reserved.
            ModelError: the weights are not the model's.
        """
        self._require_accepted()
        if task.round != self._last_round + 1 or task.round >= self._job.rounds:
            raise FederationError("federation.bad_task", "a round comes out of turn")
        if abort():
            raise FederationError("federation.aborted", "the round was stopped before it began")
        self._take_hub_log(task)
        weights = cast("Mapping[str, npt.NDArray[np.float32]]", task.weights)
        load_arrays(self._model, weights)
        received = tensors_sha256(task.weights)
        if task.round == 0:
            self._require_own_start(received)
        self._trainer.require_key()
        reservation = self._reserve(task.round)
        self._last_round = task.round
        self._received, self._received_sha256 = task.weights, received
        executed = self._plan.steps
        trained = None
        try:
            trained = self._trainer.train(weights, abort)
            executed = trained.executed_steps
        finally:
            self._budget.settle(
                reservation, task.round, executed, noise_generator=self._trainer.noise_generator
            )
        if trained.aborted:
            raise FederationError("federation.aborted", "the round was stopped between two batches")
        return {"params": trained.params}

    def release(self, round_number: int, update: Mapping[str, object]) -> ReleasedUpdate:
        """Screens a raw result and states what leaves.

        Raises:
            AirlockViolation: something in it may not leave; nothing does, and that is stated.
            FederationError: `federation.bad_task` for a round whose task didn't come; nothing leaves.
        """
        hub_log = self._logs.taken(round_number)
        try:
            screened = screen(update, self._airlock, received=self._received)
        except AirlockViolation as violation:
            self._state_violation(violation)
            raise
        self._statements.write(
            UpdateReleased,
            [Subject(f"update/{self.site}/{round_number}", Sha256(screened.sha256))],
            round=round_number,
            hub_log=hub_log,
            model_sha256=self._received_sha256,
            **output_statement(screened, self._airlock, self._outputs, self._site_key_id),
        )
        return ReleasedUpdate(screened.tensors, screened.sha256, screened.scalars, self._logs.show())

    def end(self) -> None:
        """Destroy what trained here, and state what was done and looked at.

        Once that is stated, later calls do nothing; until then, each tries again.

        Raises:
            EvidenceError: the statement can't be written; the worker is dead all the same.
        """
        if self._ended:
            return
        record = self._trainer.close()
        if record is not None:
            self._state_destruction(record)
        self._ended = True

    def _require_accepted(self) -> None:
        if not self._accepted:
            raise FederationError("federation.bad_task", "no folder of the job was accepted at this site")

    def _take_hub_log(self, task: RoundTask) -> None:
        try:
            self._logs.take(task.round, task.hub_log)
        except (EvidenceError, SignatureInvalid) as refusal:
            self._state_violation(refusal, sha256_hex(task.hub_log))
            raise

    def _require_own_start(self, received: str) -> None:
        if received == self._start_sha256:
            return
        refusal = RefusalError(
            "federation.foreign_start",
            "the weights to start from are not those of the job's model and seed",
            "the hub has to start from `initial_weights` of the job that the sites agreed to",
        )
        self._state_violation(refusal, received)
        raise refusal

    def _reserve(self, round_number: int) -> Reservation:
        try:
            return self._budget.reserve(round_number)
        except BudgetExceeded as refusal:
            self._state_violation(refusal)
            raise

    def _state_seal_violation(self, violation: SealViolation) -> None:
        # Called by the host of sealed workers, from a thread of its own.
        self._state_violation(SealBroken("sealed.violation", violation.sentence))

    def _state_destruction(self, record: DestructionRecord) -> None:
        subject = Subject(f"sealed worker of {self.site}", sha256_hex(self._job.canonical()))
        state_destruction(self._statements, record, subject)

    def _state_violation(self, error: CloisterError, artifact_sha256: str | None = None) -> None:
        detail = "; ".join([error.message, *error.details])
        self._statements.write(
            Violation,
            [Subject(f"job {self._job.job_id}", sha256_hex(self._job.canonical()))],
            rule=error.code,
            detail=escaped(detail)[:500],
            artifact_sha256=artifact_sha256,
        )
