"""The budget ledger refuses before it spends, and is closed on error."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from cloister.core.clock import Clock
from cloister.core.errors import InputError, StorageError
from cloister.core.hashes import Sha256, sha256_hex
from cloister.evidence.transcript import Event, Gaussian, SampledGaussian, epsilon
from cloister.privacy.accountant import calibrate_noise, epsilon_of, held_of
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.errors import BudgetExceeded, LedgerError, PrivacyError
from cloister.privacy.ledger import BudgetLedger, Purpose, Reservation
from tests.timing import processor_seconds, shortest

DATASET = "wards"
RECORDS = sha256_hex(b"records")
DELTA = 1e-4
ROUND = SampledGaussian(0.2, 2.865, 10)
"""Ten rounds of this are a little under epsilon 3."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "budget.sqlite"


@pytest.fixture
def ledger(path: Path, clock: Clock) -> BudgetLedger:
    return BudgetLedger.create(path, DATASET, DELTA, clock=clock)


def reserve(
    ledger: BudgetLedger, event: Event = ROUND, job: str = "job", number: int = 0, *limits: Limit
) -> Reservation:
    return ledger.reserve(
        event,
        dataset_sha256=RECORDS,
        job_id=job,
        round_number=number,
        purpose=Purpose.TRAINING,
        limits=limits,
    )


def test_a_round_that_would_exceed_the_budget_is_refused_before_it_starts(ledger: BudgetLedger) -> None:
    manifest = Limit("manifest", 3.0, Scope.JOB)
    for number in range(10):
        ledger.settle(reserve(ledger, ROUND, "job", number, manifest), 10)
    before = ledger.head
    with pytest.raises(BudgetExceeded) as refusal:
        reserve(ledger, ROUND, "job", 10, manifest)
    assert refusal.value.code == "ledger.budget_exceeded"
    assert refusal.value.exit_code == 3
    assert refusal.value.details[0].startswith("manifest: epsilon of this job would be 3.1")
    assert ledger.head == before
    assert 2.9 < ledger.epsilon("job") <= 3.0


def test_epsilon_above_five_halts_whatever_the_job_asks_for(ledger: BudgetLedger) -> None:
    generous = Limit("manifest", 50.0, Scope.DATASET)
    while held_of([*ledger.events(), ROUND], DELTA, 5.0) <= 5.0:
        reserve(ledger, ROUND, f"job {len(ledger.events())}", 0, generous)
    with pytest.raises(BudgetExceeded) as refusal:
        reserve(ledger, ROUND, "one more job", 0, generous)
    assert [detail.split(":")[0] for detail in refusal.value.details] == ["hard stop"]
    assert 4.8 < ledger.epsilon() <= 5.0


def test_a_stricter_manifest_stops_earlier_and_every_passed_limit_is_named(ledger: BudgetLedger) -> None:
    limits = (Limit("manifest", 0.5, Scope.DATASET), Limit("job", 0.4, Scope.JOB))
    with pytest.raises(BudgetExceeded) as refusal:
        reserve(ledger, ROUND, "job", 0, *limits)
    assert [detail.split(":")[0] for detail in refusal.value.details] == ["manifest", "job"]
    assert ledger.events() == ()


def test_a_jobs_limit_counts_its_own_events_and_a_datasets_limit_counts_all(ledger: BudgetLedger) -> None:
    one = epsilon_of([ROUND], DELTA)
    for job in ("a", "b", "c"):
        reserve(ledger, ROUND, job, 0, Limit("job", one + 0.01, Scope.JOB))
    with pytest.raises(BudgetExceeded):
        reserve(ledger, ROUND, "d", 0, Limit("dataset", one + 0.01, Scope.DATASET))
    assert ledger.epsilon("a") == one
    assert ledger.prior_events("a") == (SampledGaussian(0.2, 2.865, 20),)


def test_a_whole_calibrated_plan_fits_to_its_last_round(ledger: BudgetLedger) -> None:
    noise = calibrate_noise(2.0, DELTA, 0.13, 60)
    for number in range(12):
        reserve(ledger, SampledGaussian(0.13, noise, 5), "job", number, Limit("job", 2.0, Scope.JOB))
    assert epsilon(ledger.events("job"), DELTA) <= 2.0


def test_epsilon_equals_the_verifiers_recomputation(ledger: BudgetLedger) -> None:
    ledger.settle(reserve(ledger, SampledGaussian(0.3, 3.0, 10)), 7)
    reserve(ledger, Gaussian(8.0, 1))
    reserve(ledger, SampledGaussian(0.3, 3.0, 10), "other")
    assert ledger.epsilon() == pytest.approx(epsilon(ledger.events(), DELTA), abs=1e-6)
    assert ledger.events("job") == (Gaussian(8.0, 1), SampledGaussian(0.3, 3.0, 7))


def test_unused_steps_come_back_and_used_ones_never_do(ledger: BudgetLedger) -> None:
    held = reserve(ledger)
    assert ledger.events() == (ROUND,)
    assert ledger.settle(held, 4) == SampledGaussian(0.2, 2.865, 4)
    assert ledger.events() == (SampledGaussian(0.2, 2.865, 4),)
    assert ledger.settle(reserve(ledger), 0) is None
    assert ledger.events() == (SampledGaussian(0.2, 2.865, 4),)


def test_an_unsettled_reservation_stays_spent_after_opening_again(ledger: BudgetLedger, path: Path) -> None:
    reserve(ledger)
    ledger.close()
    assert BudgetLedger.open(path, DATASET).events() == (ROUND,)


def test_a_reservation_is_settled_once_and_within_what_was_reserved(ledger: BudgetLedger) -> None:
    held = reserve(ledger)
    for executed in (-1, 11):
        with pytest.raises(LedgerError) as refusal:
            ledger.settle(held, executed)
        assert refusal.value.code == "ledger.settlement_invalid"
    ledger.settle(held, 10)
    with pytest.raises(LedgerError) as refusal:
        ledger.settle(held, 0)
    assert refusal.value.code == "ledger.reservation_settled"
    with pytest.raises(LedgerError) as refusal:
        ledger.settle(Reservation("f" * 32, ROUND, "job", 0, Purpose.TRAINING), 1)
    assert refusal.value.code == "ledger.reservation_unknown"
    assert ledger.events() == (ROUND,)


@pytest.mark.parametrize(("job", "number"), [("", 0), ("j" * 201, 0), ("job", -1)])
def test_an_unnamed_spend_is_refused(ledger: BudgetLedger, job: str, number: int) -> None:
    with pytest.raises(InputError):
        reserve(ledger, ROUND, job, number)


def test_a_ledger_is_made_once_for_its_owner_only(ledger: BudgetLedger, path: Path) -> None:
    reserve(ledger)
    with pytest.raises(LedgerError) as refusal:
        BudgetLedger.create(path, DATASET, DELTA)
    assert refusal.value.code == "ledger.exists"
    assert ledger.events() == (ROUND,)
    assert path.stat().st_mode & 0o777 == 0o600
    ledger.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("delta", [0.0, 1.0, float("nan")])
def test_a_ledger_with_an_impossible_delta_is_not_made(path: Path, delta: float) -> None:
    with pytest.raises(PrivacyError):
        BudgetLedger.create(path, DATASET, delta)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../wards", "Wards", "1wards", "wards.old", "w" * 64, "wards\n"])
def test_a_dataset_that_has_no_plain_name_gets_no_ledger(path: Path, name: str) -> None:
    with pytest.raises(InputError):
        BudgetLedger.create(path, name, DELTA)
    assert list(path.parent.iterdir()) == []


def test_making_a_ledger_where_nothing_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        BudgetLedger.create(tmp_path / "absent" / "budget.sqlite", DATASET, DELTA)


def test_a_missing_ledger_is_refused_and_not_made(path: Path) -> None:
    with pytest.raises(LedgerError) as refusal:
        BudgetLedger.open(path, DATASET)
    assert refusal.value.code == "ledger.missing"
    assert not path.exists()


def test_the_ledger_of_another_dataset_is_refused(ledger: BudgetLedger, path: Path) -> None:
    ledger.close()
    with pytest.raises(LedgerError) as refusal:
        BudgetLedger.open(path, "other-wards")
    assert refusal.value.code == "ledger.other_dataset"


def alter(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


DAMAGE: list[Callable[[Path], None]] = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"not a database at all" * 100),
    lambda path: path.write_bytes(path.read_bytes()[:4096]),
    lambda path: alter(path, "DROP TABLE entries"),
    lambda path: alter(path, "DELETE FROM entries"),
    lambda path: alter(path, "DELETE FROM entries WHERE sequence = 1"),
    lambda path: alter(path, "DELETE FROM entries WHERE sequence = 0"),
    lambda path: alter(path, "UPDATE entries SET hash = printf('%064d', 0) WHERE sequence = 3"),
    lambda path: alter(path, "UPDATE entries SET previous = printf('%064d', 0) WHERE sequence = 2"),
    lambda path: alter(path, "UPDATE entries SET sequence = sequence + 1 WHERE sequence = 4"),
    lambda path: alter(
        path, "UPDATE entries SET body = CAST(replace(body, '10', '1') AS BLOB) WHERE sequence = 1"
    ),
    lambda path: alter(path, "UPDATE entries SET body = x'00' WHERE sequence = 2"),
    lambda path: alter(path, "UPDATE entries SET body = CAST('{}' AS BLOB) WHERE sequence = 2"),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_edited_ledger_is_refused(
    ledger: BudgetLedger, path: Path, damage: Callable[[Path], None]
) -> None:
    for number in range(2):
        ledger.settle(reserve(ledger, ROUND, "job", number), 10)
    ledger.close()
    damage(path)
    with pytest.raises(LedgerError) as refusal:
        BudgetLedger.open(path, DATASET)
    assert refusal.value.code == "ledger.corrupt"


def test_a_changed_byte_of_an_entry_is_found(ledger: BudgetLedger, path: Path) -> None:
    reserve(ledger)
    ledger.close()
    with sqlite3.connect(path) as connection:
        ((body,),) = connection.execute("SELECT body FROM entries WHERE sequence = 1").fetchall()
        for position in range(0, len(body), 3):
            changed = bytes([*body[:position], body[position] ^ 1, *body[position + 1 :]])
            connection.execute("UPDATE entries SET body = ? WHERE sequence = 1", (changed,))
            connection.commit()
            with pytest.raises(LedgerError):
                BudgetLedger.open(path, DATASET)
    connection.close()


def test_a_ledger_of_a_newer_version_is_refused(ledger: BudgetLedger, path: Path) -> None:
    ledger.close()
    alter(path, "UPDATE entries SET body = CAST(replace(body, '\"version\":2', '\"version\":3') AS BLOB)")
    with pytest.raises(LedgerError) as refusal:
        BudgetLedger.open(path, DATASET)
    assert refusal.value.code == "ledger.newer_version"


def test_an_edit_behind_an_open_ledgers_back_is_found_at_the_next_spend(
    ledger: BudgetLedger, path: Path
) -> None:
    reserve(ledger)
    reserve(ledger)
    alter(path, "DELETE FROM entries WHERE sequence = 2")
    with pytest.raises(LedgerError) as refusal:
        reserve(ledger)
    assert refusal.value.code == "ledger.corrupt"


def test_a_file_put_in_an_open_ledgers_place_is_refused(
    ledger: BudgetLedger, path: Path, clock: Clock
) -> None:
    ledger.close()
    earlier = path.read_bytes()
    with BudgetLedger.open(path, DATASET, clock=clock) as running:
        reserve(running)
        path.unlink()
        path.write_bytes(earlier)
        with pytest.raises(LedgerError) as refusal:
            reserve(running)
    assert refusal.value.code == "ledger.corrupt"


def test_records_that_were_changed_charge_the_same_ledger(ledger: BudgetLedger) -> None:
    for number, content in enumerate((b"rows", b"rows in another order", b"one row more", b"another split")):
        ledger.reserve(
            ROUND,
            dataset_sha256=sha256_hex(content),
            job_id=f"job {number}",
            round_number=0,
            purpose=Purpose.TRAINING,
            limits=[],
        )
    assert ledger.events() == (SampledGaussian(0.2, 2.865, 40),)


def test_a_spend_without_a_commitment_to_its_records_is_refused(ledger: BudgetLedger) -> None:
    with pytest.raises(InputError):
        ledger.reserve(
            ROUND,
            dataset_sha256=Sha256("wards"),
            job_id="job",
            round_number=0,
            purpose=Purpose.TRAINING,
            limits=[],
        )
    assert ledger.events() == ()


def test_each_entry_moves_the_head(ledger: BudgetLedger) -> None:
    heads = [ledger.head]
    held = reserve(ledger)
    heads.append(ledger.head)
    ledger.settle(held, 3)
    heads.append(ledger.head)
    assert len(set(heads)) == 3


def test_heads_that_a_ledger_never_had_are_told_apart(ledger: BudgetLedger, path: Path) -> None:
    heads = [ledger.head]
    held = reserve(ledger)
    heads.append(ledger.head)
    ledger.settle(held, 3)
    heads.append(ledger.head)
    stranger = sha256_hex(b"another ledger's entry")
    assert ledger.unknown([*heads, stranger]) == (stranger,)
    ledger.close()
    with BudgetLedger.open(path, DATASET) as again:
        assert again.unknown([stranger, *heads]) == (stranger,)


def test_threads_can_not_overspend_together(ledger: BudgetLedger) -> None:
    limit = Limit("dataset", 2.0, Scope.DATASET)
    granted: list[Reservation] = []

    def spend(name: str) -> None:
        for number in range(8):
            try:
                granted.append(reserve(ledger, ROUND, name, number, limit))
            except BudgetExceeded:
                return

    threads = [threading.Thread(target=spend, args=(f"job {index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held_of([held.event for held in granted], DELTA, 2.0) <= 2.0
    assert held_of([*(held.event for held in granted), ROUND], DELTA, 2.0) > 2.0


@pytest.mark.timed
def test_reserving_and_settling_takes_milliseconds(ledger: BudgetLedger) -> None:
    numbers = count()

    def once() -> None:
        ledger.settle(reserve(ledger, ROUND, "job", next(numbers)), 10)

    assert shortest(lambda: processor_seconds(once), 0.02, least=8) < 0.02
