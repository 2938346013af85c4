"""Forms of documents without a model of their own in the code: a segment's lines, the regulatory report.

They say how each is written, for schemas; nothing is read by them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel, StringConstraints

from cloister.core.hashes import Sha256Field
from cloister.evidence.predicates.base import Base64Field, CountField, NameField, Part, TimeField, UuidField
from cloister.evidence.predicates.custody import ExportSelection
from cloister.evidence.regulation.assessment import Standing
from cloister.evidence.regulation.clauses import RegulationId
from cloister.evidence.segments.checkpoint import State
from cloister.evidence.segments.layout import Header, KeyIdField, Kind

Words = Annotated[str, StringConstraints(min_length=1)]


class _Line(Part):
    at: TimeField
    n: Annotated[CountField, Field(ge=1)]
    tag: Sha256Field
    tip: Sha256Field


class OpeningLine(_Line):
    """The first line: what the segment says of itself."""

    kind: Literal[Kind.OPEN]
    n: Literal[1]
    open: Header


class EntryLine(_Line):
    """An event; in an encrypted segment as base64."""

    event: dict[str, object] | Base64Field
    kind: Literal[Kind.ENTRY]


class Mark(Part):
    """The writer's signature over the segment up to the line before."""

    head: Sha256Field
    sig: Base64Field
    state: State
    uptime: CountField


class MarkLine(_Line):
    """A signed mark."""

    kind: Literal[Kind.MARK]
    mark: Mark


class SegmentLine(RootModel[OpeningLine | EntryLine | MarkLine]):
    """One line of a segment: its opening, an event, or a signed mark."""

    root: OpeningLine | EntryLine | MarkLine = Field(discriminator="kind")


class CitedStatement(Part):
    """A statement in the export, by hash and place."""

    statement_sha256: Sha256Field
    log: NameField
    index: CountField
    party: NameField
    job_id: UuidField
    recorded_at: TimeField


class FoundStatements(Part):
    """The statements of one kind, what they show and what they don't."""

    predicate_type: Words
    shows: Words
    not_shown: Words
    statements: tuple[CitedStatement, ...]


class Kinds(Part):
    """Of the kinds that bear on a clause, of how many there are statements."""

    found: CountField
    bear_on_it: CountField


class ReportedClause(Part):
    """What the export tells about one clause."""

    clause: Words
    title: Words
    asks: Words
    standing: Standing
    kinds: Kinds
    reason: Words
    evidenced_by: tuple[FoundStatements, ...]
    look_at: tuple[FoundStatements, ...]


class MappingReview(Part):
    """When and by whom the mapping from statements to clauses was reviewed, and against which texts."""

    on: Words
    by: Words
    sources: tuple[Words, ...]
    limits: Words


class VerifiedWith(Part):
    """Whose pinned keys the export was verified with, and those that held, by party."""

    keys_from: Words
    keys: dict[str, tuple[KeyIdField, ...]]


class PassedCheck(Part):
    """A check that the export passed."""

    id: Words
    detail: str


class ReportedExport(Part):
    """The export that the report rests on."""

    sha256: Sha256Field
    export_id: UuidField
    exported_at: TimeField
    exporter: NameField
    recipient: NameField
    selection: ExportSelection
    verified_with: VerifiedWith
    owners_word: bool
    absent_logs: tuple[NameField, ...]
    jobs_without_their_parties: CountField
    checks: tuple[PassedCheck, ...]


class ReportedHead(Part):
    """A log's size and root."""

    size: CountField
    root: Sha256Field


class RegulatoryReport(Part):
    """A report on one regulation, clause by clause. It never says that a law is complied with."""

    schema_: Literal["urn:cloister:regulatory-report:v1"] = Field(alias="schema")
    regulation: RegulationId
    title: Words
    source: Words
    scope: Words
    mapping_review: MappingReview
    export: ReportedExport
    logs: dict[str, ReportedHead]
    statements: dict[str, CountField]
    simulated: bool
    test_randomness: bool
    clauses: tuple[ReportedClause, ...]
    claims_not_made: tuple[Words, ...]
