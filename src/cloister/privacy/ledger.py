"""The budget ledger: what was ever done to one dataset, and the door that no spend passes over a limit.

Rules kept here:

1. One file per dataset, at the site that owns it, outside every job's folder. It outlives jobs, rounds and
   models. A dataset is what its hospital declares under one name, not a hash of its content: one more row,
   rows in another order or another split are still the same patients, and charge the same ledger.
2. ``reserve`` is durable before the first gradient; ``settle`` gives back the steps that did not happen. A
   crash leaves the reservation spent.
3. Every reservation, open or settled, counts against every limit. The hard stop over the whole dataset is
   always one of them. The check and the entry are one transaction, so concurrent jobs can't overspend
   together.
4. Entries are events, never epsilons, and form a hash chain that is checked from the first entry when the
   file is opened, and from the last known entry in each transaction.
5. Closed on error: a file that is missing, damaged, of another dataset or of a newer version is refused, and
   never replaced. Making a ledger is a separate, deliberate act.

A ledger's mode is fixed when it is made. ``adaptive`` admits by Renyi composition, which stays valid when
jobs are chosen after seeing earlier results (Feldman and Zrnic 2021), and so may give back unused steps.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy import Connection, Engine

from cloister.core.clock import Clock, format_time, system_clock
from cloister.core.database import open_database, snapshot, transaction
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256, is_sha256
from cloister.evidence.transcript import RELATION, UNIT, Event
from cloister.privacy.accountant import AGREEMENT, epsilon_of
from cloister.privacy.budget import HARD_STOP, Limit, PrivacyBudget, Scope
from cloister.privacy.errors import BudgetExceeded, LedgerError
from cloister.privacy.ledger_entries import (
    MODE,
    VERSION,
    Header,
    LedgerState,
    Purpose,
    Reserved,
    Settled,
    entry_hash,
    is_dataset_name,
    read_entry,
    resize,
)
from cloister.privacy.ledger_file import (
    append_entry,
    begin_file,
    clear_drafts,
    closed_on_damage,
    damaged,
    file_identity,
)

__all__ = ["BudgetLedger", "Purpose", "Reservation"]

_HAS_TABLE: Final = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'entries'"
_NEWEST: Final = "SELECT sequence, previous, body, hash FROM entries WHERE sequence >= ? ORDER BY sequence"
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


class BudgetLedger:
    """The ledger of one dataset; made by :meth:`create`, used by :meth:`open`.

    Safe for threads of one process and for many processes on one file. Close it, or use it as a context
    manager.
    """

    def __init__(self, engine: Engine, path: Path, clock: Clock) -> None:
        """Use :meth:`open`; this only takes what it checked."""
        self._engine = engine
        self._path = path
        self._clock = clock
        self._identity = file_identity(path)
        self._lock = threading.RLock()
        self._state = LedgerState()

    @classmethod
    def create(cls, path: Path, dataset: str, delta: float, *, clock: Clock = system_clock) -> BudgetLedger:
        """Make the ledger of a dataset, once.

        Args:
            path: Where; its folder exists, the file does not.
            dataset: The name its hospital declares for it.
            delta: The delta every epsilon of this dataset is taken at, in (0, 1).
            clock: Time of the entries.

        Raises:
            LedgerError: ``ledger.exists``.
            PrivacyError: ``privacy.budget_invalid`` for an impossible delta.
            StorageError: The file can't be written; nothing is left behind.
        """
        PrivacyBudget(HARD_STOP.epsilon, delta)
        if not is_dataset_name(dataset):
            raise InputError(
                "input.schema",
                "A dataset with a budget needs a plain name.",
                "Declare up to 63 lower-case letters, digits and hyphens, a letter first.",
            )
        header = Header(VERSION, dataset, delta, MODE, UNIT, RELATION)
        begin_file(path, header.to_json(format_time(clock())))
        return cls.open(path, dataset, clock=clock)

    @classmethod
    def open(cls, path: Path, dataset: str, *, clock: Clock = system_clock) -> BudgetLedger:
        """Open a dataset's ledger and check every entry.

        Args:
            path: The file that :meth:`create` made.
            dataset: The declared name of the dataset that is about to be used.
            clock: Time of the entries.

        Raises:
            LedgerError: ``ledger.missing``, ``ledger.corrupt``, ``ledger.other_dataset``,
                ``ledger.newer_version``.
            StorageError: The file can't be opened now.
        """
        if not path.is_file():
            raise LedgerError(
                "ledger.missing",
                f"There is no budget ledger at {path.name}.",
                "Make one when the dataset is registered; a lost ledger means the budget counts as spent.",
            )
        clear_drafts(path)
        with closed_on_damage(path):
            engine = open_database(path)
        ledger = cls(engine, path, clock)
        try:
            with ledger._locked(snapshot):
                pass
            ledger._require_dataset(dataset)
        except BaseException:
            engine.dispose()
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
            LedgerError: The ledger was damaged since it was opened.
            StorageError: The entry could not be made durable. Nothing was spent.
        """
        if not 1 <= len(job_id) <= _LONGEST_JOB_ID or round_number < 0:
            raise InputError("input.schema", "A reservation needs a job id and a round number of 0 or more.")
        if not is_sha256(dataset_sha256):
            raise InputError("input.schema", "A reservation needs the commitment to the records it is for.")
        entry = Reserved(uuid.uuid4().hex, event, dataset_sha256, job_id, round_number, purpose)

        def admit() -> None:
            exceeded = self._exceeded(event, job_id, [*limits, HARD_STOP])
            if exceeded:
                raise BudgetExceeded(
                    "ledger.budget_exceeded",
                    "The privacy budget does not allow this spend, so nothing was done.",
                    "Ask for fewer steps or more noise; a spent budget does not come back.",
                    details=exceeded,
                )

        self._write(entry, admit)
        return Reservation(entry.id, event, job_id, round_number, purpose)

    def settle(self, reservation: Reservation, executed: int) -> Event | None:
        """Replace what was reserved by what was done.

        Args:
            reservation: From :meth:`reserve`.
            executed: Steps (or releases) that touched the records, from 0 to what was reserved.

        Returns:
            What was spent; None where nothing was done.

        Raises:
            LedgerError: ``ledger.reservation_unknown``, ``ledger.reservation_settled`` or
                ``ledger.settlement_invalid``.
            StorageError: The entry could not be made durable; the whole reservation stays spent.
        """
        entry = Settled(reservation.id, executed)
        self._write(entry, lambda: self._state.check_settlement(entry))
        return resize(reservation.event, executed) if executed else None

    def events(self, job_id: str | None = None) -> tuple[Event, ...]:
        """Return what counts as done, equal mechanisms merged: of the whole dataset, or of one job.

        Open reservations count in full.
        """
        with self._locked(snapshot):
            return self._state.events(None if job_id is None else lambda job: job == job_id)

    def prior_events(self, job_id: str) -> tuple[Event, ...]:
        """Return what counts as done by all other jobs, equal mechanisms merged."""
        with self._locked(snapshot):
            return self._state.events(lambda job: job != job_id)

    def epsilon(self, job_id: str | None = None) -> float:
        """Return the composed epsilon at the ledger's delta, of the whole dataset or of one job."""
        return epsilon_of(self.events(job_id), self.delta)

    @property
    def head(self) -> Sha256:
        """Hash of the newest entry; it commits to all entries before."""
        with self._locked(snapshot):
            return self._state.head

    def unknown(self, heads: Iterable[Sha256]) -> tuple[Sha256, ...]:
        """Return those of the given heads that never were this ledger's newest entry.

        A head that was stated and is unknown here means that entries are gone: the file is an older copy, or
        a new ledger under an old name.
        """
        with self._locked(snapshot):
            return tuple(head for head in heads if head not in self._state.digests)

    @property
    def delta(self) -> float:
        """The delta that every epsilon of this dataset is taken at."""
        return self._state.header.delta

    @property
    def dataset(self) -> str:
        """The declared name of the dataset this ledger belongs to."""
        return self._state.header.dataset

    @property
    def mode(self) -> str:
        """How spends are admitted, fixed when the ledger was made."""
        return self._state.header.mode

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _locked(self, access: Callable[[Engine], AbstractContextManager[Connection]]) -> Iterator[Connection]:
        """Hold the file for reading or writing and take in what was written since; state comes from here."""
        with self._lock, closed_on_damage(self._path):
            if file_identity(self._path) != self._identity:
                raise damaged(self._path)
            with access(self._engine) as connection:
                self._take_in(connection)
                yield connection

    def _require_dataset(self, dataset: str) -> None:
        if self.dataset != dataset:
            raise LedgerError(
                "ledger.other_dataset",
                f"The budget ledger {self._path.name} belongs to another dataset.",
                "Give the path of this dataset's own ledger.",
            )

    def _take_in(self, connection: Connection) -> None:
        state = self._state
        if not state.length and not connection.exec_driver_sql(_HAS_TABLE).scalar_one():
            raise damaged(self._path)
        rows = connection.exec_driver_sql(_NEWEST, (max(0, state.length - 1),)).all()
        if state.length:
            # The entry known last is read again: a shortened or rewritten file shows here.
            if not rows or rows[0][0] != state.length - 1 or rows[0][3] != state.head:
                raise damaged(self._path)
            rows = rows[1:]
        for sequence, previous, body, digest in rows:
            # The header is read before the chain is judged: a newer version may chain in another way.
            entry = read_entry(sequence, body)
            if sequence != state.length or previous != state.head:
                raise damaged(self._path)
            if digest != entry_hash(sequence, previous, body):
                raise damaged(self._path)
            state.apply(entry, digest)
        if not state.length:
            raise damaged(self._path)

    def _write(self, entry: Reserved | Settled, admit: Callable[[], None]) -> None:
        """Append an entry if ``admit`` does not raise, in one transaction with what it looked at."""
        with self._lock:
            with self._locked(transaction) as connection:
                admit()
                body = entry.to_json(format_time(self._clock()))
                digest = append_entry(connection, self._state.length, self._state.head, body)
            # Known only once durable; from here on, its absence from the file is damage.
            self._state.apply(entry, digest)

    def _exceeded(self, event: Event, job_id: str, limits: Sequence[Limit]) -> list[str]:
        found: list[str] = []
        for limit in limits:
            own = limit.scope is Scope.JOB
            before = self._state.events((lambda job: job == job_id) if own else None)
            after = epsilon_of([*before, event], self.delta)
            if not after + AGREEMENT <= limit.epsilon:
                whole = "this job" if own else "all jobs on this dataset"
                found.append(
                    f"{limit.name}: epsilon of {whole} would be {after:.4f}, the limit is {limit.epsilon:g}"
                )
        return found
