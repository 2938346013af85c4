"""Output and objective perturbation promise what they're charged for, and only for convex problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import Approximate, Gaussian, Pure
from cloister.privacy.account import Account
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.convex import LogisticProblem, scaled_rows
from cloister.privacy.errors import BudgetExceeded, PrivacyError
from cloister.privacy.ledger import BudgetLedger
from cloister.privacy.perturbation import (
    ObjectiveGaussian,
    ObjectivePure,
    OutputGaussian,
    OutputPure,
    Perturbation,
    fit_perturbed,
    gaussian_shift,
)
from cloister.privacy.randomness import OsRandom
from cloister.privacy.trainer import TrainingData
from tests.privacy.test_release import FREE

RECORDS = sha256_hex(b"records")
MECHANISMS: list[Perturbation] = [
    OutputPure(1.0),
    OutputGaussian(4.0),
    ObjectivePure(1.0),
    ObjectiveGaussian(1.0, 1e-6),
]


@pytest.fixture(scope="module")
def problem(tumours: TrainingData) -> LogisticProblem:
    """Bounds of -1 and 1 are declared by the fixture's scaling."""
    features = tumours.features.astype(np.float64)
    bounds = np.tile([-1.0, 1.0], (features.shape[1], 1))
    return LogisticProblem(scaled_rows(features, bounds), tumours.labels, len(features), 0.569)


def exact(problem: LogisticProblem) -> npt.NDArray[np.float64]:
    return problem.minimise(np.zeros(problem.features), 0.0)[0]


def without(problem: LogisticProblem, row: int) -> LogisticProblem:
    return replace(problem, rows=np.delete(problem.rows, row, 0), labels=np.delete(problem.labels, row))


def accuracy(problem: LogisticProblem, weights: npt.NDArray[np.float64]) -> float:
    return float(((problem.rows @ weights > 0) == (problem.labels == 1)).mean())


def test_the_minimiser_is_scikit_learns_and_as_exact_as_it_says(problem: LogisticProblem) -> None:
    theirs = LogisticRegression(
        C=1 / problem.regularisation,
        fit_intercept=False,
        tol=1e-12,
        max_iter=10_000,
        solver="newton-cholesky",
    ).fit(problem.rows, problem.labels)
    weights, off = problem.minimise(np.zeros(problem.features), 0.0)
    assert off < 1e-7
    assert float(np.linalg.norm(weights - theirs.coef_[0])) < 1e-6
    # With a linear term, the gradient computed in another way keeps the certificate.
    shift = np.full(problem.features, 3.0)
    moved, off_shifted = problem.minimise(shift, 20.0)
    margins = problem.rows @ moved * (2 * problem.labels - 1)
    pull = (problem.rows * (2 * problem.labels - 1)[:, None]).T @ (1 / (1 + np.exp(margins)))
    gradient = problem.regularisation * moved + shift - pull
    assert float(np.linalg.norm(gradient)) <= off_shifted * problem.regularisation


def test_one_record_moves_the_minimiser_by_the_stated_sensitivity_at_most(problem: LogisticProblem) -> None:
    whole = exact(problem)
    moved = [np.linalg.norm(whole - exact(without(problem, row))) for row in range(0, 569, 29)]
    assert 0 < max(moved) < 1 / problem.regularisation


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(min_value=0.01, max_value=10))
def test_no_record_moves_a_minimiser_further_than_its_sensitivity(seed: int, regularisation: float) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(int(generator.integers(1, 12)), 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = generator.integers(0, 2, len(rows))
    small = LogisticProblem(rows, labels, len(rows), regularisation)
    weights, off = small.minimise(np.zeros(3), 0.0)
    others, off_others = without(small, 0).minimise(np.zeros(3), 0.0)
    assert np.linalg.norm(weights - others) <= 1 / regularisation + off + off_others


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda one: type(one).__name__)
def test_a_fit_is_charged_before_the_records_are_touched(
    mechanism: Perturbation, problem: LogisticProblem, tmp_path: Path
) -> None:
    ledger = BudgetLedger.create(tmp_path / "budget.sqlite", "wards", 1e-4)
    account = Account(ledger, RECORDS, "job", 0, [Limit("manifest", 2.0, Scope.DATASET)])
    source = OsRandom("perturbation")
    model = fit_perturbed(problem, mechanism, source=source, account=account)
    assert ledger.events() == (model.event,)
    assert model.noise_generator == "aes-256-ctr/os-entropy"

    class Untouchable(LogisticProblem):
        def minimise(self, shift: object, largest_shift: float) -> tuple[npt.NDArray[np.float64], float]:
            raise AssertionError

    untouchable = Untouchable(problem.rows, problem.labels, problem.units, problem.regularisation)
    poor = replace(account, limits=[Limit("job", 0.01, Scope.DATASET)])
    with pytest.raises(BudgetExceeded):
        fit_perturbed(untouchable, mechanism, source=source, account=poor)
    assert ledger.events() == (model.event,)


def test_events_state_the_mechanisms() -> None:
    events = [one.event for one in MECHANISMS]
    assert events == [Pure(1.0, 1), Gaussian(4.0, 1), Pure(1.0, 1), Approximate(1.0, 1e-6, 1)]


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda one: type(one).__name__)
def test_released_weights_differ_from_the_raw_ones_and_sit_on_a_grid(
    mechanism: Perturbation, problem: LogisticProblem
) -> None:
    raw = exact(problem)
    one, other = (
        fit_perturbed(problem, mechanism, source=OsRandom("perturbation"), account=FREE).weights
        for _ in range(2)
    )
    assert np.linalg.norm(one - raw) > 0.05 < np.linalg.norm(one - other)
    assert (one != other).all()
    smallest = np.abs(one - other).min()
    assert smallest > 0


def test_output_noise_has_the_stated_scale(problem: LogisticProblem) -> None:
    raw, source = exact(problem), OsRandom("perturbation")
    gaussian = np.array(
        [
            fit_perturbed(problem, OutputGaussian(4.0), source=source, account=FREE).weights - raw
            for _ in range(300)
        ]
    )
    spread = 4.0 / problem.regularisation
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], gaussian.size)
    assert low < float(((gaussian / spread) ** 2).sum()) < high
    pure = [
        np.linalg.norm(fit_perturbed(problem, OutputPure(2.0), source=source, account=FREE).weights - raw)
        for _ in range(300)
    ]
    scale = 1 / (2.0 * (1 - 1 / 64) * problem.regularisation)
    assert stats.kstest(pure, stats.gamma(problem.features, scale=scale).cdf).pvalue > 1e-6


@pytest.mark.parametrize(
    "mechanism", [ObjectivePure(2.0), ObjectiveGaussian(2.0, 1e-6)], ids=["pure", "gaussian"]
)
def test_objective_noise_recovered_from_the_release_has_the_stated_scale(
    mechanism: ObjectivePure | ObjectiveGaussian, problem: LogisticProblem
) -> None:
    heavy, source = replace(problem, regularisation=569.0), OsRandom("perturbation")
    signs = 2 * heavy.labels - 1
    shifts = []
    for _ in range(300):
        weights = fit_perturbed(heavy, mechanism, source=source, account=FREE).weights
        pull = (heavy.rows * signs[:, None]).T @ (1 / (1 + np.exp(heavy.rows @ weights * signs)))
        shifts.append(pull - heavy.regularisation * weights)
    left = 2.0 * (1 - 1 / 64) - np.log1p(1 / 4 / 569)
    if isinstance(mechanism, ObjectivePure):
        law = stats.gamma(heavy.features, scale=1 / left)
        assert stats.kstest(np.linalg.norm(shifts, axis=1), law.cdf).pvalue > 1e-6
    else:
        drawn = np.array(shifts).ravel()
        low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], drawn.size)
        assert low < float(((drawn / gaussian_shift(left, 1e-6)) ** 2).sum()) < high


@pytest.mark.parametrize("mechanism", [OutputPure(1.0), ObjectivePure(1.0)], ids=["output", "objective"])
def test_no_interval_of_outputs_is_told_apart_by_more_than_epsilon(mechanism: Perturbation) -> None:
    """One feature, where every event can be counted; the record with the largest pull is there or isn't."""
    rows, labels = np.array([[1.0], [0.3]]), np.array([1, 0])
    with_it = LogisticProblem(rows, labels, 2, 1.0)
    draws, source = 3_000, OsRandom("perturbation")
    outputs = [
        np.sort([fit_perturbed(one, mechanism, source=source, account=FREE).weights[0] for _ in range(draws)])
        for one in (with_it, without(with_it, 0))
    ]
    edges = np.quantile(np.concatenate(outputs), np.linspace(0, 1, 11)[1:-1])
    counts = [np.diff(np.searchsorted(values, [-np.inf, *edges, np.inf])) for values in outputs]
    largest = 0.0
    for here, there in (counts, counts[::-1]):
        # Six standard deviations of a log ratio of counts.
        slack = 6 * np.sqrt(1 / here + 1 / there)
        assert (np.log(here / there) <= 1.0 + slack).all()
        largest = max(largest, float(np.log(here / there).max()))
    # There is something to tell: the record does move the outputs.
    assert largest > 0.3


def test_the_gaussian_shift_solves_its_equation() -> None:
    for epsilon, delta in [(0.5, 1e-6), (3.0, 1e-3)]:
        deviation = gaussian_shift(epsilon, delta)
        tail = stats.norm.isf(delta / 2)
        assert 1 / (2 * deviation**2) + tail / deviation == pytest.approx(epsilon, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(min_value=0.3, max_value=4), st.sampled_from([1e-3, 1e-6]))
def test_the_gaussian_shift_keeps_its_promise_where_the_loss_can_be_computed(
    epsilon: float, delta: float
) -> None:
    """A constant pull of 1: then the mechanism is a Gaussian one, whose exact delta is known."""
    deviation = gaussian_shift(epsilon, delta)
    ratio = 1 / deviation
    exact_delta = stats.norm.cdf(ratio / 2 - epsilon / ratio) - np.exp(epsilon) * stats.norm.cdf(
        -ratio / 2 - epsilon / ratio
    )
    assert exact_delta <= delta


def test_less_noise_is_more_accurate(problem: LogisticProblem) -> None:
    heavy, source = replace(problem, regularisation=5.69), OsRandom("perturbation")
    minimiser = exact(heavy)
    fits = {
        (kind, epsilon): [
            fit_perturbed(heavy, kind(epsilon), source=source, account=FREE).weights for _ in range(10)
        ]
        for kind in (OutputPure, ObjectivePure)
        for epsilon in (0.2, 50.0)
    }
    for kind in (OutputPure, ObjectivePure):
        assert np.mean([accuracy(heavy, one) for one in fits[kind, 50.0]]) > accuracy(heavy, minimiser) - 0.02
        # By distance: accuracies of either are within each other's spread now and then.
        near, far = (
            np.mean([np.linalg.norm(one - minimiser) for one in fits[kind, epsilon]])
            for epsilon in (50.0, 0.2)
        )
        assert 50 * near < far


@pytest.mark.parametrize(
    "change",
    [
        {"rows": np.full((2, 3), 0.9)},
        {"rows": np.full((2, 3), np.nan)},
        {"rows": np.zeros((2, 3), dtype=np.float32)},
        {"rows": np.zeros(2)},
        {"labels": np.array([0, 2])},
        {"labels": np.array([0])},
        {"subjects": np.array([4, 4])},
        {"units": 1},
        {"regularisation": 0.0},
        {"regularisation": float("nan")},
    ],
)
def test_an_impossible_problem_is_refused(change: dict[str, object]) -> None:
    good = LogisticProblem(np.zeros((2, 3)), np.array([0, 1]), 2, 1.0, np.array([4, 5]))
    with pytest.raises(PrivacyError):
        replace(good, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "mechanism",
    [
        OutputPure(0.0),
        OutputPure(float("nan")),
        OutputGaussian(0.0),
        ObjectivePure(1e6),
        ObjectivePure(0.01),  # the determinant alone costs more
        ObjectiveGaussian(1.0, 0.0),
        ObjectiveGaussian(0.01, 1e-5),
    ],
)
def test_an_impossible_price_is_refused_and_costs_nothing(mechanism: Perturbation, tmp_path: Path) -> None:
    ledger = BudgetLedger.create(tmp_path / "budget.sqlite", "wards", 1e-4)
    account = Account(ledger, RECORDS, "job", 0, [])
    small = LogisticProblem(np.zeros((2, 3)), np.array([0, 1]), 2, 1.0)
    with pytest.raises(PrivacyError) as refusal:
        fit_perturbed(small, mechanism, source=OsRandom("perturbation"), account=account)
    assert refusal.value.code == "privacy.plan_invalid"
    assert ledger.events() == ()


def test_a_minimiser_that_is_not_reached_is_refused_and_stays_spent(
    problem: LogisticProblem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cloister.privacy.convex._MOST_TURNS", 2)
    ledger = BudgetLedger.create(tmp_path / "budget.sqlite", "wards", 1e-4)
    account = Account(ledger, RECORDS, "job", 0, [])
    with pytest.raises(PrivacyError) as refusal:
        fit_perturbed(problem, OutputPure(1.0), source=OsRandom("perturbation"), account=account)
    assert refusal.value.code == "privacy.not_minimised"
    assert ledger.events() == (Pure(1.0, 1),)


def scaled(values: list[float], bounds: list[list[float]]) -> Callable[[], object]:
    return lambda: scaled_rows(np.array([values]), np.array(bounds))


def test_rows_are_scaled_by_declared_bounds_alone() -> None:
    rows = scaled_rows(np.array([[120.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 120.0], [0.0, 1.0]]))
    np.testing.assert_allclose(rows, np.array([[1, -1, 1], [-1, 1, 1]]) / np.sqrt(3))
    for bad in ([121.0, 0.0], [np.nan, 0.0]):
        with pytest.raises(PrivacyError):
            scaled(bad, [[0.0, 120.0], [0.0, 1.0]])()
    with pytest.raises(PrivacyError):
        scaled([1.0], [[1.0, 0.0]])()
