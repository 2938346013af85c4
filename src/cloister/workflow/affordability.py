"""Whether a job fits what is left of each hospital's budget, asked before its first round.

A ledger refuses the round that would pass a limit. A job that is stopped there has spent what its earlier
rounds cost and has no model to show for it; so the whole of a job is held against the limits first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloister.core.hashes import Sha256
from cloister.evidence import StatementWriter, Subject
from cloister.evidence.predicates import Violation
from cloister.evidence.transcript import repeated
from cloister.federation import FederationJob, SiteRuntime
from cloister.privacy import BudgetExceeded, BudgetLedger, Limit, Scope
from cloister.privacy.accountant import AGREEMENT
from cloister.privacy.budget import HARD_STOP
from cloister.privacy.ledger_limits import mechanisms_passed
from cloister.privacy.modes import held_in, steps_within


def require_affordable(
    job: FederationJob,
    sites: Mapping[str, SiteRuntime],
    ledgers: Mapping[str, BudgetLedger],
    writers: Mapping[str, StatementWriter],
) -> None:
    """Refuse a job of which some round would pass a limit at some site; each such site states it.

    Args:
        job: The job.
        sites: The sites' nodes, which know the plan of a round and the limits it is reserved under.
        ledgers: What was spent before, by site.
        writers: The sites' statement writers.

    Raises:
        BudgetExceeded: ``ledger.budget_exceeded``, with every limit of every site in its details.
    """
    refusals: list[str] = []
    for site, node in sites.items():
        ceilings = (*node.limits, HARD_STOP)
        exceeded = [problem for limit in ceilings for problem in _exceeded(limit, node, ledgers[site])]
        crowded = mechanisms_passed(
            [repeated(event, 1) for event in ledgers[site].events()], [node.whole_plan]
        )
        if crowded:
            exceeded.append(crowded)
        if exceeded:
            writers[site].write(
                Violation,
                (Subject(f"job {job.job_id}", Sha256(job.sha256)),),
                rule="ledger.budget_exceeded",
                detail="; ".join(exceeded)[:500],
                artifact_sha256=None,
            )
            refusals += [f"{site}: {problem}" for problem in exceeded]
    if refusals:
        raise BudgetExceeded(
            "ledger.budget_exceeded",
            "the job does not fit what is left of the privacy budget, so nothing was done",
            "Ask for fewer rounds or more noise; a spent budget does not come back.",
            details=refusals,
        )


def _exceeded(limit: Limit, node: SiteRuntime, ledger: BudgetLedger) -> Iterator[str]:
    steps = node.whole_plan.steps
    spent = ledger.events(node.job_id if limit.scope is Scope.JOB else None)
    whole = [*spent, node.whole_plan]
    if held_in(ledger.mode, whole, ledger.delta, limit.epsilon) + AGREEMENT <= limit.epsilon:
        return
    fitting = steps_within(
        ledger.mode,
        limit.epsilon,
        ledger.delta,
        node.plan.sampling_probability,
        node.plan.noise_multiplier,
        spent=spent,
    )
    yield f"{limit.name} of epsilon {limit.epsilon:g}: {fitting} of the job's {steps} steps would fit"
