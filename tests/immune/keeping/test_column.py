"""Columns of whole numbers that get wider where a number asks for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.immune.keeping.column import LARGEST, new_column, with_room


@pytest.mark.parametrize(
    ("number", "takes"),
    [(0, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 4), (2**32 - 1, 4), (2**32, 8), (LARGEST, 8)],
)
def test_a_number_takes_as_many_bytes_as_it_needs(number: int, takes: int) -> None:
    column = with_room(new_column(), number)
    column.append(number)
    assert (column.itemsize, column.tolist()) == (takes, [number])


@given(st.lists(st.integers(0, 63).flatmap(lambda bits: st.integers(0, 2**bits - 1)), max_size=20))
def test_a_column_that_gets_wider_has_the_numbers_that_it_had(numbers: list[int]) -> None:
    column, widest = new_column(), 1
    for place, number in enumerate(numbers):
        column = with_room(column, number)
        column.append(number)
        assert column.tolist() == numbers[: place + 1]
        assert column.itemsize >= widest
        widest = column.itemsize


def test_where_a_number_fits_the_column_stays() -> None:
    column = with_room(new_column(), 1000)
    assert with_room(column, 3) is column
    assert with_room(column, 65_535) is column
