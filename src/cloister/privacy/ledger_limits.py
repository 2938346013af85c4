"""Which limits a spend would pass, with everything that is reserved or done counted against each.

In the mode ``adaptive`` each limit has an order of its own, fixed with the limit, so that each is a filter by
itself. That a smaller limit is kept doesn't show that a larger one is; both are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from cloister.evidence.predicates.training import MAX_PRIOR_EVENTS
from cloister.evidence.transcript import ADAPTIVE, Event, repeated
from cloister.privacy.accountant import AGREEMENT
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.ledger_entries import LedgerState
from cloister.privacy.modes import epsilon_in


def limits_passed(
    state: LedgerState, events: Sequence[Event], job_id: str, limits: Sequence[Limit]
) -> list[str]:
    """Say of each limit that spends would pass together what would become of it.

    Args:
        state: The ledger as it is.
        events: What is asked for.
        job_id: The job that asks.
        limits: The limits, over this job or over all.

    Returns:
        A line for each; none if the spends may be done.
    """
    found: list[str] = []
    for limit in limits:
        own = limit.scope is Scope.JOB
        after = _held_with(state, events, job_id if own else None, limit.epsilon)
        if not after + AGREEMENT <= limit.epsilon:
            whole = "this job" if own else "all jobs on this dataset"
            found.append(
                f"{limit.name}: epsilon of {whole} would be {after:.4f}, the limit is {limit.epsilon:g}"
            )
    return found


def _held_with(state: LedgerState, events: Sequence[Event], job_id: str | None, limit: float) -> float:
    mode, delta = state.header.mode, state.header.delta
    if mode == ADAPTIVE:
        return state.balance(job_id).held_with(events, delta, limit)
    before = state.events(None if job_id is None else lambda job: job == job_id)
    return epsilon_in(mode, [*before, *events], delta)


def mechanisms_passed(mechanisms: Collection[Event], events: Iterable[Event]) -> str | None:
    """Say that a ledger would hold more different mechanisms than a statement of earlier spends can name.

    Args:
        mechanisms: What the ledger holds, each run once.
        events: What is asked for.

    Returns:
        A sentence; None if the spends may be done.
    """
    different = len({*mechanisms, *(repeated(event, 1) for event in events)})
    if different <= MAX_PRIOR_EVENTS:
        return None
    return (
        f"the dataset would be charged for {different} different mechanisms, at most {MAX_PRIOR_EVENTS} are"
    )
