"""What a job's rounds cost at one site: held before each, settled and stated after it.

Rules kept here:

1. A round's cost is reserved in the dataset's ledger, durably, before the first gradient; where plans are
   fixed in advance, all rounds' cost before the first round's.
2. Afterwards the ledger is settled with the steps that were executed, and the spend is stated. Of a fixed
   plan each round counts in full, whatever was executed.
3. The first statement names what other jobs had done to the dataset before.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.core.hashes import Sha256
from cloister.evidence.predicates import BudgetSpend
from cloister.evidence.statement import Subject
from cloister.evidence.transcript import FIXED_PLAN, RELATION, Event, coalesce, event_to_json, repeated
from cloister.evidence.writer import StatementWriter
from cloister.federation.job import FederationJob
from cloister.federation.site_plan import plan_job
from cloister.health import SiteRecords
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.ledger import BudgetLedger, Purpose, Reservation
from cloister.privacy.modes import epsilon_in
from cloister.privacy.trainer import TrainingPlan


class SiteBudget:
    """The account of one job in a dataset's ledger.

    Args:
        job: the job.
        data: whose budget it is.
        plan: what one round is.
        ledger: the budget ledger of these records.
        statements: the writer of the site's statements in this job.
        limits: ceilings of the hospital's manifest; the job's target epsilon is added, over this job alone.

    Attributes:
        limits: the ceilings each round is reserved under; the ledger adds its hard stop.
        whole_plan: what all rounds of the job are together.
    """

    def __init__(
        self,
        job: FederationJob,
        data: SiteRecords,
        plan: TrainingPlan,
        *,
        ledger: BudgetLedger,
        statements: StatementWriter,
        limits: Sequence[Limit],
    ) -> None:
        self._job = job
        self._data = data
        self._plan = plan
        self._ledger = ledger
        self._statements = statements
        self.limits = (*limits, Limit("job target", job.privacy.target_epsilon, Scope.JOB))
        self.whole_plan = plan_job(job, plan)
        self._spent: list[Event] = list(ledger.events(job.job_id))
        self._stated_prior = bool(self._spent)
        self._fixed: Reservation | None = None
        self._executed = 0

    def epsilon_spent(self) -> float:
        """Epsilon of this job's spends at the ledger's delta."""
        return epsilon_in(self._ledger.mode, self._spent, self._ledger.delta)

    def reserve(self, round_number: int) -> Reservation:
        """Hold the cost of a round, or that of a whole fixed plan.

        Args:
            round_number: from 0.

        Raises:
            BudgetExceeded: it doesn't fit the budget; nothing was spent.
        """
        if self._fixed is not None:
            return self._fixed
        fixed = self._ledger.mode == FIXED_PLAN
        reservation = self._ledger.reserve(
            self.whole_plan if fixed else self._plan.event,
            dataset_sha256=Sha256(self._data.dataset_sha256),
            job_id=self._job.job_id,
            round_number=round_number,
            purpose=Purpose.TRAINING,
            limits=self.limits,
        )
        self._fixed = reservation if fixed else None
        return reservation

    def settle(
        self, reservation: Reservation, round_number: int, executed: int, *, noise_generator: str
    ) -> None:
        """Settle a round and state its spend; a round without a step is neither spent nor stated.

        Args:
            reservation: what was held.
            round_number: from 0.
            executed: the steps that touched records.
            noise_generator: name of the generator that made the noise.
        """
        self._executed += executed
        steps, spent = self._plan.steps, self._spent
        if self._fixed is None:
            charged = self._ledger.settle(reservation, executed)
            if charged is None:
                return
            event, steps = charged, executed
            spent = [*spent, event]
        else:
            if round_number == self._job.rounds - 1:
                self._ledger.settle(reservation, self._executed)
            event = repeated(reservation.event, steps)
            spent = [reservation.event]
        prior = [] if self._stated_prior else self._ledger.prior_events(self._job.job_id)
        self._spent = list(coalesce(spent))
        self._statements.write(
            BudgetSpend,
            [Subject(f"dataset/{self._data.name}", Sha256(self._data.dataset_sha256))],
            round=round_number,
            purpose="training",
            event=event_to_json(event),
            delta=self._ledger.delta,
            unit=self._ledger.unit,
            relation=RELATION,
            mode=self._ledger.mode,
            plan_steps=None if self._fixed is None else self.whole_plan.steps,
            reserved_steps=self._plan.steps,
            executed_steps=steps,
            dataset_sha256=self._data.dataset_sha256,
            noise_generator=noise_generator,
            ledger_head=self._ledger.head,
            prior_events=[event_to_json(one) for one in prior],
        )
        self._stated_prior = True
