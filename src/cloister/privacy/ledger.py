"""The budget ledger: what was ever done to one dataset, and the door that no spend passes over a limit.

Rules kept here:

1. One ledger per dataset, at the site that owns it, outside every job's folder: a SQLite file, or a schema
   in PostgreSQL. It outlives jobs, rounds and models. A dataset is what its hospital declares under one name,
   not a hash of its content: one more row, rows in another order or another split are still the same
   patients, and charge the same ledger.
2. ``reserve`` is durable before the first gradient; ``settle`` gives back the steps that did not happen. A
   crash leaves the reservation spent.
3. Every reservation, open or settled, counts against every limit. The hard stop over the whole dataset is
   always one of them. The check and the entry are one transaction, so concurrent jobs can't overspend
   together; spends that are asked for together are held together or not at all. A ledger holds no more
   different mechanisms than a statement of earlier spends can name, or some spend could not be stated.
4. Entries are events, never epsilons, and form a hash chain that is checked from the first entry when the
   file is opened, and from the last known entry in each transaction.
5. Closed on error: a ledger that is missing, damaged, of another dataset or of a newer version is refused,
   and never replaced. Making a ledger is a separate, deliberate act.

6. Time goes forward: with a clock that stands before the newest entry nothing is reserved. A settlement is
   written all the same, at the newest entry's time.

A ledger's mode and unit are fixed when it is made. ``adaptive`` admits by Renyi composition at one order for
each limit, a function of the limit and delta, which keeps the limit when jobs are chosen after seeing earlier
results (Feldman and Zrnic 2021), and so gives back unused steps.
``fixed_plan`` admits by privacy loss distributions, which is tighter and valid where plans were fixed in
advance: each is reserved as a whole, before its first gradient, and nothing of it is given back.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cloister.core.clock import Clock, format_time, parse_time, system_clock
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256, is_sha256
from cloister.evidence.transcript import ADAPTIVE, FIXED_PLAN, Event, Mode, Unit
from cloister.privacy.budget import HARD_STOP, Limit, PrivacyBudget, PrivacyUnit
from cloister.privacy.errors import BudgetExceeded, LedgerError
from cloister.privacy.ledger_entries import (
    VERSION,
    Header,
    Purpose,
    Recorded,
    Reserved,
    Settled,
    is_dataset_name,
    resize,
)
from cloister.privacy.ledger_file import damaged
from cloister.privacy.ledger_limits import limits_passed, mechanisms_passed
from cloister.privacy.ledger_reading import LedgerReading
from cloister.privacy.ledger_store import LedgerStore, Place
from cloister.privacy.modes import require_mode

__all__ = ["BudgetLedger", "Purpose", "Reservation"]

CLOCK_TOLERANCE: Final = timedelta(seconds=5)
"""How far a clock may step back, as when it is set by another one."""

_LONGEST_JOB_ID: Final = 200


@dataclass(frozen=True, slots=True)
class Reservation:
    """A spend that the ledger holds as spent until it is settled.

    Args:
        id: The ledger's name for it.
        event: What may be done under it.
        job_id: The job it belongs to.
        round_number: The job's round, from 0.
        purpose: What the spend is for.
    """

    id: str
    event: Event
    job_id: str
    round_number: int
    purpose: Purpose


class BudgetLedger(LedgerReading):
    """The ledger of one dataset; made by :meth:`create`, used by :meth:`open`.

    Safe for threads of one process and for many processes on one ledger. Close it, or use it as a context
    manager.
    """

    def __init__(self, store: LedgerStore, clock: Clock) -> None:
        """Use :meth:`open`; this only takes what it checked."""
        super().__init__(store)
        self._clock = clock

    @classmethod
    def create(
        cls,
        place: Place,
        dataset: str,
        delta: float,
        *,
        mode: Mode = ADAPTIVE,
        unit: Unit = "record",
        holder: str = "",
        clock: Clock = system_clock,
    ) -> BudgetLedger:
        """Make the ledger of a dataset, once.

        Args:
            place: A file whose folder exists, or the URL of a PostgreSQL database.
            dataset: The name its hospital declares for it.
            delta: The delta every epsilon of this dataset is taken at, in (0, 1).
            mode: How its spends are composed.
            unit: What it protects.
            holder: Who holds the dataset; keeps ledgers apart that share a database.
            clock: Time of the entries.

        Raises:
            LedgerError: ``ledger.exists``.
            PrivacyError: ``privacy.budget_invalid`` for an impossible delta or unit,
                ``privacy.accountant_refused`` for an unknown mode.
            StorageError: It can't be written; nothing is left behind.
        """
        PrivacyBudget(HARD_STOP.epsilon, delta, PrivacyUnit(unit))
        if not is_dataset_name(dataset):
            raise InputError(
                "input.schema",
                "A dataset with a budget needs a plain name.",
                "Declare up to 63 lower-case letters, digits and hyphens, a letter first.",
            )
        header = Header(VERSION, dataset, delta, require_mode(mode), unit)
        LedgerStore.create(place, holder, dataset, header.to_json(format_time(clock())))
        return cls.open(place, dataset, holder=holder, clock=clock)

    @classmethod
    def open(
        cls, place: Place, dataset: str, *, holder: str = "", clock: Clock = system_clock
    ) -> BudgetLedger:
        """Open a dataset's ledger and check every entry.

        Args:
            place: Where :meth:`create` made it.
            dataset: The declared name of the dataset that is about to be used.
            holder: As :meth:`create` was told.
            clock: Time of the entries.

        Raises:
            LedgerError: ``ledger.missing``, ``ledger.corrupt``, ``ledger.other_dataset``,
                ``ledger.newer_version``.
            StorageError: It can't be opened now.
        """
        ledger = cls(LedgerStore.open(place, holder, dataset), clock)
        try:
            with ledger._reading():
                pass
            ledger._require_dataset(dataset)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def reserve(
        self,
        event: Event,
        *,
        dataset_sha256: Sha256,
        job_id: str,
        round_number: int,
        purpose: Purpose,
        limits: Sequence[Limit],
    ) -> Reservation:
        """Hold a spend as spent, durably, before anything is done to the records.

        Args:
            event: The most that will be done.
            dataset_sha256: Commitment to the records as they are now; noted, it decides nothing.
            job_id: The job it belongs to.
            round_number: The job's round, from 0.
            purpose: What the spend is for.
            limits: Ceilings of manifest and job; the hard stop is added.

        Returns:
            The reservation to settle afterwards.

        Raises:
            BudgetExceeded: A limit would be passed; details name each one. Nothing was spent.
                ``ledger.too_many_mechanisms`` where statements could no longer name what was spent.
            LedgerError: ``ledger.corrupt`` if it was damaged since it was opened, ``ledger.clock_backwards``.
            StorageError: The entry could not be made durable. Nothing was spent.
        """
        (reservation,) = self.reserve_all(
            (event,),
            dataset_sha256=dataset_sha256,
            job_id=job_id,
            round_number=round_number,
            purpose=purpose,
            limits=limits,
        )
        return reservation

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
        """Hold several spends as spent, all of them or none, in one transaction.

        Args:
            events: The most that will be done, together.
            dataset_sha256: As in :meth:`reserve`, and so are the rest.
            job_id: The job they belong to.
            round_number: The job's round, from 0.
            purpose: What the spends are for.
            limits: Ceilings of manifest and job; the hard stop is added.

        Returns:
            The reservations to settle afterwards, in the order of the events.

        Raises:
            BudgetExceeded: Together they would pass a limit. Nothing was spent.
            LedgerError: As for :meth:`reserve`.
            StorageError: The entries could not be made durable. Nothing was spent.
        """
        if not 1 <= len(job_id) <= _LONGEST_JOB_ID or type(round_number) is not int or round_number < 0:
            raise InputError("input.schema", "A reservation needs a job id and a round number of 0 or more.")
        if not is_sha256(dataset_sha256):
            raise InputError("input.schema", "A reservation needs the commitment to the records it is for.")
        entries = [
            Reserved(uuid.uuid4().hex, event, dataset_sha256, job_id, round_number, purpose)
            for event in events
        ]
        self._write(entries, lambda: self._admit(events, job_id, limits))
        return tuple(Reservation(entry.id, entry.event, job_id, round_number, purpose) for entry in entries)

    def _admit(self, events: Sequence[Event], job_id: str, limits: Sequence[Limit]) -> None:
        self._require_later()
        crowded = mechanisms_passed(self._state.mechanisms, events)
        if crowded:
            raise BudgetExceeded(
                "ledger.too_many_mechanisms",
                "The ledger can't hold one more kind of spend, so nothing was done.",
                "Use a sampling probability and a noise multiplier that were used on this dataset before.",
                details=[crowded],
            )
        exceeded = limits_passed(self._state, events, job_id, [*limits, HARD_STOP])
        if exceeded:
            raise BudgetExceeded(
                "ledger.budget_exceeded",
                "The privacy budget does not allow this spend, so nothing was done.",
                "Ask for fewer steps or more noise; a spent budget does not come back.",
                details=exceeded,
            )

    def settle(self, reservation: Reservation, executed: int) -> Event | None:
        """Replace what was reserved by what was done.

        Args:
            reservation: From :meth:`reserve`.
            executed: Steps (or releases) that touched the records, from 0 to what was reserved.

        Returns:
            What was spent: what was done, or in ``fixed_plan`` all that was reserved; None for nothing.

        Raises:
            LedgerError: ``ledger.reservation_unknown``, ``ledger.reservation_settled`` or
                ``ledger.settlement_invalid``.
            StorageError: The entry could not be made durable; the whole reservation stays spent.
        """
        entry = Settled(reservation.id, executed)
        self._write([entry], lambda: self._state.check_settlement(entry))
        if self.mode == FIXED_PLAN:
            return reservation.event
        return resize(reservation.event, executed) if executed else None

    def _write(self, entries: Sequence[Reserved | Settled], admit: Callable[[], None]) -> None:
        """Append entries if ``admit`` does not raise, in one transaction with what it looked at."""
        with self._lock:
            with self._taken_in(self._store.writing()) as connection:
                admit()
                at = max(format_time(self._clock()), self._state.newest_at)
                length, head, written = self._state.length, self._state.head, []
                for entry in entries:
                    head = self._store.append(connection, length, head, entry.to_json(at))
                    length += 1
                    written.append((Recorded(entry, at), head))
            # Known only once durable; from here on, its absence is damage.
            for recorded, digest in written:
                self._state.apply(recorded, digest)

    def _require_later(self) -> None:
        try:
            newest = parse_time(self._state.newest_at)
        except InputError:
            raise damaged(self._store.name) from None
        if self._clock() < newest - CLOCK_TOLERANCE:
            raise LedgerError(
                "ledger.clock_backwards",
                f"The clock stands before the newest entry of the budget ledger, of {self._state.newest_at}.",
                "Set the clock; if the entry is of a wrong time, nothing can be reserved before then.",
            )
