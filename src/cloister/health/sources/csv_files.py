"""Your own tables: a folder with ``schema.yaml``, one ``<site>.csv`` for each site, and ``test.csv``.

``schema.yaml`` declares, before any record is read, the columns with their public bounds, the label's
classes, the sites and the test set's name (see ``TableDeclaration``). A CSV file is UTF-8 with one header
line that names the declared columns in order and the label last; ``test.csv`` may begin with a column
``site`` that says which site a row belongs to. Label cells and category cells hold declared names. The label
has two classes. Beside each table lies its secret ``<site>.salt``, made by :func:`prepare`; ``test.csv`` is
public and has none.

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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: Literal["cloister.table/v1"]
    table: TableSchema
    sites: Annotated[tuple[_Site, ...], Field(min_length=1, max_length=1000)]
    test_set: _Text
    citation: _Text


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
    tables = {name: _read(resolve_inside(folder, f"{name}.csv"), schema)[:2] for name in chosen}
    raw, labels, row_sites = _read(resolve_inside(folder, TEST_FILE), schema)
    kept = np.asarray([not site or site in chosen for site in row_sites], dtype=bool)
    return FederatedData(
        source=NAME,
        sites={name: make_site(name, schema, *table, salt=salts[name]) for name, table in tables.items()},
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


def _read(path: Path, schema: TableSchema) -> tuple[Float64Array, Int64Array, tuple[str, ...]]:
    rows = _rows(path)
    expected = [*schema.column_names, schema.label.name]
    header = [name.strip() for name in rows[0]] if rows else []
    with_sites = path.name == TEST_FILE and header == [SITE_COLUMN, *expected]
    if not with_sites and header != expected:
        missing = [name for name in expected if name not in header]
        raise HealthError(
            "health.columns",
            f"The header of {path.name} isn't the declared one.",
            f"The first line names, in this order: {', '.join(expected)}.",
            details=[f"missing column: {name}" for name in missing],
        )
    body = [row for row in rows[1:] if row]
    ragged = sum(1 for row in body if len(row) != len(header))
    if ragged:
        raise HealthError("health.columns", f"{ragged} row(s) of {path.name} have another number of cells.")
    columns = list(zip(*body, strict=True)) if body else [() for _ in header]
    row_sites = tuple(cell.strip() for cell in columns[0]) if with_sites else ("",) * len(body)
    cells = columns[1:] if with_sites else columns
    problems: list[str] = []
    parts = [
        _column(column, values, problems) for column, values in zip(schema.columns, cells[:-1], strict=True)
    ]
    if problems:
        raise HealthError(
            "health.type",
            f"Cells of {path.name} can't be read as declared.",
            "Correct the cells, or the declared kinds and categories.",
            details=problems,
        )
    labels = _indices(schema.label.classes)
    return (
        np.stack(parts, axis=1),
        np.asarray([labels(cell) for cell in cells[-1]], dtype=np.int64),
        row_sites,
    )


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
    return float("nan") if text.lower() in ("", "na", "nan", "?", "null") else None


def _indices(names: Sequence[str]) -> Callable[[str], int]:
    known = {name: index for index, name in enumerate(names)}
    return lambda cell: known.get(cell.strip(), -1)
