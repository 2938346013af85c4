"""What is stated when training is over: the evaluation, the release, violations, and the end of the job."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from cloister.core.hashes import Sha256Field
from cloister.evidence.predicates.base import (
    TYPE_PREFIX,
    CountField,
    NameField,
    Part,
    PartyField,
    Predicate,
    RemarkField,
    Role,
    TextField,
    known,
)


class SiteMetric(Part):
    """A metric on one site's rows of the named test set; ``value`` is None where it is undefined."""

    site: PartyField
    metric: NameField
    value: Annotated[float, Field(ge=0, le=1)] | None
    reason: RemarkField


@known
class Evaluation(Predicate):
    """The hub measured the model on a named public or consented test set.

    Attributes:
        test_set: the test set's name.
        test_set_sha256: its hash.
        records: how many records it has.
        metric: the manifest's metric.
        value: what the model reaches.
        baseline_name: what it is compared with: the best constant answer.
        baseline_value: what that reaches.
        improvement_score: the share of the gap between baseline and perfection that the model closes.
        threshold: the manifest's threshold.
        passed: whether ``value`` reaches ``threshold``.
        sites: the metric per site's share of the test set.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "evaluation:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB})

    test_set: NameField
    test_set_sha256: Sha256Field
    records: CountField = Field(gt=0)
    metric: NameField
    value: float = Field(ge=0, le=1)
    baseline_name: Literal["best-constant"]
    baseline_value: float = Field(ge=0, le=1)
    improvement_score: float
    threshold: float = Field(ge=0, le=1)
    passed: bool
    sites: tuple[SiteMetric, ...]


RELEASE_CONSTRAINTS: Final = ("allowed-outputs", "max-model-bytes", "finite-weights", "private-training")
"""What every release is held against; each is named once, and no other."""


class OutputConstraint(Part):
    """One of the manifest's conditions on what may be released."""

    name: NameField
    satisfied: bool
    detail: RemarkField


@known
class Release(Predicate):
    """The hub held the model against the manifests' output constraints.

    Attributes:
        model_sha256: SHA-256 of the model file.
        model_bytes: its size.
        weights_sha256: hash of the global weights in it, as the last round stated them.
        constraints: every constraint looked at, those of ``RELEASE_CONSTRAINTS``.
        approved: whether all of them are satisfied.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "release:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB})

    model_sha256: Sha256Field
    model_bytes: CountField
    weights_sha256: Sha256Field
    constraints: tuple[OutputConstraint, ...] = Field(min_length=1)
    approved: bool


@known
class Violation(Predicate):
    """A party refused something that broke a rule.

    Attributes:
        rule: the rule's name.
        detail: what happened, without any record's content.
        artifact_sha256: hash of what was refused, where there is such a thing.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "violation:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB, Role.SITE})

    rule: NameField
    detail: TextField
    artifact_sha256: Sha256Field | None


class HubEnding(Part):
    """How the hub ended a job, as it showed it to a site, which verified it.

    The statement is in the log of this size and root, and that log continues all that the site has seen of
    the hub. A hub that ends the job a second time, in whatever log, ends it otherwise than its sites state.

    Attributes:
        statement_sha256: SHA-256 of the payload of the hub's closing statement.
        origin: the hub's log.
        size: how many entries it had when it was shown.
        root: its Merkle root then, in hex.
    """

    statement_sha256: Sha256Field
    origin: NameField
    size: CountField = Field(gt=0)
    root: Sha256Field


@known
class JobClosed(Predicate):
    """A party's last statement in a job: after it nothing may follow, and nothing before it may be missing.

    The hub closes first; each site then states how, and closes.

    Attributes:
        statements: how many statements the party made in this job, this one included.
        outcome: how it ended for this party.
        hub_ending: the hub's ending, as a site was shown it; None in the hub's own, and where the hub showed
            none, or none that holds.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "job-closed:v2"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB, Role.SITE})

    statements: CountField
    outcome: Literal["completed", "refused", "failed"]
    hub_ending: HubEnding | None
