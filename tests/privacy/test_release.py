"""Figures about private records leave only with noise that the ledger paid for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import Event, Gaussian, Unit
from cloister.privacy.account import Account
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.errors import BudgetExceeded, PrivacyError
from cloister.privacy.ledger import BudgetLedger, Purpose, Reservation
from cloister.privacy.noise import GaussianIntegers, choose_grid
from cloister.privacy.randomness import OsRandom
from cloister.privacy.release import (
    MOST_UNITS,
    Release,
    per_subject,
    release_accuracy,
    release_count,
    release_histogram,
    release_mean,
    release_sum,
)
from cloister.privacy.testing import SeededTestRandom

RECORDS = sha256_hex(b"records")
LIMITS = [Limit("manifest", 3.0, Scope.DATASET)]


def noise() -> GaussianIntegers:
    return GaussianIntegers(OsRandom("metrics"))


@pytest.fixture
def ledger(tmp_path: Path) -> BudgetLedger:
    return BudgetLedger.create(tmp_path / "budget.sqlite", "wards", 1e-5)


def paid_by(ledger: BudgetLedger) -> Account:
    return Account(ledger, RECORDS, "job", 0, LIMITS)


class Unlimited:
    """Lets everything through, to look at many releases."""

    unit: Unit = "record"

    def __init__(self) -> None:
        self.open = 0
        self.events: list[Event] = []

    def reserve_all(self, events: Sequence[Event], **_: object) -> tuple[Reservation, ...]:
        self.open += len(events)
        self.events.extend(events)
        return tuple(Reservation("one", event, "job", 0, Purpose.EVALUATION) for event in events)

    def settle(self, reservation: Reservation, executed: int) -> Event:
        assert executed >= 1
        self.open -= 1
        return reservation.event


FREE = Account(Unlimited(), RECORDS, "job", 0, [])

ASKED: dict[str, Callable[[float, Account], Release]] = {
    "count": lambda sigma, account: release_count(
        40, unit="record", noise_multiplier=sigma, noise=noise(), account=account
    ),
    "histogram": lambda sigma, account: release_histogram(
        {"a": 40, "b": 0}, unit="record", noise_multiplier=sigma, noise=noise(), account=account
    ),
    "sum": lambda sigma, account: release_sum(
        np.full(50, 0.5), (0.0, 2.0), unit="record", noise_multiplier=sigma, noise=noise(), account=account
    ),
    "mean": lambda sigma, account: release_mean(
        np.full(50, 0.5),
        (0.0, 2.0),
        50,
        unit="record",
        noise_multiplier=sigma,
        noise=noise(),
        account=account,
    ),
    "accuracy": lambda sigma, account: release_accuracy(
        np.ones(50, dtype=np.bool_), 50, unit="record", noise_multiplier=sigma, noise=noise(), account=account
    ),
}


@pytest.mark.parametrize("kind", ASKED)
def test_a_release_is_charged_to_the_ledger_once(kind: str, ledger: BudgetLedger) -> None:
    released = ASKED[kind](10.0, paid_by(ledger))
    assert ledger.events("job") == (released.event,) == (Gaussian(10.0, 1),)
    assert released.kind == kind
    assert released.noise_generator == "aes-256-ctr/os-entropy"


@pytest.mark.parametrize("kind", ASKED)
def test_a_release_over_the_budget_does_not_happen(kind: str, ledger: BudgetLedger) -> None:
    with pytest.raises(BudgetExceeded):
        ASKED[kind](1.0, paid_by(ledger))
    assert ledger.events() == ()


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_an_impossible_noise_is_refused_and_costs_nothing(
    kind: str, sigma: float, ledger: BudgetLedger
) -> None:
    with pytest.raises(PrivacyError) as refusal:
        ASKED[kind](sigma, paid_by(ledger))
    assert refusal.value.code == "privacy.plan_invalid"
    assert ledger.events() == ()


def test_a_release_that_fails_after_it_was_admitted_stays_spent() -> None:
    class Broken:
        generator = "broken"

        def draw(self, count: int, bits: int) -> np.ndarray:
            raise OSError("entropy")

    account = Account(Unlimited(), RECORDS, "job", 0, [])
    with pytest.raises(OSError, match="entropy"):
        release_count(4, unit="record", noise_multiplier=9.0, noise=Broken(), account=account)
    assert isinstance(account.ledger, Unlimited)
    assert account.ledger.open == 1


@pytest.mark.parametrize(
    ("release", "sensitivity", "centre"),
    [
        (
            lambda n: release_histogram(
                {"a": 400}, unit="record", noise_multiplier=5.0, noise=n, account=FREE
            ),
            1.0,
            400.0,
        ),
        (
            lambda n: release_sum(
                np.full(9, 300.0), (-20.0, 500.0), unit="record", noise_multiplier=5.0, noise=n, account=FREE
            ),
            500.0,
            2700.0,
        ),
    ],
)
def test_the_noise_has_the_stated_scale(
    release: Callable[[GaussianIntegers], Release], sensitivity: float, centre: float
) -> None:
    source, draws = GaussianIntegers(OsRandom("metrics")), 20_000
    values = np.array([release(source).only.value for _ in range(draws)])
    scaled = (values - centre) / (5.0 * sensitivity)
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], draws)
    assert low < float((scaled**2).sum()) < high
    assert stats.kstest(scaled, "norm").pvalue > 1e-6


def test_the_noise_of_a_mean_is_that_of_half_the_range() -> None:
    source, draws = GaussianIntegers(OsRandom("metrics")), 5_000
    ages = np.full(2000, 60.0)
    values = np.array(
        [
            release_mean(
                ages, (0, 120), 2000, unit="record", noise_multiplier=5.0, noise=source, account=FREE
            ).only.value
            for _ in range(draws)
        ]
    )
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], draws)
    assert low < float((((values - 60) / (5.0 * 60 / 2000)) ** 2).sum()) < high


@given(
    st.lists(st.floats(min_value=-3, max_value=7), min_size=1, max_size=30),
    st.floats(min_value=-3, max_value=7),
    st.floats(min_value=0.1, max_value=100),
)
def test_one_unit_more_moves_the_rounded_sum_by_the_sensitivity_at_most(
    values: list[float], more: float, sigma: float
) -> None:
    class NoNoise:
        generator = "none"

        def draw(self, count: int, bits: int) -> np.ndarray:
            return np.zeros(count, dtype=np.int64)

    def value(data: list[float]) -> float:
        released = release_sum(
            np.array(data), (-3.0, 7.0), unit="record", noise_multiplier=sigma, noise=NoNoise(), account=FREE
        )
        return released.only.value

    grid = choose_grid(7.0, sigma, parameters=1, units=MOST_UNITS, summands=1)
    moved = abs(value([*values, more]) - value(values))
    assert moved <= grid.sensitivity * (1 + 1e-12)
    assert grid.sensitivity <= 7.0 * 1.0002
    # Outputs are whole steps of one grid, whatever the records were.
    assert value(values) == round(value(values) / grid.step) * grid.step


@pytest.mark.parametrize("name", ["count", "histogram", "sum", "mean", "accuracy"])
def test_intervals_hold_the_truth_at_least_as_often_as_they_say(name: str) -> None:
    generator = np.random.default_rng(0)
    source, units, truth, hits = GaussianIntegers(SeededTestRandom(1, "metrics")), 80, 0.7, 0
    for _ in range(1000):
        ones = generator.random(units) < truth
        match name:
            case "count":
                released = release_count(70, unit="record", noise_multiplier=6.0, noise=source, account=FREE)
                held = released.only.low <= 70 <= released.only.high
            case "histogram":
                bins = {"a": 70, "b": 9, "c": 50, "d": 66}
                released = release_histogram(
                    bins, unit="record", noise_multiplier=6.0, noise=source, account=FREE
                )
                held = all(one.low <= bins[key] <= one.high for key, one in released.figures.items())
            case "sum":
                released = release_sum(
                    2.0 * ones, (0.0, 2.0), unit="record", noise_multiplier=6.0, noise=source, account=FREE
                )
                held = released.only.low <= 2 * ones.sum() <= released.only.high
            case "mean":
                released = release_mean(
                    3.0 * ones,
                    (0.0, 3.0),
                    units,
                    unit="record",
                    noise_multiplier=6.0,
                    noise=source,
                    account=FREE,
                )
                held = released.only.low <= 3 * truth <= released.only.high
            case _:
                released = release_accuracy(
                    ones, units, unit="record", noise_multiplier=6.0, noise=source, account=FREE
                )
                held = released.only.low <= truth <= released.only.high
                assert 0 <= released.only.low <= released.only.value <= released.only.high <= 1
        hits += held
    assert hits >= 930  # 95 %, less three standard deviations


def test_intervals_are_no_wider_than_noise_and_sampling_make_them() -> None:
    counted = release_count(700, unit="record", noise_multiplier=6.0, noise=noise(), account=FREE).only
    assert counted.high - counted.low == pytest.approx(2 * 1.96 * 6.0, rel=0.01)
    share = release_accuracy(
        np.arange(400) % 2 == 0, 400, unit="record", noise_multiplier=20.0, noise=noise(), account=FREE
    ).only
    assert share.high - share.low == pytest.approx(2 * 1.96 * np.hypot(0.5 / 20, 10 / 400), rel=0.01)


def test_a_scalar_attack_tells_no_outputs_apart() -> None:
    """Mironov 2012: a value that one dataset can release and its neighbour can't gives it away."""
    step = choose_grid(1.0, 1.0, parameters=1, units=MOST_UNITS, summands=1).step
    draws = 4_000
    for count in (0, 1):
        source = GaussianIntegers(OsRandom("attack"))
        released = [
            (one.low + one.high) / 2
            for one in (
                release_sum(
                    np.full(1, float(count)),
                    (-1.0, 1.0),
                    unit="record",
                    noise_multiplier=1.0,
                    noise=source,
                    account=FREE,
                ).only
                for _ in range(draws)
            )
        ]
        places = np.array(released) / step
        # Every output is a whole step up to what adding the interval's halves rounds: possible under both.
        assert np.abs(places - np.rint(places)).max() < 1e-3


@pytest.mark.parametrize(
    "bad",
    [
        lambda account: release_count(
            -1, unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_count(
            MOST_UNITS + 1, unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_histogram(
            {}, unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_histogram(
            {"a": -1}, unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_sum(
            np.array([np.nan]), (0, 1), unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_sum(
            np.array([1.5]), (0, 1), unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_sum(
            np.array([0.5]), (1, 0), unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_sum(
            np.array([0.5]), (0, np.inf), unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_sum(
            np.array([[0.5]]), (0, 1), unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_mean(
            np.array([0.5]), (0, 1), 0, unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
        lambda account: release_accuracy(
            np.array([-0.5]), 1, unit="record", noise_multiplier=9.0, noise=noise(), account=account
        ),
    ],
)
def test_impossible_values_are_refused_and_cost_nothing(
    bad: Callable[[Account], Release], ledger: BudgetLedger
) -> None:
    with pytest.raises(PrivacyError) as refusal:
        bad(paid_by(ledger))
    assert refusal.value.code == "privacy.data_invalid"
    assert ledger.events() == ()


def test_values_are_clamped_only_where_the_schema_says_so() -> None:
    wild = np.array([1e9, -1e9, np.float64(0.5)] * 100)
    released = release_sum(
        wild, (0.0, 1.0), unit="record", noise_multiplier=1.0, noise=noise(), account=FREE, clamp=True
    )
    assert released.only.value == pytest.approx(150, abs=8)


def test_a_subject_with_many_records_counts_as_one() -> None:
    values, subjects = np.array([1.0, 0.0, 1.0, 1.0, 0.0]), np.array([7, 7, 7, 2, 9])
    np.testing.assert_allclose(per_subject(values, subjects), [1.0, 2 / 3, 0.0])
    with pytest.raises(PrivacyError):
        per_subject(values, subjects[:2])
