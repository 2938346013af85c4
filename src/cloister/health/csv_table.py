"""Cells of a CSV table, read as a schema declares them.

A file is UTF-8 with one header line that names the declared columns in order and the label last. Cells hold
numbers, or declared names of categories and classes. Every problem of a file is listed, by column and number
of rows; no cell's content appears in an error.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence

import numpy as np

from cloister.core.errors import InputError
from cloister.health.errors import HealthError
from cloister.health.schema import Column, ColumnKind, Float64Array, Int64Array, TableSchema
from cloister.health.subjects import MISSING

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def read_cells(
    data: bytes, expected: Sequence[str], *, what: str, or_else: Sequence[str] = ()
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Read the header, which is one of two, and the cells column by column.

    Args:
        data: the file.
        expected: the declared header.
        what: the file's name for messages.
        or_else: another header that will do.

    Raises:
        HealthError: ``health.columns``.
        InputError: ``input.syntax``.
    """
    header, body = _cells(data, list(expected), list(or_else), what)
    return header, list(zip(*body, strict=True)) if body else [() for _ in header]


def read_values(
    schema: TableSchema, cells: Sequence[Sequence[str]], *, what: str
) -> tuple[Float64Array, Int64Array]:
    """Read cells as numbers; a category or class that isn't declared is left to the schema's own check.

    Args:
        schema: the declared columns, then the label.
        cells: one sequence for each of them.
        what: the file's name for messages.

    Raises:
        HealthError: ``health.type`` with every column at fault.
    """
    problems: list[str] = []
    parts = [
        _column(column, values, problems) for column, values in zip(schema.columns, cells[:-1], strict=True)
    ]
    if problems:
        raise HealthError(
            "health.type",
            f"Cells of {what} can't be read as declared.",
            "Correct the cells, or the declared kinds and categories.",
            details=problems,
        )
    labels = _indices(schema.label.classes)
    return np.stack(parts, axis=1), np.asarray([labels(cell) for cell in cells[-1]], dtype=np.int64)


def _cells(
    data: bytes, expected: list[str], or_else: list[str], what: str
) -> tuple[list[str], list[list[str]]]:
    rows = _rows(data, what)
    header = [name.strip() for name in rows[0]] if rows else []
    if not header or header not in (expected, or_else):
        raise HealthError(
            "health.columns",
            f"The header of {what} isn't the declared one.",
            f"The first line names, in this order: {', '.join(expected)}.",
            details=[f"missing column: {name}" for name in expected if name not in header],
        )
    body = [row for row in rows[1:] if row]
    ragged = sum(1 for row in body if len(row) != len(header))
    if ragged:
        raise HealthError("health.columns", f"{ragged} row(s) of {what} have another number of cells.")
    return header, body


def _rows(data: bytes, what: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise InputError("input.syntax", f"{what} is not a CSV file in UTF-8.") from None


def _column(column: Column, cells: Sequence[str], problems: list[str]) -> Float64Array:
    if column.kind is ColumnKind.CATEGORY:
        index = _indices(column.categories)
        values = np.asarray([index(cell) for cell in cells], dtype=np.float64)
        wrong = int(np.count_nonzero(values < 0))
    else:
        parsed = [_number(cell) for cell in cells]
        wrong = sum(1 for value in parsed if value is None)
        values = np.asarray([0.0 if value is None else value for value in parsed], dtype=np.float64)
    if wrong:
        kind = "a declared category" if column.kind is ColumnKind.CATEGORY else "a number"
        problems.append(f"column {column.name}: {wrong} row(s) without {kind}")
    return values


def _number(cell: str) -> float | None:
    """The number in a cell; NaN for an empty cell and what usually stands for a missing value."""
    text = cell.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    return float("nan") if text.lower() in MISSING else None


def _indices(names: Sequence[str]) -> Callable[[str], int]:
    known = {name: index for index, name in enumerate(names)}
    return lambda cell: known.get(cell.strip(), -1)
