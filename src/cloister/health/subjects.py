"""Whose record each is, where a person may have several: a declared column, read into bare numbers.

Rules kept here:

* The column is declared beside the table's schema, not in it: it is no feature, has no bounds, and the hash
  of the declared bounds doesn't know of it.
* Ids become numbers in the order in which they first appear; the ids themselves are kept nowhere. Two
  spellings are two persons, but for spaces around them and Unicode's ways to write the same letters.
* A record without an id is refused: made a person of its own, it could hide that somebody has one more.
* A refusal counts rows; it never repeats an id.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cloister.health.errors import HealthError
from cloister.health.schema import Int64Array

MAX_ID_LENGTH = 200
MISSING = frozenset({"", "na", "nan", "?", "null"})
"""What stands for a missing value, in lower case."""


class SubjectColumn(BaseModel):
    """The declaration of the column that says whose record a row is.

    Attributes:
        column: its name in the files' header.
        rows: whether a person may have ``many`` rows, or has ``one``: a second is then refused, as a mistake
            in the table or in the declaration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: Annotated[str, Field(min_length=1, max_length=120)]
    rows: Literal["one", "many"] = "many"


@dataclass(frozen=True, eq=False)
class Subjects:
    """Whose record each of a table is.

    Attributes:
        column: the declared column's name.
        numbers: one for each record, from 0 in the order of first appearance [records].
    """

    column: str
    numbers: Int64Array

    def __post_init__(self) -> None:
        seen, first, places = np.unique(self.numbers, return_index=True, return_inverse=True)
        if (
            self.numbers.dtype != np.int64
            or self.numbers.ndim != 1
            or not np.array_equal(seen, np.arange(seen.size))
            or not np.array_equal(places, self.numbers)
            or (np.diff(first) <= 0).any()
        ):
            raise HealthError("health.shape", "Subjects aren't numbered in the order of their appearance.")

    @property
    def count(self) -> int:
        """How many persons there are."""
        return int(self.numbers.max(initial=-1)) + 1

    def __repr__(self) -> str:
        return f"Subjects(count={self.count})"


def read_subjects(column: str, cells: Sequence[str], *, what: str) -> Subjects:
    """Replace ids by numbers.

    Args:
        column: the declared column's name.
        cells: the id of each record, as read.
        what: the table's name for messages.

    Raises:
        HealthError: ``health.subject`` for records without an id or with one that is too long,
            ``health.one_subject`` where all of several records are one person's, or there is one record.
    """
    ids = [unicodedata.normalize("NFC", cell.strip()) for cell in cells]
    wrong = {
        "without an id": sum(one.lower() in MISSING for one in ids),
        f"with an id longer than {MAX_ID_LENGTH} characters": sum(len(one) > MAX_ID_LENGTH for one in ids),
    }
    if any(wrong.values()):
        raise HealthError(
            "health.subject",
            f"Rows of {what} don't say whose they are.",
            "Give each row the id of its person, or leave the row out.",
            details=[f"column {column}: {rows} row(s) {how}" for how, rows in wrong.items() if rows],
        )
    known: dict[str, int] = {}
    numbers = np.asarray([known.setdefault(one, len(known)) for one in ids], dtype=np.int64)
    return _of_several(Subjects(column, numbers), what)


def number_subjects(column: str, ids: Int64Array, *, what: str) -> Subjects:
    """Replace numbers that tell persons apart by numbers that mean nothing else.

    Args:
        column: the declared column's name.
        ids: any number for each record.
        what: the table's name for messages.

    Raises:
        HealthError: ``health.one_subject``, as for :func:`read_subjects`.
    """
    _, first, places = np.unique(ids, return_index=True, return_inverse=True)
    order = np.empty(first.size, dtype=np.int64)
    order[np.argsort(first)] = np.arange(first.size)
    return _of_several(Subjects(column, order[places]), what)


def require_one_row_each(subjects: Subjects, *, what: str) -> None:
    """Refuse a table in which a person has a second row.

    Args:
        subjects: whose each row is.
        what: the table's name for messages.

    Raises:
        HealthError: ``health.subject_repeated``.
    """
    further = int(subjects.numbers.size) - subjects.count
    if further:
        raise HealthError(
            "health.subject_repeated",
            f"{further} row(s) of {what} are of persons who have another, and one each was declared.",
            "Leave one row of each person, or declare rows: many, so that persons are protected as a whole.",
            details=[f"column {subjects.column}: {further} row(s) too many"],
        )


def _of_several(subjects: Subjects, what: str) -> Subjects:
    if subjects.count == 1:
        raise HealthError(
            "health.one_subject",
            f"All rows of {what} are one person's, who would have nobody to hide among.",
            "Declare the column that tells persons apart.",
        )
    return subjects
