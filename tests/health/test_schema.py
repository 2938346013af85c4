"""What a declared table accepts, how it scales, and that its refusals never quote a record."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister.health import Column, ColumnKind, HealthError, LabelColumn, OutsideBounds, TableSchema
from cloister.health.commitment import PUBLIC_RECORDS
from cloister.health.data import make_site

AGE = Column(name="age", kind=ColumnKind.INTEGER, lower=0.0, upper=100.0)
PRESSURE = Column(name="pressure", lower=50.0, upper=250.0, outside=OutsideBounds.CLAMP)
SEX = Column(name="sex", kind=ColumnKind.BINARY)
PAIN = Column(name="pain", kind=ColumnKind.CATEGORY, categories=("none", "some", "much"))
SCHEMA = TableSchema(
    name="wards",
    columns=(AGE, PRESSURE, SEX, PAIN),
    label=LabelColumn(name="outcome", classes=("well", "ill")),
    basis="round numbers of the trade",
)
SOUND = [[50.0, 150.0, 1.0, 2.0], [0.0, 50.0, 0.0, 0.0], [100.0, 250.0, 0.0, 1.0]]


def table(rows: list[list[float]]) -> np.ndarray:
    return np.asarray(rows, dtype=np.float64).reshape(-1, 4)


def labels(count: int) -> np.ndarray:
    return np.zeros(count, dtype=np.int64)


def test_a_sound_table_is_scaled_from_its_declared_bounds_to_minus_one_and_one() -> None:
    site = make_site("north", SCHEMA, table(SOUND), labels(3), salt=PUBLIC_RECORDS)
    assert site.feature_names == ("age", "pressure", "sex", "pain=some", "pain=much")
    assert site.features.dtype == np.float32
    assert site.features.tolist() == [
        [0.0, 0.0, 1.0, -1.0, 1.0],
        [-1.0, -1.0, -1.0, -1.0, -1.0],
        [1.0, 1.0, -1.0, 1.0, -1.0],
    ]


def test_scaling_depends_on_the_declaration_and_not_on_the_other_records() -> None:
    alone = make_site("north", SCHEMA, table(SOUND[:1]), labels(1), salt=PUBLIC_RECORDS).features
    together = make_site("north", SCHEMA, table(SOUND), labels(3), salt=PUBLIC_RECORDS).features
    assert np.array_equal(alone[0], together[0])


def test_a_site_keeps_its_own_copy_of_the_records_and_nobody_writes_to_it() -> None:
    raw = table(SOUND)
    site = make_site("north", SCHEMA, raw, labels(3), salt=PUBLIC_RECORDS)
    raw[0, 0] = 77.0
    assert site.raw[0, 0] == 50.0
    with pytest.raises(ValueError, match="read-only"):
        site.features[0, 0] = 0.5


def test_a_value_outside_its_bounds_is_clamped_only_where_the_column_declares_it() -> None:
    site = make_site("north", SCHEMA, table([[50.0, 999.0, 1.0, 0.0]]), labels(1), salt=PUBLIC_RECORDS)
    assert site.features[0, 1] == 1.0
    assert site.raw[0, 1] == 999.0
    with pytest.raises(HealthError) as refused:
        make_site("north", SCHEMA, table([[101.0, 150.0, 1.0, 0.0]]), labels(1), salt=PUBLIC_RECORDS)
    assert refused.value.code == "health.out_of_range"


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([], "health.empty"),
        ([[float("nan"), 150.0, 1.0, 0.0]], "health.not_finite"),
        ([[float("inf"), 150.0, 1.0, 0.0]], "health.not_finite"),
        ([[50.0, float("-inf"), 1.0, 0.0]], "health.not_finite"),
        ([[50.5, 150.0, 1.0, 0.0]], "health.type"),
        ([[50.0, 150.0, 0.5, 0.0]], "health.type"),
        ([[50.0, 150.0, 2.0, 0.0]], "health.out_of_range"),
        ([[50.0, 150.0, 1.0, 3.0]], "health.out_of_range"),
        ([[-1.0, 150.0, 1.0, 0.0]], "health.out_of_range"),
    ],
)
def test_a_table_that_is_not_as_declared_is_refused(rows: list[list[float]], code: str) -> None:
    with pytest.raises(HealthError) as refused:
        make_site("north", SCHEMA, table(rows), labels(len(rows)), salt=PUBLIC_RECORDS)
    assert refused.value.code == code
    assert refused.value.exit_code == 2


def test_every_column_at_fault_is_named_and_rows_are_only_counted() -> None:
    rows = [[123456.0, float("nan"), 7.5, 0.0], [123457.0, 60.0, 1.0, 0.0]]
    with pytest.raises(HealthError) as refused:
        make_site("north", SCHEMA, table(rows), labels(2), salt=PUBLIC_RECORDS)
    assert refused.value.details == (
        "column age: 2 rows out of bounds",
        "column pressure: 1 row without a finite value",
        "column sex: 1 row without a whole number",
        "column sex: 1 row out of bounds",
    )
    assert "12345" not in str(refused.value.as_json())


def test_a_label_outside_the_declared_classes_is_refused() -> None:
    with pytest.raises(HealthError) as refused:
        make_site("north", SCHEMA, table(SOUND), np.asarray([0, 1, 2]), salt=PUBLIC_RECORDS)
    assert refused.value.code == "health.label"


@pytest.mark.parametrize(("raw", "count"), [(np.zeros((2, 3)), 2), (np.zeros((2, 4)), 3), (np.zeros(4), 4)])
def test_arrays_of_another_shape_are_refused(raw: np.ndarray, count: int) -> None:
    with pytest.raises(HealthError) as refused:
        SCHEMA.validate_table(raw, labels(count), what="north")
    assert refused.value.code == "health.shape"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "a"},
        {"name": "a", "lower": 1.0, "upper": 1.0},
        {"name": "a", "lower": 2.0, "upper": 1.0},
        {"name": "a", "lower": float("nan"), "upper": 1.0},
        {"name": "a", "lower": 0.0, "upper": float("inf")},
        {"name": "a", "lower": 0.0, "upper": 1.0, "categories": ("x", "y")},
        {"name": "a", "kind": "binary", "lower": 0.0, "upper": 1.0},
        {"name": "a", "kind": "binary", "outside": "clamp"},
        {"name": "a", "kind": "binary", "categories": ("x", "y")},
        {"name": "a", "kind": "category", "categories": ("x",)},
        {"name": "a", "kind": "category", "categories": ("x", "x")},
        {"name": "", "lower": 0.0, "upper": 1.0},
        {"name": "a", "lower": "0", "upper": 1.0},
        {"name": "a", "lower": 0.0, "upper": 1.0, "extra": 1},
    ],
)
def test_a_column_that_contradicts_itself_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Column.model_validate(fields)


def test_names_in_a_schema_must_differ() -> None:
    label = LabelColumn(name="outcome", classes=("well", "ill"))
    for columns in ((AGE, AGE), (AGE.model_copy(update={"name": "outcome"}),)):
        with pytest.raises(ValidationError):
            TableSchema(name="t", columns=columns, label=label, basis="b")
    with pytest.raises(ValidationError):
        LabelColumn(name="outcome", classes=("well", "well"))


def test_another_bound_is_another_declaration() -> None:
    wider = SCHEMA.model_copy(
        update={"columns": (AGE.model_copy(update={"upper": 120.0}), *SCHEMA.columns[1:])}
    )
    assert wider.sha256 != SCHEMA.sha256


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_whatever_is_clamped_or_accepted_ends_within_minus_one_and_one(values: list[float]) -> None:
    schema = TableSchema(
        name="t",
        columns=(PRESSURE,),
        label=LabelColumn(name="outcome", classes=("well", "ill")),
        basis="b",
    )
    scaled = schema.scale(np.asarray(values)[:, None])
    assert np.abs(scaled).max() <= 1.0
