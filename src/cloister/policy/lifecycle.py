"""The states of a training request, and the only ways from one to the next (PR-3.1.b).

::

    pending --approve--> approved --start--> executing --complete--> completed
       |                    |                    |
       reject               fail                 fail
       v                    v                    v
    rejected              failed               failed
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from cloister.policy.errors import PolicyError


class RequestState(StrEnum):
    """Where a request is."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXECUTING = "executing"
    COMPLETED = "completed"
    FAILED = "failed"


class RequestEvent(StrEnum):
    """What happens to a request."""

    APPROVE = "approve"
    REJECT = "reject"
    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"


TRANSITIONS: Mapping[tuple[RequestState, RequestEvent], RequestState] = MappingProxyType(
    {
        (RequestState.PENDING, RequestEvent.APPROVE): RequestState.APPROVED,
        (RequestState.PENDING, RequestEvent.REJECT): RequestState.REJECTED,
        (RequestState.APPROVED, RequestEvent.START): RequestState.EXECUTING,
        (RequestState.APPROVED, RequestEvent.FAIL): RequestState.FAILED,
        (RequestState.EXECUTING, RequestEvent.COMPLETE): RequestState.COMPLETED,
        (RequestState.EXECUTING, RequestEvent.FAIL): RequestState.FAILED,
    }
)


def transition(state: RequestState, event: RequestEvent) -> RequestState:
    """Return the state after an event.

    Raises:
        PolicyError: ``policy.illegal_transition``.
    """
    after = TRANSITIONS.get((state, event))
    if after is None:
        possible = sorted(known for before, known in TRANSITIONS if before is state)
        raise PolicyError(
            "policy.illegal_transition",
            f"a request that is {state} can't {event}",
            f"From here it can {' or '.join(possible)}."
            if possible
            else f"{state.capitalize()} is final; submit a new request.",
        )
    return after
