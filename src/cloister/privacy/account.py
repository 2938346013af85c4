"""Who pays for what is done to private records: a spend is reserved before the work and settled after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cloister.core.hashes import Sha256
from cloister.evidence.transcript import Event, times
from cloister.privacy.budget import Limit
from cloister.privacy.ledger import Purpose, Reservation

Result = TypeVar("Result")


class SpendLedger(Protocol):
    """What an account needs of a budget ledger."""

    def reserve_all(
        self,
        events: Sequence[Event],
        *,
        dataset_sha256: Sha256,
        job_id: str,
        round_number: int,
        purpose: Purpose,
        limits: Sequence[Limit],
    ) -> tuple[Reservation, ...]:
        """Hold spends as spent, durably, all of them or none."""
        ...

    def settle(self, reservation: Reservation, executed: int) -> Event | None:
        """Replace what was reserved by what was done."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays.

    Args:
        ledger: The dataset's ledger.
        dataset_sha256: Commitment to the records as they are now.
        job_id: The job that asks.
        round_number: Its round.
        limits: Ceilings of manifest and job; the ledger adds the hard stop.
    """

    ledger: SpendLedger
    dataset_sha256: Sha256
    job_id: str
    round_number: int
    limits: Sequence[Limit]

    def pay(self, event: Event, purpose: Purpose, work: Callable[[], Result]) -> Result:
        """Reserve an event, do the work, and settle the event as done in full.

        Args:
            event: What it costs.
            purpose: What the spend is for; whoever does the work says it.
            work: What may be done once it is reserved.

        Raises:
            BudgetExceeded: A limit would be passed; the work isn't done.
        """
        return self.pay_all((event,), purpose, work)

    def pay_all(self, events: Sequence[Event], purpose: Purpose, work: Callable[[], Result]) -> Result:
        """Reserve several events, do the work, and settle them as done in full.

        Args:
            events: What it costs, all together.
            purpose: What the spends are for.
            work: What may be done once all are reserved.

        Raises:
            BudgetExceeded: A limit would be passed; the work isn't done, and nothing was spent.
        """
        reservations = self.ledger.reserve_all(
            events,
            dataset_sha256=self.dataset_sha256,
            job_id=self.job_id,
            round_number=self.round_number,
            purpose=purpose,
            limits=self.limits,
        )
        result = work()
        for reservation in reservations:
            self.ledger.settle(reservation, times(reservation.event))
        return result
