"""The privacy spent by a job and by its dataset, recomputed from the sites' own statements.

dp-accounting is loaded on first use and may be absent; then nothing can be said about epsilon, and it isn't.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from cloister.core.canonical import JSON
from cloister.core.errors import InputError
from cloister.evidence.predicates import BudgetSpend
from cloister.evidence.record import JobRecord
from cloister.evidence.terms import HARD_STOP_EPSILON
from cloister.evidence.transcript import (
    Event,
    Mode,
    coalesce,
    epsilon_by,
    event_from_json,
    other_mode,
    repeated,
)

DECIMALS: Final = 6
"""Epsilon is stated rounded up to this many decimals, so that no machine's last bit understates it."""

MAX_MECHANISMS: Final = 512
"""How many different mechanisms of one dataset are composed; each takes some hundredths of a second."""

TOLERANCE: Final = 1.5 * 10**-DECIMALS


@dataclass(frozen=True, slots=True)
class EpsilonFigures:
    """What one site spent.

    Attributes:
        epsilon: of this job alone, by the accountant of the ledger's mode.
        dataset_total: of this job and everything the dataset was charged before.
        other: of this job alone, by the other accountant; reported, never held against a limit.
    """

    epsilon: float
    dataset_total: float
    other: float


@dataclass(frozen=True, slots=True)
class EpsilonLimits:
    """What one site may spend.

    Attributes:
        job: the smaller of the job's and the request's epsilon.
        dataset: the smallest of the manifest's budget, its hard stop, the house's, and the site's part of the
            ceiling on one subject.
    """

    job: float
    dataset: float


@dataclass(frozen=True, slots=True)
class SubjectFigures:
    """What one subject may have lost at all sites of a job together.

    Attributes:
        linked: whether every hospital states that no subject is at two sites; if not, figures add up.
        epsilon: in this job.
        dataset_total: in this job and in everything the datasets were charged before.
        delta: at which both are stated.
        limit: the smallest ceiling of the hospitals.
    """

    linked: bool
    epsilon: float
    dataset_total: float
    delta: float
    limit: float


def job_events(spends: Sequence[BudgetSpend]) -> tuple[Event, ...]:
    """What a site's spends charged in this job; of a plan that was fixed, all of it."""
    charged = [(one, event_from_json(cast(JSON, one.event))) for one in spends]
    plans = [(one, event) for one, event in charged if one.plan_steps is not None]
    others = [event for one, event in charged if one.plan_steps is None]
    # Rounds of one plan share its mechanism; were they to differ, each would count as a plan of its own.
    whole = {(repeated(event, 1), one.plan_steps) for one, event in plans}
    return (*others, *(repeated(event, steps) for event, steps in whole if steps))


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
        InputError: if an event can't be read, or there are more than ``MAX_MECHANISMS`` different ones.
        ImportError: if dp-accounting is not installed.
    """
    delta, mode = max(one.delta for one in spends), spends[0].mode
    here, before = coalesce(job_events(spends)), prior_events(spends)
    everything = coalesce((*before, *here))
    if len(everything) > MAX_MECHANISMS:
        raise InputError(
            "input.too_large",
            f"The dataset was charged for {len(everything)} different mechanisms; "
            f"at most {MAX_MECHANISMS} are composed.",
        )
    job = _epsilon(mode, here, delta)
    total = _epsilon(mode, everything, delta)
    other = _epsilon(other_mode(mode), here, delta)
    return EpsilonFigures(_round_up(job), _round_up(total), _round_up(other))


def subject_figures(record: JobRecord, figures: Mapping[str, EpsilonFigures]) -> SubjectFigures:
    """Compose what one subject may have lost over the sites of a job.

    Args:
        record: the job's record.
        figures: of every site that spent, at least one.
    """
    guardrails = [one.terms.privacy_guardrails for one in record.manifests.values()]
    linked = all(one.cross_site_subjects == "linked" for one in guardrails)
    deltas = [max(one.delta for one in record.by(site, BudgetSpend)) for site in sorted(figures)]
    over_sites = max if linked else math.fsum
    return SubjectFigures(
        linked=linked,
        epsilon=_round_up(over_sites([figures[site].epsilon for site in sorted(figures)])),
        dataset_total=_round_up(over_sites([figures[site].dataset_total for site in sorted(figures)])),
        delta=over_sites(deltas),
        limit=min(one.epsilon_per_subject for one in guardrails),
    )


def epsilon_limits(record: JobRecord, site: str) -> EpsilonLimits:
    """The limits a site's spending is held to."""
    guardrails = record.manifests[site].terms.privacy_guardrails
    sharers = 1 if guardrails.cross_site_subjects == "linked" else len(record.job.clients)
    return EpsilonLimits(
        job=min(record.job.privacy.target_epsilon, record.request.terms.privacy.epsilon),
        dataset=min(
            guardrails.epsilon_budget,
            guardrails.epsilon_hard_stop,
            HARD_STOP_EPSILON,
            guardrails.epsilon_per_subject / sharers,
        ),
    )


def within(spent: EpsilonFigures, limits: EpsilonLimits) -> bool:
    """Whether the spending keeps both limits, up to the rounding of the figures."""
    return spent.epsilon <= limits.job + TOLERANCE and spent.dataset_total <= limits.dataset + TOLERANCE


@lru_cache(maxsize=256)
def _epsilon(mode: Mode, events: tuple[Event, ...], delta: float) -> float:
    # Sites of one job usually ran the same mechanism, and composing costs far more than comparing.
    return epsilon_by(mode, events, delta)


def _round_up(value: float) -> float:
    return math.ceil(value * 10**DECIMALS) / 10**DECIMALS if math.isfinite(value) else value
