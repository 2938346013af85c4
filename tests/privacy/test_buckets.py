"""A bucket by randomised response: the true one no likelier than was paid for, and never for nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.clock import system_clock
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256
from cloister.evidence.transcript import Pure
from cloister.privacy.account import Account
from cloister.privacy.buckets import BucketRelease, Buckets, release_bucket
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.errors import BudgetExceeded, PrivacyError
from cloister.privacy.leaving import may_leave
from cloister.privacy.ledger import BudgetLedger
from cloister.privacy.testing import SeededTestRandom

DATASET = Sha256("a" * 64)
FIVE = Buckets(0.0, 2.0, 4)


class Free:
    """An account's ledger that lets everything pass: to draw many times."""

    unit = "record"

    def reserve_all(self, events: object, **_: object) -> tuple[()]:
        return ()

    def settle(self, *_: object) -> None:
        raise AssertionError


def free() -> Account:
    return Account(Free(), DATASET, "job", 0, ())  # type: ignore[arg-type]


def account(folder: Path, epsilon: float) -> Account:
    ledger = BudgetLedger.create(folder / "ledger", "wards", 1e-6, clock=system_clock)
    return Account(ledger, DATASET, "job", 0, [Limit("manifest", epsilon, Scope.DATASET)])


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_no_bucket_tells_more_than_was_paid_for(epsilon: float) -> None:
    source = SeededTestRandom(7, "buckets")
    counts = []
    for figure in (0.1, 1.9):
        told = [
            release_bucket(figure, FIVE, epsilon=epsilon, source=source, account=free()).value
            for _ in range(20_000)
        ]
        counts.append(Counter(told))
    most = math.exp(epsilon)
    for value in (0.0, 0.5, 1.0, 1.5, 2.0):
        ratio = counts[0][value] / counts[1][value]
        assert 1 / most / 1.15 < ratio < most * 1.15
    true = counts[0][0.0] / 20_000
    assert true == pytest.approx(most / (most + 4), rel=0.06)


@given(st.floats(1e-6, 100), st.integers(1, 1024))
def test_the_stated_chance_is_never_above_what_epsilon_allows(epsilon: float, steps: int) -> None:
    buckets = Buckets(0.0, 1.0, steps)
    released = release_bucket(0.5, buckets, epsilon=epsilon, source=SeededTestRandom(1, "b"), account=free())
    true, other = released.chance_true, (1 - released.chance_true) / steps
    assert true * (1 - 2**-50) <= math.exp(epsilon) * other
    assert released.value in {buckets.value(number) for number in range(steps + 1)}


@pytest.mark.parametrize(
    ("figure", "value"),
    [(-math.inf, 0.0), (-1.0, 0.0), (0.7, 0.5), (1.0, 1.0), (7.0, 2.0), (math.inf, 2.0), (math.nan, 2.0)],
)
def test_what_has_no_bound_belongs_to_a_bucket_all_the_same(figure: float, value: float) -> None:
    released = release_bucket(figure, FIVE, epsilon=100.0, source=SeededTestRandom(3, "b"), account=free())
    assert released.value == value


def test_a_bucket_is_paid_before_it_is_told(tmp_path: Path) -> None:
    paying = account(tmp_path, 1.0)
    released = release_bucket(0.4, FIVE, epsilon=0.5, source=SeededTestRandom(1, "b"), account=paying)
    assert released.event == Pure(0.5, 1)
    assert paying.ledger.events() == (Pure(0.5, 1),)  # type: ignore[attr-defined]
    with pytest.raises(BudgetExceeded):
        release_bucket(0.4, FIVE, epsilon=0.9, source=SeededTestRandom(1, "b"), account=paying)


def test_it_leaves_unless_its_choice_was_seeded() -> None:
    released = BucketRelease(0.5, 0.4, Pure(1.0, 1), "aes-256-ctr/os-entropy")
    assert may_leave(released)["kind"] == "dp_bucket"
    with pytest.raises(PrivacyError):
        may_leave(BucketRelease(0.5, 0.4, Pure(1.0, 1), "seeded-test"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Buckets(1.0, 1.0, 4),
        lambda: Buckets(0.0, math.inf, 4),
        lambda: Buckets(0.0, 1.0, 0),
        lambda: Buckets(0.0, 1.0, 1025),
    ],
)
def test_buckets_that_are_none_are_refused(make: Callable[[], Buckets]) -> None:
    with pytest.raises(PrivacyError):
        make()


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, 101.0])
def test_an_impossible_price_is_refused(epsilon: float) -> None:
    with pytest.raises(InputError):
        release_bucket(0.4, FIVE, epsilon=epsilon, source=SeededTestRandom(1, "b"), account=free())


def test_values_lie_on_the_grid_that_the_airlock_knows() -> None:
    from cloister.evidence.airlock_policy import ScalarSpec

    spec = ScalarSpec(FIVE.low, FIVE.high, FIVE.steps, "bucket")
    values = [FIVE.value(number) for number in range(5)]
    assert [spec.nearest(value) for value in values] == values
    assert np.diff(values).tolist() == [0.5] * 4
