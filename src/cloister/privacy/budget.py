"""Privacy budgets: how much, for whom, and which limit is the strictest.

Rules kept here:

1. Epsilon and delta never stand alone: a budget names the unit it protects and the neighbouring relation.
2. ``HARD_STOP_EPSILON`` is a ceiling over everything ever done to a dataset. A manifest or a job can set a
   lower limit; nothing sets a higher one.
3. Delta stays below one over the number of units, or it would allow publishing a whole one.
4. A subject's rows at several hospitals are one subject: unless the hospitals linked their subjects, a
   ceiling on one subject's loss is shared among all of them, however many a job runs at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, TypeAlias, get_args

from cloister.evidence.transcript import RELATION, Unit
from cloister.privacy.errors import PrivacyError

HARD_STOP_EPSILON: Final = 5.0

CrossSite: TypeAlias = Literal["sum", "linked"]
"""What is known of subjects at two sites: nothing, so their losses add up; or linkage found none."""


def _require_epsilon(epsilon: float) -> None:
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise PrivacyError("privacy.budget_invalid", "Epsilon must be above 0 and finite.")


@dataclass(frozen=True, slots=True)
class PrivacyUnit:
    """What one neighbouring dataset has more or less than the other.

    Args:
        kind: The thing protected. ``record``: one row of the table. ``subject``: all rows of one person.
        relation: How neighbouring datasets differ. ``add_or_remove_one``.
    """

    kind: Unit = "record"
    relation: str = RELATION

    def __post_init__(self) -> None:
        if self.kind not in get_args(Unit) or self.relation != RELATION:
            raise PrivacyError(
                "privacy.budget_invalid",
                f"Privacy is accounted per record or per subject, under {RELATION}.",
                "Hospitals are too few to hide that one took part; replacing costs more than adding.",
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
    """Which events a limit adds up: one job's, or all of the dataset's.

    ``SUBJECT`` adds up the dataset's too, for a ceiling on one subject's loss over several sites.
    """

    JOB = "job"
    DATASET = "dataset"
    SUBJECT = "subject"


@dataclass(frozen=True, slots=True)
class Limit:
    """A ceiling on composed epsilon.

    Args:
        name: Who set it, for the message of a refusal, e.g. ``manifest`` or ``job``.
        epsilon: Above 0 and finite.
        scope: Which events it adds up.

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


def subject_limit(epsilon: float, sites: int, cross_site: CrossSite) -> Limit:
    """Return one hospital's part of a ceiling on one subject's loss over all hospitals and jobs.

    Args:
        epsilon: The ceiling.
        sites: The hospitals that share it, at least 1: those of the manifest, not those of a job.
        cross_site: ``sum``: a subject may be at every site, so each gets an equal share; ``linked``: no
            subject is at two sites, so each gets the whole.

    Raises:
        PrivacyError: ``privacy.budget_invalid``.
    """
    if sites < 1:
        raise PrivacyError("privacy.budget_invalid", "A limit per subject needs at least one site.")
    return Limit("subject", epsilon / sites if cross_site == "sum" else epsilon, Scope.SUBJECT)


def check_delta(delta: float, units: int) -> None:
    """Refuse a delta that would allow a whole unit to be published.

    Args:
        delta: In (0, 1).
        units: Number of protected units, public.

    Raises:
        PrivacyError: ``privacy.delta_too_large`` when delta is not below 1 / units.
    """
    if units < 1 or not delta < 1 / units:
        raise PrivacyError(
            "privacy.delta_too_large",
            "Delta must be below one over the number of protected units.",
            "Ask for a smaller delta.",
        )


def check_group(units: int, minimum: int) -> None:
    """Refuse a dataset too small for one of its units to hide in.

    Args:
        units: Number of protected units, public.
        minimum: Fewest that may be trained on; never below 2.

    Raises:
        PrivacyError: ``privacy.group_too_small``; the count isn't told.
    """
    if units < max(2, minimum):
        raise PrivacyError(
            "privacy.group_too_small",
            f"The dataset holds fewer protected units than the minimum of {max(2, minimum)}.",
            "Train at a site with more, or put the rows of small sites together under one agreement.",
        )
