"""Weights with fewer bits: nearest, the same everywhere, and nothing left in zeros and tiny numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloister.enclave import rounded

FRACTION = {"float32": 23, "float64": 52}
WORDS = {"float32": np.uint32, "float64": np.uint64}
TINY = {"float32": np.finfo(np.float32).tiny, "float64": np.finfo(np.float64).tiny}


def arrays(dtype: str) -> st.SearchStrategy[np.ndarray]:
    width = 8 * np.dtype(dtype).itemsize
    words = hnp.arrays(WORDS[dtype], st.integers(1, 20), elements=st.integers(0, 2**width - 1))
    return words.map(lambda found: found.view(dtype)).filter(lambda found: bool(np.isfinite(found).all()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(st.data())
def test_what_is_rounded_is_near_has_no_bits_left_and_stays_so(dtype: str, data: st.DataObject) -> None:
    values, bits = data.draw(arrays(dtype)), data.draw(st.integers(1, FRACTION[dtype]))
    result = rounded(values, bits)
    words = result.view(WORDS[dtype])
    dropped = FRACTION[dtype] - bits
    assert not (words & WORDS[dtype]((1 << dropped) - 1)).any()
    assert not (np.signbit(result) & (result == 0)).any()
    assert not ((result != 0) & (np.abs(result) < TINY[dtype])).any()
    finite = np.isfinite(result)
    normal = finite & (np.abs(values) >= TINY[dtype])
    with np.errstate(over="ignore"):
        off = np.abs(result[normal] / values[normal] - 1)
    assert (off <= 2.0 ** -(bits + 1) * (1 + 1e-9)).all() or bits == FRACTION[dtype]
    assert np.array_equal(rounded(result[finite], bits), result[finite])


def test_ties_go_to_even_as_the_standard_has_it() -> None:
    values = np.array(
        [1 + 2.0**-3, 1 + 3 * 2.0**-3, -(1 + 2.0**-3), 1 + 2.0**-3 + 2.0**-20], dtype=np.float32
    )
    assert rounded(values, 2).tolist() == [1.0, 1.5, -1.0, 1.25]


@given(hnp.arrays(np.float32, 8, elements=st.floats(-6e4, 6e4, width=16)))
def test_ten_bits_are_those_of_a_half_precision_number(values: np.ndarray) -> None:
    normal = values[np.abs(values) >= np.float32(2.0**-14)]
    assert np.array_equal(rounded(normal, 10), normal.astype(np.float16).astype(np.float32))


def test_all_bits_keep_every_normal_number_as_it_is() -> None:
    values = np.array([1 / 3, -np.pi, 1e-30, 3e38], dtype=np.float32)
    assert rounded(values, 23).tobytes() == values.tobytes()


def test_the_largest_numbers_become_infinite_not_something_else() -> None:
    assert np.isinf(rounded(np.array([np.finfo(np.float32).max], dtype=np.float32), 3)).all()


def test_the_values_handed_in_are_left_alone() -> None:
    values = np.array([1 / 3], dtype=np.float32)
    rounded(values, 4)
    assert values[0] == np.float32(1 / 3)
