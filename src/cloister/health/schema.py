"""The declared shape of a table: columns, kinds, public bounds, classes; and the scaling that follows.

Rules kept here:

* A bound is declared in public before the records are read. Scaling uses the declaration only, so it
  carries no information about the records and costs no privacy budget.
* A value outside its bounds is refused, unless the column declares that it is clamped. Nothing is clamped
  silently.
* Missing, NaN and infinite values are refused.
* A refusal names columns and counts rows; it never repeats a value.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cloister.core.canonical import JSON, canonicalize
from cloister.core.hashes import sha256_hex
from cloister.health.errors import HealthError

Float64Array = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

_Name = Annotated[str, Field(min_length=1, max_length=120)]
_Bound = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class ColumnKind(StrEnum):
    """How a column's cells are read and turned into features."""

    NUMBER = "number"
    INTEGER = "integer"
    BINARY = "binary"
    CATEGORY = "category"


class OutsideBounds(StrEnum):
    """What is done with a value outside its column's declared bounds."""

    REFUSE = "refuse"
    CLAMP = "clamp"


class Column(BaseModel):
    """One column of a table, as declared in public.

    ``lower`` and ``upper`` are in the column's own unit. A category becomes one 0/1 feature per category
    except the first, which is the reference level.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    kind: ColumnKind = ColumnKind.NUMBER
    lower: _Bound | None = None
    upper: _Bound | None = None
    categories: tuple[_Name, ...] = ()
    outside: OutsideBounds = OutsideBounds.REFUSE

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind in (ColumnKind.NUMBER, ColumnKind.INTEGER):
            if self.lower is None or self.upper is None or not self.lower < self.upper:
                raise ValueError("a number needs lower < upper")
            if self.categories:
                raise ValueError("a number has no categories")
        elif self.lower is not None or self.upper is not None:
            raise ValueError("only numbers have bounds")
        elif self.outside is OutsideBounds.CLAMP:
            raise ValueError("only numbers can be clamped")
        elif self.kind is ColumnKind.CATEGORY and (
            len(self.categories) < 2 or len(set(self.categories)) != len(self.categories)
        ):
            raise ValueError("a category needs two or more different categories")
        elif self.kind is ColumnKind.BINARY and self.categories:
            raise ValueError("a binary column has no categories")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest raw value; a category's raw value is the index of its name."""
        if self.lower is not None and self.upper is not None:
            return self.lower, self.upper
        return 0.0, float(max(len(self.categories) - 1, 1))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the model inputs this column becomes."""
        if self.kind is ColumnKind.CATEGORY:
            return tuple(f"{self.name}={category}" for category in self.categories[1:])
        return (self.name,)


class LabelColumn(BaseModel):
    """The column to be predicted; a label is the index of its class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    classes: Annotated[tuple[_Name, ...], Field(min_length=2, max_length=1000)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("class names must differ")
        return self


class TableSchema(BaseModel):
    """Columns in file order, then the label.

    ``basis`` says where the bounds come from, in one sentence for people and for the receipt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=10_000)]
    label: LabelColumn
    basis: Annotated[str, Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [*self.column_names, self.label.name]
        if len(set(names)) != len(names):
            raise ValueError("column names must differ")
        if len(set(self.feature_names)) != len(self.feature_names):
            raise ValueError("feature names must differ")
        return self

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the raw columns, without the label."""
        return tuple(column.name for column in self.columns)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the model inputs, in order."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def as_json(self) -> JSON:
        """The declaration as plain JSON values."""
        dumped: JSON = self.model_dump(mode="json")
        return dumped

    @property
    def sha256(self) -> str:
        """SHA-256 of the declaration's RFC 8785 form: what a receipt calls ``bounds_sha256``."""
        return sha256_hex(canonicalize(self.as_json()))

    def validate_table(self, raw: Float64Array, labels: Int64Array, *, what: str) -> None:
        """Refuse a table that isn't as declared, naming every column at fault.

        Args:
            raw: values [records, columns], categories as indices.
            labels: class indices [records].
            what: the table's name for messages, for instance a site's.

        Raises:
            HealthError: with the code of the first problem and a detail for each.
        """
        if raw.ndim != 2 or raw.shape[1] != len(self.columns) or labels.shape != (raw.shape[0],):
            raise HealthError("health.shape", f"The table of {what} doesn't have the declared shape.")
        if raw.shape[0] == 0:
            raise HealthError("health.empty", f"The table of {what} holds no records.", "Give it records.")
        problems: list[tuple[str, str]] = []
        for index, column in enumerate(self.columns):
            problems.extend(_column_problems(column, raw[:, index]))
        wrong = int(np.count_nonzero((labels < 0) | (labels >= len(self.label.classes))))
        if wrong:
            problems.append(
                ("health.label", f"label {self.label.name}: {_rows(wrong)} not in a declared class")
            )
        if problems:
            raise HealthError(
                problems[0][0],
                f"The table of {what} isn't what its schema declares ({len(problems)} problem(s)).",
                "Correct the rows, or declare other bounds in the schema.",
                details=[text for _, text in problems],
            )

    def expand(self, raw: Float64Array) -> Float64Array:
        """Model inputs in the columns' own units: clamped where declared, categories as 0/1 features.

        Args:
            raw: validated values [records, columns].

        Returns:
            [records, features].
        """
        parts: list[Float64Array] = []
        for index, column in enumerate(self.columns):
            values = raw[:, index]
            if column.kind is ColumnKind.CATEGORY:
                levels = np.arange(1, len(column.categories), dtype=np.float64)
                parts.append((values[:, None] == levels[None, :]).astype(np.float64))
            else:
                parts.append(np.clip(values, *column.bounds)[:, None])
        return np.concatenate(parts, axis=1)

    def scale(self, raw: Float64Array) -> Float32Array:
        """Model inputs mapped linearly from the declared bounds to [-1, 1].

        Args:
            raw: validated values [records, columns].

        Returns:
            float32 [records, features].
        """
        lower, upper = self._feature_bounds()
        scaled = 2.0 * (self.expand(raw) - lower) / (upper - lower) - 1.0
        return np.ascontiguousarray(scaled, dtype=np.float32)

    def _feature_bounds(self) -> tuple[Float64Array, Float64Array]:
        pairs: list[tuple[float, float]] = []
        for column in self.columns:
            one = (0.0, 1.0) if column.kind is ColumnKind.CATEGORY else column.bounds
            pairs.extend([one] * len(column.feature_names))
        array = np.asarray(pairs, dtype=np.float64)
        return array[:, 0], array[:, 1]


def _column_problems(column: Column, values: Float64Array) -> Sequence[tuple[str, str]]:
    finite = np.isfinite(values)
    missing = int(values.size - np.count_nonzero(finite))
    problems: list[tuple[str, str]] = []
    if missing:
        problems.append(
            ("health.not_finite", f"column {column.name}: {_rows(missing)} without a finite value")
        )
    present = values[finite]
    if column.kind is not ColumnKind.NUMBER:
        broken = int(np.count_nonzero(present != np.floor(present)))
        if broken:
            problems.append(("health.type", f"column {column.name}: {_rows(broken)} without a whole number"))
    if column.outside is OutsideBounds.REFUSE:
        lower, upper = column.bounds
        outside = int(np.count_nonzero((present < lower) | (present > upper)))
        if outside:
            problems.append(("health.out_of_range", f"column {column.name}: {_rows(outside)} out of bounds"))
    return problems


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"
