"""Budgets and limits."""

from __future__ import annotations

import math

import pytest

from cloister.privacy.budget import (
    HARD_STOP_EPSILON,
    Limit,
    PrivacyBudget,
    PrivacyUnit,
    Scope,
    check_delta,
    strictest,
)
from cloister.privacy.errors import PrivacyError


def test_a_budget_names_its_unit_and_relation() -> None:
    budget = PrivacyBudget(1.0, 1e-5)
    assert (budget.unit.kind, budget.unit.relation) == ("record", "add_or_remove_one")


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_epsilon_is_refused(epsilon: float) -> None:
    for make in (lambda: PrivacyBudget(epsilon, 1e-5), lambda: Limit("job", epsilon, Scope.JOB)):
        with pytest.raises(PrivacyError) as refusal:
            make()
        assert refusal.value.code == "privacy.budget_invalid"


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, math.nan])
def test_an_impossible_delta_is_refused(delta: float) -> None:
    with pytest.raises(PrivacyError):
        PrivacyBudget(1.0, delta)


def test_a_unit_that_is_not_accounted_for_is_refused() -> None:
    with pytest.raises(PrivacyError):
        PrivacyUnit(kind="hospital")  # type: ignore[arg-type]
    with pytest.raises(PrivacyError):
        PrivacyUnit(relation="replace_one")


def test_the_strictest_limit_wins() -> None:
    manifest, job = Limit("manifest", 3.0, Scope.DATASET), Limit("job", 1.0, Scope.JOB)
    assert strictest([manifest, job]) is job
    with pytest.raises(PrivacyError):
        strictest([])


def test_the_hard_stop_is_five() -> None:
    assert HARD_STOP_EPSILON == 5.0


@pytest.mark.parametrize(("delta", "records"), [(0.01, 100), (0.02, 100), (1e-5, 0), (math.nan, 10)])
def test_a_delta_that_allows_publishing_a_record_is_refused(delta: float, records: int) -> None:
    with pytest.raises(PrivacyError) as refusal:
        check_delta(delta, records)
    assert refusal.value.code == "privacy.delta_too_large"


def test_a_delta_below_one_over_the_records_is_accepted() -> None:
    check_delta(0.0099, 100)
