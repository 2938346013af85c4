"""A plan keeps its budget, is refused where it can't, and says all that has to be said with it."""

from __future__ import annotations

import math

import pytest

from cloister.evidence.transcript import ADAPTIVE, FIXED_PLAN, Gaussian, Mode, SampledGaussian, epsilon_by
from cloister.privacy.budget import PrivacyBudget, PrivacyUnit
from cloister.privacy.errors import BudgetExceeded, PrivacyError
from cloister.privacy.planning import plan

BUDGET = PrivacyBudget(1.0, 1e-4)


@pytest.mark.parametrize("mode", [ADAPTIVE, FIXED_PLAN])
def test_a_plan_keeps_its_budget_and_uses_it_up(mode: Mode) -> None:
    made = plan(BUDGET, 486, 64, 20, mode)
    assert made.event == SampledGaussian(64 / 486, made.sigma, math.ceil(20 * 486 / 64))
    assert epsilon_by(mode, [made.event], 1e-4) <= 1.0
    assert made.epsilon_plan <= made.epsilon == pytest.approx(1.0, abs=5e-3)
    assert made.epsilon_plan == pytest.approx(1.0, abs=5e-3)
    assert made.max_steps >= made.steps
    assert made.epsilon_other != made.epsilon_plan


def test_a_fixed_plan_needs_less_noise() -> None:
    assert plan(BUDGET, 486, 64, 20, FIXED_PLAN).sigma < plan(BUDGET, 486, 64, 20).sigma


def test_what_was_spent_before_is_in_the_plan() -> None:
    spent = (Gaussian(10.0, 1),)
    made = plan(BUDGET, 486, 64, 20, spent=spent)
    assert epsilon_by(ADAPTIVE, [*spent, made.event], 1e-4) <= 1.0
    assert made.sigma > plan(BUDGET, 486, 64, 20).sigma
    assert made.epsilon_plan < made.epsilon


def test_a_budget_that_is_spent_plans_nothing() -> None:
    with pytest.raises(BudgetExceeded):
        plan(BUDGET, 486, 64, 20, spent=[Gaussian(1.0, 1)])


@pytest.mark.parametrize(
    ("n", "batch", "epochs", "code"),
    [
        (0, 1, 1, "privacy.group_too_small"),
        (1, 1, 1, "privacy.group_too_small"),
        (20_000, 64, 1, "privacy.delta_too_large"),
        (100, 101, 1, "privacy.plan_invalid"),
        (100, 0, 1, "privacy.plan_invalid"),
        (100, 10, 0, "privacy.plan_invalid"),
    ],
)
def test_an_impossible_plan_is_refused(n: int, batch: int, epochs: int, code: str) -> None:
    with pytest.raises(PrivacyError) as refused:
        plan(BUDGET, n, batch, epochs)
    assert refused.value.code == code


def test_a_group_below_the_hospitals_minimum_is_refused() -> None:
    with pytest.raises(PrivacyError) as refused:
        plan(BUDGET, 19, 4, 1, minimum_units=20)
    assert refused.value.code == "privacy.group_too_small"
    assert "19" not in refused.value.message


def test_a_plan_by_gdp_is_refused() -> None:
    with pytest.raises(PrivacyError) as refused:
        plan(BUDGET, 486, 64, 20, "gdp")  # type: ignore[arg-type]
    assert refused.value.code == "privacy.accountant_refused"


DISCLOSED = {
    "shuffled / fixed batches": "without amplification",
    "floating point": "whole multiples of one grid step",
    "small n": "refuse it rather than release it",
    "example vs client level": "That a hospital took part is not hidden",
    "groups": "k times epsilon at k * exp((k - 1) * epsilon) times delta",
    "n as public": "Public: the number of units (486)",
}


@pytest.mark.parametrize("row", DISCLOSED)
def test_every_row_that_no_code_can_enforce_is_in_the_statement(row: str) -> None:
    assert DISCLOSED[row] in " ".join(plan(BUDGET, 486, 64, 20).statement())


@pytest.mark.parametrize(("kind", "says"), [("record", "one record"), ("subject", "one subject with all")])
def test_the_statements_first_line_names_the_unit_and_the_relation(kind: str, says: str) -> None:
    budget = PrivacyBudget(1.0, 1e-4, PrivacyUnit(kind))  # type: ignore[arg-type]
    first = plan(budget, 486, 64, 20).statement()[0]
    assert says in first
    assert "add_or_remove_one" in first


def test_the_statement_holds_every_figure_of_the_claim() -> None:
    made = plan(BUDGET, 486, 64, 20)
    text = " ".join(made.statement())
    for figure in (f"{made.epsilon:.4f}", f"{made.sigma:g}", "0.0001", str(made.steps), "RDP", "PLD"):
        assert figure in text
    assert "aes-256-ctr/os-entropy" in text
    assert f"{made.slack:.3g}" in text
