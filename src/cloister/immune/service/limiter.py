"""How many events a service takes: a token bucket for all of them, and two for each function.

Rules this module keeps:

1. In any time of T seconds no more than ``burst + T x rate`` events pass, and of one function no more than
   ``function_rate x (1 + T)``.
2. One hot function doesn't starve the others. What a function sends beyond a quarter of the whole rate is
   surplus, and surplus never touches the last half of the common bucket. (Committed and excess traffic, as
   RFC 2697 meters them.)
3. The memory is bounded whatever names come: a function's buckets are forgotten only once they are full
   again, which changes nothing; names beyond the bound share one pair.
4. Time is given. A clock that goes back adds nothing and takes nothing, and time goes on from there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

MAX_FUNCTIONS: Final = 10_000
_FAIR_PART: Final = 0.25
_RESERVED_PART: Final = 0.5
_CRUMB: Final = 1e-9


@dataclass(slots=True)
class TokenBucket:
    """A bucket that fills at a rate up to its size; each event takes one token out of it.

    Attributes:
        rate: tokens per second.
        size: tokens that it holds, which it holds at first.
        filled_at: the last time that was looked at, seconds.
    """

    rate: float
    size: float
    filled_at: float
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.size

    def fill(self, now: float) -> float:
        """What is in it at this time."""
        self.tokens = min(self.size, self.tokens + max(0.0, now - self.filled_at) * self.rate)
        self.filled_at = now
        return self.tokens

    def seconds_until(self, tokens: float) -> float:
        """How long until so much is in it, as of the last look; no more than it holds is waited for."""
        return max(0.0, (min(tokens, self.size) - self.tokens) / self.rate)

    def is_full(self) -> bool:
        """Whether nothing more fits, as of the last look."""
        return self.tokens >= self.size


@dataclass(slots=True)
class _Shares:
    """A function's buckets: the most it may ever send, and what it may send before it's called hot."""

    most: TokenBucket
    fair: TokenBucket


class EventLimiter:
    """Decides which events of a batch are taken. Not safe for threads: the service asks from one.

    Args:
        rate: events per second over time, of all functions.
        burst: events at once, of all functions.
        function_rate: events per second, and at once, of one function.
        clock: monotonic seconds.
        max_functions: names that have buckets of their own.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        function_rate: float,
        clock: Callable[[], float],
        *,
        max_functions: int = MAX_FUNCTIONS,
    ) -> None:
        self._clock, self._function_rate, self._max_functions = clock, function_rate, max_functions
        now = clock()
        self._all = TokenBucket(rate, float(burst), now)
        self._functions: OrderedDict[str, _Shares] = OrderedDict()
        self._others = self._new_shares(now)

    def admit(self, functions: Sequence[str]) -> list[bool]:
        """Take what may be taken.

        Args:
            functions: the function of each event, in order.

        Returns:
            For each event whether it is taken.
        """
        now = self._clock()
        self._all.fill(now)
        return [self._admit_one(function, now) for function in functions]

    def retry_after(self, events: int = 1) -> float:
        """Seconds until so many events fit into the common bucket; 0 where they fit now."""
        self._all.fill(self._clock())
        wait = self._all.seconds_until(float(events))
        return wait if wait > _CRUMB else 0.0

    def _admit_one(self, function: str, now: float) -> bool:
        shares = self._shares_of(function, now)
        most, fair = shares.most.fill(now), shares.fair.fill(now)
        kept_back = 0.0 if fair >= 1.0 - _CRUMB else self._all.size * _RESERVED_PART
        if most < 1.0 - _CRUMB or self._all.tokens - kept_back < 1.0 - _CRUMB:
            return False
        self._all.tokens -= 1.0
        shares.most.tokens -= 1.0
        shares.fair.tokens = max(0.0, fair - 1.0)
        return True

    def _shares_of(self, function: str, now: float) -> _Shares:
        found = self._functions.get(function)
        if found is not None:
            self._functions.move_to_end(function)
            return found
        if len(self._functions) >= self._max_functions:
            oldest = next(iter(self._functions.values()))
            oldest.most.fill(now)
            oldest.fair.fill(now)
            if not (oldest.most.is_full() and oldest.fair.is_full()):
                return self._others
            self._functions.popitem(last=False)
        made = self._functions[function] = self._new_shares(now)
        return made

    def _new_shares(self, now: float) -> _Shares:
        return _Shares(
            TokenBucket(self._function_rate, max(1.0, self._function_rate), now),
            TokenBucket(self._all.rate * _FAIR_PART, max(1.0, self._all.size * _FAIR_PART), now),
        )
