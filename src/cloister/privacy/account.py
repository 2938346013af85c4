"""Who pays for what is done to private records: a spend is reserved before the work and settled after it.

Rules kept here:

1. What is made is handed out only once its spend is settled and stated. A ledger that is set back to before a
   spend is noticed by the statement of it; a spend that nobody stated could be undone. Who states it is
   given to the account, as :func:`cloister.federation.site_account.site_account` does.
2. What is counted, one value of each unit, is counted by the unit that the ledger protects, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cloister.core.hashes import Sha256
from cloister.evidence.transcript import Event, Unit, times
from cloister.privacy.budget import Limit
from cloister.privacy.errors import PrivacyError
from cloister.privacy.ledger import Purpose, Reservation

Result = TypeVar("Result")


class SpendLedger(Protocol):
    """What an account needs of a budget ledger."""

    @property
    def unit(self) -> Unit:
        """What the ledger protects."""
        ...

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


def unstated(reservation: Reservation, noise_generator: str) -> None:
    """State nothing: of a ledger that is thrown away, or whose heads nobody holds against it."""
    del reservation, noise_generator


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays.

    Args:
        ledger: The dataset's ledger.
        dataset_sha256: Commitment to the records as they are now.
        job_id: The job that asks.
        round_number: Its round.
        limits: Ceilings of manifest and job; the ledger adds the hard stop.
        state: States a spend once it is settled, with the name of the generator that made its noise. What it
            raises keeps the result from being handed out.
    """

    ledger: SpendLedger
    dataset_sha256: Sha256
    job_id: str
    round_number: int
    limits: Sequence[Limit]
    state: Callable[[Reservation, str], None] = unstated

    def require_unit(self, unit: Unit) -> None:
        """Refuse work that counts by another unit than the ledger protects.

        Raises:
            PrivacyError: ``privacy.wrong_unit``.
        """
        if unit != self.ledger.unit:
            raise PrivacyError(
                "privacy.wrong_unit",
                f"The budget protects a {self.ledger.unit}, and this counts one value of each {unit}.",
                "Make one value of each protected unit first; a person may have many records.",
            )

    def pay(
        self,
        event: Event,
        purpose: Purpose,
        work: Callable[[], Result],
        *,
        unit: Unit,
        noise_generator: str,
    ) -> Result:
        """Reserve an event, do the work, settle the event as done in full, and state it.

        Args:
            event: What it costs.
            purpose: What the spend is for; whoever does the work says it.
            work: What may be done once it is reserved.
            unit: What the event's neighbouring datasets differ by.
            noise_generator: Name of the generator that makes the noise.

        Raises:
            BudgetExceeded: A limit would be passed; the work isn't done.
            PrivacyError: ``privacy.wrong_unit``; the work isn't done.
        """
        return self.pay_all((event,), purpose, work, unit=unit, noise_generator=noise_generator)

    def pay_all(
        self,
        events: Sequence[Event],
        purpose: Purpose,
        work: Callable[[], Result],
        *,
        unit: Unit,
        noise_generator: str,
    ) -> Result:
        """Reserve several events together, do the work, settle them as done in full, and state each.

        Args:
            events: What it costs, all together.
            purpose: What the spends are for.
            work: What may be done once all are reserved.
            unit: As in :meth:`pay`.
            noise_generator: As in :meth:`pay`.

        Raises:
            BudgetExceeded: A limit would be passed; the work isn't done, and nothing was spent.
            PrivacyError: ``privacy.wrong_unit``; the work isn't done.
        """
        self.require_unit(unit)
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
            self.state(reservation, noise_generator)
        return result
