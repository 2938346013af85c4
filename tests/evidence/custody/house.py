"""A hub and two sites with real keys and logs, in which a test states what it likes and exports from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from cloister.core.clock import format_time
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence import EvidenceLog, Role, StatementWriter, Subject, Trust, TrustEntry, log_origin
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.custody.access import AccessRecord, Actor
from cloister.evidence.custody.export import compose_bundle, logs_to_export
from cloister.evidence.extract import log_owner
from cloister.evidence.predicates import ExportSelection, Violation
from cloister.evidence.statement import Statement, sign_statement

START = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
JOB = "11111111-2222-4333-8444-555555555555"
OTHER_JOB = "99999999-2222-4333-8444-555555555555"
PARTIES = (("hub", "hub"), ("site", "north"), ("site", "south"))
AUDITOR = Actor("os:auditor", "auditor", "yearly audit")


def export_id(number: int) -> str:
    """A UUID that counts."""
    return f"00000000-0000-4000-8000-{number:012d}"


@dataclass
class House:
    """The parties; use it in a ``with`` block. Its clock moves a second with every question."""

    folder: Path
    seconds: float = 0
    exports: int = 0
    keys: dict[str, Signer] = field(default_factory=dict)
    logs: dict[str, EvidenceLog] = field(default_factory=dict)
    writers: dict[tuple[str, str], StatementWriter] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._opened = ExitStack()
        store = EphemeralKeyStore()
        for role, name in PARTIES:
            self.keys[name] = self.keys.get(name) or store.generate(name)
            log = EvidenceLog.create(
                self.folder / f"{name}.sqlite", origin=log_origin(Role(role), name), signer=self.keys[name]
            )
            self._opened.callback(log.close)
            self.logs[name] = log
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def clock(self) -> datetime:
        """A second later than the last time."""
        self.seconds += 1
        return START + timedelta(seconds=self.seconds)

    def moment(self, seconds: float) -> str:
        """A time as statements hold it."""
        return format_time(START + timedelta(seconds=seconds))

    @property
    def trust(self) -> Trust:
        """All parties pinned."""
        return Trust(self.trust_entries)

    @property
    def trust_entries(self) -> list[TrustEntry]:
        """The parties' keys."""
        return [
            TrustEntry(Role(role), name, self.keys[name].public_key.pem.encode()) for role, name in PARTIES
        ]

    def writer(self, party: str, job: str = JOB) -> StatementWriter:
        """A party's writer about a job."""
        if (party, job) not in self.writers:
            log, key = self.logs[party], self.keys[party]
            self.writers[party, job] = StatementWriter(log, key, party, job, self.clock)
        return self.writers[party, job]

    def state(self, party: str, job: str = JOB, detail: str = "an update was too large") -> None:
        """Let a party state something."""
        artifact = sha256_hex(detail.encode())
        self.writer(party, job).write(
            Violation,
            [Subject("update", artifact)],
            rule="max-bytes",
            detail=detail,
            artifact_sha256=artifact,
        )

    def forge(self, party: str, seconds: float, job: str = JOB, detail: str = "a forged entry") -> None:
        """Let a log's owner put in an entry with any date, past the writer that wouldn't."""
        log, key = self.logs[party], self.keys[party]
        last = log.last(job)
        sha256 = sha256_hex(detail.encode())
        violation = Violation(
            job_id=job,
            party=party,
            sequence=log.length(job),
            previous=None if last is None else last.envelope.payload_sha256,
            recorded_at=self.moment(seconds),
            rule="max-bytes",
            detail=detail,
            artifact_sha256=sha256,
        )
        statement = Statement((Subject("update", sha256),), violation)
        log.append(sign_statement(statement, key), stream=job, position=violation.sequence)

    def close(
        self, party: str, job: str = JOB, outcome: Literal["completed", "refused", "failed"] = "completed"
    ) -> None:
        """Let a party close a job."""
        self.writer(party, job).close(outcome)

    def job(self, job: str = JOB, parties: Iterable[str] = ("hub", "north")) -> None:
        """A job in which every party states three things and closes it."""
        named = tuple(parties)
        for number in range(3):
            for party in named:
                self.state(party, job, f"statement {number}")
        for party in named:
            self.close(party, job)

    def export(
        self,
        selection: ExportSelection,
        exporter: str = "hub",
        others: Iterable[str] = ("north", "south"),
        credentials: Mapping[str, Sequence[str]] = MappingProxyType({}),
        notes: Sequence[Checkpoint] = (),
        recipient: str = "auditor",
    ) -> bytes:
        """Export, state that in the logs exported from, and hand the bundle over."""
        named = [self.logs[one] for one in others if one != exporter]
        self.exports += 1
        chosen = logs_to_export(selection, self.logs[exporter], named, self.clock)
        owners = [log_owner(log.origin)[1] for log in chosen]
        records = [AccessRecord(self.logs[one], self.keys[one], self.clock) for one in owners]
        for record in records:
            record.state_access(AUDITOR, "export", "an audit export", export_id(self.exports))
        bundle = compose_bundle(
            export_id=export_id(self.exports),
            signer=self.keys[exporter],
            clock=self.clock,
            recipient=recipient,
            selection=selection,
            exporter=self.logs[exporter],
            others=named,
            credentials=credentials,
            notes=notes,
        )
        for record in records:
            record.state_export(bundle)
        return bundle

    def of_job(self, job: str = JOB) -> ExportSelection:
        """All about a job."""
        return ExportSelection(job_id=job, start=None, end=None)

    def of_period(self, start: float, end: float) -> ExportSelection:
        """All that was logged from so many seconds on, up to so many."""
        return ExportSelection(job_id=None, start=self.moment(start), end=self.moment(end))
