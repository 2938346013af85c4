"""Privacy budgets: how much, for whom, and which limit is the strictest.

Rules kept here:

1. Epsilon and delta never stand alone: a budget names the unit it protects and the neighbouring relation.
2. ``HARD_STOP_EPSILON`` is a ceiling over everything ever done to a dataset. A manifest or a job can set a
   lower limit; nothing sets a higher one.
3. Delta stays below one over the number of records, or it would allow publishing a whole record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cloister.evidence.transcript import RELATION, UNIT
from cloister.privacy.errors import PrivacyError

HARD_STOP_EPSILON: Final = 5.0


def _require_epsilon(epsilon: float) -> None:
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise PrivacyError("privacy.budget_invalid", "Epsilon must be above 0 and finite.")


@dataclass(frozen=True, slots=True)
class PrivacyUnit:
    """What one neighbouring dataset has more or less than the other.

    Args:
        kind: The thing protected. ``record``: one row of the table.
        relation: How neighbouring datasets differ. ``add_or_remove_one``.
    """

    kind: str = UNIT
    relation: str = RELATION

    def __post_init__(self) -> None:
        if self.kind != UNIT or self.relation != RELATION:
            raise PrivacyError(
                "privacy.budget_invalid",
                f"Privacy is accounted per {UNIT} under {RELATION}.",
                "Give each subject one record, or leave unit and relation out.",
            )


@dataclass(frozen=True, slots=True)
class PrivacyBudget:
    """An allowance of (epsilon, delta) for a unit.

    Args:
        epsilon: Above 0 and finite.
        delta: In (0, 1); see :func:`check_delta` for its upper bound on a dataset.
        unit: What is protected.

    Raises:
        PrivacyError: ``privacy.budget_invalid``.
    """

    epsilon: float
    delta: float
    unit: PrivacyUnit = field(default_factory=PrivacyUnit)

    def __post_init__(self) -> None:
        _require_epsilon(self.epsilon)
        if not (math.isfinite(self.delta) and 0 < self.delta < 1):
            raise PrivacyError("privacy.budget_invalid", "Delta must lie strictly between 0 and 1.")


class Scope(StrEnum):
    """Which events a limit adds up."""

    JOB = "job"
    DATASET = "dataset"


@dataclass(frozen=True, slots=True)
class Limit:
    """A ceiling on composed epsilon.

    Args:
        name: Who set it, for the message of a refusal, e.g. ``manifest`` or ``job``.
        epsilon: Above 0 and finite.
        scope: Over the events of one job, or over all events of the dataset.

    Raises:
        PrivacyError: ``privacy.budget_invalid``.
    """

    name: str
    epsilon: float
    scope: Scope

    def __post_init__(self) -> None:
        _require_epsilon(self.epsilon)


HARD_STOP: Final = Limit("hard stop", HARD_STOP_EPSILON, Scope.DATASET)


def strictest(limits: Sequence[Limit]) -> Limit:
    """Return the limit with the smallest epsilon; the first of equals.

    Raises:
        PrivacyError: ``privacy.budget_invalid`` when there is no limit at all.
    """
    if not limits:
        raise PrivacyError("privacy.budget_invalid", "At least one privacy limit is needed.")
    return min(limits, key=lambda limit: limit.epsilon)


def check_delta(delta: float, records: int) -> None:
    """Refuse a delta that would allow a whole record to be published.

    Args:
        delta: In (0, 1).
        records: Number of protected records, public.

    Raises:
        PrivacyError: ``privacy.delta_too_large`` when delta is not below 1 / records.
    """
    if records < 1 or not delta < 1 / records:
        raise PrivacyError(
            "privacy.delta_too_large",
            "Delta must be below one over the number of records.",
            "Ask for a smaller delta.",
        )
