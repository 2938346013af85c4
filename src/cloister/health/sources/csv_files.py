"""Your own tables: a folder with ``schema.yaml``, a table for each site, and ``test.csv``.

``schema.yaml`` declares, before any record is read, the columns with their public bounds, the label's
classes, the sites and the test set's name (see :mod:`cloister.health.declaration`). A site's table is
``<site>.csv``, ``<site>.safetensors`` or ``<site>.pt``; :mod:`cloister.health.sentry` reads it. Or it is
``<site>.sealed``, which its hospital encrypted beforehand and nobody here can read. ``test.csv``, which is
public, has no column of subjects; it may begin with a column ``site`` that says which site a row belongs to.
The label has two classes. Beside each table lies its secret ``<site>.salt``, made by
:func:`prepare`; ``test.csv`` is public and has none, and an encrypted table holds its own.

Rules kept here: no path leaves the folder or passes through a link; sizes are bounded; no cell's content
appears in an error; every problem of a file is listed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cloister.core.errors import InputError
from cloister.core.inside import read_inside
from cloister.health.csv_table import read_cells, read_values
from cloister.health.data import FederatedData, SiteData, SiteRecords, make_site, make_test_set
from cloister.health.declaration import DECLARATION_FILE, SITE_COLUMN, TableDeclaration, read_declaration
from cloister.health.encrypted_table import SUFFIX
from cloister.health.errors import HealthError
from cloister.health.schema import Float64Array, Int64Array, TableSchema
from cloister.health.sentry import MAX_TABLE_BYTES, read_sealed, read_table, table_name
from cloister.health.sources.salts import make_salt, read_salt, salt_name
from cloister.health.sources.selection import choose_sites

NAME = "csv"
TEST_FILE = "test.csv"
CLASSES = 2


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
    readable = (site for site in chosen if not _is_sealed(folder, site))
    return tuple(salt_name(site) for site in readable if make_salt(folder, site))


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
    records = {name: _records(folder, name, declaration) for name in chosen}
    raw, labels, row_sites = _read_test(folder, schema)
    kept = np.asarray([not site or site in chosen for site in row_sites], dtype=bool)
    return FederatedData(
        source=NAME,
        sites=records,
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


def load_site(folder: Path, name: str, site: str, declaration: TableDeclaration) -> SiteData:
    """Read the table of one site, and the salt beside it.

    Args:
        folder: where both lie.
        name: the table's name there.
        site: whose it is.
        declaration: what was declared of it.

    Raises:
        HealthError: it isn't as declared, or its salt is missing, malformed or open to others.
        InputError: a file is missing, malformed, too large or leaves the folder.
    """
    salt = read_salt(folder, site)
    table = read_table(folder, name, declaration)
    return make_site(site, declaration.table, table.raw, table.labels, salt=salt, subjects=table.subjects)


def _records(folder: Path, site: str, declaration: TableDeclaration) -> SiteRecords:
    name = table_name(folder, site)
    if name.endswith(SUFFIX):
        return read_sealed(folder, name, declaration, site=site)
    return load_site(folder, name, site, declaration)


def _is_sealed(folder: Path, site: str) -> bool:
    return table_name(folder, site).endswith(SUFFIX)


def _folder(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise InputError(
            "input.missing_file",
            "No folder of tables was named.",
            f"Name one that holds {DECLARATION_FILE}, {TEST_FILE} and a CSV file for each site with --data.",
        )
    return data_dir


def _declaration(folder: Path) -> TableDeclaration:
    found = read_declaration(folder, DECLARATION_FILE)
    classes = len(found.table.label.classes)
    if classes != CLASSES:
        raise HealthError(
            "health.classes",
            f"{DECLARATION_FILE} declares {classes} classes; a model tells {CLASSES} apart.",
            "Group the classes into two.",
        )
    return found


def _read_test(folder: Path, schema: TableSchema) -> tuple[Float64Array, Int64Array, tuple[str, ...]]:
    expected = [*schema.column_names, schema.label.name]
    data = read_inside(folder, TEST_FILE, MAX_TABLE_BYTES)
    header, cells = read_cells(data, expected, what=TEST_FILE, or_else=[SITE_COLUMN, *expected])
    if header == expected:
        return *read_values(schema, cells, what=TEST_FILE), ("",) * len(cells[0])
    values = read_values(schema, cells[1:], what=TEST_FILE)
    return *values, tuple(cell.strip() for cell in cells[0])
