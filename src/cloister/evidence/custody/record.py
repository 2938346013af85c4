"""An audit export taken apart: heads, entries and statements of each log, parsed but not judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cloister.evidence.custody.bundle import ExportBundle, log_extract, proven_entry
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract, ProvenEntry, log_origin, log_owner
from cloister.evidence.predicates import Predicate, Role
from cloister.evidence.statement import Statement, open_statement


@dataclass(frozen=True, slots=True)
class ExportedStatement:
    """One statement of an export.

    Attributes:
        origin: the log it stands in.
        role: the role of the log's owner.
        owner: the log's owner.
        entry: index, envelope and proof.
        statement: what is stated.
        selected: whether it was asked for; False for a neighbour that only proves completeness.
    """

    origin: str
    role: Role
    owner: str
    entry: ProvenEntry
    statement: Statement
    selected: bool

    @property
    def predicate(self) -> Predicate:
        """What is stated."""
        return self.statement.predicate

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.origin} entry {self.entry.index}"


@dataclass(frozen=True)
class ExportRecord:
    """An export, parsed but not judged.

    Attributes:
        bundle: the document.
        extracts: each log's head and entries, by the log's name.
        statements: every statement, by log, in the order of the bundle.
        own: by log, its own stream since the export before, as the bundle carries it.
        sightings: by log, what other parties state that they held of it; each stands in another log.
    """

    bundle: ExportBundle
    extracts: Mapping[str, LogExtract]
    statements: Mapping[str, tuple[ExportedStatement, ...]]
    own: Mapping[str, tuple[ExportedStatement, ...]]
    sightings: Mapping[str, tuple[ExportedStatement, ...]]

    @cached_property
    def all(self) -> tuple[ExportedStatement, ...]:
        """Every statement of every log, neighbours included."""
        return tuple(one for group in self.statements.values() for one in group)

    @cached_property
    def proven(self) -> tuple[ExportedStatement, ...]:
        """Every statement that comes with a proof: those, the logs' own streams, and the sightings."""
        besides = (one for part in (self.own, self.sightings) for group in part.values() for one in group)
        return (*self.all, *besides)

    @cached_property
    def selected(self) -> tuple[ExportedStatement, ...]:
        """The statements that were asked for."""
        return tuple(one for one in self.all if one.selected)

    @property
    def exporter_origin(self) -> str:
        """The name of the exporting party's own log."""
        return log_origin(Role(self.bundle.body.exporter_role), self.bundle.body.exporter)


def export_record(bundle: ExportBundle) -> ExportRecord:
    """Take an export apart.

    Raises:
        EvidenceError: if any part of it can't be read.
    """
    logs = bundle.body.logs
    extracts: dict[str, LogExtract] = {}
    statements: dict[str, tuple[ExportedStatement, ...]] = {}
    own: dict[str, tuple[ExportedStatement, ...]] = {}
    sightings: dict[str, tuple[ExportedStatement, ...]] = {}
    for origin, log in logs.items():
        extracts[origin] = log_extract(origin, log)
        span = log.span
        statements[origin] = tuple(
            _statement(origin, entry, selected=span is None or span.start <= entry.index < span.end)
            for entry in extracts[origin].entries
        )
        own[origin] = tuple(_statement(origin, proven_entry(one), selected=False) for one in log.own)
        if any(one.log not in logs for one in log.sightings):
            raise EvidenceError("evidence.export_malformed", "A statement is of a log that isn't here.")
        sightings[origin] = tuple(
            _statement(one.log, proven_entry(one.entry), selected=False) for one in log.sightings
        )
    return ExportRecord(bundle, extracts, statements, own, sightings)


def _statement(origin: str, entry: ProvenEntry, *, selected: bool) -> ExportedStatement:
    role, owner = log_owner(origin)
    return ExportedStatement(origin, role, owner, entry, open_statement(entry.envelope), selected)


def chains(group: Sequence[ExportedStatement]) -> dict[str, list[ExportedStatement]]:
    """One log's statements by what they belong to (a job, or the log itself), in the order of the log."""
    found: dict[str, list[ExportedStatement]] = {}
    for one in sorted(group, key=lambda one: one.entry.index):
        found.setdefault(one.predicate.job_id, []).append(one)
    return found
