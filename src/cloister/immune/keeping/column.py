"""Columns of whole numbers that take no more bytes a number than the largest of them asked for.

A column is an `array` of Python's: one that is too narrow for a number raises OverflowError. A column of the
same numbers with more room for each then takes its place, of 1, 2, 4 or 8 bytes. It doesn't get narrow again.
"""

from __future__ import annotations

from array import array
from typing import Final

LARGEST: Final = 2**63 - 1
_KINDS: Final = "BHIq"


def new_column() -> array[int]:
    """An empty column of one byte a number."""
    return array(_KINDS[0])


def with_room(column: array[int], number: int) -> array[int]:
    """A column of the same numbers that takes this one as well.

    Args:
        column: of `new_column`, or of this.
        number: 0 to `LARGEST`.

    Returns:
        The same column where the number fits.
    """
    # The widest has a sign.
    bits = 8 * column.itemsize - (column.typecode == _KINDS[-1])
    if number.bit_length() <= bits:
        return column
    return with_room(array(_KINDS[_KINDS.index(column.typecode) + 1], column), number)
