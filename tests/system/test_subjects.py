"""Tables in which persons have several records, from CSV files to a verified receipt."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from cloister.core.errors import CloisterError
from cloister.evidence.predicates import BudgetSpend, DataCommitment, RequestDecided
from cloister.health import prepare_source
from cloister.privacy.errors import LedgerError
from cloister.workflow.jobfile import load_job
from cloister.workflow.outcome import JobOutcome
from tests.cli.test_own_tables import JOB, SCHEMA, rows, write_job
from tests.system.example_job import run
from tests.system.reading import stated_in_log
from tests.system.tampering import judge

PERSONS = {"east": 30, "west": 25}
VISITS = 4
BATCH = 12


def id_of(site: str, person: int) -> str:
    return f"{site}-person-{person}"


def write_tables(folder: Path) -> Path:
    """Two wards; each person came four times, and not in a row."""
    folder.mkdir()
    (folder / "schema.yaml").write_text(yaml.safe_dump({**SCHEMA, "subject": {"column": "who"}}))
    for site, persons in PERSONS.items():
        lines = [f"{id_of(site, at % persons)},{row}" for at, row in enumerate(rows(persons * VISITS))]
        random.Random(1).shuffle(lines)
        (folder / f"{site}.csv").write_text("\n".join(["who,age,pressure,ill", *lines]) + "\n")
    (folder / "test.csv").write_text("\n".join(["age,pressure,ill", *rows(50)]) + "\n")
    prepare_source("csv", data_dir=folder)
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    return write_tables(tmp_path / "tables")


def job(folder: Path, tables: Path, unit: str, minimum: int = 20) -> Path:
    """A job under manifests that state the tables as they are."""
    by_batch = {"training.sampling_probability": None, "training.batch_size": BATCH}
    terms = {"privacy_guardrails.unit": unit, "privacy_guardrails.minimum_group_size": minimum}
    return write_job(folder, tables, {**JOB, **by_batch}, terms)


def trained(tmp_path: Path, tables: Path, unit: str) -> JobOutcome:
    spec = load_job(job(tmp_path / unit, tables, unit), data_dir=tables)
    return run(spec, tmp_path / "work", data_dir=tables)


def stated(tmp_path: Path, kind: type) -> list[object]:
    return [one for one in stated_in_log(tmp_path / "work", "site", "east") if isinstance(one, kind)]


def summary(outcome: JobOutcome) -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = json.loads(outcome.receipt.read_bytes())["body"][
        "summary"
    ]
    return found


def test_persons_with_several_records_are_protected_from_the_table_to_the_receipt(
    tmp_path: Path, tables: Path
) -> None:
    outcome = trained(tmp_path, tables, "subject")
    assert judge(outcome).accepted
    found = summary(outcome)
    assert {site: one["unit"] for site, one in found["privacy"].items()} == dict.fromkeys(PERSONS, "subject")
    assert {site: one["records"] for site, one in found["data"].items()} == {"east": 120, "west": 100}
    (committed,) = stated(tmp_path, DataCommitment)
    assert isinstance(committed, DataCommitment)
    assert (committed.records, committed.subject_count) == (120, 30)
    for spend in stated(tmp_path, BudgetSpend):
        assert isinstance(spend, BudgetSpend)
        assert spend.unit == "subject"
        # A batch is drawn of persons, not of records.
        assert spend.event["sampling_probability"] == BATCH / PERSONS["east"]


def test_no_id_leaves_the_table(tmp_path: Path, tables: Path) -> None:
    trained(tmp_path, tables, "subject")
    for path in (tmp_path / "work").rglob("*"):
        if path.is_file():
            assert b"-person-" not in path.read_bytes(), path


def test_a_hospital_may_still_say_that_records_are_protected_and_then_no_persons_are_counted(
    tmp_path: Path, tables: Path
) -> None:
    outcome = trained(tmp_path, tables, "record")
    assert judge(outcome).accepted
    assert {one["unit"] for one in summary(outcome)["privacy"].values()} == {"record"}
    (committed,) = stated(tmp_path, DataCommitment)
    (decided,) = stated(tmp_path, RequestDecided)
    assert isinstance(committed, DataCommitment)
    assert isinstance(decided, RequestDecided)
    assert committed.subject_count is None
    assert "subjects" not in decided.facts
    for spend in stated(tmp_path, BudgetSpend):
        assert isinstance(spend, BudgetSpend)
        assert spend.event["sampling_probability"] == BATCH / (PERSONS["east"] * VISITS)
    with pytest.raises(LedgerError) as refused:
        trained(tmp_path, tables, "subject")
    assert refused.value.code == "ledger.other_terms"


def without_the_declaration(tables: Path) -> None:
    (tables / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    for site in PERSONS:
        lines = (tables / f"{site}.csv").read_text().splitlines()
        (tables / f"{site}.csv").write_text("".join(line.split(",", 1)[1] + "\n" for line in lines))


@pytest.mark.parametrize(
    ("minimum", "declared", "says"),
    [
        (26, True, "west: group-size: the dataset holds fewer subjects than the minimum group size of 26"),
        (20, False, "east: privacy-unit"),
    ],
)
def test_too_few_persons_or_nothing_that_tells_them_apart_is_refused(
    tmp_path: Path, tables: Path, minimum: int, declared: bool, says: str
) -> None:
    if not declared:
        without_the_declaration(tables)
    path = job(tmp_path / "job", tables, "subject", minimum)
    with pytest.raises(CloisterError) as refused:
        run(load_job(path, data_dir=tables), tmp_path / "work", data_dir=tables)
    assert refused.value.code == "policy.refused"
    assert any(line.startswith(says) for line in refused.value.details)
    assert not list((tmp_path / "work").rglob("budget/*"))


def drop_the_column(lines: list[str]) -> list[str]:
    return [line.split(",", 1)[1] for line in lines]


def empty_an_id(lines: list[str]) -> list[str]:
    return [*lines[:-1], "," + lines[-1].split(",", 1)[1]]


def give_all_to_one(lines: list[str]) -> list[str]:
    return [lines[0], *(f"{id_of('west', 7)},{line.split(',', 1)[1]}" for line in lines[1:])]


@pytest.mark.parametrize("unit", ["record", "subject"])
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (drop_the_column, "health.columns"),
        (empty_an_id, "health.subject"),
        (give_all_to_one, "health.one_subject"),
    ],
)
def test_a_table_that_does_not_say_whose_its_records_are_is_refused_before_anything_is_spent(
    tmp_path: Path, tables: Path, spoil: object, code: str, unit: str
) -> None:
    path = job(tmp_path / "job", tables, unit)
    assert callable(spoil)
    table = tables / "west.csv"
    table.write_text("\n".join(spoil(table.read_text().splitlines())) + "\n")
    with pytest.raises(CloisterError) as refused:
        run(load_job(path, data_dir=tables), tmp_path / "work", data_dir=tables)
    assert refused.value.code == code
    assert "-person-" not in str(refused.value.as_json())
    assert not list((tmp_path / "work").rglob("budget/*"))
