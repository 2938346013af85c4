"""Poisson sampling: each record joins a batch independently, with one probability.

The accountant's amplification holds for exactly this sampler. Shuffled or fixed-size batches leak more than
their accounting says, so nothing else is offered. Batch sizes are private and never reported.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cloister.privacy.errors import PrivacyError
from cloister.privacy.randomness import RandomSource


class PoissonSampler:
    """Draws one batch per step.

    Each record compares a 64-bit uniform word with ``sampling_probability * 2**64`` rounded down, so the
    chance is exact to 2**-64 and never above the one accounted for.

    Args:
        records: Number of records, at least 1.
        sampling_probability: In (0, 1].
        source: Where the words come from.

    Raises:
        PrivacyError: ``privacy.plan_invalid``.
    """

    def __init__(self, records: int, sampling_probability: float, source: RandomSource) -> None:
        if records < 1:
            raise PrivacyError("privacy.plan_invalid", "Sampling needs at least one record.")
        if not (math.isfinite(sampling_probability) and 0 < sampling_probability <= 1):
            raise PrivacyError("privacy.plan_invalid", "The sampling probability must be above 0, at most 1.")
        self.records = records
        self.sampling_probability = sampling_probability
        self._source = source
        self._everyone = np.arange(records, dtype=np.int64) if sampling_probability == 1 else None
        numerator, denominator = sampling_probability.as_integer_ratio()
        self._threshold = np.uint64(min((numerator << 64) // denominator, 2**64 - 1))

    def sample(self) -> npt.NDArray[np.int64]:
        """Return the sorted indices of one batch, int64 of shape [batch]; it may be empty."""
        if self._everyone is not None:
            return self._everyone
        return np.flatnonzero(self._source.words(self.records) < self._threshold)
