"""One's own tables: what a folder must hold, and that nothing odd in it gets through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import CloisterError, InputError
from cloister.health import HealthError, load_source, prepare_source, source_names

SCHEMA = """\
document: cloister.table/v1
test_set: ward-holdout
citation: made up for this test
sites: [north, south]
table:
  name: wards
  basis: round numbers of the trade
  columns:
    - {name: age, kind: integer, lower: 0, upper: 120}
    - {name: pain, kind: category, categories: [none, some]}
    - {name: pressure, lower: 50.0, upper: 250.0, outside: clamp}
  label: {name: outcome, classes: [well, ill]}
"""
HEADER = "age,pain,pressure,outcome\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    (tmp_path / "north.csv").write_text(HEADER + "50,none,120,well\n60,some,300,ill\n")
    (tmp_path / "south.csv").write_text("\ufeff" + HEADER + ' 70 ,some,"1.5e2",ill\r\n')
    (tmp_path / "test.csv").write_text("site," + HEADER + "north,40,none,100,well\nsouth,45,some,110,ill\n")
    prepare_source("csv", data_dir=tmp_path)
    return tmp_path


def test_a_folder_of_tables_is_read(folder: Path) -> None:
    data = load_source("csv", data_dir=folder)
    assert data.sites["north"].raw.tolist() == [[50.0, 0.0, 120.0], [60.0, 1.0, 300.0]]
    assert data.sites["south"].raw.tolist() == [[70.0, 1.0, 150.0]]
    assert data.sites["north"].labels.tolist() == [0, 1]
    assert data.sites["south"].single_class
    assert data.test.name == "ward-holdout"
    assert data.test.sites == ("north", "south")
    assert "round numbers of the trade" in data.normalisation


def test_test_rows_of_sites_that_were_not_asked_for_are_left_out(folder: Path) -> None:
    data = load_source("csv", data_dir=folder, sites=("south",))
    assert data.test.sites == ("south",)


def test_a_test_set_needs_no_sites(folder: Path) -> None:
    (folder / "test.csv").write_text(HEADER + "40,none,100,well\n")
    data = load_source("csv", data_dir=folder)
    assert data.test.site_names == ()
    assert data.test.rows_of("north").dtype == np.int64


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "health.columns"),
        (HEADER, "health.empty"),
        ("age,pain,outcome\n50,none,well\n", "health.columns"),
        ("pain,age,pressure,outcome\nnone,50,100,well\n", "health.columns"),
        (HEADER + "50,none,120\n", "health.columns"),
        (HEADER + "50,none,120,well,extra\n", "health.columns"),
        (HEADER + "fifty,none,120,well\n", "health.type"),
        (HEADER + "5_0,none,120,well\n", "health.type"),
        (HEADER + "50,terrible,120,well\n", "health.type"),
        (HEADER + "50.5,none,120,well\n", "health.type"),
        (HEADER + ",none,120,well\n", "health.not_finite"),
        (HEADER + "NaN,none,120,well\n", "health.not_finite"),
        (HEADER + "50,none,1e999,well\n", "health.not_finite"),
        (HEADER + "121,none,120,well\n", "health.out_of_range"),
        (HEADER + "50,none,120,dead\n", "health.label"),
        (HEADER + '50,"none,120,well\n', "input.syntax"),
        (HEADER + "50,no\0ne,120,well\n", "health.type"),
    ],
)
def test_a_table_that_is_not_as_declared_is_refused(folder: Path, content: str, code: str) -> None:
    (folder / "north.csv").write_text(content)
    with pytest.raises(CloisterError) as refused:
        load_source("csv", data_dir=folder)
    assert refused.value.code == code
    assert refused.value.exit_code == 2
    for secret in ("fifty", "terrible", "dead", "121"):
        assert secret not in str(refused.value.as_json())


def test_bytes_that_are_not_utf8_are_refused(folder: Path) -> None:
    (folder / "north.csv").write_bytes(HEADER.encode() + b"50,n\xffne,120,well\n")
    with pytest.raises(InputError) as refused:
        load_source("csv", data_dir=folder)
    assert refused.value.code == "input.syntax"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            lambda text: text.replace("document: cloister.table/v1", "document: cloister.table/v2"),
            "input.schema",
        ),
        (lambda text: text + "unknown: 1\n", "input.schema"),
        (lambda text: text.replace("upper: 120", "upper: 0"), "input.schema"),
        (lambda text: text.replace("upper: 120", "upper: '120'"), "input.schema"),
        (lambda text: text.replace("upper: 120", "upper: .nan"), "input.not_json"),
        (lambda text: text.replace("[north, south]", "[north, ../south]"), "input.schema"),
        (lambda text: text.replace("[north, south]", "[]"), "input.schema"),
        (lambda text: text.replace("[north, south]", "[north, north]"), "health.schema"),
        (lambda text: text.replace("[north, south]", "[north, test]"), "health.schema"),
        (lambda text: text.replace("name: age", "name: site"), "health.schema"),
        (lambda text: text.replace("[well, ill]", "[well, ill, dead]"), "health.classes"),
        (lambda text: text.replace("[well, ill]", "[well]"), "input.schema"),
        (lambda text: text.replace("citation:", "test_set:"), "input.duplicate_key"),
        (lambda text: text + "\t- [", "input.syntax"),
    ],
)
def test_a_declaration_that_is_wrong_is_refused(
    folder: Path, change: Callable[[str], str], code: str
) -> None:
    (folder / "schema.yaml").write_text(change(SCHEMA))
    with pytest.raises(CloisterError) as refused:
        load_source("csv", data_dir=folder)
    assert refused.value.code == code


@pytest.mark.parametrize("name", ["schema.yaml", "north.csv", "test.csv"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError) as refused:
        load_source("csv", data_dir=folder)
    assert refused.value.code == "input.missing_file"
    assert name in refused.value.message


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.csv"
    outside.write_text(HEADER + "50,none,120,well\n")
    (folder / "north.csv").unlink()
    (folder / "north.csv").symlink_to(outside)
    with pytest.raises(InputError) as refused:
        load_source("csv", data_dir=folder)
    assert refused.value.code == "input.path_escapes"


def test_without_a_folder_it_is_refused() -> None:
    with pytest.raises(InputError) as refused:
        load_source("csv")
    assert refused.value.code == "input.missing_file"


def test_an_unknown_source_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(HealthError) as refused:
        load_source("moon-rocks")
    assert refused.value.code == "health.unknown_source"
    assert all(name in refused.value.hint for name in source_names())


@given(content=st.binary(max_size=200))
def test_whatever_a_file_holds_the_answer_is_data_or_a_typed_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "schema.yaml").write_text(SCHEMA.replace("[north, south]", "[north]"))
    (folder / "test.csv").write_text(HEADER + "40,none,100,well\n")
    (folder / "north.csv").write_bytes(HEADER.encode() + content)
    prepare_source("csv", data_dir=folder)
    try:
        data = load_source("csv", data_dir=folder)
    except CloisterError:
        return
    assert np.isfinite(data.sites["north"].features).all()
