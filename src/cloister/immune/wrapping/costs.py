"""What observing one function costs, and how long the function takes itself, as estimates in seconds.

Pure: what was measured is given. What a thread waits for the processor or the interpreter's lock is in how
long something took, and only adds: an estimate follows what is less soon, and what is more slowly.
"""

from __future__ import annotations

from typing import Final

# What an observation costs beyond its own readings of the clock: the way there and back, and the caches that
# the application finds empty afterwards. Fitted to functions of 20 and 100 us in turns with themselves
# unwatched, when 11 us lay between the readings and when 27 did.
UNSEEN: Final = 6e-6
_AFTERMATH: Final = 2.0

_PASSING: Final = 5e-8
"""What counting a call down that passes straight takes."""
_LOOK: Final = 1.2e-6
"""What a look at a call takes, while it isn't known."""
_LOOK_UNSEEN: Final = 3e-7
_MEMORY: Final = 64
_CLIP: Final = 8.0
_LEAST_LEFT: Final = 0.5


class Costs:
    """Of one function.

    Attributes:
        observation: of one call; 0 while it isn't known.
        look: at one call that then passes.
        duration: mean of the calls that chance chose; 0 while it isn't known.
        shortest: of these, what a call takes that waits for nothing; 0 while it isn't known.
    """

    __slots__ = (
        "_beyond",
        "_spaced_at",
        "_spaced_calls",
        "_spacing",
        "_taught",
        "duration",
        "look",
        "observation",
        "shortest",
    )

    def __init__(self) -> None:
        self.observation = self.duration = self.shortest = 0.0
        self.look = _LOOK
        self._beyond = 0.0
        self._spacing = self._spaced_at = 0.0
        self._spaced_calls = self._taught = 0

    def looked(self, seconds: float) -> None:
        """Take note of a look at a call.

        Args:
            seconds: from the reading of the clock, which is half of the way to where it is known to pass.
        """
        self.look = _downwards(self.look, _AFTERMATH * seconds + _LOOK_UNSEEN)

    def unlooked(self) -> None:
        """Take note that no look is being measured: what was known of it is less and less so.

        Where one that waited made looks too dear to be taken, nothing else would ever tell that they aren't.
        """
        if self.look > _LOOK:
            self.look += (_LOOK - self.look) / _MEMORY

    def observed(self, seconds: float) -> None:
        """Take note of an observation.

        Args:
            seconds: between its readings of the clock, without the call itself.
        """
        cost = _AFTERMATH * seconds + UNSEEN
        self.observation = _downwards(self.observation, cost) if self.observation else cost

    def beside_passing(self, budget: float, *, looking: bool) -> float:
        """What an observation costs where what each call costs is paid from the same budget.

        Args:
            budget: share of a function's own time.
            looking: whether calls that pass are looked at.

        Returns:
            Seconds: more, the less of the budget is left, of which half is for observing in any case.
        """
        each = _PASSING + self.look if looking else _PASSING
        paid = self.shortest * budget
        left = 1.0 - each / paid if paid else 1.0
        beyond = self._beyond if looking else 0.0
        return self.observation * (1.0 + beyond) / max(left, _LEAST_LEFT)

    def beyond(self, share: float) -> None:
        """Take note of calls that were judged because they were beyond what is usual.

        Args:
            share: of those that chance chose, as many again.
        """
        self._beyond += (min(max(share, 0.0), 1.0) - self._beyond) / 4

    def took(self, duration: float) -> None:
        """Take note of how long a call that chance chose took, seconds."""
        self._taught += 1
        self.duration += (duration - self.duration) / min(self._taught, _MEMORY)
        self.shortest = _downwards(self.shortest, duration) if self.shortest else duration

    def space(self, calls: int, now: float) -> float:
        """Mean seconds from one call to the next, of late.

        Args:
            calls: so far.
            now: monotonic time, seconds.
        """
        passed, count = now - self._spaced_at, calls - self._spaced_calls
        if self._spaced_calls and passed > 0 and count > 0:
            mean = passed / count
            self._spacing += (mean - self._spacing) / 4 if self._spacing else mean
        self._spaced_at, self._spaced_calls = now, calls
        return self._spacing


def _downwards(known: float, found: float) -> float:
    """An estimate of what something takes, from how long it took."""
    if found < known:
        return known + (found - known) / 4
    return min(known + (found - known) / _MEMORY, known * _CLIP)
