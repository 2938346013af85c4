"""What a verifying party asks of a receipt beyond that it is true: randomness, witnesses, a timestamp."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

MAX_WITNESSES: Final = 64
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far two parties' clocks may be apart."""


class TestRandomness(Enum):
    """Whether noise from a seeded test generator is accepted. It protects nobody: tests only."""

    __test__ = False

    REFUSE = "refuse"
    ACCEPT = "accept"


class TimestampRule(Enum):
    """Whether a receipt needs a time-stamping authority's word on when it was there.

    Where it does, the word has to have been given soon after the date of the receipt: a late one leaves open
    that the receipt was made just before it, and dated back.
    """

    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class VerificationPolicy:
    """What a verifying party asks for. A receipt that has more than that is held to it all the same.

    Attributes:
        test_randomness: whether noise from a seeded test generator will do.
        witnesses: how many of the pinned witnesses must have cosigned each log's head.
        timestamp: whether a timestamp must be there; one that is there must hold either way.
        timestamp_within: where one must be there, how long after the receipt's date it may have been given.

    Raises:
        ValueError: if the number of witnesses, or the time, makes no sense.
    """

    test_randomness: TestRandomness = TestRandomness.REFUSE
    witnesses: int = 0
    timestamp: TimestampRule = TimestampRule.OPTIONAL
    timestamp_within: timedelta = timedelta(days=1)

    def __post_init__(self) -> None:
        if not 0 <= self.witnesses <= MAX_WITNESSES:
            raise ValueError(f"the number of witnesses is not from 0 to {MAX_WITNESSES}")
        if self.timestamp_within < CLOCK_TOLERANCE:
            raise ValueError("a timestamp is given some minutes after a receipt's date at the earliest")
