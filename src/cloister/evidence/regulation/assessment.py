"""From a verified audit export to what it tells about a regulation, clause by clause.

Rules kept here:

1. Only an export that verified is assessed, and only the statements that were asked for count.
2. A clause gets what was found, "no evidence", or "software can't evidence this". Nothing here says that a
   law is observed.
3. What an export lacks is said: parties whose logs aren't in it, and a period that only its owner bounds.
4. What a party states about another (a platform attested, a model evaluated) is its word here: nothing is
   appraised or computed again for a report. It says with whose keys the export was verified.
5. Each piece of evidence names its statement by hash, log and index, so that anyone finds it in the export.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import Final

from cloister.core.canonical import JSON
from cloister.core.hashes import Sha256, sha256_hex
from cloister.evidence.custody.bundle import EXPORT_CLAIMS_NOT_MADE, ExportBody, encode_bundle
from cloister.evidence.custody.completeness import absent_logs, unopened_jobs
from cloister.evidence.custody.record import ExportedStatement, ExportRecord
from cloister.evidence.custody.verify import BundleVerdict
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import log_stream
from cloister.evidence.predicates import SEEDED_TEST, AttestationVerdict, BudgetSpend, Destruction
from cloister.evidence.predicates.base import TYPE_PREFIX
from cloister.evidence.regulation.clauses import (
    Clause,
    EvidenceKind,
    Regulation,
    RegulationId,
    Review,
    load_clauses,
)

REPORT_SCHEMA: Final = "urn:cloister:regulatory-report:v1"


class Standing(StrEnum):
    """What an export tells about a clause."""

    EVIDENCE = "evidence"
    NO_EVIDENCE = "no-evidence"
    NOT_BY_SOFTWARE = "software-cannot-evidence"


@dataclass(frozen=True, slots=True)
class Citation:
    """One statement, named so that it is found in the export.

    Attributes:
        statement_sha256: SHA-256 of the statement's payload.
        log: the log it stands in.
        index: its place there.
        party: who stated it.
        job_id: the job it belongs to; None for what belongs to the log itself.
        recorded_at: when, by the party's clock.
    """

    statement_sha256: Sha256
    log: str
    index: int
    party: str
    job_id: str | None
    recorded_at: str

    def as_json(self) -> dict[str, JSON]:
        """The citation as JSON."""
        return {
            "statement_sha256": self.statement_sha256,
            "log": self.log,
            "index": self.index,
            "party": self.party,
            "job_id": self.job_id,
            "recorded_at": self.recorded_at,
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """The statements of one kind.

    Attributes:
        kind: which statements these are, what they show and what they don't.
        citations: all of them in the export, in the order of the logs.
    """

    kind: EvidenceKind
    citations: tuple[Citation, ...]

    @property
    def by_log(self) -> Mapping[str, int]:
        """How many of them stand in each log."""
        return Counter(one.log for one in self.citations)

    def sample(self, count: int) -> tuple[Citation, ...]:
        """At most so many of them, taken from all logs in turn, in the order of the logs."""
        turns: Counter[str] = Counter()
        ranked: list[tuple[int, int]] = []
        for place, one in enumerate(self.citations):
            ranked.append((turns[one.log], place))
            turns[one.log] += 1
        return tuple(self.citations[place] for _, place in sorted(sorted(ranked)[:count], key=itemgetter(1)))

    def as_json(self) -> dict[str, JSON]:
        """The finding as JSON."""
        return {
            "predicate_type": self.kind.predicate_type,
            "shows": self.kind.shows,
            "not_shown": self.kind.not_shown,
            "statements": [one.as_json() for one in self.citations],
        }


@dataclass(frozen=True, slots=True)
class ClauseAssessment:
    """What the export tells about one clause.

    Attributes:
        clause: the clause.
        standing: whether there is evidence, none, or can be none.
        evidence: for each kind that bears on the clause, what was found; perhaps nothing.
        attention: what whoever judges the clause should look at; only kinds that were found.
    """

    clause: Clause
    standing: Standing
    evidence: tuple[Finding, ...]
    attention: tuple[Finding, ...]

    @property
    def found(self) -> int:
        """Of how many kinds that bear on the clause there are statements."""
        return sum(bool(one.citations) for one in self.evidence)

    def as_json(self) -> dict[str, JSON]:
        """The clause's part of the report."""
        return {
            "clause": self.clause.clause,
            "title": self.clause.title,
            "asks": self.clause.asks,
            "standing": self.standing.value,
            "kinds": {"found": self.found, "bear_on_it": len(self.evidence)},
            "reason": self.clause.reason,
            "evidenced_by": [one.as_json() for one in self.evidence],
            "look_at": [one.as_json() for one in self.attention],
        }


@dataclass(frozen=True)
class Assessment:
    """A regulatory report, before it is written down.

    Attributes:
        regulation_id: which regulation, by its short name.
        regulation: the regulation as mapped.
        review: when and by whom the mapping was reviewed last, and what that left out.
        export_sha256: SHA-256 of the export that the report rests on.
        export: the export's body.
        checks: id and detail of each check that the export passed.
        heads: each log's size and root.
        counts: how many statements of each kind were asked for and found, by predicate type.
        clauses: the clauses in the order of the law.
        simulated: whether any attestation or destruction in the export was simulated.
        test_randomness: whether any noise came from a seeded test generator.
        owners_word: whether only a log's owner says what lies outside the period.
        absent: logs of parties that a job in the export names, and that are not in it.
        unopened: how many jobs in the export have no statement in it about which parties take part.
        keys_from: whose pinned keys the export was verified with.
        keys: by party, the keys whose signatures held.
    """

    regulation_id: RegulationId
    regulation: Regulation
    review: Review
    export_sha256: Sha256
    export: ExportBody
    checks: tuple[tuple[str, str], ...]
    heads: Mapping[str, tuple[int, str]]
    counts: Mapping[str, int]
    clauses: tuple[ClauseAssessment, ...]
    simulated: bool
    test_randomness: bool
    owners_word: bool
    absent: tuple[str, ...]
    unopened: int
    keys_from: str
    keys: Mapping[str, tuple[str, ...]]

    def standing_count(self, standing: str) -> int:
        """How many clauses stand so."""
        return sum(one.standing == standing for one in self.clauses)

    def as_json(self) -> dict[str, JSON]:
        """The report for machines."""
        return {
            "schema": REPORT_SCHEMA,
            "regulation": self.regulation_id.value,
            "title": self.regulation.title,
            "source": self.regulation.source,
            "scope": self.regulation.scope,
            "mapping_review": {
                "on": self.review.on,
                "by": self.review.by,
                "sources": list(self.regulation.sources),
                "limits": self.review.limits,
            },
            "export": {
                "sha256": self.export_sha256,
                "export_id": self.export.export_id,
                "exported_at": self.export.exported_at,
                "exporter": f"{self.export.exporter_role}/{self.export.exporter}",
                "recipient": self.export.recipient,
                "selection": self.export.selection.model_dump(mode="json"),
                "verified_with": {
                    "keys_from": self.keys_from,
                    "keys": {party: list(found) for party, found in self.keys.items()},
                },
                "owners_word": self.owners_word,
                "absent_logs": list(self.absent),
                "jobs_without_their_parties": self.unopened,
                "checks": [{"id": check_id, "detail": detail} for check_id, detail in self.checks],
            },
            "logs": {name: {"size": size, "root": root} for name, (size, root) in self.heads.items()},
            "statements": dict(self.counts),
            "simulated": self.simulated,
            "test_randomness": self.test_randomness,
            "clauses": [one.as_json() for one in self.clauses],
            "claims_not_made": list(EXPORT_CLAIMS_NOT_MADE),
        }


def assess(verdict: BundleVerdict, regulation_id: RegulationId, keys_from: str) -> Assessment:
    """Assess a verified export against one regulation.

    Args:
        verdict: what the verifier found.
        regulation_id: the regulation.
        keys_from: whose pinned keys it was verified with, for people.

    Returns:
        The assessment.

    Raises:
        EvidenceError: ``evidence.export_unverified`` with each failed check, unless all passed.
    """
    record = verdict.record
    if record is None or not verdict.accepted:
        raise EvidenceError(
            "evidence.export_unverified",
            "The export doesn't verify, so no report is made from it.",
            "Ask its exporter for another one, or pin the right keys.",
            details=[f"{one.id}: {one.detail}" for one in verdict.failures],
        )
    mapping = load_clauses()
    regulation = mapping.regulations[regulation_id]
    found = {name: _find(kind, record.selected) for name, kind in mapping.kinds.items()}
    predicates = [one.predicate for one in record.selected]
    counts = Counter(one.TYPE.removeprefix(TYPE_PREFIX) for one in predicates)
    return Assessment(
        regulation_id=regulation_id,
        regulation=regulation,
        review=mapping.review,
        export_sha256=sha256_hex(encode_bundle(record.bundle)),
        export=record.bundle.body,
        checks=tuple((one.id, one.detail) for one in verdict.checks),
        heads={
            name: (extract.checkpoint.size, extract.checkpoint.root.hex())
            for name, extract in record.extracts.items()
        },
        counts=dict(sorted(counts.items())),
        clauses=tuple(_assess(clause, found) for clause in regulation.clauses),
        simulated=any(
            isinstance(one, AttestationVerdict | Destruction) and one.simulated for one in predicates
        ),
        test_randomness=any(
            isinstance(one, BudgetSpend) and one.noise_generator == SEEDED_TEST for one in predicates
        ),
        owners_word=verdict.owners_word,
        absent=absent_logs(record),
        unopened=len(unopened_jobs(record)),
        keys_from=keys_from,
        keys=_keys(record),
    )


def _keys(record: ExportRecord) -> dict[str, tuple[str, ...]]:
    body = record.bundle.body
    held: dict[str, set[str]] = {f"{body.exporter_role}/{body.exporter}": {record.bundle.signature.key_id}}
    for one in record.proven:
        named = {signature.key_id for signature in one.entry.envelope.signatures[:1]}
        held.setdefault(f"{one.role.value}/{one.owner}", set()).update(named)
    return {party: tuple(sorted(found)) for party, found in sorted(held.items())}


def _assess(clause: Clause, found: Mapping[str, Finding]) -> ClauseAssessment:
    evidence = tuple(found[one] for one in clause.evidence)
    attention = tuple(found[one] for one in clause.attention if found[one].citations)
    if not evidence:
        standing = Standing.NOT_BY_SOFTWARE
    elif any(one.citations for one in evidence):
        standing = Standing.EVIDENCE
    else:
        standing = Standing.NO_EVIDENCE
    return ClauseAssessment(clause, standing, evidence, attention)


def _find(kind: EvidenceKind, statements: Sequence[ExportedStatement]) -> Finding:
    return Finding(kind, tuple(_citation(one) for one in statements if kind.fits(one.predicate)))


def _citation(one: ExportedStatement) -> Citation:
    job_id = one.predicate.job_id
    return Citation(
        statement_sha256=one.entry.envelope.payload_sha256,
        log=one.origin,
        index=one.entry.index,
        party=one.owner,
        job_id=None if job_id == log_stream(one.origin) else job_id,
        recorded_at=one.predicate.recorded_at,
    )
