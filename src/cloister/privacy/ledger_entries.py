"""The entries of a budget ledger, their encoding, and the state they add up to. Pure: no file, no clock.

An entry is canonical JSON of one of three types: the header (entry 0), a reservation, a settlement. Its hash
covers its number, the hash before it and its bytes, so the newest hash commits to all of them.

Versions: 1 knew the mode ``adaptive`` and the unit ``record`` alone and is read as such; 2 names both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cloister.core.canonical import parse_canonical
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256, is_sha256, sha256_hex
from cloister.evidence.transcript import (
    FIXED_PLAN,
    RELATION,
    Event,
    Mode,
    Unit,
    coalesce,
    event_from_json,
    event_to_json,
    repeated,
    times,
)
from cloister.privacy.balance import Balance
from cloister.privacy.errors import LedgerError

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

VERSION: Final = 2
GENESIS: Final = Sha256("0" * 64)
_DATASET_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")


class Purpose(StrEnum):
    """What a spend is for.

    ``TRAINING``: the steps of a job's rounds. ``EVALUATION``: figures about private records.
    ``PERTURBATION``: a convex model with noise on it, or in its objective. ``TUNING``: trials and scores.
    """

    TRAINING = "training"
    EVALUATION = "evaluation"
    PERTURBATION = "perturbation"
    TUNING = "tuning"


@dataclass(frozen=True, slots=True)
class Header:
    """Entry 0: what the ledger is about, never changed."""

    version: int
    dataset: str
    delta: float
    mode: Mode
    unit: Unit

    def to_json(self, recorded_at: str) -> dict[str, JSON]:
        """Return the entry's body."""
        return {
            "type": "ledger",
            "version": self.version,
            "dataset": self.dataset,
            "delta": self.delta,
            "mode": self.mode,
            "unit": self.unit,
            "relation": RELATION,
            "recorded_at": recorded_at,
        }


@dataclass(frozen=True, slots=True)
class Reserved:
    """A spend held as spent."""

    id: str
    event: Event
    dataset_sha256: Sha256
    job_id: str
    round_number: int
    purpose: Purpose

    def to_json(self, recorded_at: str) -> dict[str, JSON]:
        """Return the entry's body."""
        return {
            "type": "reserved",
            "id": self.id,
            "event": event_to_json(self.event),
            "dataset_sha256": self.dataset_sha256,
            "job_id": self.job_id,
            "round": self.round_number,
            "purpose": self.purpose.value,
            "recorded_at": recorded_at,
        }


@dataclass(frozen=True, slots=True)
class Settled:
    """How much of a reservation was done."""

    id: str
    executed: int

    def to_json(self, recorded_at: str) -> dict[str, JSON]:
        """Return the entry's body."""
        return {"type": "settled", "id": self.id, "executed": self.executed, "recorded_at": recorded_at}


Entry = Header | Reserved | Settled


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry with the time at which it was written."""

    entry: Entry
    recorded_at: str


def is_dataset_name(name: str) -> bool:
    """Return whether a dataset's name is one that a ledger and its file can bear."""
    return _DATASET_NAME.fullmatch(name) is not None


def entry_hash(sequence: int, previous: Sha256, body: bytes) -> Sha256:
    """Return the hash of an entry; the newest one commits to the whole ledger."""
    return sha256_hex(b"cloister budget ledger v1\n%d\n%s\n" % (sequence, previous.encode()) + body)


def read_entry(sequence: int, body: bytes) -> Recorded:
    """Decode an entry strictly.

    Raises:
        LedgerError: ``ledger.newer_version`` for a header of a later version, ``ledger.corrupt`` for
            anything that is not exactly an entry.
    """
    try:
        value = parse_canonical(body)
        if not isinstance(value, dict):
            raise _malformed()
        recorded_at = value.get("recorded_at")
        if not isinstance(recorded_at, str):
            raise _malformed()
        return Recorded(_read(sequence, value), recorded_at)
    except InputError:
        raise _malformed() from None


def _read(sequence: int, value: dict[str, JSON]) -> Entry:
    if sequence == 0:
        return _read_header(value)
    if value.get("type") == "reserved":
        return _read_reserved(value)
    return _read_settled(value)


def _read_header(value: dict[str, JSON]) -> Header:
    match value:
        case {"type": "ledger", "version": int(version)} if version > VERSION:
            raise LedgerError(
                "ledger.newer_version",
                "The budget ledger was written by a newer version of this program.",
                "Upgrade; an older version can't know what was spent.",
            )
        case {
            "type": "ledger",
            "version": (1 | 2) as version,
            "dataset": str(dataset),
            "delta": float(delta),
            "mode": "adaptive" | "fixed_plan" as mode,
            "unit": "record" | "subject" as unit,
            "relation": "add_or_remove_one",
            "recorded_at": str(),
        } if (
            len(value) == 8
            and is_dataset_name(dataset)
            and 0 < delta < 1
            and (version == VERSION or (mode, unit) == ("adaptive", "record"))
        ):
            return Header(int(version), dataset, delta, mode, unit)
    raise _malformed()


def _read_reserved(value: dict[str, JSON]) -> Reserved:
    match value:
        case {
            "type": "reserved",
            "id": str(name),
            "event": dict(event),
            "dataset_sha256": str(dataset),
            "job_id": str(job),
            "round": int(number),
            "purpose": "training" | "evaluation" | "perturbation" | "tuning" as purpose,
            "recorded_at": str(),
        } if len(value) == 8 and number >= 0 and is_sha256(dataset):
            return Reserved(name, event_from_json(event), Sha256(dataset), job, number, Purpose(purpose))
    raise _malformed()


def _read_settled(value: dict[str, JSON]) -> Settled:
    match value:
        case {
            "type": "settled",
            "id": str(name),
            "executed": int(executed),
            "recorded_at": str(),
        } if len(value) == 4:
            return Settled(name, executed)
    raise _malformed()


def size(event: Event) -> int:
    """Return how many times the event's mechanism ran."""
    return times(event)


def resize(event: Event, number: int) -> Event:
    """Return the event's mechanism, run another number of times."""
    return repeated(event, number)


@dataclass(slots=True)
class LedgerState:
    """What the entries so far add up to. Grows by :meth:`apply` alone.

    In the mode ``fixed_plan`` a settlement gives nothing back: the plan was fixed, and counts, as a whole.
    """

    length: int = 0
    head: Sha256 = GENESIS
    newest_at: str = ""
    digests: set[Sha256] = field(default_factory=set)
    _header: Header | None = None
    _open: dict[str, Reserved] = field(default_factory=dict)
    _settled: set[str] = field(default_factory=set)
    _tally: dict[str, dict[Event, int]] = field(default_factory=dict)
    _dataset: Balance = field(default_factory=Balance)
    _jobs: dict[str, Balance] = field(default_factory=dict)
    _mechanisms: dict[Event, int] = field(default_factory=dict)

    @property
    def header(self) -> Header:
        """Entry 0.

        Raises:
            LedgerError: ``ledger.corrupt`` when nothing was applied yet.
        """
        if self._header is None:
            raise _malformed()
        return self._header

    def apply(self, recorded: Recorded, digest: Sha256) -> None:
        """Add an entry.

        Raises:
            LedgerError: ``ledger.corrupt`` where a second header or a repeated reservation appears, or as
                :meth:`check_settlement` says. The state is unchanged then.
        """
        entry = recorded.entry
        if (self.length == 0) is not isinstance(entry, Header):
            raise _malformed()
        match entry:
            case Header():
                self._header = entry
            case Reserved():
                if entry.id in self._open or entry.id in self._settled:
                    raise _malformed()
                self._open[entry.id] = entry
                self._add(entry, size(entry.event))
            case Settled():
                self.check_settlement(entry)
                reserved = self._open.pop(entry.id)
                self._settled.add(entry.id)
                if self.header.mode != FIXED_PLAN:
                    self._add(reserved, entry.executed - size(reserved.event))
        self.length += 1
        self.newest_at = max(self.newest_at, recorded.recorded_at)
        self.head = digest
        self.digests.add(digest)

    def check_settlement(self, entry: Settled) -> None:
        """Refuse a settlement that doesn't fit its reservation.

        Raises:
            LedgerError: ``ledger.reservation_unknown``, ``ledger.reservation_settled`` or
                ``ledger.settlement_invalid``.
        """
        if entry.id in self._settled:
            raise LedgerError("ledger.reservation_settled", "This reservation was settled before.")
        reserved = self._open.get(entry.id)
        if reserved is None:
            raise LedgerError("ledger.reservation_unknown", "This reservation is not in this ledger.")
        if type(entry.executed) is not int or not 0 <= entry.executed <= size(reserved.event):
            raise LedgerError(
                "ledger.settlement_invalid",
                "A settlement must be a whole number between nothing and what was reserved.",
                "The whole reservation stays spent.",
            )

    def events(self, belongs: Callable[[str], bool] | None = None) -> tuple[Event, ...]:
        """Return what counts as done, equal mechanisms merged; ``belongs`` picks the jobs (None: all)."""
        return coalesce(
            resize(mechanism, number)
            for job, tally in self._tally.items()
            if belongs is None or belongs(job)
            for mechanism, number in tally.items()
            if number
        )

    def balance(self, job_id: str | None = None) -> Balance:
        """Return the running Renyi sum of the whole dataset, or of one job."""
        return self._dataset if job_id is None else self._jobs.get(job_id, Balance())

    @property
    def mechanisms(self) -> Collection[Event]:
        """Every different mechanism that counts as done, each run once."""
        return self._mechanisms.keys()

    @property
    def unsettled(self) -> tuple[Reserved, ...]:
        """What was reserved and not settled yet, oldest first."""
        return tuple(self._open.values())

    def _add(self, reserved: Reserved, times: int) -> None:
        tally = self._tally.setdefault(reserved.job_id, {})
        mechanism = resize(reserved.event, 1)
        tally[mechanism] = tally.get(mechanism, 0) + times
        number = self._mechanisms.get(mechanism, 0) + times
        if number:
            self._mechanisms[mechanism] = number
        else:
            self._mechanisms.pop(mechanism, None)
        self._dataset.add(mechanism, times)
        self._jobs.setdefault(reserved.job_id, Balance()).add(mechanism, times)


def _malformed() -> LedgerError:
    return LedgerError(
        "ledger.corrupt",
        "The budget ledger holds an entry that is damaged or out of place.",
        "Restore it from the newest copy whose head stands in a statement; never start a new one.",
    )
