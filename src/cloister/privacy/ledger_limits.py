"""Which limits a spend would pass, with everything that is reserved or done counted against each.

In the mode ``adaptive`` each limit has an order of its own, fixed with the limit, so that each is a filter by
itself. That a smaller limit is kept doesn't show that a larger one is; both are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.evidence.transcript import ADAPTIVE, Event
from cloister.privacy.accountant import AGREEMENT
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.ledger_entries import LedgerState
from cloister.privacy.modes import epsilon_in


def limits_passed(state: LedgerState, event: Event, job_id: str, limits: Sequence[Limit]) -> list[str]:
    """Say of each limit that a spend would pass what would become of it.

    Args:
        state: The ledger as it is.
        event: What is asked for.
        job_id: The job that asks.
        limits: The limits, over this job or over all.

    Returns:
        A line for each; none if the spend may be done.
    """
    found: list[str] = []
    for limit in limits:
        own = limit.scope is Scope.JOB
        after = _held_with(state, event, job_id if own else None, limit.epsilon)
        if not after + AGREEMENT <= limit.epsilon:
            whole = "this job" if own else "all jobs on this dataset"
            found.append(
                f"{limit.name}: epsilon of {whole} would be {after:.4f}, the limit is {limit.epsilon:g}"
            )
    return found


def _held_with(state: LedgerState, event: Event, job_id: str | None, limit: float) -> float:
    mode, delta = state.header.mode, state.header.delta
    if mode == ADAPTIVE:
        return state.balance(job_id).held_with(event, delta, limit)
    before = state.events(None if job_id is None else lambda job: job == job_id)
    return epsilon_in(mode, [*before, event], delta)
