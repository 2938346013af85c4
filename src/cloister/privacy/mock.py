"""Training without noise, to try a job out. It protects nobody, and everything that comes of it says so.

Rules kept here:

1. Three consents are needed: the mechanism ``MOCK`` in the job, ``MOCK_DP=1`` in the environment of the
   machine that holds the records, and ``allow_mock`` in each hospital's signed manifest. None of them does
   anything without the others: the variable doesn't change a private job, and a mock job is refused where it
   isn't set, or before any training where some manifest doesn't allow it.
2. A mock is another class than the private path's trainer, not a setting of it. Its generator's name goes
   into every statement it touches.
3. In a mock, weights that protect nobody leave each site for the hub in every round, and no budget is charged
   for it: its spends go to a ledger that is thrown away. That is what a hospital consents to by
   ``allow_mock``, for public or made-up records alone. The model is not approved for release, and every
   verifier refuses the receipt.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import numpy as np

from cloister.evidence.predicates import MOCK
from cloister.privacy.errors import PrivacyError
from cloister.privacy.noise import Integers
from cloister.privacy.randomness import RandomSource
from cloister.privacy.trainer import DPTrainer, TrainingPlan

MOCK_VARIABLE: Final = "MOCK_DP"

MOCK_MARK: Final = {"MOCK.trained-without-noise": np.zeros(1, dtype=np.float32)}
"""A tensor beside a mock's weights in its file: whoever loads the file by a model's names refuses it."""


def require_mock_allowed(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a mock where the machine's owner hasn't asked for one.

    Args:
        environment: The process's environment.

    Raises:
        PrivacyError: ``privacy.mock_refused``.
    """
    if environment.get(MOCK_VARIABLE) != "1":
        raise PrivacyError(
            "privacy.mock_refused",
            "The job asks to train without noise (MOCK), which this machine doesn't allow.",
            f"To try a job out on records that need no protection, set {MOCK_VARIABLE}=1; what leaves a site "
            "then protects nobody. Else let the job say mechanism: DP_SGD.",
        )


class NoNoise:
    """What a mock adds instead of noise: nothing."""

    @property
    def generator(self) -> str:
        """A name that no verifier accepts."""
        return MOCK

    def draw(self, count: int, bits: int) -> Integers:
        """Return ``count`` zeros."""
        del bits
        return np.zeros(count, dtype=np.int64)


class MockTrainer(DPTrainer):
    """Trains like the private trainer, clipping included, without noise.

    Args:
        plan: What to do.
        noise: Not drawn from.
        sampling: Source of the batches.

    Raises:
        PrivacyError: ``privacy.mock_refused`` where the machine doesn't allow it.
    """

    def __init__(self, plan: TrainingPlan, *, noise: RandomSource, sampling: RandomSource) -> None:
        require_mock_allowed()
        super().__init__(plan, noise=noise, sampling=sampling)
        self._draws = NoNoise()

    @property
    def noise_generator(self) -> str:
        """The mark of a mock, whatever the batches came from."""
        return MOCK
