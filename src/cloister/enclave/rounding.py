"""Weights with fewer bits: rounded to a stated number of bits of fraction before they leave.

A float32 has 23 bits of fraction, and training needs few of them. The rest are room in which something else
could leave unseen, so a policy may take them away. The result is a function of each value alone (no dither,
no state): to nearest, ties to even, and the same on every machine. Negative zero becomes zero, and so does
every subnormal number, whose fraction would otherwise be such room again.

Source: IEEE 754-2019, sections 3.4 and 4.3.1.
"""

from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from cloister.enclave.tensors import FloatArray
from cloister.evidence.airlock_policy import MANTISSA_BITS

_Words: TypeAlias = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]


def round_in_place(values: FloatArray, bits: int) -> None:
    """Round finite values; one whose rounding passes the largest finite number becomes infinite.

    Args:
        values: float32 or float64, C-contiguous and writeable, of any shape.
        bits: bits of fraction to keep, at least 1; from what the type has on, all are kept.
    """
    width = values.dtype.itemsize * 8
    fraction = MANTISSA_BITS[values.dtype.name]
    flat = values.reshape(-1)
    words = cast(_Words, flat.view(np.uint32 if width == 32 else np.uint64))
    word = words.dtype.type
    dropped = fraction - bits
    if dropped > 0:
        last_kept = np.bitwise_and(np.right_shift(words, word(dropped)), word(1))
        np.add(last_kept, word((1 << (dropped - 1)) - 1), out=last_kept)
        np.add(words, last_kept, out=words)
        np.bitwise_and(words, word((1 << width) - (1 << dropped)), out=words)
    exponent = word(((1 << (width - 1)) - 1) ^ ((1 << fraction) - 1))
    words[np.bitwise_and(words, exponent) == 0] = 0


def rounded(values: FloatArray, bits: int) -> FloatArray:
    """Return a rounded copy.

    Args:
        values: float32 or float64, finite.
        bits: as in :func:`round_in_place`.
    """
    copy = np.array(values, order="C")
    round_in_place(cast(FloatArray, copy), bits)
    return cast(FloatArray, copy)
