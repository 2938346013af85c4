"""A repeatable source of randomness, for tests and for comparing runs. It protects nobody.

It is another class than the private path's source, not a setting of it, and its name goes into every
statement it
touches: a verifier refuses the receipt unless told to accept test randomness.
"""

from __future__ import annotations

from typing import ClassVar, Final

from cloister.privacy.errors import PrivacyError
from cloister.privacy.randomness import CounterStream, derive_key

SEEDED_GENERATOR: Final = "seeded-test"


class SeededTestRandom(CounterStream):
    """A stream that is equal for equal seed and labels.

    Args:
        seed: 0 or more, below 2**64.
        labels: What the stream is for, e.g. site, job and purpose.

    Raises:
        PrivacyError: ``privacy.randomness_invalid`` when the seed is out of range.
    """

    generator: ClassVar[str] = SEEDED_GENERATOR

    def __init__(self, seed: int, *labels: str) -> None:
        if not 0 <= seed < 2**64:
            raise PrivacyError("privacy.randomness_invalid", "A test seed must lie between 0 and 2**64 - 1.")
        super().__init__(derive_key(seed.to_bytes(8, "big"), ("seeded-test", *labels)))
