"""Mode and unit are fixed with a ledger; both databases keep the same rules; time goes forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Final, TypedDict

import pytest
import sqlalchemy

from cloister.core.clock import Clock, fixed_clock
from cloister.core.errors import InputError
from cloister.core.hashes import sha256_hex
from cloister.evidence.predicates.training import MAX_PRIOR_EVENTS
from cloister.evidence.transcript import (
    ADAPTIVE,
    FIXED_PLAN,
    Event,
    Gaussian,
    Mode,
    SampledGaussian,
    Unit,
    epsilon,
    epsilon_held,
    epsilon_pld,
)
from cloister.privacy.account import Account
from cloister.privacy.budget import Limit, Scope, check_group, subject_limit
from cloister.privacy.errors import BudgetExceeded, LedgerError, PrivacyError
from cloister.privacy.ledger import BudgetLedger, Purpose, Reservation
from cloister.privacy.ledger_entries import Header, LedgerState, Recorded, Reserved
from cloister.privacy.ledger_store import Place
from cloister.privacy.modes import held_in
from tests.conftest import START
from tests.timing import processor_seconds, shortest


class Paid(TypedDict):
    """What whoever works says beside the price."""

    unit: Unit
    noise_generator: str


DATASET = "wards"
RECORDS = sha256_hex(b"records")
DELTA = 1e-5
PLAN = SampledGaussian(0.05, 1.5, 200)
RECORD: Final[Paid] = {"unit": "record", "noise_generator": "seeded-test"}


def reserve(ledger: BudgetLedger, event: Event = PLAN, job: str = "job", *limits: Limit) -> Reservation:
    return ledger.reserve(
        event,
        dataset_sha256=RECORDS,
        job_id=job,
        round_number=0,
        purpose=Purpose.TRAINING,
        limits=limits,
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield tmp_path / "budget.sqlite"
        return
    url: str = request.getfixturevalue("postgresql")
    yield url
    engine = sqlalchemy.create_engine(sqlalchemy.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        for schema in sqlalchemy.inspect(connection).get_schema_names():
            if schema.startswith("cloister_ledger_"):
                connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    engine.dispose()


@pytest.mark.parametrize("mode", [ADAPTIVE, FIXED_PLAN])
def test_a_ledger_keeps_its_mode_unit_and_spends_on_either_database(place: Place, mode: Mode) -> None:
    with BudgetLedger.create(place, DATASET, DELTA, mode=mode, unit="subject") as made:
        made.settle(reserve(made), 150)
        reserve(made, Gaussian(30.0, 2), "other")
        head, events = made.head, made.events()
    with BudgetLedger.open(place, DATASET) as again:
        assert (again.mode, again.unit, again.delta) == (mode, "subject", DELTA)
        assert (again.head, again.events()) == (head, events)
        assert len(again.unsettled) == 1
        recompute = epsilon if mode == ADAPTIVE else epsilon_pld
        assert again.epsilon() == pytest.approx(recompute(events, DELTA), abs=1e-6)


def test_an_adaptive_ledger_gives_unused_steps_back_and_a_fixed_plan_gives_nothing_back(
    tmp_path: Path,
) -> None:
    with BudgetLedger.create(tmp_path / "a.sqlite", DATASET, DELTA) as adaptive:
        assert adaptive.settle(reserve(adaptive), 50) == SampledGaussian(0.05, 1.5, 50)
        assert adaptive.events() == (SampledGaussian(0.05, 1.5, 50),)
    with BudgetLedger.create(tmp_path / "f.sqlite", DATASET, DELTA, mode=FIXED_PLAN) as fixed:
        assert fixed.settle(reserve(fixed), 50) == PLAN
        assert fixed.settle(reserve(fixed, PLAN, "other"), 0) == PLAN
        assert fixed.events() == (SampledGaussian(0.05, 1.5, 400),)
    with BudgetLedger.open(tmp_path / "f.sqlite", DATASET) as again:
        assert again.events() == (SampledGaussian(0.05, 1.5, 400),)


def test_each_mode_admits_by_its_own_accountant_and_never_by_the_smaller_figure(tmp_path: Path) -> None:
    between = (epsilon_pld([PLAN], DELTA) + epsilon([PLAN], DELTA)) / 2
    limit = Limit("manifest", between, Scope.DATASET)
    with BudgetLedger.create(tmp_path / "f.sqlite", DATASET, DELTA, mode=FIXED_PLAN) as fixed:
        reserve(fixed, PLAN, "job", limit)
    with (
        BudgetLedger.create(tmp_path / "a.sqlite", DATASET, DELTA) as adaptive,
        pytest.raises(BudgetExceeded),
    ):
        reserve(adaptive, PLAN, "job", limit)


def test_a_ledger_under_other_terms_is_refused(tmp_path: Path) -> None:
    with BudgetLedger.create(tmp_path / "a.sqlite", DATASET, 1e-4) as ledger:
        ledger.require_terms(mode=ADAPTIVE, unit="record", delta=1e-4)
        with pytest.raises(LedgerError) as refused:
            ledger.require_terms(mode=FIXED_PLAN, unit="subject", delta=1e-5)
    assert refused.value.code == "ledger.other_terms"
    assert len(refused.value.details) == 3


@pytest.mark.parametrize(("mode", "unit"), [("gdp", "record"), ("adaptive", "hospital")])
def test_a_ledger_of_an_unknown_mode_or_unit_is_not_made(tmp_path: Path, mode: str, unit: str) -> None:
    with pytest.raises(PrivacyError):
        BudgetLedger.create(tmp_path / "a.sqlite", DATASET, DELTA, mode=mode, unit=unit)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_is_made_once_and_found_only_by_its_holder(place: Place) -> None:
    BudgetLedger.create(place, DATASET, DELTA, holder="north").close()
    with pytest.raises(LedgerError) as refused:
        BudgetLedger.create(place, DATASET, DELTA, holder="north")
    assert refused.value.code == "ledger.exists"
    if isinstance(place, str):
        BudgetLedger.create(place, DATASET, DELTA, holder="south").close()
        with pytest.raises(LedgerError) as refused:
            BudgetLedger.open(place, DATASET, holder="east")
        assert refused.value.code == "ledger.missing"


def test_two_openings_of_one_ledger_can_not_overspend_together(place: Place) -> None:
    limit = Limit("manifest", 3.5, Scope.DATASET)
    granted = 0
    with BudgetLedger.create(place, DATASET, DELTA) as one, BudgetLedger.open(place, DATASET) as other:
        for number in range(8):
            with suppress(BudgetExceeded):
                reserve((one, other)[number % 2], PLAN, f"job {number}", limit)
                granted += 1
    assert 0 < granted < 8
    with BudgetLedger.open(place, DATASET) as again:
        assert again.events() == (SampledGaussian(0.05, 1.5, 200 * granted),)
        assert again.epsilon() <= 3.5


def test_a_clock_that_went_backwards_reserves_nothing(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "a.sqlite"
    with BudgetLedger.create(path, DATASET, DELTA, clock=clock) as ledger:
        held = reserve(ledger)
    earlier = fixed_clock(START - timedelta(seconds=6))
    with BudgetLedger.open(path, DATASET, clock=earlier) as back:
        with pytest.raises(LedgerError) as refused:
            reserve(back)
        assert refused.value.code == "ledger.clock_backwards"
        assert back.events() == (PLAN,)
        back.settle(held, 10)
        times = [one.recorded_at for one in back.history()]
    assert times == sorted(times)


LIMITS = [
    Limit("subject", 1.0, Scope.SUBJECT),
    Limit("dataset", 1.1, Scope.DATASET),
    Limit("manifest", 1.2, Scope.DATASET),
    Limit("job", 1.3, Scope.JOB),
]


@pytest.mark.parametrize("strictest", range(len(LIMITS)))
def test_of_several_limits_the_strictest_wins(tmp_path: Path, strictest: int) -> None:
    limits = [Limit(one.name, 0.3 if at == strictest else 4.0, one.scope) for at, one in enumerate(LIMITS)]
    with BudgetLedger.create(tmp_path / "a.sqlite", DATASET, DELTA) as ledger:
        with pytest.raises(BudgetExceeded) as refused:
            reserve(ledger, PLAN, "job", *limits)
        assert [line.split(":")[0] for line in refused.value.details] == [LIMITS[strictest].name]
        assert ledger.events() == ()


def test_one_subjects_ceiling_is_shared_among_sites_unless_they_linked_their_subjects() -> None:
    assert subject_limit(3.0, 4, "sum").epsilon == 0.75
    assert subject_limit(3.0, 4, "linked").epsilon == 3.0
    with pytest.raises(PrivacyError):
        subject_limit(3.0, 0, "sum")


@pytest.mark.parametrize(("units", "minimum"), [(0, 1), (1, 1), (19, 20)])
def test_a_group_too_small_to_hide_in_is_refused_without_its_size(units: int, minimum: int) -> None:
    with pytest.raises(PrivacyError) as refused:
        check_group(units, minimum)
    assert refused.value.code == "privacy.group_too_small"


@pytest.mark.timed
def test_admission_takes_less_than_a_millisecond_after_ten_thousand_events() -> None:
    state = LedgerState()
    state.apply(Recorded(Header(2, DATASET, DELTA, "adaptive", "record"), "t"), RECORDS)
    for number in range(10_000):
        event = SampledGaussian(0.001, 60 + number % 100, 1)
        state.apply(
            Recorded(Reserved(str(number), event, RECORDS, f"{number}", 0, Purpose.TRAINING), "t"), RECORDS
        )

    def once() -> float:
        return state.balance().held_with([PLAN], DELTA, 5.0)

    def median() -> float:
        return sorted(processor_seconds(once) for _ in range(21))[10]

    assert shortest(median, 1e-3) < 1e-3
    after = once()
    assert after == pytest.approx(epsilon_held(ADAPTIVE, [*state.events(), PLAN], DELTA, 5.0), abs=1e-6)


@pytest.mark.timed
def test_a_pair_of_reservation_and_settlement_is_quick(tmp_path: Path) -> None:
    step = SampledGaussian(0.001, 50.0, 1)
    with BudgetLedger.create(tmp_path / "a.sqlite", DATASET, DELTA) as ledger:
        numbers = count()

        def fifty() -> None:
            for _ in range(50):
                ledger.settle(reserve(ledger, step, f"job {next(numbers)}"), 1)

        assert shortest(lambda: processor_seconds(fifty), 50 / 100) < 50 / 100


def test_a_mechanism_more_than_a_statement_can_name_is_refused_before_it_is_charged(tmp_path: Path) -> None:
    with BudgetLedger.create(tmp_path / "a.sqlite", DATASET, DELTA) as ledger:
        for number in range(MAX_PRIOR_EVENTS):
            reserve(ledger, SampledGaussian(0.001, 1000 + number / 1000, 1), f"job {number}")
        head = ledger.head
        with pytest.raises(BudgetExceeded) as refused:
            reserve(ledger, SampledGaussian(0.001, 2000.0, 1), "one more")
        assert refused.value.code == "ledger.too_many_mechanisms"
        assert ledger.head == head
        reserve(ledger, SampledGaussian(0.001, 1000.0, 5), "a known one")
        assert len(ledger.prior_events("one more")) == MAX_PRIOR_EVENTS


@pytest.mark.parametrize("executed", [2.5, 2.0, True, "2", None])
def test_a_settlement_that_is_no_whole_number_is_refused_and_the_ledger_opens_again(
    tmp_path: Path, executed: object
) -> None:
    with BudgetLedger.create(tmp_path / "a.sqlite", DATASET, DELTA) as ledger:
        held = reserve(ledger)
        with pytest.raises(LedgerError) as refused:
            ledger.settle(held, executed)  # type: ignore[arg-type]
        assert refused.value.code == "ledger.settlement_invalid"
    with BudgetLedger.open(tmp_path / "a.sqlite", DATASET) as again:
        assert again.events() == (PLAN,)


@pytest.mark.parametrize("round_number", [0.5, 1.0, True])
def test_a_reservation_of_a_round_that_is_no_whole_number_is_refused_and_the_ledger_opens_again(
    tmp_path: Path, round_number: object
) -> None:
    with BudgetLedger.create(tmp_path / "a.sqlite", DATASET, DELTA) as ledger, pytest.raises(InputError):
        ledger.reserve(
            PLAN,
            dataset_sha256=RECORDS,
            job_id="job",
            round_number=round_number,  # type: ignore[arg-type]
            purpose=Purpose.TRAINING,
            limits=(),
        )
    with BudgetLedger.open(tmp_path / "a.sqlite", DATASET) as again:
        assert again.events() == ()


@pytest.mark.parametrize("mode", [ADAPTIVE, FIXED_PLAN])
def test_spends_that_are_asked_for_together_are_refused_together_and_burn_nothing(
    place: Place, mode: Mode
) -> None:
    with BudgetLedger.create(place, DATASET, DELTA, mode=mode) as ledger:
        account = Account(ledger, RECORDS, "tuning", 0, [])
        head = ledger.head
        with pytest.raises(BudgetExceeded):
            account.pay_all(
                [SampledGaussian(0.01, 2.0, 1000), Gaussian(0.5, 1)], Purpose.TUNING, lambda: 0, **RECORD
            )
        assert ledger.epsilon() == 0.0
        assert ledger.head == head
        # Neither alone passes the limit; together they do.
        half = Limit("manifest", 1.1 * held_in(mode, [PLAN], DELTA, 3.0), Scope.DATASET)
        with pytest.raises(BudgetExceeded):
            Account(ledger, RECORDS, "tuning", 0, [half]).pay_all(
                [PLAN, PLAN], Purpose.TUNING, lambda: 0, **RECORD
            )
        assert ledger.head == head
        account.pay_all([PLAN, Gaussian(20.0, 2)], Purpose.TUNING, lambda: 0, **RECORD)
        assert set(ledger.events()) == {PLAN, Gaussian(20.0, 2)}
        assert ledger.unsettled == ()
    with BudgetLedger.open(place, DATASET) as again:
        assert set(again.events()) == {PLAN, Gaussian(20.0, 2)}
