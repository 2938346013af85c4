"""The dataset hash: one changed cell is another hash, and what doesn't matter isn't in it."""

from __future__ import annotations

import hashlib
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.health import Column, HealthError, LabelColumn, TableSchema, dataset_sha256
from cloister.health.commitment import PUBLIC_RECORDS
from cloister.health.schema import Float64Array
from cloister.health.subjects import Subjects, read_subjects

SCHEMA = TableSchema(
    name="t",
    columns=(Column(name="a", lower=-1e300, upper=1e300), Column(name="b", lower=0.0, upper=1.0)),
    label=LabelColumn(name="y", classes=("n", "p")),
    basis="b",
)
RAW = np.asarray([[1.0, 0.5], [2.0, 0.25]])
LABELS = np.asarray([0, 1], dtype=np.int64)
SALT = bytes(range(32))


def commitment(raw: Float64Array = RAW, salt: bytes = SALT) -> str:
    return dataset_sha256(SCHEMA, raw, LABELS, salt=salt)


@pytest.mark.parametrize(
    ("salt", "in_header"),
    [(PUBLIC_RECORDS, b""), (SALT, b'"salt":"' + SALT.hex().encode() + b'",')],
    ids=["public", "salted"],
)
def test_the_hash_is_what_its_description_says(salt: bytes, in_header: bytes) -> None:
    header = (
        b'{"classes":["n","p"],"columns":["a","b"],"kinds":["number","number"],"label":"y",'
        b'"records":2,' + in_header + b'"schema":"urn:cloister:dataset:v1"}'
    )
    body = struct.pack("<4d", 1.0, 0.5, 2.0, 0.25) + struct.pack("<2q", 0, 1)
    expected = hashlib.sha256(struct.pack(">Q", len(header)) + header + body).hexdigest()
    assert commitment(salt=salt) == expected


def guess_the_last_cell(published: str, salt: bytes) -> list[float]:
    """What an attacker does who knows every cell but the last one, and what a cell can hold."""
    found = []
    for hundredths in range(101):
        tried = RAW.copy()
        tried[1, 1] = hundredths / 100
        if commitment(tried, salt) == published:
            found.append(hundredths / 100)
    return found


def test_who_knows_all_cells_but_one_can_not_confirm_a_guess_of_it() -> None:
    published = commitment(salt=os.urandom(32))
    assert guess_the_last_cell(published, PUBLIC_RECORDS) == []
    assert guess_the_last_cell(published, os.urandom(32)) == []
    # The same attack on a hash without salt: this is why there is one.
    assert guess_the_last_cell(commitment(salt=PUBLIC_RECORDS), PUBLIC_RECORDS) == [0.25]


def test_who_holds_records_and_salt_can_open_the_commitment() -> None:
    assert commitment(salt=SALT) == commitment(salt=bytes(SALT))
    assert commitment(salt=SALT) != commitment(salt=SALT[::-1])


@pytest.mark.parametrize("length", [1, 16, 31, 33, 64])
def test_a_salt_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(HealthError) as refused:
        commitment(salt=bytes(length))
    assert refused.value.code == "health.salt_malformed"


def test_memory_order_and_negative_zero_are_not_part_of_it() -> None:
    same = np.asfortranarray(RAW)
    assert dataset_sha256(SCHEMA, same, LABELS, salt=SALT) == commitment()
    zero, negative = np.zeros((2, 2)), -np.zeros((2, 2))
    assert dataset_sha256(SCHEMA, zero, LABELS, salt=SALT) == dataset_sha256(
        SCHEMA, negative, LABELS, salt=SALT
    )


@given(st.integers(0, 3), st.floats(-1e9, 1e9).filter(lambda value: value not in (0.25, 0.5, 1.0, 2.0)))
def test_one_changed_cell_changes_it(cell: int, value: float) -> None:
    changed = RAW.copy()
    changed.flat[cell] = value
    assert dataset_sha256(SCHEMA, changed, LABELS, salt=SALT) != commitment()


def test_a_changed_label_order_or_column_name_changes_it() -> None:
    renamed = SCHEMA.model_copy(update={"columns": tuple(reversed(SCHEMA.columns))})
    hashes = {
        commitment(),
        dataset_sha256(SCHEMA, RAW, LABELS[::-1].copy(), salt=SALT),
        dataset_sha256(SCHEMA, RAW[::-1].copy(), LABELS, salt=SALT),
        dataset_sha256(SCHEMA, RAW[:1], LABELS[:1], salt=SALT),
        dataset_sha256(renamed, RAW, LABELS, salt=SALT),
    }
    assert len(hashes) == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_missing_values_have_no_hash(value: float) -> None:
    with pytest.raises(HealthError) as refused:
        commitment(np.full((2, 2), value))
    assert refused.value.code == "health.not_finite"


def test_arrays_that_do_not_fit_have_no_hash() -> None:
    with pytest.raises(HealthError) as refused:
        dataset_sha256(SCHEMA, RAW, LABELS[:1], salt=SALT)
    assert refused.value.code == "health.shape"


def of_subjects(*ids: str, column: str = "patient") -> str:
    subjects = read_subjects(column, ids, what="a table")
    return dataset_sha256(SCHEMA, RAW, LABELS, salt=SALT, subjects=subjects)


def test_whose_record_each_is_stands_behind_the_labels_and_its_columns_name_in_the_header() -> None:
    header = (
        b'{"classes":["n","p"],"columns":["a","b"],"kinds":["number","number"],"label":"y",'
        b'"records":2,"salt":"' + SALT.hex().encode() + b'","schema":"urn:cloister:dataset:v1",'
        b'"subject":"patient"}'
    )
    body = struct.pack("<4d", 1.0, 0.5, 2.0, 0.25) + struct.pack("<2q", 0, 1) + struct.pack("<2q", 0, 1)
    expected = hashlib.sha256(struct.pack(">Q", len(header)) + header + body).hexdigest()
    assert of_subjects("ada", "grace") == expected


def test_a_record_that_becomes_anothers_changes_it_and_other_ids_for_the_same_persons_do_not() -> None:
    raw, labels = np.zeros((4, 2)), np.zeros(4, np.int64)

    def of(*ids: str) -> str:
        subjects = read_subjects("patient", ids, what="a table")
        return dataset_sha256(SCHEMA, raw, labels, salt=SALT, subjects=subjects)

    assert of("ada", "ada", "grace", "ada") == of("17", "17", "4", "17")
    assert len({of("a", "a", "b", "a"), of("a", "a", "b", "b"), of("a", "b", "b", "a")}) == 3
    assert of_subjects("a", "b") not in (commitment(), of_subjects("a", "b", column="person"))


def test_subjects_of_another_table_or_in_another_order_have_no_hash() -> None:
    with pytest.raises(HealthError) as refused:
        dataset_sha256(SCHEMA, RAW, LABELS, salt=SALT, subjects=read_subjects("p", "abc", what="a table"))
    assert refused.value.code == "health.shape"
    for numbers in ([1, 0], [0, 2], [-1, 0]):
        with pytest.raises(HealthError):
            Subjects("patient", np.asarray(numbers, np.int64))
