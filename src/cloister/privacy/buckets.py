"""A figure without bounds, such as a training loss, as one of a few public values, by randomised response.

Rounding a figure to a bucket hides nothing by itself: a record at the edge of two tells them apart. Here the
bucket that is told is the true one with a chance that the records don't decide, else another one, all alike.

Rules kept here:

1. The buckets are declared; they never come from the records. What lies outside of them, infinite or not a
   number too, belongs to the nearest, or to the highest.
2. With ``k`` buckets the true one is told with a chance of at most ``e / (e + k - 1)`` where ``e`` is
   ``exp(epsilon)``, each other one with an equal share of the rest: no two datasets whatsoever make a told
   bucket more than ``e`` times as likely in one as in the other. This needs no sensitivity, and holds for
   records and subjects alike.
3. The chance is rounded down and compared with 64 random bits; the bucket is drawn without bias.
4. It leaves only after its spend was reserved, settled and stated.

Sources: Warner 1965; Dwork and Roth 2014, section 3.2; Kairouz, Bonawitz, Ramage 2016 (k-ary form).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from cloister.evidence.transcript import Pure
from cloister.privacy.account import Account
from cloister.privacy.errors import PrivacyError
from cloister.privacy.ledger import Purpose
from cloister.privacy.randomness import RandomSource

MOST_STEPS: Final = 1024

_WORD: Final = 2**64
_DOWN: Final = 1 - 2.0**-40


@dataclass(frozen=True, slots=True)
class Buckets:
    """Equally spaced values, of which one is told.

    Args:
        low: The lowest, finite.
        high: The highest, finite and above it.
        steps: How many steps lie between them, 1 to ``MOST_STEPS``: there is one value more.

    Raises:
        PrivacyError: ``privacy.data_invalid``.
    """

    low: float
    high: float
    steps: int

    def __post_init__(self) -> None:
        if not (
            math.isfinite(self.high - self.low) and self.low < self.high and 1 <= self.steps <= MOST_STEPS
        ):
            raise PrivacyError(
                "privacy.data_invalid", f"Buckets need a finite range and 1 to {MOST_STEPS} steps."
            )

    def value(self, number: int) -> float:
        """The value with this number, from 0."""
        return self.low + (self.high - self.low) * (number / self.steps)

    def nearest(self, figure: float) -> int:
        """The number of the value that is nearest to a figure."""
        if math.isnan(figure):
            return self.steps
        share = (min(max(figure, self.low), self.high) - self.low) / (self.high - self.low)
        return round(share * self.steps)


@dataclass(frozen=True, slots=True)
class BucketRelease:
    """A bucket that was told and paid for.

    Args:
        value: The value told.
        chance_true: How likely it is the one nearest to the true figure.
        event: What it cost.
        noise_generator: Name of the generator that chose.
    """

    value: float
    chance_true: float
    event: Pure
    noise_generator: str

    @property
    def kind(self) -> str:
        """What was released."""
        return "bucket"


def release_bucket(
    figure: float, buckets: Buckets, *, epsilon: float, source: RandomSource, account: Account
) -> BucketRelease:
    """Tell a bucket for one figure.

    Args:
        figure: The exact figure, private.
        buckets: The declared values.
        epsilon: What telling it costs, from 1e-6 to 100.
        source: Where the choice comes from; used by nothing else.
        account: Who pays.

    Raises:
        BudgetExceeded: The spend would pass a limit; nothing is released.
        InputError: ``input.schema`` for an impossible epsilon.
    """
    event = Pure(epsilon, 1)
    # With e = exp(epsilon): e / (e + k - 1), written so that it can't overflow.
    chance = 1 / (1 + buckets.steps * math.exp(-event.epsilon)) * _DOWN

    def choose() -> int:
        true = buckets.nearest(figure)
        if int(source.words(1)[0]) < int(chance * _WORD):
            return true
        other = _below(buckets.steps, source)
        return other + (other >= true)

    told = account.pay(
        event, Purpose.EVALUATION, choose, unit=account.ledger.unit, noise_generator=source.generator
    )
    return BucketRelease(buckets.value(told), chance, event, source.generator)


def _below(bound: int, source: RandomSource) -> int:
    while (word := int(source.words(1)[0])) >= _WORD - _WORD % bound:
        pass
    return word % bound
