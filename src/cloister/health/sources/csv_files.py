"""Your own tables: a folder with ``schema.yaml``, one ``<site>.csv`` for each site, and ``test.csv``.

``schema.yaml`` declares, before any record is read, the columns with their public bounds, the label's
classes, the sites and the test set's name (see ``TableDeclaration``). A CSV file is UTF-8 with one header
line that names the declared columns in order and the label last. Where a column is declared that says whose
record a row is, a site's file begins with it; ``test.csv``, which is public, doesn't have it. ``test.csv``
may begin with a column ``site`` that says which site a row belongs to. Label cells and category cells hold
declared names. The label has two classes. Beside each table lies its secret ``<site>.salt``, made by
:func:`prepare`; ``test.csv`` is public and has none.

Rules kept here: no path leaves the folder or passes through a link; sizes are bounded; no cell's content
appears in an error; every problem of a file is listed.
"""

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cloister.core.documents import load_yaml
from cloister.core.errors import InputError
from cloister.core.files import read_bounded, resolve_inside
from cloister.core.parsing import parse_model
from cloister.health.data import FederatedData, make_site, make_test_set
from cloister.health.errors import HealthError
from cloister.health.schema import Column, ColumnKind, Float64Array, Int64Array, TableSchema
from cloister.health.sources.salts import make_salt, read_salt, salt_name
from cloister.health.sources.selection import choose_sites
from cloister.health.subjects import MISSING, SubjectColumn, Subjects, read_subjects

NAME = "csv"
DECLARATION_FILE = "schema.yaml"
TEST_FILE = "test.csv"
SITE_COLUMN = "site"
CLASSES = 2
MAX_TABLE_BYTES = 256 * 1024 * 1024

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_Site = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Text = Annotated[str, Field(min_length=1, max_length=500)]


class TableDeclaration(BaseModel):
    """``schema.yaml``: what is declared in public about the tables of a folder.

    Attributes:
        document: the format's name and version.
        table: columns with bounds, label with classes, and where the bounds come from.
        sites: names of the sites; each has a file ``<site>.csv``.
        test_set: how receipts call the records in ``test.csv``.
        citation: where the records come from and on what terms.
        subject: the column that says whose record a row is, where a person may have several; None where
            every row is another person's, or nothing says whose it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: Literal["cloister.table/v1"]
    table: TableSchema
    sites: Annotated[tuple[_Site, ...], Field(min_length=1, max_length=1000)]
    test_set: _Text
    citation: _Text
    subject: SubjectColumn | None = None


def prepare(*, data_dir: Path | None, sites: Sequence[str] | None) -> tuple[str, ...]:
    """Make the salts that are missing.

    Args:
        data_dir: the folder.
        sites: some of the declared sites; None means all.

    Returns:
        Names of the files that were made; none of them was there before.

    Raises:
        HealthError: the declaration contradicts itself.
        InputError: no folder was given, or its declaration is missing, malformed or leaves the folder.
        StorageError: a salt can't be written.
    """
    folder = _folder(data_dir)
    chosen = choose_sites(sites, _declaration(folder).sites, NAME)
    return tuple(salt_name(site) for site in chosen if make_salt(folder, site))


def load(*, data_dir: Path | None, sites: Sequence[str] | None, seed: int) -> FederatedData:
    """Read a folder of tables.

    Args:
        data_dir: the folder.
        sites: some of the declared sites; None means all.
        seed: not used; rows belong to the site whose file they are in.

    Returns:
        The sites' records and the test set; test rows that name another site than those chosen are left out.

    Raises:
        HealthError: the declaration contradicts itself or has another number of classes than two, a table
            isn't as declared, or its salt is missing, malformed or open to others.
        InputError: no folder was given, or a file is missing, malformed, too large or leaves the folder.
    """
    folder = _folder(data_dir)
    declaration = _declaration(folder)
    schema = declaration.table
    chosen = choose_sites(sites, declaration.sites, NAME)
    salts = {name: read_salt(folder, name) for name in chosen}
    tables = {name: _read_table(resolve_inside(folder, f"{name}.csv"), declaration) for name in chosen}
    raw, labels, row_sites = _read_test(resolve_inside(folder, TEST_FILE), schema)
    kept = np.asarray([not site or site in chosen for site in row_sites], dtype=bool)
    return FederatedData(
        source=NAME,
        sites={
            name: make_site(name, schema, values, classes, salt=salts[name], subjects=subjects)
            for name, (values, classes, subjects) in tables.items()
        },
        test=make_test_set(
            declaration.test_set,
            schema,
            raw[kept],
            labels[kept],
            tuple(site for site, keep in zip(row_sites, kept, strict=True) if keep),
        ),
        schema=schema,
        normalisation=(
            f"declared public bounds ({schema.basis}), mapped linearly to [-1, 1]; no statistic of the "
            "training records is used"
        ),
        citation=declaration.citation,
    )


def _folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise InputError(
            "input.missing_file",
            "No folder of tables was named.",
            f"Name one that holds {DECLARATION_FILE}, {TEST_FILE} and a CSV file for each site with --data.",
        )
    return data_dir


def _declaration(folder: Path) -> TableDeclaration:
    found = parse_model(
        TableDeclaration, load_yaml(resolve_inside(folder, DECLARATION_FILE)), DECLARATION_FILE
    )
    if "test" in found.sites or len(set(found.sites)) != len(found.sites):
        raise HealthError("health.schema", f"{DECLARATION_FILE} names a site twice, or one named test.")
    if found.subject is not None and found.subject.column in (
        SITE_COLUMN,
        *found.table.column_names,
        found.table.label.name,
    ):
        raise HealthError(
            "health.schema",
            f"{DECLARATION_FILE} names one column twice, or the subject's column {SITE_COLUMN}.",
            "The column that says whose a row is has a name of its own, and is no feature.",
        )
    if found.table.column_names[0] == SITE_COLUMN:
        raise HealthError("health.schema", f"The first column can't be named {SITE_COLUMN}.", "Rename it.")
    classes = len(found.table.label.classes)
    if classes != CLASSES:
        raise HealthError(
            "health.classes",
            f"{DECLARATION_FILE} declares {classes} classes; a model tells {CLASSES} apart.",
            "Group the classes into two.",
        )
    return found


def _read_table(
    path: Path, declaration: TableDeclaration
) -> tuple[Float64Array, Int64Array, Subjects | None]:
    if declaration.subject is None:
        header, body = _cells(path, _expected(declaration.table), ())
        return *_values(path.name, declaration.table, _columns(header, body)), None
    column = declaration.subject.column
    header, body = _cells(path, [column, *_expected(declaration.table)], ())
    ids, *cells = _columns(header, body)
    values = _values(path.name, declaration.table, cells)
    return *values, read_subjects(column, ids, what=path.name)


def _read_test(path: Path, schema: TableSchema) -> tuple[Float64Array, Int64Array, tuple[str, ...]]:
    expected = _expected(schema)
    header, body = _cells(path, expected, [SITE_COLUMN, *expected])
    cells = _columns(header, body)
    if header == expected:
        return *_values(path.name, schema, cells), ("",) * len(body)
    return *_values(path.name, schema, cells[1:]), tuple(cell.strip() for cell in cells[0])


def _expected(schema: TableSchema) -> list[str]:
    return [*schema.column_names, schema.label.name]


def _cells(path: Path, expected: list[str], or_else: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The header, which is one of two, and the rows, each as long as it."""
    rows = _rows(path)
    header = [name.strip() for name in rows[0]] if rows else []
    if header not in (expected, or_else):
        raise HealthError(
            "health.columns",
            f"The header of {path.name} isn't the declared one.",
            f"The first line names, in this order: {', '.join(expected)}.",
            details=[f"missing column: {name}" for name in expected if name not in header],
        )
    body = [row for row in rows[1:] if row]
    ragged = sum(1 for row in body if len(row) != len(header))
    if ragged:
        raise HealthError("health.columns", f"{ragged} row(s) of {path.name} have another number of cells.")
    return header, body


def _columns(header: list[str], body: list[list[str]]) -> list[tuple[str, ...]]:
    return list(zip(*body, strict=True)) if body else [() for _ in header]


def _values(
    name: str, schema: TableSchema, cells: Sequence[Sequence[str]]
) -> tuple[Float64Array, Int64Array]:
    problems: list[str] = []
    parts = [
        _column(column, values, problems) for column, values in zip(schema.columns, cells[:-1], strict=True)
    ]
    if problems:
        raise HealthError(
            "health.type",
            f"Cells of {name} can't be read as declared.",
            "Correct the cells, or the declared kinds and categories.",
            details=problems,
        )
    labels = _indices(schema.label.classes)
    return np.stack(parts, axis=1), np.asarray([labels(cell) for cell in cells[-1]], dtype=np.int64)


def _rows(path: Path) -> list[list[str]]:
    data = read_bounded(path, MAX_TABLE_BYTES)
    try:
        return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise InputError("input.syntax", f"{path.name} is not a CSV file in UTF-8.") from None


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
