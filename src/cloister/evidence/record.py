"""The record of one job: its documents and every statement made about it, parsed but not yet judged.

The composer of a receipt and its verifier both reason about this record, with the same functions. What they
look up again and again is indexed here once: whoever wrote the record, judging it takes time in proportion to
its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final, TypeVar, cast

from cloister.core.canonical import JSON, canonicalize
from cloister.core.clock import parse_time
from cloister.core.hashes import Sha256, sha256_hex
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.envelope import Envelope
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract, ProvenEntry, log_owner
from cloister.evidence.predicates import (
    BudgetSpend,
    DataCommitment,
    JobOpened,
    Predicate,
    Role,
    RoundAggregated,
)
from cloister.evidence.statement import Statement, open_statement
from cloister.evidence.terms import JobTerms, ManifestTerms, RequestTerms, read_document, read_terms

MAX_MEMBERS: Final = 2_000_000
FREE_MEMBERS: Final = 65_536
BYTES_A_MEMBER: Final = 6
"""Statements with more values than that for their size say nothing that one of ours does, and would take
twenty times their size to hold."""

PredicateT = TypeVar("PredicateT", bound=Predicate)


@dataclass(frozen=True)
class LoggedStatement:
    """A statement and where it is logged.

    Attributes:
        log: origin of the log.
        role: the role of the log's owner.
        owner: the party whose log it is.
        entry: envelope, index and proof.
        statement: what the envelope holds.
    """

    log: str
    role: Role
    owner: str
    entry: ProvenEntry
    statement: Statement

    @property
    def predicate(self) -> Predicate:
        """What is stated."""
        return self.statement.predicate


@dataclass(frozen=True)
class SignedManifest:
    """A site's manifest: the envelope and what the verifier reads of it."""

    envelope: Envelope
    terms: ManifestTerms


@dataclass(frozen=True)
class SignedRequest:
    """The developer's request: the envelope and what the verifier reads of it."""

    envelope: Envelope
    terms: RequestTerms


@dataclass(frozen=True)
class JobRecord:
    """Everything a receipt is composed from.

    Attributes:
        issuer: the hub that issues the receipt.
        job_json: the job as the JSON object that was consented to.
        job: what the verifier reads of it.
        manifests: each site's signed manifest.
        request: the developer's signed request.
        logged: every statement, in the order given.
        checkpoints: each log's signed head.
    """

    issuer: str
    job_json: dict[str, JSON]
    job: JobTerms
    manifests: Mapping[str, SignedManifest]
    request: SignedRequest
    logged: tuple[LoggedStatement, ...]
    checkpoints: Mapping[str, Checkpoint]

    @cached_property
    def job_sha256(self) -> Sha256:
        """SHA-256 of the job in canonical JSON."""
        return sha256_hex(canonicalize(self.job_json))

    @cached_property
    def opened_at(self) -> datetime | None:
        """When the hub opened the job, the time its documents have to hold at; None if it doesn't say."""
        times = [parse_time(one.recorded_at) for one in self.by(self.issuer, JobOpened)]
        return min(times, default=None)

    @cached_property
    def clients(self) -> frozenset[str]:
        """The sites of the job."""
        return frozenset(self.job.clients)

    @cached_property
    def participants(self) -> tuple[str, ...]:
        """The sites of the job whose updates went into the model, sorted."""
        named = {site for one in self.of(RoundAggregated) for site in one.updates}
        return tuple(sorted(named & self.clients))

    @cached_property
    def used(self) -> Mapping[str, tuple[RoundAggregated, ...]]:
        """By site, the hub's aggregates that its updates went into, by sequence."""
        found: dict[str, list[RoundAggregated]] = {}
        for one in self.by(self.issuer, RoundAggregated):
            for site in one.updates:
                found.setdefault(site, []).append(one)
        return {site: tuple(group) for site, group in found.items()}

    @cached_property
    def records(self) -> Mapping[str, int]:
        """By site, how many records it committed to."""
        found: dict[str, int] = {}
        for one in self.of(DataCommitment):
            found[one.party] = found.get(one.party, 0) + one.records
        return found

    @cached_property
    def involved(self) -> tuple[str, ...]:
        """The participants and every other site that spent budget, used or not, sorted."""
        return tuple(sorted({*self.participants, *(one.party for one in self.of(BudgetSpend))}))

    @cached_property
    def chains(self) -> Mapping[str, tuple[LoggedStatement, ...]]:
        """The statements of each log that has any, in the log's order."""
        found: dict[str, list[LoggedStatement]] = {}
        for one in sorted(self.logged, key=lambda one: (one.log, one.entry.index)):
            found.setdefault(one.log, []).append(one)
        return {origin: tuple(chain) for origin, chain in found.items()}

    @cached_property
    def _by_class(self) -> Mapping[type[Predicate], tuple[Predicate, ...]]:
        found: dict[type[Predicate], list[Predicate]] = {}
        for one in self.logged:
            found.setdefault(type(one.predicate), []).append(one.predicate)
        return {
            kind: tuple(sorted(group, key=lambda one: (one.party, one.sequence)))
            for kind, group in found.items()
        }

    def of(self, kind: type[PredicateT]) -> tuple[PredicateT, ...]:
        """All predicates of a kind, by party and sequence."""
        return cast("tuple[PredicateT, ...]", self._by_class.get(kind, ()))

    @cached_property
    def _by_party(self) -> Mapping[tuple[str, type[Predicate]], tuple[Predicate, ...]]:
        found: dict[tuple[str, type[Predicate]], list[Predicate]] = {}
        for kind, group in self._by_class.items():
            for one in group:
                found.setdefault((one.party, kind), []).append(one)
        return {place: tuple(group) for place, group in found.items()}

    def by(self, party: str, kind: type[PredicateT]) -> tuple[PredicateT, ...]:
        """All predicates of a kind that a party made, by sequence."""
        return cast("tuple[PredicateT, ...]", self._by_party.get((party, kind), ()))


def build_record(
    *,
    issuer: str,
    job: dict[str, JSON],
    manifests: Mapping[str, Envelope],
    request: Envelope,
    extracts: Sequence[LogExtract],
) -> JobRecord:
    """Parse a job's documents and statements into a record.

    Args:
        issuer: the hub.
        job: the job as a JSON object.
        manifests: each site's signed manifest.
        request: the developer's signed request.
        extracts: what each log holds about the job.

    Returns:
        The record; nothing in it has been judged.

    Raises:
        EvidenceError: if any part can't be read, or the statements hold more values than are read.
    """
    _refuse_crowds([entry.envelope.payload for one in extracts for entry in one.entries])
    return JobRecord(
        issuer=issuer,
        job_json=job,
        job=read_terms(JobTerms, job, "job"),
        manifests={
            site: SignedManifest(
                envelope, read_document(ManifestTerms, envelope.payload, f"manifest of {site}")
            )
            for site, envelope in manifests.items()
        },
        request=SignedRequest(request, read_document(RequestTerms, request.payload, "request")),
        logged=tuple(_logged(extracts)),
        checkpoints={one.origin: one.checkpoint for one in extracts},
    )


def _refuse_crowds(payloads: Sequence[bytes]) -> None:
    members = sum(one.count(mark) for one in payloads for mark in (b",", b"[", b"{"))
    if members > min(MAX_MEMBERS, FREE_MEMBERS + sum(map(len, payloads)) // BYTES_A_MEMBER):
        raise EvidenceError(
            "evidence.receipt_malformed", "The statements hold more values than are read at their size."
        )


def _logged(extracts: Sequence[LogExtract]) -> Iterable[LoggedStatement]:
    for extract in extracts:
        role, owner = log_owner(extract.origin)
        for entry in extract.entries:
            yield LoggedStatement(extract.origin, role, owner, entry, open_statement(entry.envelope))
