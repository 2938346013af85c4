"""Tables that their hospitals encrypted beforehand: what is public is read strictly, and nothing else."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.sealed.table import encrypt_table
from cloister.health import (
    EncryptedTable,
    FederatedData,
    HealthError,
    SealedSite,
    SiteData,
    describe,
    load_source,
    prepare_source,
    require_readable,
)
from cloister.health.data import make_site
from cloister.health.encrypted_table import decode_encrypted_table
from cloister.health.schema import Column, LabelColumn, TableSchema
from cloister.health.subjects import Subjects

SCHEMA = TableSchema(
    name="wards",
    columns=(Column(name="age", lower=0.0, upper=120.0),),
    label=LabelColumn(name="ill", classes=("no", "yes")),
    basis="made up",
)
DATA_KEY = "dk-" + "0" * 32
RECORDS = 8


def site_data(name: str = "north", *, rows_each: int = 2, records: int = RECORDS) -> SiteData:
    raw = np.linspace(20, 90, records)[:, None]
    whose = Subjects("patient", np.arange(records) // rows_each)
    return make_site(name, SCHEMA, raw, np.arange(records) % 2, salt=b"s" * 32, subjects=whose)


def sealed(data: SiteData, schema: TableSchema = SCHEMA) -> EncryptedTable:
    return encrypt_table(data, schema, os.urandom(32), data_key=DATA_KEY)


def folder_of(tmp_path: Path, content: bytes, **declared: object) -> Path:
    """A node's folder with one sealed table, its declaration and a public test set."""
    declaration = {
        "document": "cloister.table/v1",
        "sites": ["north"],
        "test_set": "holdout",
        "citation": "made up",
        "subject": {"column": "patient"},
        "table": yaml.safe_load(SCHEMA.model_dump_json()),
        **declared,
    }
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(declaration))
    (tmp_path / "test.csv").write_text("age,ill\n50,no\n60,yes\n")
    (tmp_path / "north.sealed").write_bytes(content)
    return tmp_path


def loaded(folder: Path) -> FederatedData:
    return load_source("csv", data_dir=folder)


def refusal(folder: Path) -> str:
    with pytest.raises(HealthError) as refused:
        loaded(folder)
    return refused.value.code


def test_a_sealed_site_says_what_its_header_says_and_has_no_record_to_read(tmp_path: Path) -> None:
    data = site_data()
    folder = folder_of(tmp_path, sealed(data).encode())
    assert prepare_source("csv", data_dir=folder) == ()
    found = loaded(folder)
    site = found.sites["north"]
    assert isinstance(site, SealedSite)
    assert (site.name, site.records, site.subject_count) == ("north", RECORDS, RECORDS // 2)
    assert (site.dataset_sha256, site.feature_names) == (data.dataset_sha256, data.feature_names)
    assert site.single_class is None
    (told,) = describe(found).sites
    assert (told.records, told.subjects, told.dataset_sha256) == (RECORDS, RECORDS // 2, data.dataset_sha256)


def test_what_needs_records_in_the_clear_is_refused_for_sealed_ones(tmp_path: Path) -> None:
    site = loaded(folder_of(tmp_path, sealed(site_data()).encode())).sites["north"]
    with pytest.raises(HealthError, match="A figure needs") as refused:
        require_readable(site, "A figure")
    assert refused.value.code == "health.sealed"
    readable = site_data()
    assert require_readable(readable, "A figure") is readable


def test_a_site_has_a_table_or_a_sealed_one(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, sealed(site_data()).encode())
    (folder / "north.csv").write_text("patient,age,ill\nA,50,no\n")
    assert refusal(folder) == "health.two_tables"


def test_a_table_that_was_sealed_as_another_is_refused(tmp_path: Path) -> None:
    other = SCHEMA.model_copy(update={"columns": (Column(name="age", lower=0.0, upper=121.0),)})
    cases: tuple[tuple[EncryptedTable, dict[str, object]], ...] = (
        (sealed(site_data("south")), {}),
        (sealed(site_data(), other), {}),
        (sealed(site_data()), {"subject": {"column": "person"}}),
        (sealed(site_data()), {"subject": None}),
    )
    for number, (content, declared) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        folder = folder_of(tmp_path / str(number), content.encode(), **declared)
        assert refusal(folder) == "health.encrypted_table"


def test_counts_in_the_header_are_held_against_the_declaration(tmp_path: Path) -> None:
    one_each = {"column": "patient", "rows": "one"}
    cases: tuple[tuple[SiteData, dict[str, object], str], ...] = (
        (site_data(), {"subject": one_each}, "health.subject_repeated"),
        (site_data(), {"minimum_group_size": 5}, "health.group_too_small"),
        (site_data(rows_each=RECORDS), {}, "health.one_subject"),
    )
    for number, (data, declared, code) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        assert refusal(folder_of(tmp_path / str(number), sealed(data).encode(), **declared)) == code


def test_a_file_that_is_cut_prolonged_or_no_table_is_refused(tmp_path: Path) -> None:
    content = sealed(site_data()).encode()
    assert decode_encrypted_table(content).encode() == content
    for wrong in (b"", content[:11], content[:-1], content + b"x", b"X" + content[1:], content[:12]):
        with pytest.raises(HealthError) as refused:
            decode_encrypted_table(wrong)
        assert refused.value.code == "health.encrypted_table"


CONTENT = sealed(site_data()).encode()


@given(st.integers(0, 400), st.integers(1, 255))
def test_no_byte_of_magic_or_header_changes_unseen_or_raises_anything_else(place: int, mask: int) -> None:
    changed = bytearray(CONTENT)
    changed[place] ^= mask
    with suppress(HealthError):
        assert decode_encrypted_table(bytes(changed)).header != decode_encrypted_table(CONTENT).header
