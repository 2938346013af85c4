"""What a budget ledger says: the terms it was made under, and what counts as done.

Whatever is asked, what was written since is taken in first, and its hash chain checked. The rules are those
of `cloister.privacy.ledger`, which writes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from cloister.core.closing import Closing
from cloister.core.hashes import Sha256
from cloister.core.interrupts import interruptible
from cloister.evidence.transcript import Event, Mode, Unit
from cloister.privacy.errors import LedgerError
from cloister.privacy.ledger_chain import catch_up
from cloister.privacy.ledger_entries import LedgerState, Recorded, Reserved, read_entry
from cloister.privacy.ledger_store import LedgerStore
from cloister.privacy.modes import epsilon_in


class LedgerReading(Closing):
    """An open ledger, read.

    Args:
        store: where it is kept.
    """

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._state = LedgerState()

    def require_terms(self, *, mode: Mode, unit: Unit, delta: float) -> None:
        """Refuse a ledger that was made under other terms than those of the agreement at hand.

        Args:
            mode: The mode the manifest names.
            unit: The unit the manifest names.
            delta: The largest delta the manifest allows.

        Raises:
            LedgerError: ``ledger.other_terms``.
        """
        problems = []
        if self.mode != mode:
            problems.append(f"it composes spends as {self.mode}, not as {mode}")
        if self.unit != unit:
            problems.append(f"it protects a {self.unit}, not a {unit}")
        if self.delta > delta:
            problems.append(f"it counts at delta {self.delta:g}, above {delta:g}")
        if problems:
            raise LedgerError(
                "ledger.other_terms",
                f"The budget ledger {self._store.name} was made under other terms.",
                "Mode, unit and delta are fixed when a ledger is made; let the manifest say the same.",
                details=problems,
            )

    def events(self, job_id: str | None = None) -> tuple[Event, ...]:
        """Return what counts as done, equal mechanisms merged: of the whole dataset, or of one job.

        Open reservations count in full.
        """
        with self._reading():
            return self._state.events(None if job_id is None else lambda job: job == job_id)

    def prior_events(self, job_id: str) -> tuple[Event, ...]:
        """Return what counts as done by all other jobs, equal mechanisms merged."""
        with self._reading():
            return self._state.events(lambda job: job != job_id)

    def epsilon(self, job_id: str | None = None) -> float:
        """Return the composed epsilon at the ledger's delta, of the whole dataset or of one job.

        In ``adaptive`` it is the reading of an odometer, at the best order afterwards; spends are admitted by
        another figure, at the order of each limit.
        """
        return epsilon_in(self.mode, self.events(job_id), self.delta)

    def history(self) -> tuple[Recorded, ...]:
        """Return every entry with its time, oldest first."""
        with self._reading() as connection:
            return tuple(read_entry(row[0], row[2]) for row in self._store.rows(connection, 0))

    @property
    def unsettled(self) -> tuple[Reserved, ...]:
        """What is reserved and not settled: running jobs, and what crashes left. It counts as spent."""
        with self._reading():
            return self._state.unsettled

    @property
    def head(self) -> Sha256:
        """Hash of the newest entry; it commits to all entries before."""
        with self._reading():
            return self._state.head

    def unknown(self, heads: Iterable[Sha256]) -> tuple[Sha256, ...]:
        """Return those of the given heads that never were this ledger's newest entry.

        A head that was stated and is unknown here means that entries are gone: the file is an older copy, or
        a new ledger under an old name.
        """
        with self._reading():
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
    def mode(self) -> Mode:
        """How spends are composed, fixed when the ledger was made."""
        return self._state.header.mode

    @property
    def unit(self) -> Unit:
        """What the ledger protects, fixed when it was made."""
        return self._state.header.unit

    def close(self) -> None:
        """Let go of it."""
        self._store.close()

    @interruptible
    def _reading(self) -> Iterator[Connection]:
        with self._taken_in(self._store.reading()) as connection:
            yield connection

    @interruptible
    def _taken_in(self, access: AbstractContextManager[Connection]) -> Iterator[Connection]:
        """Hold the ledger and take in what was written since; state comes from here."""
        with self._lock, access as connection:
            catch_up(self._state, self._store, connection)
            yield connection

    def _require_dataset(self, dataset: str) -> None:
        if self.dataset != dataset:
            raise LedgerError(
                "ledger.other_dataset",
                f"The budget ledger {self._store.name} belongs to another dataset.",
                "Give the path of this dataset's own ledger.",
            )
