"""What is stated about the keeping of things: keys given out, use that is counted, destruction, incidents,
and who read or exported a log.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from cloister.core.hashes import Sha256Field
from cloister.evidence.predicates.admission import AppraisalCheck
from cloister.evidence.predicates.base import (
    TYPE_PREFIX,
    CountField,
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

WORKER_MEMORY: Final = "worker-memory"
WIPED: Final = "record-buffers-wiped"
REAPED: Final = "process-reaped"
WORKER_LOOKS: Final = (WIPED, REAPED, "namespaces-empty", "no-core-file", "no-page-on-disk")
"""What is looked at when a worker has ended, each of it by name in every statement of one."""


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
        method: what was done, and no more than that.
        artifacts: SHA-256 of each thing, of a key its public half's or its wrapped form's. A worker's memory
            is named by the public key that the worker made.
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


KeyIdField = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class AttestedPlatform(Part):
    """What the evidence that asked for a key says, once it is authentic."""

    platform: NameField
    simulated: bool
    measurement: RemarkField
    tcb_status: NameField
    advisories: tuple[NameField, ...] = Field(max_length=1000)


@known
class KeyRelease(Predicate):
    """A keeper of keys judged a request for a data key, and says so before anything is released.

    Attributes:
        outcome: what follows; a release that was stated may still not have reached anybody.
        code: why it was refused; None where it wasn't.
        policy_sha256: the signed release policy that was asked under.
        data_key: the key's id.
        purpose: what the key was made for; None where it was refused before the key was looked at.
        dataset: what the key opens.
        scope: the job or study that asked.
        number: which release under this policy it is, from 1; 0 where it was refused.
        limit: how many the policy allows.
        refusals: how many requests under this policy were refused by now: of a refusal's code, with this
            one, and of all codes where it was released. Not each of them is stated.
        enclave_key: SHA-256 of the public key that the answer is sealed to.
        seal_sha256: SHA-256 of what holds the worker, in canonical form; the evidence has it sealed in.
        nonce_sha256: SHA-256 of the challenge that was answered.
        evidence_sha256: SHA-256 of the raw evidence's canonical form, which the keeper keeps.
        collateral: SHA-256 of each vendor's document the verdict was reached with.
        attested: what the evidence says; None where it isn't authentic.
        checks: every check of the verdict; none where it came to no verdict.
        evaluated_at: the time the verdict was made for.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "key-release:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB, Role.SITE})

    outcome: Literal["released", "refused"]
    code: NameField | None
    policy_sha256: Sha256Field
    data_key: NameField
    purpose: Literal["records", "package", "test-data"] | None
    dataset: NameField
    scope: NameField
    number: CountField
    limit: CountField
    refusals: CountField
    enclave_key: KeyIdField
    seal_sha256: Sha256Field
    nonce_sha256: Sha256Field
    evidence_sha256: Sha256Field
    collateral: tuple[Sha256Field, ...] = Field(max_length=64)
    attested: AttestedPlatform | None
    checks: tuple[AppraisalCheck, ...] = Field(max_length=512)
    evaluated_at: TimeField

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        released = self.outcome == "released"
        if released != (self.code is None) or released != (1 <= self.number <= self.limit):
            raise ValueError("has a code where it was refused, and a number within the limit where not")
        if not released and not self.refusals:
            raise ValueError("counts the refusal that it is")
        if released and (self.attested is None or self.purpose is None):
            raise ValueError("releases for a purpose, and to what was attested only")
        return self


class SealMeasure(Part):
    """One measure that holds a worker, or doesn't: what came of trying it, and the kernel's word on that."""

    name: NameField
    outcome: Literal["held", "failed", "not_tried"]
    detail: RemarkField


@known
class WorkerSealed(Predicate):
    """A site sealed a worker, and says what holds it, before the worker asks for any key.

    It is the word of the site's software on its machine. The quote with which the worker asks for its key has
    its hash sealed in, beside the measurement of that software.

    Attributes:
        enclave_key: SHA-256 of the public key that the worker made behind its seal.
        level: the level of sealing.
        kernel: the kernel's release.
        measures: every measure that there is, with what came of it.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "worker-sealed:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.SITE})

    enclave_key: KeyIdField
    level: NameField
    kernel: NameField
    measures: tuple[SealMeasure, ...] = Field(min_length=1, max_length=64)


@known
class InferenceMetered(Predicate):
    """A provider counts what a model was used for, without anything of what was asked or answered.

    Attributes:
        model_sha256: SHA-256 of the model file, or of the sealed package that the model came in.
        sessions: clients' sessions that were opened.
        requests: requests that were answered.
        predictions: rows that were answered in them.
        refused: requests that were refused.
        period_start: from when the counts are.
        period_end: until when, and before the next statement's start.
        simulated: whether the enclave is a simulation.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "inference-metered:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB, Role.SITE})

    model_sha256: Sha256Field
    sessions: CountField
    requests: CountField
    predictions: CountField
    refused: CountField
    period_start: TimeField
    period_end: TimeField
    simulated: bool

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.period_start > self.period_end:
            raise ValueError("ends before it starts")
        return self


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
