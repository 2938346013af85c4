"""The input sentry: a site's table is held against its declaration before anything is computed from it.

Rules kept here:

* A table is read from below its folder only, without following a link, at most ``MAX_TABLE_BYTES`` of it,
  once: what was checked is what is trained on.
* Three formats: ``.csv``, ``.safetensors`` and ``.pt``; the last without running what a pickle could hold. A
  site has a table in one of them, or one that was encrypted beforehand (``.sealed``). Any other name is
  refused by its ending.
* Columns, kinds, bounds, categories and classes are the declared ones, nothing is missing, every row says
  whose it is where that is declared, no person has a second row where one was declared, and there are enough
  records, or persons.
* A refusal names columns and counts rows; nothing of a record appears. Even so it stays at the site: what
  leaves one is the error's code.
* Of an encrypted table nobody here reads a record: its header is held against the declaration, and the
  records against its header by the sealed worker that opens it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cloister.core.errors import InputError
from cloister.core.inside import read_inside
from cloister.health.csv_table import read_cells, read_values
from cloister.health.data import SealedSite
from cloister.health.declaration import TableDeclaration
from cloister.health.encrypted_table import SUFFIX, read_encrypted_table
from cloister.health.errors import HealthError
from cloister.health.schema import Float64Array, Int64Array
from cloister.health.subjects import Subjects, number_subjects, read_subjects, require_one_row_each
from cloister.health.tensor_files import TensorTable, read_pt, read_safetensors

MAX_TABLE_BYTES: Final = 256 * 1024 * 1024
FORMATS: Final = (".csv", ".safetensors", ".pt")


@dataclass(frozen=True, eq=False)
class SiteTable:
    """A table that is as declared.

    Attributes:
        raw: values as read [records, columns], categories as indices.
        labels: class indices [records].
        subjects: whose record each is, where that is declared.
    """

    raw: Float64Array
    labels: Int64Array
    subjects: Subjects | None

    @property
    def records(self) -> int:
        """How many records it holds."""
        return int(self.labels.shape[0])

    @property
    def units(self) -> int:
        """How many persons it is about, as far as that is declared; else how many records it holds."""
        return self.records if self.subjects is None else self.subjects.count

    def __repr__(self) -> str:
        return f"SiteTable(records={self.records})"


def table_name(folder: Path, site: str) -> str:
    """The name of a site's table in its folder.

    Args:
        folder: the folder.
        site: the site.

    Raises:
        HealthError: ``health.two_tables`` where the site has several.
    """
    there = [site + ending for ending in (*FORMATS, SUFFIX) if os.path.lexists(folder / (site + ending))]
    if len(there) > 1:
        raise HealthError(
            "health.two_tables",
            f"The site {site} has more than one table.",
            "Leave the one that is meant.",
            details=there,
        )
    return there[0] if there else site + FORMATS[0]


def read_table(
    folder: Path, name: str, declaration: TableDeclaration, *, minimum_group_size: int = 1
) -> SiteTable:
    """Read a table and hold it against its declaration.

    Args:
        folder: the folder that it must lie in.
        name: its relative path there.
        declaration: what was declared of it.
        minimum_group_size: fewest records, or persons where those are declared; the declaration's own counts
            too.

    Raises:
        HealthError: it isn't as declared.
        InputError: it is missing, unreadable, too large, in no known format, or leaves the folder.
    """
    ending = Path(name).suffix.lower()
    if ending not in FORMATS:
        raise InputError(
            "input.unreadable",
            "A table is in no format that is read here.",
            f"Give it as one of: {', '.join(FORMATS)}. A pickle of any other kind is never opened.",
        )
    data, what = read_inside(folder, name, MAX_TABLE_BYTES), Path(name).name
    if ending == ".csv":
        table = _from_cells(data, declaration, what)
    else:
        reader = read_pt if ending == ".pt" else read_safetensors
        table = _from_tensors(reader(data, what=what), declaration, what)
    declaration.table.validate_table(table.raw, table.labels, what=what)
    if declaration.subject is not None and declaration.subject.rows == "one" and table.subjects is not None:
        require_one_row_each(table.subjects, what=what)
    _require_group(table, max(minimum_group_size, declaration.minimum_group_size), what)
    return table


def read_sealed(folder: Path, name: str, declaration: TableDeclaration, *, site: str) -> SealedSite:
    """Read a table that its hospital encrypted beforehand, and hold what it says of itself against its
    declaration.

    Args:
        folder: the folder that it must lie in.
        name: its relative path there.
        declaration: what was declared of it.
        site: whose it has to be.

    Raises:
        HealthError: ``health.encrypted_table``, ``health.one_subject``, ``health.subject_repeated`` or
            ``health.group_too_small``.
        InputError: it is missing, unreadable, too large or leaves the folder.
    """
    table, what = read_encrypted_table(folder, name), Path(name).name
    public, subject = table.public, declaration.subject
    column = None if subject is None else subject.column
    if (public.site, public.subject, public.declared) != (site, column, declaration.table):
        raise HealthError(
            "health.encrypted_table",
            f"{what} was encrypted as another site's table, or under another declaration.",
            "Let the hospital seal its table with the schema.yaml that is agreed.",
        )
    if public.subjects == 1:
        raise HealthError("health.one_subject", f"All rows of {what} are one person's.")
    if subject is not None and subject.rows == "one" and public.subjects != public.records:
        raise HealthError(
            "health.subject_repeated", f"Persons of {what} have several rows, and one each was declared."
        )
    if (public.subjects or public.records) < declaration.minimum_group_size:
        raise _too_few(what, declaration.minimum_group_size, "records" if subject is None else "persons")
    return SealedSite(table)


def _from_cells(data: bytes, declaration: TableDeclaration, what: str) -> SiteTable:
    schema, subject = declaration.table, declaration.subject
    expected = [*schema.column_names, schema.label.name]
    if subject is None:
        _, cells = read_cells(data, expected, what=what)
        return SiteTable(*read_values(schema, cells, what=what), None)
    _, (ids, *cells) = read_cells(data, [subject.column, *expected], what=what)
    values = read_values(schema, cells, what=what)
    return SiteTable(*values, read_subjects(subject.column, ids, what=what))


def _from_tensors(tensors: TensorTable, declaration: TableDeclaration, what: str) -> SiteTable:
    subject = declaration.subject
    if (subject is None) is not (tensors.subjects is None):
        raise HealthError(
            "health.subject",
            f"Either {what} says whose each record is, or its declaration names the column, and not both do.",
            "Declare a subject and store the tensor subjects, or neither.",
        )
    if tensors.features.shape[1:] != (len(declaration.table.columns),):
        raise HealthError(
            "health.columns",
            f"The features of {what} don't have the declared number of columns.",
            f"They have, in this order: {', '.join(declaration.table.column_names)}.",
        )
    subjects = None
    if subject is not None and tensors.subjects is not None:
        subjects = number_subjects(subject.column, tensors.subjects, what=what)
    return SiteTable(np.ascontiguousarray(tensors.features), tensors.labels, subjects)


def _require_group(table: SiteTable, fewest: int, what: str) -> None:
    if table.units < fewest:
        raise _too_few(what, fewest, "records" if table.subjects is None else "persons")


def _too_few(what: str, fewest: int, counted: str) -> HealthError:
    return HealthError(
        "health.group_too_small",
        f"{what} is about fewer than {fewest} {counted}, too few to hide among.",
        "Train where there are more, or agree on another minimum before the records are looked at.",
    )
