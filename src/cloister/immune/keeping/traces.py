"""The newest observed calls of each function: what a candidate is tried on.

Rules kept here:

1. Of a function the newest 1,000 are kept; the next one takes the oldest one's place. They are read newest
   first, and are equal to what was given.
2. Memory is bounded: columns of numbers in place of objects, 21 bytes a call and 35 where its numbers are the
   largest; so many functions and so many names of callers. The function that was fed least recently makes
   room for a new one.
3. An observed call has sizes, times, counts and names of code, and no argument.
4. Whether a call was ordinary is said by who adds it, from the state its function was in, not from its score.
5. A suspicion, however long, pushes out at most half of the ordinary calls, and never the newest hundred,
   which a candidate is tried on: where all places are taken, so many of its calls are kept at once, and those
   beyond are only counted.
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cloister.immune.keeping.column import LARGEST, new_column, with_room
from cloister.immune.keeping.locks import ForkSafe
from cloister.immune.keeping.validation import EVENTS
from cloister.immune.observation import Entered, Observed

PER_FUNCTION: Final = 1000
MAX_FUNCTIONS: Final = 10_000
MAX_CALLERS: Final = 65_535
LONGEST_CALLER: Final = 300
_MOST: Final = 2**32 - 1
_TEACHES, _FAILED, _ORDINARY = 1, 2, 4
_WITH_ORDINARY: Final = bytes(flags for flags in range(8) if flags & _ORDINARY)


@dataclass(frozen=True, slots=True)
class Kept:
    """An observed call that is kept.

    Attributes:
        observed: the call.
        ordinary: whether its function was in no suspicion then.
    """

    observed: Observed
    ordinary: bool


class TraceStore(ForkSafe):
    """The newest observed calls of all functions; safe for threads.

    Args:
        per_function: calls that are kept of each.
        max_functions: functions that are kept.
    """

    def __init__(self, per_function: int = PER_FUNCTION, max_functions: int = MAX_FUNCTIONS) -> None:
        super().__init__()
        self.per_function, self._max_functions = per_function, max_functions
        self._rings: OrderedDict[str, _Ring] = OrderedDict()
        self._callers = _Names()

    def add(self, function: str, observed: Observed, *, ordinary: bool) -> int:
        """Keep a call.

        Args:
            function: ``module:qualname``.
            observed: the call.
            ordinary: whether its function was in no suspicion.

        Returns:
            How many of this function were ever added, those included that aren't kept.
        """
        with self._lock:
            ring = self._rings.get(function)
            if ring is None:
                while len(self._rings) >= self._max_functions:
                    self._rings.popitem(last=False)
                ring = self._rings[function] = _Ring(self.per_function, observed.entered.at)
            self._rings.move_to_end(function)
            caller = self._callers.number(observed.entered.caller)
            ring.add(observed, caller, ordinary=ordinary)
            return ring.added + ring.left_out

    def newest(self, function: str, count: int = PER_FUNCTION) -> tuple[Observed, ...]:
        """A function's newest calls, newest first, at most so many."""
        return tuple(one.observed for one in self.kept(function, count))

    def ordinary(self, function: str, count: int, before: float = math.inf) -> tuple[Observed, ...]:
        """A function's newest ordinary calls, newest first.

        Args:
            function: ``module:qualname``.
            count: at most so many.
            before: only those that began before this, monotonic seconds: for a candidate, its first call.
        """
        with self._lock:
            ring = self._rings.get(function)
            if ring is None:
                return ()
            found = (ring.kept(place, self._callers).observed for place in ring.ordinary(before))
            return tuple(islice(found, count))

    def usual(self, function: str) -> tuple[int, frozenset[str]]:
        """The largest size and the callers among a function's ordinary calls that are kept."""
        with self._lock:
            ring = self._rings.get(function)
            return (0, frozenset()) if ring is None else ring.usual(self._callers)

    def kept(self, function: str, count: int) -> tuple[Kept, ...]:
        """A function's newest calls with what is known beside them, newest first, at most so many."""
        with self._lock:
            ring = self._rings.get(function)
            if ring is None:
                return ()
            return tuple(ring.kept(place, self._callers) for place in islice(ring.places(), max(count, 0)))

    def durations(self, function: str, since: float) -> list[float]:
        """Seconds of a function's ordinary calls that began since a time, monotonic seconds; in no order."""
        with self._lock:
            ring = self._rings.get(function)
            return [] if ring is None else ring.durations(since)

    def added(self, function: str) -> tuple[int, float]:
        """How many calls of a function were ever kept, and when the first began, monotonic seconds."""
        with self._lock:
            ring = self._rings.get(function)
            return (0, 0.0) if ring is None else (ring.added, ring.first_at)

    def functions(self) -> tuple[str, ...]:
        """All functions that calls are kept of."""
        with self._lock:
            return tuple(self._rings)

    def forget(self, before: float) -> None:
        """Remove the calls that began before a time, monotonic seconds."""
        with self._lock:
            for function, ring in list(self._rings.items()):
                if not ring.forget(before):
                    del self._rings[function]


class _Names:
    """Names of callers, each once; beyond the bound they are left out."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}
        self._names = [""]

    def number(self, name: str) -> int:
        known = self._numbers.get(name)
        if known is not None:
            return known
        short = name[:LONGEST_CALLER]
        if short != name:
            return self.number(short)
        if len(self._names) > MAX_CALLERS:
            return 0
        self._names.append(name)
        return self._numbers.setdefault(name, len(self._names) - 1)

    def name(self, number: int) -> str:
        return self._names[number]


class _Ring:
    """The calls of one function, in columns that grow to their bound and are then written over."""

    __slots__ = (
        "_at",
        "_bound",
        "_callers",
        "_calls",
        "_durations",
        "_errors",
        "_flags",
        "_length",
        "_most_others",
        "_others",
        "_sizes",
        "_start",
        "added",
        "first_at",
        "left_out",
    )

    def __init__(self, bound: int, first_at: float) -> None:
        self._bound, self.first_at = bound, first_at
        self._start = self._length = self.added = 0
        # Of the calls that are kept, those that aren't ordinary; of all that came, those that aren't kept.
        self._others = self.left_out = 0
        self._most_others = max(0, min(bound // 2, bound - EVENTS))
        self._at, self._durations = array("d"), array("d")
        self._sizes, self._callers, self._flags = new_column(), new_column(), new_column()
        self._calls, self._errors = new_column(), new_column()

    def add(self, observed: Observed, caller: int, *, ordinary: bool) -> None:
        others = self._others_with(ordinary=ordinary) if self._others or not ordinary else 0
        if others is None:
            self.left_out += 1
            return
        self._keep(observed, caller, ordinary=ordinary)
        self._others = others

    def _keep(self, observed: Observed, caller: int, *, ordinary: bool) -> None:
        entered = observed.entered
        flags = _TEACHES * entered.teaches | _FAILED * observed.failed | _ORDINARY * ordinary
        place = (self._start + self._length) % self._bound
        if place == len(self._at):
            # The column that is asked for the length comes last: a fork in between leaves the others longer.
            for counts in (self._sizes, self._callers, self._calls, self._errors, self._flags):
                counts.append(0)
            self._durations.append(0.0)
            self._at.append(0.0)
        size, calls, errors = entered.size, entered.calls, entered.errors
        size = size if 0 <= size <= LARGEST else _cut(size, LARGEST)
        calls = calls if 0 <= calls <= _MOST else _cut(calls, _MOST)
        errors = errors if 0 <= errors <= _MOST else _cut(errors, _MOST)
        self._at[place], self._durations[place], self._flags[place] = entered.at, observed.duration, flags
        try:
            self._sizes[place], self._callers[place] = size, caller
            self._calls[place], self._errors[place] = calls, errors
        except OverflowError:
            # Nothing counts yet: it is written anew.
            self._sizes, self._callers = with_room(self._sizes, size), with_room(self._callers, caller)
            self._calls, self._errors = with_room(self._calls, calls), with_room(self._errors, errors)
            self._keep(observed, caller, ordinary=ordinary)
            return
        if self._length == self._bound:
            self._start = (self._start + 1) % self._bound
        else:
            self._length += 1
        self.added += 1

    def _others_with(self, *, ordinary: bool) -> int | None:
        """How many calls aren't ordinary once this one is in its place; none where it isn't kept."""
        full = self._length == self._bound
        others = self._others - (full and self._is_other(self._start))
        if full and not ordinary and others >= self._most_others:
            return None
        return others + (not ordinary)

    def _is_other(self, place: int) -> bool:
        return not self._flags[place] & _ORDINARY

    def places(self) -> Iterator[int]:
        """Where the calls are, newest first."""
        for back in range(self._length - 1, -1, -1):
            yield (self._start + back) % self._bound

    def ordinary(self, before: float) -> Iterator[int]:
        """Where the ordinary calls that began before a time are, newest first."""
        at, flags = self._at, self._flags
        return (place for place in self.places() if flags[place] & _ORDINARY and at[place] < before)

    def kept(self, place: int, callers: _Names) -> Kept:
        flags = self._flags[place]
        entered = Entered(
            self._at[place],
            self._sizes[place],
            callers.name(self._callers[place]),
            self._calls[place],
            self._errors[place],
            bool(flags & _TEACHES),
        )
        observed = Observed(entered, self._durations[place], bool(flags & _FAILED))
        return Kept(observed, bool(flags & _ORDINARY))

    def usual(self, callers: _Names) -> tuple[int, frozenset[str]]:
        # Over the columns: objects of a thousand calls would take milliseconds, on the way of a call.
        length = len(self._at)
        if self._length == length and not bytes(self._flags).translate(None, _WITH_ORDINARY):
            return max(self._sizes, default=0), frozenset(callers.name(one) for one in set(self._callers))
        kept = ((self._flags[one], self._sizes[one], self._callers[one]) for one in self.places())
        found = [(size, caller) for flag, size, caller in kept if flag & _ORDINARY]
        largest = max((size for size, _ in found), default=0)
        return largest, frozenset(callers.name(number) for number in {caller for _, caller in found})

    def durations(self, since: float) -> list[float]:
        at, flags, durations = self._at, self._flags, self._durations
        if self._length == len(at):
            return [
                duration
                for duration, flag, began in zip(durations, flags, at, strict=False)
                if flag & _ORDINARY and began >= since
            ]
        return [durations[one] for one in self.places() if flags[one] & _ORDINARY and at[one] >= since]

    def forget(self, before: float) -> bool:
        """Remove the oldest calls; whether any is left."""
        while self._length and self._at[self._start] < before:
            self._others -= self._is_other(self._start)
            self._start = (self._start + 1) % self._bound
            self._length -= 1
        return self._length > 0


def _cut(value: int, most: int) -> int:
    return most if value > most else 0
