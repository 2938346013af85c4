"""A column that says whose record a row is: read into numbers, never a feature, and no id gets anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.errors import CloisterError
from cloister.health import HealthError, describe, load_source, prepare_source
from cloister.health.declaration import TableDeclaration
from cloister.health.subjects import read_subjects
from tests.health.test_csv_files import HEADER, SCHEMA

DECLARED = SCHEMA + "subject: {column: patient}\n"
WITH_IDS = "patient," + HEADER
NORTH = "P-77,50,none,120,well\nQ-12,60,some,300,ill\n P-77 ,51,none,121,ill\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schema.yaml").write_text(DECLARED)
    (tmp_path / "north.csv").write_text(WITH_IDS + NORTH)
    (tmp_path / "south.csv").write_text(WITH_IDS + "P-77,50,none,120,well\nR-5,60,some,300,ill\n")
    (tmp_path / "test.csv").write_text("site," + HEADER + "north,40,none,100,well\n")
    prepare_source("csv", data_dir=tmp_path)
    return tmp_path


def test_ids_become_numbers_by_first_appearance_and_the_column_is_no_feature(folder: Path) -> None:
    data = load_source("csv", data_dir=folder)
    north = data.sites["north"]
    assert north.subjects is not None
    assert north.subjects.tolist() == [0, 1, 0]
    assert not north.subjects.flags.writeable
    assert (north.records, north.subject_count) == (3, 2)
    assert north.feature_names == ("age", "pain=some", "pressure")
    assert [site.subjects for site in describe(data).sites] == [2, 2]


def test_the_declaration_changes_the_datasets_hash_and_not_the_hash_of_the_bounds(folder: Path) -> None:
    declared = load_source("csv", data_dir=folder)
    (folder / "schema.yaml").write_text(SCHEMA)
    for site in ("north", "south"):
        lines = (folder / f"{site}.csv").read_text().splitlines()
        (folder / f"{site}.csv").write_text("".join(line.split(",", 1)[1] + "\n" for line in lines))
    plain = load_source("csv", data_dir=folder)
    assert declared.bounds_sha256 == plain.bounds_sha256
    assert declared.test.sha256 == plain.test.sha256
    assert declared.sites["north"].features.tolist() == plain.sites["north"].features.tolist()
    assert declared.sites["north"].dataset_sha256 != plain.sites["north"].dataset_sha256
    assert plain.sites["north"].subject_count is None


def test_a_row_that_is_given_to_another_person_is_another_dataset(folder: Path) -> None:
    before = load_source("csv", data_dir=folder).sites["north"].dataset_sha256
    (folder / "north.csv").write_text(WITH_IDS + NORTH.replace(" P-77 ", "Q-12"))
    after = load_source("csv", data_dir=folder).sites["north"].dataset_sha256
    (folder / "north.csv").write_text(WITH_IDS + NORTH.replace("P-77", "ada").replace("Q-12", "grace"))
    assert before != after
    assert load_source("csv", data_dir=folder).sites["north"].dataset_sha256 == before


def test_no_id_is_kept_anywhere(folder: Path) -> None:
    data = load_source("csv", data_dir=folder)
    shown = describe(data).model_dump_json() + repr(data) + repr(vars(data.sites["north"]))
    assert "P-77" not in shown
    assert "Q-12" not in shown


def test_spellings_of_one_id_in_unicode_are_one_person() -> None:
    found = read_subjects("patient", ["J\u00fcrgen", "Ju\u0308rgen", "Jurgen"], what="a table")
    assert found.numbers.tolist() == [0, 0, 1]
    assert "rgen" not in repr(found)


def rows(*lines: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "north.csv").write_text("".join(f"{one}\n" for one in lines)) and None


def declares(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "schema.yaml").write_text(SCHEMA + text) and None


HEAD = WITH_IDS.strip()
MISTAKES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no such column": (rows(HEADER.strip(), "50,none,120,well"), "health.columns", "missing column: patient"),
    "the column at the end": (
        rows(HEADER.strip() + ",patient", "50,none,120,well,P-77"),
        "health.columns",
        "patient, age",
    ),
    "an empty id": (rows(HEAD, "P-77,50,none,120,well", " ,50,none,120,ill"), "health.subject", "1 row(s)"),
    "an id that stands for none": (
        rows(HEAD, "P-77,50,none,120,well", "NA,50,none,120,ill", "na,50,none,120,ill"),
        "health.subject",
        "2 row(s) without an id",
    ),
    "an endless id": (
        rows(HEAD, "P-77,50,none,120,well", f"{'P-77' * 99},50,none,120,ill"),
        "health.subject",
        "longer than 200",
    ),
    "one person": (
        rows(HEAD, "P-77,50,none,120,well", "P-77,50,none,120,ill"),
        "health.one_subject",
        "north.csv",
    ),
    "one row": (rows(HEAD, "P-77,50,none,120,well"), "health.one_subject", "north.csv"),
    "no row": (rows(HEAD), "health.empty", "north"),
    "a missing cell": (rows(HEAD, "P-77,50,none,120"), "health.columns", "1 row(s)"),
    "a wrong cell beside it": (
        rows(HEAD, "P-77,old,none,120,ill", "Q-12,50,none,120,ill"),
        "health.type",
        "age",
    ),
    "a feature's name": (declares("subject: {column: age}\n"), "health.schema", "one column twice"),
    "the label's name": (declares("subject: {column: outcome}\n"), "health.schema", "one column twice"),
    "the name of the test set's column": (declares("subject: {column: site}\n"), "health.schema", "site"),
    "a name that is empty": (declares("subject: {column: ''}\n"), "input.schema", "subject"),
    "something else": (declares("subject: {column: patient, keep: 1}\n"), "input.schema", "subject"),
    "ids of persons in the public test set": (
        lambda folder: (folder / "test.csv").write_text(WITH_IDS + "P-77,50,none,120,well\n") and None,
        "health.columns",
        "test.csv",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_by_its_name_and_no_id_is_repeated(name: str, folder: Path) -> None:
    spoil, code, says = MISTAKES[name]
    spoil(folder)
    with pytest.raises(CloisterError) as refused:
        load_source("csv", data_dir=folder)
    told = str(refused.value.as_json())
    assert (refused.value.code, refused.value.exit_code) == (code, 2)
    assert says in told
    assert "P-77" not in told


def test_a_declaration_without_a_subject_is_what_it_was() -> None:
    assert TableDeclaration.model_fields["subject"].default is None
    with pytest.raises(HealthError):
        read_subjects("patient", ["a", "a"], what="a table")
