"""The privacy spent by a job and by its dataset, recomputed from the sites' own statements.

dp-accounting is loaded on first use and may be absent; then nothing can be said about epsilon, and it isn't.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from cloister.core.canonical import JSON
from cloister.evidence.predicates import BudgetSpend
from cloister.evidence.record import JobRecord
from cloister.evidence.terms import HARD_STOP_EPSILON
from cloister.evidence.transcript import Event, coalesce, epsilon, event_from_json

DECIMALS: Final = 6
"""Epsilon is stated rounded up to this many decimals, so that no machine's last bit understates it."""

TOLERANCE: Final = 1.5 * 10**-DECIMALS


@dataclass(frozen=True, slots=True)
class EpsilonFigures:
    """What one site spent.

    Attributes:
        epsilon: of this job alone.
        dataset_total: of this job and everything the dataset was charged before.
    """

    epsilon: float
    dataset_total: float


@dataclass(frozen=True, slots=True)
class EpsilonLimits:
    """What one site may spend.

    Attributes:
        job: the smaller of the job's and the request's epsilon.
        dataset: the smallest of the manifest's budget, its hard stop and the house's.
    """

    job: float
    dataset: float


def job_events(spends: Sequence[BudgetSpend]) -> tuple[Event, ...]:
    """What a site's spends charged in this job."""
    return tuple(event_from_json(cast(JSON, one.event)) for one in spends)


def prior_events(spends: Sequence[BudgetSpend]) -> tuple[Event, ...]:
    """What the dataset was charged before this job, as the site states it."""
    return tuple(event_from_json(cast(JSON, event)) for one in spends for event in one.prior_events)


def epsilon_figures(spends: Sequence[BudgetSpend]) -> EpsilonFigures:
    """Recompute what a site spent, rounded up to ``DECIMALS`` decimals.

    Args:
        spends: every spend the site states in the job; at least one.

    Returns:
        The figures, possibly infinite.

    Raises:
        InputError: if an event can't be read.
        ImportError: if dp-accounting is not installed.
    """
    delta = max(one.delta for one in spends)
    here, before = coalesce(job_events(spends)), prior_events(spends)
    job = _epsilon(here, delta)
    total = _epsilon(coalesce((*before, *here)), delta)
    return EpsilonFigures(_round_up(job), _round_up(total))


def epsilon_limits(record: JobRecord, site: str) -> EpsilonLimits:
    """The limits a site's spending is held to."""
    guardrails = record.manifests[site].terms.privacy_guardrails
    return EpsilonLimits(
        job=min(record.job.privacy.target_epsilon, record.request.terms.privacy.epsilon),
        dataset=min(guardrails.epsilon_budget, guardrails.epsilon_hard_stop, HARD_STOP_EPSILON),
    )


def within(spent: EpsilonFigures, limits: EpsilonLimits) -> bool:
    """Whether the spending keeps both limits, up to the rounding of the figures."""
    return spent.epsilon <= limits.job + TOLERANCE and spent.dataset_total <= limits.dataset + TOLERANCE


@lru_cache(maxsize=256)
def _epsilon(events: tuple[Event, ...], delta: float) -> float:
    # Sites of one job usually ran the same mechanism, and composing costs far more than comparing.
    return epsilon(events, delta)


def _round_up(value: float) -> float:
    return math.ceil(value * 10**DECIMALS) / 10**DECIMALS if math.isfinite(value) else value
