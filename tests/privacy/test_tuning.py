"""Hyper-parameters are chosen on private records at a price that holds for the choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import (
    ADAPTIVE,
    POISSON,
    Event,
    Gaussian,
    RepeatAndSelect,
    SampledGaussian,
    epsilon,
    epsilon_held,
)
from cloister.privacy.account import Account
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.errors import BudgetExceeded, PrivacyError
from cloister.privacy.ledger import BudgetLedger
from cloister.privacy.noise import GaussianIntegers
from cloister.privacy.randomness import OsRandom
from cloister.privacy.testing import SeededTestRandom
from cloister.privacy.trials_law import trials_law
from cloister.privacy.tuning import (
    Chosen,
    Outcome,
    PublicPlan,
    SelectionPlan,
    SummedPlan,
    plan_selection,
    run_all,
    run_public,
    run_selection,
)
from tests.privacy.test_release import FREE, Unlimited

RECORDS = sha256_hex(b"records")
STEPS = SampledGaussian(0.1, 12.0, 100)
PLAN = SelectionPlan(STEPS, 20.0, 5.0, 1.0)
RATES = (0.01, 0.1, 1.0)
RIGHT = {0.01: 40, 0.1: 90, 1.0: 60}


def fit(rate: float) -> Outcome[str]:
    return Outcome(f"model at {rate}", STEPS, np.arange(100) < RIGHT[rate])


def noise() -> GaussianIntegers:
    return GaussianIntegers(OsRandom("tuning"))


def run(plan: SelectionPlan, account: Account, trial: Callable[[float], Outcome[str]] = fit) -> object:
    return run_selection(
        plan, RATES, trial, unit="record", source=OsRandom("tuning"), noise=noise(), account=account
    )


@pytest.fixture
def ledger(tmp_path: Path) -> BudgetLedger:
    return BudgetLedger.create(tmp_path / "budget.sqlite", "wards", 1e-5)


def law(shape: float, mean: float) -> dict[int, float]:
    first, bounds = trials_law(shape, mean)
    chances = np.diff([0.0, *(bound * 2.0**-64 for bound in bounds), 1.0])
    return {first + place: float(chance) for place, chance in enumerate(chances)}


@pytest.mark.parametrize("mean", [1.5, 10.0, 200.0])
def test_numbers_of_trials_have_the_laws_of_the_paper(mean: float) -> None:
    for shape, theirs in ((POISSON, stats.poisson(mean)), (1.0, stats.geom(1 / mean))):
        ours = law(shape, mean)
        np.testing.assert_allclose(list(ours.values()), theirs.pmf(list(ours)), rtol=1e-9, atol=1e-15)
    for shape in (0.0, 0.5, 3.0, 100.0):
        other = law(shape, mean)
        assert sum(number * chance for number, chance in other.items()) == pytest.approx(mean, rel=1e-9)
        # Definition 1: neighbouring chances by (1 - gamma) (k + shape) / (k + 1).
        top = max(other, key=lambda number: other[number])
        ratios = [other[k + 1] / other[k] * (k + 1) / (k + shape) for k in range(top, top + 4)]
        assert ratios == pytest.approx([ratios[0]] * 4, rel=1e-9)


def test_a_plan_with_one_trial_on_average_makes_one() -> None:
    assert set(law(1.0, 1.0)) == set(law(0.0, 1.0)) == {1}


def test_drawn_numbers_follow_their_law() -> None:
    source, draws = OsRandom("tuning"), 20_000
    for plan in (PLAN, SelectionPlan(STEPS, 20.0, 5.0, POISSON)):
        drawn = np.array([plan.draw_trials(source) for _ in range(draws)])
        expected = np.array([law(plan.shape, 5.0).get(number, 0.0) for number in range(12)]) * draws
        observed = np.array([(drawn == number).sum() for number in range(12)])
        common = expected > 5
        statistic = ((observed - expected)[common] ** 2 / expected[common]).sum()
        assert stats.chi2.sf(statistic, common.sum()) > 1e-6


def test_the_price_of_tuning_is_that_of_the_research() -> None:
    """A trial of epsilon 1: ten random trials cost 1.76 to 2.12, ten released ones 3.52."""
    trial: list[Event] = [SampledGaussian(256 / 10_000, 3.0, 1000), Gaussian(200.0, 1)]
    assert epsilon(trial, 1e-5) == pytest.approx(1.33, abs=0.4)
    for shape in (0.0, 1.0, POISSON):
        plan = SelectionPlan(SampledGaussian(256 / 10_000, 3.0, 1000), 200.0, 10.0, shape)
        ratio = epsilon([plan.event], 1e-5) / epsilon(trial, 1e-5)
        assert 1.5 < ratio < 2.6
    assert epsilon(trial * 10, 1e-5) / epsilon(trial, 1e-5) > 3


@pytest.mark.parametrize("shape", [0.0, 1.0, POISSON])
def test_a_planned_selection_keeps_its_target(shape: float) -> None:
    plan = plan_selection(2.0, 1e-5, 0.1, 100, score_noise_multiplier=30.0, mean=8.0, shape=shape)
    assert 1.9 < epsilon_held(ADAPTIVE, [plan.event], 1e-5, 2.0) <= 2.0
    assert epsilon([plan.event], 1e-5) <= 2.0
    statement = "\n".join(plan.statement(1e-5))
    assert f"{epsilon([plan.event], 1e-5):.4f}" in statement
    assert "not hidden" in statement


def test_a_selection_is_charged_once_and_returns_the_best_alone(ledger: BudgetLedger) -> None:
    account = Account(ledger, RECORDS, "job", 0, [Limit("manifest", 4.5, Scope.DATASET)])
    chosen = run(PLAN, account)
    assert isinstance(chosen, Chosen)
    assert ledger.events() == (RepeatAndSelect(0.1, 12.0, 100, 20.0, 5.0, 1.0, 1),) == chosen.events
    assert {*Chosen.__slots__} == {"candidate", "model", "score", "events", "basis"}
    assert chosen.model == f"model at {chosen.candidate}"


def test_a_selection_over_the_budget_makes_no_trial(ledger: BudgetLedger) -> None:
    account = Account(ledger, RECORDS, "job", 0, [Limit("job", 0.1, Scope.JOB)])

    def never(rate: float) -> Outcome[str]:
        raise AssertionError

    with pytest.raises(BudgetExceeded):
        run(PLAN, account, never)
    with pytest.raises(BudgetExceeded):
        run_all(SummedPlan(STEPS, 20.0), RATES, never, unit="record", noise=noise(), account=account)
    assert ledger.events() == ()


def test_better_candidates_are_chosen_more_often() -> None:
    counts = dict.fromkeys(RATES, 0)
    for _ in range(400):
        chosen = run(PLAN, FREE)
        assert isinstance(chosen, Chosen)
        counts[chosen.candidate] += 1
    assert counts[0.1] > counts[1.0] > counts[0.01] > 0


def test_scores_carry_the_planned_noise() -> None:
    """The score is the released figure: 40 of 90 above the middle, and noise of half the multiplier."""
    drawn = noise()
    plan = SelectionPlan(STEPS, 20.0, 1.0, 1.0)
    scores = []
    for _ in range(3000):
        chosen = run_selection(
            plan, (0.1,), fit, unit="record", source=OsRandom("tuning"), noise=drawn, account=FREE
        )
        assert chosen is not None
        scores.append((chosen.score - 40.0) / 10.0)
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], 3000)
    assert low < float((np.array(scores) ** 2).sum()) < high


def test_a_poisson_selection_may_make_no_trial_and_is_charged_all_the_same() -> None:
    plan, ledger = SelectionPlan(STEPS, 20.0, 1.0, POISSON), Unlimited()
    account = Account(ledger, RECORDS, "job", 0, [])
    results = [run(plan, account) for _ in range(100)]
    assert 10 < sum(result is None for result in results) < 70  # exp(-1) of them
    assert ledger.events == [plan.event] * 100


def test_a_trial_other_than_planned_is_refused_and_stays_spent(ledger: BudgetLedger) -> None:
    account = Account(ledger, RECORDS, "job", 0, [])

    def noisier(rate: float) -> Outcome[str]:
        return Outcome("model", SampledGaussian(0.1, 11.9, 100), np.ones(3, dtype=np.bool_))

    def scored_wrongly(rate: float) -> Outcome[str]:
        return Outcome("model", STEPS, np.array([1.0, 2.0]))

    for trial in (noisier, scored_wrongly):
        with pytest.raises(PrivacyError) as refusal:
            run(PLAN, Account(Unlimited(), RECORDS, "job", 0, []), trial)
        assert refusal.value.code == "privacy.tuning_invalid"
    with pytest.raises(PrivacyError):
        run(PLAN, account, noisier)
    assert ledger.events() == (PLAN.event,)


def test_without_selection_every_trial_is_charged(ledger: BudgetLedger) -> None:
    account = Account(ledger, RECORDS, "job", 0, [])
    done = run_all(SummedPlan(STEPS, 20.0), RATES, fit, unit="record", noise=noise(), account=account)
    assert set(ledger.events()) == {Gaussian(20.0, 3), SampledGaussian(0.1, 12.0, 300)}
    assert {chosen.candidate for chosen in done} == set(RATES)
    assert [chosen.score for chosen in done] == sorted((chosen.score for chosen in done), reverse=True)


def test_public_records_cost_nothing_and_are_named() -> None:
    chosen = run_public(PublicPlan("uci wine", "public"), RATES, lambda rate: (f"at {rate}", RIGHT[rate]))
    assert chosen == Chosen(0.1, "at 0.1", 90, (), "public records: uci wine")
    with pytest.raises(PrivacyError):
        PublicPlan(" ", "public")


def test_the_seeded_source_repeats_a_tuning() -> None:
    def once() -> object:
        return run_selection(
            PLAN,
            RATES,
            fit,
            unit="record",
            source=SeededTestRandom(3, "trials"),
            noise=GaussianIntegers(SeededTestRandom(3, "scores")),
            account=FREE,
        )

    assert once() == once()


@pytest.mark.parametrize(
    ("score", "mean", "shape"),
    [(0.0, 5.0, 1.0), (20.0, 0.5, 1.0), (20.0, 201.0, 1.0), (20.0, 5.0, -1.0), (20.0, float("nan"), 1.0)],
)
def test_an_impossible_plan_is_refused(score: float, mean: float, shape: float) -> None:
    with pytest.raises(PrivacyError) as refusal:
        SelectionPlan(STEPS, score, mean, shape)
    assert refusal.value.code == "privacy.tuning_invalid"


def test_a_target_that_the_scores_alone_pass_is_refused() -> None:
    with pytest.raises(PrivacyError) as refusal:
        plan_selection(0.5, 1e-5, 0.1, 100, score_noise_multiplier=1.0, mean=8.0)
    assert refusal.value.code == "privacy.unreachable_target"


def test_a_tuning_without_candidates_is_refused() -> None:
    for start in (
        lambda: run_selection(
            PLAN, (), fit, unit="record", source=OsRandom("t"), noise=noise(), account=FREE
        ),
        lambda: run_all(SummedPlan(STEPS, 20.0), (), fit, unit="record", noise=noise(), account=FREE),
        lambda: run_public(PublicPlan("uci wine", "public"), (), lambda rate: ("", 0.0)),
    ):
        with pytest.raises(PrivacyError):
            start()
