"""What is stated before training starts: the job, the manifest, the decision, the attestation, the data."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from cloister.core.hashes import Sha256Field
from cloister.evidence.predicates.base import (
    TYPE_PREFIX,
    Base64Field,
    CountField,
    MeasurementField,
    NameField,
    Part,
    PartyField,
    Predicate,
    RemarkField,
    Role,
    Sha384Field,
    TextField,
    TimeField,
    UuidField,
    known,
)


@known
class JobOpened(Predicate):
    """The hub opened a job: the first statement of the hub's chain.

    Attributes:
        job_sha256: SHA-256 of the job in canonical JSON.
        job_folder_sha256: SHA-256 of the folder the job was compiled to.
        code_measurement: SHA-384 of the code the hub runs, 96 hex digits.
        sites: the sites the job names, sorted.
        rounds: rounds of training asked for.
        strategy: how updates are aggregated.
        test_set: name of the public or consented test set.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "job-opened:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB})

    job_sha256: Sha256Field
    job_folder_sha256: Sha256Field
    code_measurement: Sha384Field
    sites: tuple[PartyField, ...] = Field(min_length=1)
    rounds: int = Field(ge=1, le=10_000)
    strategy: NameField
    test_set: NameField


@known
class ManifestAccepted(Predicate):
    """A site found its hospital's manifest properly signed and works under it.

    Attributes:
        manifest_sha256: SHA-256 of the manifest's signed payload.
        hospital_id: the hospital named in the manifest.
        manifest_id: the manifest's UUID.
        version: the manifest's semantic version.
        epsilon_budget: the budget the manifest sets.
        delta_budget: the delta the manifest sets.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "manifest-accepted:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.SITE})

    manifest_sha256: Sha256Field
    hospital_id: NameField
    manifest_id: UuidField
    version: NameField
    epsilon_budget: float = Field(gt=0)
    delta_budget: float = Field(gt=0, lt=1)


@known
class RequestDecided(Predicate):
    """A site decided on a developer's request and on the job made from it.

    Attributes:
        request_sha256: SHA-256 of the request's signed payload.
        manifest_sha256: SHA-256 of the manifest's signed payload.
        job_sha256: SHA-256 of the job in canonical JSON, or of the figure asked for: the site consents to
            this and no other.
        approved: the decision.
        reasons: every reason against it; empty when approved.
        facts: all that the decision read beside manifest, request and job, enough to make it again.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "request-decided:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.SITE})

    request_sha256: Sha256Field
    manifest_sha256: Sha256Field
    job_sha256: Sha256Field
    approved: bool
    reasons: tuple[TextField, ...]
    facts: dict[NameField, str | bool | int | float]


class DeviceEvidence(Part):
    """What a device signed: its raw report and the certificates that vouch for its key."""

    tee: NameField
    report: Base64Field
    chain: tuple[Base64Field, ...] = Field(max_length=16)
    extras: dict[NameField, Base64Field] = Field(max_length=16)
    devices: tuple[()]


class QuoteEvidence(Part):
    """What the platform signed, the certificates that vouch for its key, and its devices' evidence."""

    tee: NameField
    report: Base64Field
    chain: tuple[Base64Field, ...] = Field(max_length=16)
    extras: dict[NameField, Base64Field] = Field(max_length=16)
    devices: tuple[DeviceEvidence, ...] = Field(max_length=16)


class CollateralUsed(Part):
    """A vendor's signed document that the verdict was reached with."""

    kind: NameField
    data: Base64Field


class AppraisalCheck(Part):
    """One check of an attestation verdict."""

    name: NameField
    outcome: Literal["passed", "failed", "not_run"]
    detail: RemarkField


@known
class AttestationVerdict(Predicate):
    """The hub challenged a site and appraised what its platform answered.

    Attributes:
        site: the site challenged.
        site_key_id: the key the evidence is bound to.
        nonce: the single-use challenge, base64.
        evidence: the raw report and certificate chain, base64.
        policy_id: the policy's name within the binding.
        policy: the appraisal policy as a JSON object.
        status: the verdict.
        simulated: whether the platform is a simulation and proves nothing about hardware.
        platform: name of the platform, for people.
        tcb_status: how current the platform is, in the vendor's own word.
        advisories: the vendor's advisories that apply.
        registers: every register that says what runs.
        collateral: the vendors' documents the verdict was reached with.
        checks: every check made.
        evaluated_at: the time the verdict was made for.
        measurement: the register that stands for the code attested, in hex.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "attestation-verdict:v2"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB})

    site: PartyField
    site_key_id: NameField
    nonce: Base64Field
    evidence: QuoteEvidence
    policy_id: NameField
    policy: dict[str, JsonValue]
    status: Literal["TRUSTED", "UNTRUSTED"]
    simulated: bool
    platform: NameField
    tcb_status: NameField
    advisories: tuple[NameField, ...] = Field(max_length=1000)
    registers: dict[NameField, NameField] = Field(max_length=64)
    collateral: tuple[CollateralUsed, ...] = Field(max_length=64)
    checks: tuple[AppraisalCheck, ...]
    evaluated_at: TimeField
    measurement: MeasurementField


@known
class DataCommitment(Predicate):
    """A site commits to the records it trains on, without showing any.

    Attributes:
        dataset_name: the dataset's public name.
        dataset_sha256: SHA-256 over the dataset's canonical encoding.
        records: how many records; public, since the sampling rate depends on it.
        subject_count: how many people they are of, where a subject is what is protected; else None.
        features: how many features per record.
        single_class: whether all labels are alike, if the manifest lets that fact out; None if it doesn't.
        normalisation: where the scaling comes from: bounds declared in public, never the records.
        bounds_sha256: SHA-256 of the declared bounds in canonical JSON.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "data-commitment:v2"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.SITE})

    dataset_name: NameField
    dataset_sha256: Sha256Field
    records: CountField
    subject_count: CountField | None
    features: CountField
    single_class: bool | None
    normalisation: Literal["declared-public-bounds"]
    bounds_sha256: Sha256Field

    @property
    def units(self) -> int:
        """How many records or subjects are protected."""
        return self.records if self.subject_count is None else self.subject_count
