"""The states of a request."""

from __future__ import annotations

from itertools import product

import pytest

from cloister.policy import PolicyError, RequestEvent, RequestState, transition

S, E = RequestState, RequestEvent
LEGAL = {
    (S.PENDING, E.APPROVE): S.APPROVED,
    (S.PENDING, E.REJECT): S.REJECTED,
    (S.APPROVED, E.START): S.EXECUTING,
    (S.APPROVED, E.FAIL): S.FAILED,
    (S.EXECUTING, E.COMPLETE): S.COMPLETED,
    (S.EXECUTING, E.FAIL): S.FAILED,
}


def test_the_states_are_exactly_these() -> None:
    assert [str(state) for state in RequestState] == [
        "pending",
        "approved",
        "rejected",
        "executing",
        "completed",
        "failed",
    ]


@pytest.mark.parametrize(("state", "event"), list(product(RequestState, RequestEvent)))
def test_only_the_listed_transitions_are_legal(state: RequestState, event: RequestEvent) -> None:
    if (state, event) in LEGAL:
        assert transition(state, event) is LEGAL[state, event]
        return
    with pytest.raises(PolicyError) as caught:
        transition(state, event)
    assert caught.value.code == "policy.illegal_transition"
    assert caught.value.hint


def test_a_rejected_request_never_runs() -> None:
    reached = {S.REJECTED}
    for _ in RequestState:
        reached |= {after for (before, _), after in LEGAL.items() if before in reached}
    assert reached == {S.REJECTED}
