"""Figures about private records that may leave a site: noisy counts, each one paid for in the ledger.

Rules kept here:

1. A count leaves only with Gaussian noise, and only after its spend was reserved and accepted.
2. Losses are not released at all: they have no bound. An accuracy is a noisy count over the public record
   count.
3. The interval that comes with an accuracy includes the noise.

Source: Dwork and Roth 2014, section 3.5.3 (Gaussian mechanism): adding or removing one record changes a
count by at most 1, so its L2 sensitivity is 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cloister.core.hashes import Sha256
from cloister.evidence.transcript import Event, Gaussian
from cloister.privacy.budget import Limit
from cloister.privacy.errors import PrivacyError
from cloister.privacy.ledger import BudgetLedger, Purpose
from cloister.privacy.randomness import RandomSource

_NORMAL_95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class NoisyAccuracy:
    """An accuracy on private records, released with noise.

    Args:
        value: Noisy count over record count, clamped to [0, 1].
        low: Lower end of a 95 % interval for the accuracy in the population: sampling and noise.
        high: Upper end.
        event: What it cost.
        noise_generator: Name of the generator that made the noise.
    """

    value: float
    low: float
    high: float
    event: Event
    noise_generator: str


def release_count(
    count: int,
    *,
    noise_multiplier: float,
    source: RandomSource,
    ledger: BudgetLedger,
    dataset_sha256: Sha256,
    job_id: str,
    round_number: int,
    limits: Sequence[Limit],
) -> float:
    """Release how many records have a property, with noise, charged to the ledger.

    Args:
        count: The exact count, private.
        noise_multiplier: Standard deviation of the noise.
        source: Where the noise comes from.
        ledger: The dataset's ledger.
        dataset_sha256: Commitment to the records that are counted.
        job_id: The job that asks.
        round_number: Its round.
        limits: Ceilings of manifest and job.

    Returns:
        The count plus noise; it may be negative or not whole.

    Raises:
        BudgetExceeded: The spend would pass a limit; nothing is released.
        PrivacyError: ``privacy.data_invalid`` for a negative count.
    """
    if count < 0:
        raise PrivacyError("privacy.data_invalid", "A count can't be negative.")
    reservation = ledger.reserve(
        Gaussian(noise_multiplier, 1),
        dataset_sha256=dataset_sha256,
        job_id=job_id,
        round_number=round_number,
        purpose=Purpose.EVALUATION,
        limits=limits,
    )
    noisy = count + noise_multiplier * float(source.normal(1)[0])
    ledger.settle(reservation, 1)
    return noisy


def release_accuracy(
    correct: int,
    records: int,
    *,
    noise_multiplier: float,
    source: RandomSource,
    ledger: BudgetLedger,
    dataset_sha256: Sha256,
    job_id: str,
    round_number: int,
    limits: Sequence[Limit],
) -> NoisyAccuracy:
    """Release the accuracy on private records, charged to the ledger.

    Args:
        correct: Records classified rightly, private.
        records: Number of records, public.
        noise_multiplier: Standard deviation of the noise on the count.
        source: Where the noise comes from.
        ledger: The dataset's ledger.
        dataset_sha256: Commitment to the records that are counted.
        job_id: The job that asks.
        round_number: Its round.
        limits: Ceilings of manifest and job.

    Returns:
        The noisy accuracy with its interval.

    Raises:
        BudgetExceeded: The spend would pass a limit; nothing is released.
        PrivacyError: ``privacy.data_invalid`` when the counts are impossible.
    """
    if records < 1 or not 0 <= correct <= records:
        raise PrivacyError(
            "privacy.data_invalid", "Correct records must lie between 0 and the number of records."
        )
    noisy = release_count(
        correct,
        noise_multiplier=noise_multiplier,
        source=source,
        ledger=ledger,
        dataset_sha256=dataset_sha256,
        job_id=job_id,
        round_number=round_number,
        limits=limits,
    )
    value = min(1.0, max(0.0, noisy / records))
    # The released value is all that is known, so the variance is taken at its own worst neighbour.
    spread = math.sqrt(0.25 / records + (noise_multiplier / records) ** 2)
    return NoisyAccuracy(
        value=value,
        low=max(0.0, noisy / records - _NORMAL_95 * spread),
        high=min(1.0, noisy / records + _NORMAL_95 * spread),
        event=Gaussian(noise_multiplier, 1),
        noise_generator=source.generator,
    )
