"""What is stated about the keeping of things: destruction, incidents, and who read or exported a log."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cloister.core.hashes import Sha256Field
from cloister.evidence.predicates.base import (
    TYPE_PREFIX,
    NameField,
    Part,
    Predicate,
    RemarkField,
    Role,
    TextField,
    TimeField,
    UuidField,
    known,
)


class DestructionCheck(Part):
    """One look at whether the thing is really gone."""

    name: NameField
    outcome: Literal["passed", "failed", "not_run"]
    detail: RemarkField


@known
class Destruction(Predicate):
    """A party destroyed a key, records or a worker's memory, and looked whether it is gone.

    Nobody can prove that no copy is left; the statement says what was done and what was looked at.

    Attributes:
        what: the kind of thing.
        method: how it was destroyed.
        artifacts: SHA-256 of each thing, of a key its public half's or its wrapped form's.
        checks: what was looked at afterwards, and what was found.
        simulated: whether no real thing was destroyed, as in a rehearsal.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "destruction:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB, Role.SITE})

    what: Literal["key", "records", "worker-memory"]
    method: NameField
    artifacts: tuple[Sha256Field, ...] = Field(max_length=1024)
    checks: tuple[DestructionCheck, ...] = Field(min_length=1, max_length=64)
    simulated: bool


@known
class Incident(Predicate):
    """A party noticed something that is not as it should be.

    Attributes:
        incident_class: what kind of incident, by name.
        severity: how bad.
        detail: what was noticed, without any record's content.
        detected_at: when.
        response: what was done about it.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "incident:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB, Role.SITE})

    incident_class: NameField
    severity: Literal["low", "medium", "high", "critical"]
    detail: TextField
    detected_at: TimeField
    response: TextField


@known
class Access(Predicate):
    """Somebody read, exported, verified or reported on what a party keeps.

    Attributes:
        actor: who, as known to the operating system or as given.
        role: in what role, in the actor's own words.
        action: what was done.
        what: what was looked at: a job, a period, a file's hash.
        purpose: why, as given.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "access:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB, Role.SITE})

    actor: NameField
    role: NameField
    action: Literal["read", "export", "verify", "report"]
    what: TextField
    purpose: TextField


class ExportSelection(Part):
    """What an export was asked for: one job, or a span of time from ``start`` up to but without ``end``."""

    job_id: UuidField | None
    start: TimeField | None
    end: TimeField | None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        of_job = self.job_id is not None and self.start is None and self.end is None
        span = self.start is not None and self.end is not None and self.start < self.end
        if not (of_job or (self.job_id is None and span)):
            raise ValueError("has to name a job, or a start and a later end")
        return self


@known
class Export(Predicate):
    """A party handed out a bundle of its log; stated before the bundle is handed over.

    Attributes:
        bundle_sha256: SHA-256 of the bundle.
        selection: what was asked for.
        recipient: for whom it was made.
        previous_export_sha256: SHA-256 of the bundle exported before; None for the first. A gap shows.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "export:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB, Role.SITE})

    bundle_sha256: Sha256Field
    selection: ExportSelection
    recipient: NameField
    previous_export_sha256: Sha256Field | None
