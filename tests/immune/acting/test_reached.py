"""What a function is known to reach for, and what is kept of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.immune.acting.reach import Operation
from cloister.immune.acting.reached import MOST, GuardMode, Reached
from cloister.immune.errors import ImmuneError

READ, CONNECT = Operation.READ, Operation.CONNECT


def test_a_target_that_was_tried_is_not_thereby_known() -> None:
    one = Reached()
    assert [one.new((READ, "/etc")) for _ in range(3)] == [1, 2, 3]
    assert not one.knows((READ, "/etc"))


@pytest.mark.parametrize(
    ("operation", "wide", "target", "covered"),
    [
        (READ, "/srv/reports", "/srv/reports", True),
        (READ, "/srv/reports", "/srv/reports/2026", False),
        (READ, "/srv/reports/", "/srv/reports/2026", True),
        (READ, "/srv/reports/", "/srv/reports", True),
        (READ, "/srv/reports/", "/srv/reports2", False),
        (CONNECT, "10.0.0.0/8", "10.200.3.4", True),
        (CONNECT, "10.1.2.3/8", "10.200.3.4", True),
        (CONNECT, "10.0.0.0/8", "11.0.0.1", False),
        (CONNECT, "fd00::/8", "fd12::1", True),
        (CONNECT, "fd00::/8", "10.0.0.1", False),
        (CONNECT, "10.0.0.0/8", "ten.example", False),
        (CONNECT, "nonsense/x", "10.0.0.1", False),
    ],
)
def test_an_approval_covers_one_target_a_folder_or_a_network(
    operation: Operation, wide: str, target: str, covered: bool
) -> None:
    one = Reached()
    one.approve(operation, wide)
    assert one.knows((operation, target)) is covered
    assert not one.knows((Operation.WRITE, target))


def test_an_operation_with_too_many_targets_is_not_guarded_and_that_is_told_once() -> None:
    one = Reached()
    told = [one.learn((CONNECT, f"10.0.{i // 256}.{i % 256}")) for i in range(MOST + 10)]
    assert told.count(True) == 1
    assert one.unguarded == {CONNECT}
    assert one.knows((CONNECT, "192.0.2.1"))
    assert not one.learned
    one.learn((READ, "/srv"))
    assert not one.knows((READ, "/etc"))


def test_what_is_remembered_of_new_targets_is_bounded() -> None:
    one = Reached()
    for i in range(10_000):
        one.new((READ, f"/{i}"))
    assert len(one._news) <= 4100
    assert one.new((READ, "/0")) == 2


TARGETS = st.sets(st.tuples(st.sampled_from(Operation), st.text(max_size=20)), max_size=20)


@given(TARGETS, TARGETS, st.sampled_from(GuardMode))
def test_what_is_kept_comes_back_and_nothing_enforces_by_itself(
    learned: set[tuple[Operation, str]], approved: set[tuple[Operation, str]], mode: GuardMode
) -> None:
    one = Reached()
    for reach in learned:
        one.learn(reach)
    for reach in approved:
        one.approve(*reach)
    one.mode = mode
    state = json.loads(json.dumps(one.state()))
    again = Reached.restored(state)
    assert again.learned == learned
    assert again.state() == one.state()
    assert again.mode is (GuardMode.LEARN if mode is GuardMode.LEARN else GuardMode.OBSERVE)


@pytest.mark.parametrize(
    "change",
    [
        {"settled": 1},
        {"settled": None},
        {"learned": []},
        {"learned": {"fly": ["/x"]}},
        {"learned": {"read": "/x"}},
        {"learned": {"read": [1]}},
        {"approved": {"read": None}},
        {"unguarded": ["fly"]},
        {"unguarded": "read"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_kept_state_of_another_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ImmuneError) as refused:
        Reached.restored({**Reached().state(), **change})
    assert refused.value.code == "immune.state_damaged"
    with pytest.raises(ImmuneError):
        Reached.restored(None)
