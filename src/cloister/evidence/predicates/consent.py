"""What is stated about consent, and about the credits that a finished job earns."""

from __future__ import annotations

from typing import ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from cloister.core.hashes import Sha256Field
from cloister.evidence.predicates.base import (
    TYPE_PREFIX,
    CountField,
    NameField,
    PartyField,
    Predicate,
    Role,
    TimeField,
    known,
)


@known
class Consent(Predicate):
    """A person, or a body that may speak for persons, gave or withdrew consent; no name is in it.

    Attributes:
        subject_sha256: SHA-256 of the salted pseudonym of who consents; whoever has the salt finds it again.
        given_by: a person for themselves, or a body (an ethics board, a guardian) for others.
        action: whether consent is given or withdrawn.
        purposes: what it is for, in the words of the manifest.
        manifest_sha256: SHA-256 of the signed payload of the manifest it covers.
        given_at: when it was given or withdrawn.
        until: when it ends by itself; None if it holds until it is withdrawn.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "consent:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.SITE})

    subject_sha256: Sha256Field
    given_by: Literal["person", "body"]
    action: Literal["given", "withdrawn"]
    purposes: tuple[NameField, ...] = Field(min_length=1, max_length=64)
    manifest_sha256: Sha256Field
    given_at: TimeField
    until: TimeField | None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.until is not None and self.until <= self.given_at:
            raise ValueError("until has to be after given_at")
        return self


CREDIT_UNIT: Final = "non-monetary-credit"
"""What credits are counted in. They can't be bought, sold or paid out."""


@known
class Settlement(Predicate):
    """The hub settled a job: what credits each hospital got, and by which rule.

    Attributes:
        rule: name and version of the rule that made credits of the score.
        improvement_score: the score, as the job's evaluation states it.
        credits: credits of each hospital, whole.
        unit: says that credits aren't money.
        fund: the public fund the credits are routed to, if any.
        ledger_reference: where the ledger holds the entry; None where no ledger is kept.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "settlement:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB})

    rule: NameField
    improvement_score: float = Field(le=1)
    credits: dict[PartyField, CountField] = Field(min_length=1)
    unit: Literal["non-monetary-credit"]
    fund: NameField | None
    ledger_reference: NameField | None
