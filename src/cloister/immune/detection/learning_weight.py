"""How much an unusual event may teach.

What is unusual may be an attack, and a detector that learns attacks stops seeing them. But if it learned no
unusual events, the tail of what is ordinary would shrink from look to look. So unusual events (p below .005)
teach in full while there are no more of them than there should be, and little beyond. Rules:

* Each event adds one and a half times the expected share of unusual ones to an allowance of two at most.
* An unusual event takes one from it and teaches in full; where it is used up, it teaches a tenth.
* What is as good as impossible (p below 1.7e-5) teaches a fifth of that: it tells next to nothing of the tail
  of what is ordinary, and would make a place there for the next attack of its kind.
* What a person said is normal teaches in full, unusual or not (`trust`).
* Where a quantity lies is followed with a tenth at least, so that levels find what was changed for good.
"""

from __future__ import annotations

from math import log
from typing import Final

UNUSUAL: Final = -log(0.005)
INCOME: Final = 1.5 * 0.005
MOST: Final = 2.0
LITTLE: Final = 0.1
IMPOSSIBLE: Final = 11.0
A_FIFTH: Final = 0.2


class LearningWeight:
    """An allowance of unusual events.

    Args:
        allowance: what was left of it at an event, 0 to 2.
        since: that event's number.
    """

    __slots__ = ("_trusted", "allowance", "since")

    def __init__(self, allowance: float = MOST, since: int = 0) -> None:
        self.allowance: float = allowance
        self.since: int = since
        self._trusted: int = 0

    def trust(self, event: int) -> None:
        """Let every event before this number teach in full."""
        self._trusted = event

    def of(self, event: int, surprise: float) -> float:
        """The weight with which an unusual event teaches: 1 or 0.1, or a fifth of either.

        Args:
            event: its number among all that taught, not smaller than the one before.
            surprise: -ln of its probability.
        """
        if event < self._trusted:
            return 1.0
        left = min(self.allowance + INCOME * (event - self.since), MOST)
        self.since = event
        self.allowance = left if left < 1.0 else left - 1.0
        weight = LITTLE if left < 1.0 else 1.0
        return A_FIFTH * weight if surprise > IMPOSSIBLE else weight
