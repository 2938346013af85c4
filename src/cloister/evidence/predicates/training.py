"""What is stated in every round: the privacy spent, the update that left, the aggregate made of it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from cloister.core.hashes import Sha256Field
from cloister.evidence.predicates.base import (
    TYPE_PREFIX,
    CountField,
    NameField,
    Part,
    PartyField,
    Predicate,
    Role,
    TextField,
    known,
)
from cloister.evidence.predicates.log import HeldCheckpoint, Holding
from cloister.evidence.transcript import FIXED_PLAN, Mode, Unit

RoundField = CountField

OS_ENTROPY = "aes-256-ctr/os-entropy"
SEEDED_TEST = "seeded-test"
MOCK = "mock/no-noise"

MAX_PRIOR_EVENTS: Final = 256
"""Equal mechanisms are one event; each further one takes who recomputes epsilon hundredths of a second."""


@known
class BudgetSpend(Predicate):
    """A site charged its ledger for one mechanism and says what it was, so that anyone can recompute epsilon.

    Attributes:
        round: the round, from 0.
        purpose: training; or, charged beside it, figures released about private rows (evaluation), a convex
            model released with noise (perturbation), trials and their scores (tuning).
        event: the mechanism as executed, in the privacy transcript's JSON form.
        delta: the delta the ledger counts with.
        unit: what one unit of privacy protects.
        relation: which neighbouring datasets are compared.
        mode: how the ledger composes spends, fixed when it was made.
        plan_steps: of training in the mode ``fixed_plan``, the steps of the job's whole plan, which all count
            from the first round on; else None.
        reserved_steps: steps reserved before the first gradient, of this round; of other mechanisms, how
            often they were to run.
        executed_steps: steps charged for this round, the number in ``event``; never above those reserved.
        dataset_sha256: the dataset charged.
        noise_generator: where noise and sampling came from.
        ledger_head: SHA-256 of the ledger's newest row after this charge.
        prior_events: in the job's first spend, what this dataset was charged by earlier jobs, equal
            mechanisms merged; else empty.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "budget-spend:v2"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.SITE})

    round: RoundField
    purpose: Literal["training", "evaluation", "perturbation", "tuning"]
    event: dict[str, str | int | float]
    delta: float = Field(gt=0, lt=1)
    unit: Unit
    relation: Literal["add_or_remove_one"]
    mode: Mode
    plan_steps: CountField | None
    reserved_steps: CountField
    executed_steps: CountField
    dataset_sha256: Sha256Field
    noise_generator: Literal["aes-256-ctr/os-entropy", "seeded-test", "mock/no-noise"]
    ledger_head: Sha256Field
    prior_events: tuple[dict[str, str | int | float], ...] = Field(max_length=MAX_PRIOR_EVENTS)

    @model_validator(mode="after")
    def _a_plan_where_it_was_fixed(self) -> Self:
        if (self.plan_steps is None) is (self.mode == FIXED_PLAN and self.purpose == "training"):
            raise ValueError("plan_steps goes with training in the mode fixed_plan, and with nothing else")
        return self


class TensorShape(Part):
    """Name, shape and element type of one tensor that left."""

    name: NameField
    shape: tuple[CountField, ...]
    dtype: NameField


class StatedChangeLimit(Part):
    """How far an update's weights may be from those received, as `cloister.evidence.change_limit` derives it.

    Attributes:
        l2: largest L2 norm of the change over all tensors together.
        largest: largest change of one weight.
        rounding: allowed beside either, as a share of the received weights' own norm, or largest weight.
    """

    l2: float = Field(gt=0)
    largest: float = Field(gt=0)
    rounding: float = Field(ge=0)


@known
class UpdateReleased(Holding):
    """A site let one update through its airlock, and held the hub's log as the round began.

    It binds what left to the attested key, to the manifest whose output constraints were applied, and to the
    airlock's verdict; what breaks a constraint doesn't leave, and is a `Violation`.

    Attributes:
        round: the round, from 0.
        hub_log: the checkpoint of the hub's log that came with the round's task, and that the site keeps.
        model_sha256: hash of the global weights the round's training began with, as the site received them.
        update_sha256: hash of the update that left.
        tensors: what it was made of.
        scalars: names of the numbers that left beside the tensors.
        bytes: size of the update.
        airlock_policy_sha256: hash of the airlock policy that let it through.
        manifest_sha256: the manifest whose output constraints that policy applies.
        attested_key_id: the key that the site's evidence is bound to; it signs this.
        max_bytes: the policy's cap on the update's size.
        mantissa_bits: bits of fraction to which the weights were rounded; None if they left as they were.
        bits: how much information an update of this form can hold at most.
        max_bits: the policy's cap on that; None if the manifest has none.
        change: how far they may be from those received; None if the manifest asks for no such bound.
        constraints: everything the update was held against, and kept to.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "update-released:v4"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.SITE})

    hub_log: HeldCheckpoint
    model_sha256: Sha256Field
    update_sha256: Sha256Field
    tensors: tuple[TensorShape, ...] = Field(min_length=1)
    scalars: tuple[NameField, ...]
    bytes: CountField
    airlock_policy_sha256: Sha256Field
    manifest_sha256: Sha256Field
    attested_key_id: NameField
    max_bytes: CountField
    mantissa_bits: Annotated[int, Field(ge=1, le=52)] | None
    bits: CountField
    max_bits: CountField | None
    change: StatedChangeLimit | None
    constraints: tuple[NameField, ...] = Field(min_length=1, max_length=32)

    @property
    def checkpoints(self) -> tuple[HeldCheckpoint, ...]:
        """What is held, one checkpoint per log."""
        return (self.hub_log,)


@known
class RoundAggregated(Predicate):
    """The hub made the next global model from the sites' updates.

    Attributes:
        round: the round, from 0.
        strategy: how the updates were combined.
        updates: hash of the update of each site that took part.
        weights: the weight of each of those sites, positive, summing to one.
        absent: every other site of the job, with the reason it took no part.
        model_sha256_before: hash of the global weights sent out.
        model_sha256_after: hash of the global weights made.
    """

    TYPE: ClassVar[str] = TYPE_PREFIX + "round-aggregated:v1"
    ROLES: ClassVar[frozenset[Role]] = frozenset({Role.HUB})

    round: RoundField
    strategy: NameField
    updates: dict[PartyField, Sha256Field] = Field(min_length=1)
    weights: dict[PartyField, Annotated[float, Field(gt=0, le=1)]]
    absent: dict[PartyField, TextField]
    model_sha256_before: Sha256Field
    model_sha256_after: Sha256Field
