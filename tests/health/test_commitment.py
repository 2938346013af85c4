"""The dataset hash: one changed cell is another hash, and what doesn't matter isn't in it."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.health import Column, HealthError, LabelColumn, TableSchema, dataset_sha256

SCHEMA = TableSchema(
    name="t",
    columns=(Column(name="a", lower=-1e300, upper=1e300), Column(name="b", lower=0.0, upper=1.0)),
    label=LabelColumn(name="y", classes=("n", "p")),
    basis="b",
)
RAW = np.asarray([[1.0, 0.5], [2.0, 0.25]])
LABELS = np.asarray([0, 1], dtype=np.int64)


def test_the_hash_is_what_its_description_says() -> None:
    header = (
        b'{"classes":["n","p"],"columns":["a","b"],"kinds":["number","number"],"label":"y",'
        b'"records":2,"schema":"urn:cloister:dataset:v1"}'
    )
    body = struct.pack("<4d", 1.0, 0.5, 2.0, 0.25) + struct.pack("<2q", 0, 1)
    expected = hashlib.sha256(struct.pack(">Q", len(header)) + header + body).hexdigest()
    assert dataset_sha256(SCHEMA, RAW, LABELS) == expected


def test_memory_order_and_negative_zero_are_not_part_of_it() -> None:
    same = np.asfortranarray(RAW)
    assert dataset_sha256(SCHEMA, same, LABELS) == dataset_sha256(SCHEMA, RAW, LABELS)
    zero, negative = np.zeros((2, 2)), -np.zeros((2, 2))
    assert dataset_sha256(SCHEMA, zero, LABELS) == dataset_sha256(SCHEMA, negative, LABELS)


@given(st.integers(0, 3), st.floats(-1e9, 1e9).filter(lambda value: value not in (0.25, 0.5, 1.0, 2.0)))
def test_one_changed_cell_changes_it(cell: int, value: float) -> None:
    changed = RAW.copy()
    changed.flat[cell] = value
    assert dataset_sha256(SCHEMA, changed, LABELS) != dataset_sha256(SCHEMA, RAW, LABELS)


def test_a_changed_label_order_or_column_name_changes_it() -> None:
    renamed = SCHEMA.model_copy(update={"columns": tuple(reversed(SCHEMA.columns))})
    hashes = {
        dataset_sha256(SCHEMA, RAW, LABELS),
        dataset_sha256(SCHEMA, RAW, LABELS[::-1].copy()),
        dataset_sha256(SCHEMA, RAW[::-1].copy(), LABELS),
        dataset_sha256(SCHEMA, RAW[:1], LABELS[:1]),
        dataset_sha256(renamed, RAW, LABELS),
    }
    assert len(hashes) == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_missing_values_have_no_hash(value: float) -> None:
    with pytest.raises(HealthError) as refused:
        dataset_sha256(SCHEMA, np.full((2, 2), value), LABELS)
    assert refused.value.code == "health.not_finite"


def test_arrays_that_do_not_fit_have_no_hash() -> None:
    with pytest.raises(HealthError) as refused:
        dataset_sha256(SCHEMA, RAW, LABELS[:1])
    assert refused.value.code == "health.shape"
