"""How many trials a private selection makes, and which candidate each of them tries: drawn, never released.

The drawn law lies within :data:`TRIALS_DISTANCE` of the stated one in total variation, which adds at most
``(1 + exp(epsilon)) * TRIALS_DISTANCE`` to delta.

Source: Papernot and Steinke 2022 (arXiv:2110.03620, Definition 1).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import Final

from cloister.evidence.transcript import POISSON
from cloister.privacy.accountant import log_halting
from cloister.privacy.randomness import RandomSource

TRIALS_DISTANCE: Final = 2.0**-40

_FIXED_POINT: Final = 128
_TAIL: Final = 70
_WORD: Final = 2**64


@lru_cache(maxsize=64)
def trials_law(shape: float, mean: float) -> tuple[int, tuple[int, ...]]:
    """Return the smallest number of trials and the cumulative law of numbers, in units of 2**-64.

    Weights follow each other by the ratio of neighbouring terms, in fixed-point integers, until what is left
    vanishes. Papernot and Steinke 2022, Definition 1; the Poisson law starts at 0.

    Args:
        shape: At least 0, or ``POISSON``.
        mean: 1 to 200.

    Returns:
        The number ``smallest + i`` belongs to the words w with ``bounds[i - 1] <= w < bounds[i]``.
    """
    if shape == POISSON:
        first, up, down = 0, *mean.as_integer_ratio()
        more, whole = 0, 1
    else:
        first = 1
        up, down = (-math.expm1(log_halting(shape, mean))).as_integer_ratio()
        more, whole = shape.as_integer_ratio()
    weights, total, number = [1 << _FIXED_POINT], 1 << _FIXED_POINT, first
    while True:
        # Terms k and k + 1: (1 - gamma) (k + shape) / (k + 1), or mean / (k + 1).
        above = up if shape == POISSON else up * (number * whole + more)
        below = down * (number + 1) * (1 if shape == POISSON else whole)
        weight = weights[-1] * above // below
        if weight << _TAIL < total:
            break
        weights.append(weight)
        total += weight
        number += 1
    return first, tuple(_WORD * passed // total for passed in accumulate(weights[:-1]))


def draw_number(shape: float, mean: float, source: RandomSource) -> int:
    """Return a number of trials: private, never released.

    Args:
        shape: At least 0, or ``POISSON``.
        mean: 1 to 200.
        source: Where it comes from.
    """
    first, bounds = trials_law(shape, mean)
    return first + bisect_right(bounds, int(source.words(1)[0]))


def draw_index(count: int, source: RandomSource) -> int:
    """Return one of 0 to ``count - 1``, each as likely as the others."""
    while (word := int(source.words(1)[0])) >= _WORD - _WORD % count:
        pass
    return word % count
