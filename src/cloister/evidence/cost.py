"""What a job cost to compute, from what its parties stated: no clock of a site is believed or shown.

How long a site really trained depends on how many records each random batch held, which is nobody's business.
Rules kept here:

1. A site's cost is counted in steps and in the per-record gradients that its plan lets expect: the same for
   neighbouring datasets of one size.
2. The one duration is the hub's, from opening the job to closing it.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from cloister.core.clock import parse_time
from cloister.evidence.predicates import BudgetSpend, DataCommitment, JobClosed, JobOpened, UpdateReleased
from cloister.evidence.predicates.base import CountField, Part, PartyField
from cloister.evidence.privacy_events import SampledGaussian, event_from_json
from cloister.evidence.record import JobRecord


class SiteCost(Part):
    """What a site computed and sent.

    Attributes:
        rounds: in how many rounds its update was released.
        steps: optimiser steps charged.
        gradients: per-record gradients expected for them, sampling probability times records, rounded.
        bytes_released: size of its updates together.
    """

    rounds: CountField
    steps: CountField
    gradients: CountField
    bytes_released: CountField


class CostSummary(Part):
    """What a job cost.

    Attributes:
        seconds: from the hub's opening statement to its closing one, by the hub's clock.
        sites: of each site that spent budget.
    """

    seconds: float = Field(ge=0)
    sites: dict[PartyField, SiteCost]


def cost_of(record: JobRecord) -> CostSummary:
    """Count what a job cost.

    Raises:
        KeyError, IndexError, ValueError: the record lacks what is counted.
        InputError: a spend names no known mechanism.
    """
    opened, closed = record.by(record.issuer, JobOpened)[0], record.by(record.issuer, JobClosed)[-1]
    lasted = parse_time(closed.recorded_at) - parse_time(opened.recorded_at)
    sites = sorted({one.party for one in record.of(BudgetSpend)})
    return CostSummary(
        seconds=max(lasted / timedelta(microseconds=1), 0) / 1e6,
        sites={site: _site_cost(record, site) for site in sites},
    )


def _site_cost(record: JobRecord, site: str) -> SiteCost:
    records = record.by(site, DataCommitment)[0].records
    spends = [one for one in record.by(site, BudgetSpend) if one.purpose == "training"]
    released = record.by(site, UpdateReleased)
    events = [event_from_json({**one.event}) for one in spends]
    expected = sum(
        one.sampling_probability * one.steps * records for one in events if isinstance(one, SampledGaussian)
    )
    return SiteCost(
        rounds=len(released),
        steps=sum(one.executed_steps for one in spends),
        gradients=round(expected),
        bytes_released=sum(one.bytes for one in released),
    )
