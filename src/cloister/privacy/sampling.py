"""Poisson sampling: each unit joins a batch independently, with one probability.

Rules kept here:

1. The accountant's amplification holds for exactly this sampler. Shuffled or fixed-size batches leak more
   than their accounting says, so nothing else is offered.
2. A batch is drawn as its size k, binomial, then a uniform subset of k units: the same law as one coin per
   unit, without touching every unit.
3. The size is found by inversion in a table of whole numbers, computed in integer arithmetic; its law lies
   within :data:`SIZE_DISTANCE` of the binomial in total variation, which adds at most
   ``(1 + exp(epsilon)) * steps * SIZE_DISTANCE`` to delta. The subset is exactly uniform.
4. Batch sizes are private and never reported.

Sources: Devroye 1986, chapters III.2 (inversion) and XII.2 (subsets); Lemire 2019 (arXiv:1805.10941, unbiased
integers in an interval).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from cloister.privacy.errors import PrivacyError
from cloister.privacy.randomness import RandomSource

SIZE_DISTANCE: Final = 2.0**-40
"""Bound on the total variation distance of a batch size's law from the binomial, for up to 2**31 units."""

_FIXED_POINT: Final = 128
_WORD: Final = 2**64
_MOST_UNITS: Final = 2**31
_LOW_HALF: Final = np.uint64(0xFFFFFFFF)


class PoissonSampler:
    """Draws one batch per step.

    Args:
        units: Number of units (records or subjects), from 1 to 2**31.
        sampling_probability: In (0, 1].
        source: Where the words come from.

    Raises:
        PrivacyError: ``privacy.plan_invalid``.
    """

    def __init__(self, units: int, sampling_probability: float, source: RandomSource) -> None:
        if not 1 <= units <= _MOST_UNITS:
            raise PrivacyError("privacy.plan_invalid", "Sampling needs from one to 2**31 units.")
        if not (math.isfinite(sampling_probability) and 0 < sampling_probability <= 1):
            raise PrivacyError("privacy.plan_invalid", "The sampling probability must be above 0, at most 1.")
        self.units = units
        self.sampling_probability = sampling_probability
        self._source = source
        self._smallest, self._bounds = size_table(units, sampling_probability)
        self._bias = np.uint64(2**32 % units)
        self._last_place = np.empty(units, dtype=np.int64)

    def sample(self) -> npt.NDArray[np.int64]:
        """Return the indices of one batch, int64 of shape [batch], each once; it may be empty."""
        if self.sampling_probability == 1:
            return np.arange(self.units, dtype=np.int64)
        size = self._smallest + bisect_right(self._bounds, int(self._source.words(1)[0]))
        if size <= self.units // 2:
            return self._subset(size)
        everyone = np.ones(self.units, dtype=np.bool_)
        everyone[self._subset(self.units - size)] = False
        return np.flatnonzero(everyone)

    def _subset(self, size: int) -> npt.NDArray[np.int64]:
        """The first ``size`` different values of a uniform sequence: by symmetry every subset is as likely.

        Each turn draws as many values as are missing, so that none is drawn that the rule would not see.
        """
        chosen = self._different(self._below(size))
        while len(chosen) < size:
            chosen = self._different(np.concatenate((chosen, self._below(size - len(chosen)))))
        return chosen

    def _different(self, drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Each value once: the place that was written last under a value is the one that keeps it."""
        places = np.arange(len(drawn))
        self._last_place[drawn] = places
        kept: npt.NDArray[np.int64] = drawn[self._last_place[drawn] == places]
        return kept

    def _below(self, count: int) -> npt.NDArray[np.int64]:
        """Up to ``count`` independent uniform indices; those that would be biased are left out."""
        words = self._source.words((count + 1) // 2)
        halves = np.concatenate((words >> np.uint64(32), words & _LOW_HALF))[:count]
        halves *= np.uint64(self.units)
        if self._bias:
            halves = halves[(halves & _LOW_HALF) >= self._bias]
        return (halves >> np.uint64(32)).astype(np.int64)


@lru_cache(maxsize=64)
def size_table(units: int, probability: float) -> tuple[int, tuple[int, ...]]:
    """Return the smallest size with any weight, and the cumulative law of sizes in units of 2**-64.

    Weights are taken relative to the most likely size, by the ratio of neighbouring binomial terms in
    fixed-point integers of 128 bits, outwards until they vanish; one division by their sum makes them a law.

    Args:
        units: Number of units, at least 1.
        probability: In (0, 1], taken as the exact fraction it is.

    Returns:
        Size ``smallest + i`` belongs to the words w with ``bounds[i - 1] <= w < bounds[i]``.
    """
    success, whole = probability.as_integer_ratio()
    failure = whole - success
    if failure == 0:
        return units, ()
    top = (units + 1) * success // whole
    up = _outwards(top, 1, units, success, failure)
    down = _outwards(top, -1, units, success, failure)
    weights = [*reversed(down), 1 << _FIXED_POINT, *up]
    total = sum(weights)
    return top - len(down), tuple(_WORD * passed // total for passed in accumulate(weights[:-1]))


def _outwards(top: int, direction: int, units: int, success: int, failure: int) -> list[int]:
    weights, weight, size = [], 1 << _FIXED_POINT, top
    while 0 <= size + direction <= units:
        if direction > 0:
            weight = weight * ((units - size) * success) // ((size + 1) * failure)
        else:
            weight = weight * (size * failure) // ((units - size + 1) * success)
        if weight < 1 << (_FIXED_POINT - 70):
            break
        size += direction
        weights.append(weight)
    return weights
