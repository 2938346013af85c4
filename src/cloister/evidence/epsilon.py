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
    ADAPTIVE,
    Event,
    Mode,
    coalesce,
    epsilon_by,
    epsilon_held,
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
        epsilon: of this job alone, by the accountant of the ledger's mode; in ``adaptive`` at the best order,
            which holds for a job whose plan was fixed when it began.
        dataset_total: of this job and everything the dataset was charged before; in ``adaptive`` at the best
            order: the reading of an odometer, where jobs followed one another's results. What is promised
            then is the limit.
        other: of this job alone, by the other accountant; reported, never held against a limit.
        held: of this job, as held against the limit on it: in ``adaptive`` at that limit's own order.
        dataset_held: of this job and everything before, as held against the smallest limit on the dataset.
    """

    epsilon: float
    dataset_total: float
    other: float
    held: float
    dataset_held: float


@dataclass(frozen=True, slots=True)
class EpsilonLimits:
    """What one site may spend.

    Attributes:
        job: the smaller of the job's and the request's epsilon.
        datasets: the manifest's budget, its hard stop, the house's, and the site's part of the ceiling on one
            subject; ascending. Each is a filter of its own.
    """

    job: float
    datasets: tuple[float, ...]

    @property
    def dataset(self) -> float:
        """The smallest limit on the dataset."""
        return self.datasets[0]


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


def epsilon_figures(spends: Sequence[BudgetSpend], limits: EpsilonLimits) -> EpsilonFigures:
    """Recompute what a site spent, rounded up to ``DECIMALS`` decimals.

    Args:
        spends: every spend the site states in the job; at least one.
        limits: what they are held against.

    Returns:
        The figures, possibly infinite.

    Raises:
        InputError: if an event can't be read, or there are more than ``MAX_MECHANISMS`` different ones.
        ImportError: if dp-accounting is not installed.
    """
    delta, mode = max(one.delta for one in spends), spends[0].mode
    here, everything = coalesce(job_events(spends)), _everything(spends)
    if len(everything) > MAX_MECHANISMS:
        raise InputError(
            "input.too_large",
            f"The dataset was charged for {len(everything)} different mechanisms; "
            f"at most {MAX_MECHANISMS} are composed.",
        )
    job = _epsilon(mode, here, delta)
    total = _epsilon(mode, everything, delta)
    other = _epsilon(other_mode(mode), here, delta)
    held = _held(mode, here, delta, limits.job)
    dataset_held = _held(mode, everything, delta, limits.dataset)
    return EpsilonFigures(*(_round_up(one) for one in (job, total, other, held, dataset_held)))


def dataset_limits_passed(
    spends: Sequence[BudgetSpend], limits: EpsilonLimits
) -> tuple[tuple[float, float], ...]:
    """Hold everything the dataset was charged against each limit, at the limit's own order.

    Args:
        spends: every spend the site states in the job, which :func:`epsilon_figures` accepted.
        limits: the limits.

    Returns:
        Of each limit that is passed, the figure and the limit.
    """
    delta, mode, everything = max(one.delta for one in spends), spends[0].mode, _everything(spends)
    figures = [(_round_up(_held(mode, everything, delta, limit)), limit) for limit in limits.datasets]
    return tuple((figure, limit) for figure, limit in figures if not figure <= limit + TOLERANCE)


def _everything(spends: Sequence[BudgetSpend]) -> tuple[Event, ...]:
    return coalesce((*prior_events(spends), *job_events(spends)))


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
    """The limits a site's spending is held to.

    Where one person's losses at several hospitals add up, a site's part of the ceiling is by the number of
    hospitals in its manifest, never by the sites of the job: whoever is at four hospitals can lose at each in
    a job of its own.
    """
    guardrails = record.manifests[site].terms.privacy_guardrails
    sharers = 1 if guardrails.cross_site_subjects == "linked" else guardrails.subject_sites
    return EpsilonLimits(
        job=min(record.job.privacy.target_epsilon, record.request.terms.privacy.epsilon),
        datasets=tuple(
            sorted(
                {
                    guardrails.epsilon_budget,
                    guardrails.epsilon_hard_stop,
                    HARD_STOP_EPSILON,
                    guardrails.epsilon_per_subject / sharers,
                }
            )
        ),
    )


def crowded(record: JobRecord, site: str) -> bool:
    """Whether a job has more sites than a site's manifest shares the ceiling on one person among."""
    guardrails = record.manifests[site].terms.privacy_guardrails
    return guardrails.cross_site_subjects == "sum" and len(record.job.clients) > guardrails.subject_sites


def within(spent: EpsilonFigures, limits: EpsilonLimits) -> bool:
    """Whether the spending keeps both limits, up to the rounding of the figures."""
    return spent.held <= limits.job + TOLERANCE and spent.dataset_held <= limits.dataset + TOLERANCE


@lru_cache(maxsize=256)
def _epsilon(mode: Mode, events: tuple[Event, ...], delta: float) -> float:
    # Sites of one job usually ran the same mechanism, and composing costs far more than comparing.
    return epsilon_by(mode, events, delta)


def _held(mode: Mode, events: tuple[Event, ...], delta: float, limit: float) -> float:
    return epsilon_held(mode, events, delta, limit) if mode == ADAPTIVE else _epsilon(mode, events, delta)


def _round_up(value: float) -> float:
    return math.ceil(value * 10**DECIMALS) / 10**DECIMALS if math.isfinite(value) else value
