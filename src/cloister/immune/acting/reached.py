"""What a function is known to reach for: learned, approved, and what to do about a target that is neither.

Rules this module keeps:

1. A target is learned only while the function learns. Afterwards a new one stays new however often it is
   tried; an operator approves it.
2. An operation with more than `MOST` targets of a function isn't guarded there: it reaches for too many for a
   first one to say anything. This is told once, and kept.
3. What is remembered is bounded.

An approval is one target, a folder with all below it (``/srv/reports/``), or a network (``10.0.0.0/8``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypedDict

from cloister.immune.acting.reach import Operation, Reach
from cloister.immune.errors import ImmuneError

MOST: Final = 4096
"""Targets of one operation of one function that are learned."""
_REMEMBERED: Final = 4096


class GuardMode(StrEnum):
    """What is done about a target that isn't known."""

    LEARN = "learn"
    OBSERVE = "observe"
    ENFORCE = "enforce"


class ReachedState(TypedDict):
    """One function's targets as plain JSON: by operation."""

    settled: bool
    learned: dict[str, list[str]]
    approved: dict[str, list[str]]
    unguarded: list[str]


class Reached:
    """One function's targets; safe in threads, since each step is one operation of a set.

    Attributes:
        mode: what is done about a new target.
        learned: targets that it reached for while it learned; looked up for every operation.
    """

    __slots__ = ("_approved", "_counts", "_news", "_unguarded", "learned", "mode")

    def __init__(self) -> None:
        self.mode = GuardMode.LEARN
        self.learned: set[Reach] = set()
        self._counts: dict[Operation, int] = {}
        self._approved: set[Reach] = set()
        self._unguarded: set[Operation] = set()
        self._news: dict[Reach, int] = {}

    def learn(self, reach: Reach) -> bool:
        """Take a target as known.

        Returns:
            Whether the operation has just become one with too many targets.
        """
        operation = reach[0]
        if operation in self._unguarded:
            return False
        known = self._counts.get(operation, 0)
        if known < MOST:
            self._counts[operation] = known + 1
            self.learned.add(reach)
            return False
        self._unguarded.add(operation)
        self.learned -= {one for one in self.learned.copy() if one[0] is operation}
        return True

    def approve(self, operation: Operation, target: str) -> None:
        """Let an operator's word make a target known; see the module for its forms."""
        self._approved.add((operation, target))

    def knows(self, reach: Reach) -> bool:
        """Whether a target that wasn't learned is one that nothing is done about."""
        operation, target = reach
        if operation in self._unguarded or reach in self._approved:
            return True
        return any(_covers(wide, target) for which, wide in self._approved.copy() if which is operation)

    def new(self, reach: Reach) -> int:
        """Count an attempt at a new target.

        Returns:
            How often it was tried, this time included; targets beyond what is remembered count as one.
        """
        operation = reach[0]
        key = reach if reach in self._news or len(self._news) < _REMEMBERED else (operation, "")
        times = self._news.get(key, 0) + 1
        self._news[key] = times
        return times

    def news(self) -> tuple[tuple[Reach, int], ...]:
        """New targets that were tried and aren't approved, and how often, the most often tried first."""
        tried = [(reach, times) for reach, times in self._news.copy().items() if not self.knows(reach)]
        return tuple(sorted((one for one in tried if one[0][1]), key=lambda one: -one[1]))

    @property
    def unguarded(self) -> frozenset[Operation]:
        """Operations with too many targets."""
        return frozenset(self._unguarded)

    def state(self) -> ReachedState:
        """What is to be kept: targets by name, for this machine's own files only."""
        return {
            "settled": self.mode is not GuardMode.LEARN,
            "learned": _by_operation(self.learned.copy()),
            "approved": _by_operation(self._approved.copy()),
            "unguarded": sorted(self._unguarded),
        }

    @classmethod
    def restored(cls, state: object) -> Reached:
        """Read what `state` wrote; a settled function observes until it is told to enforce.

        Raises:
            ImmuneError: ``immune.state_damaged``.
        """
        if not isinstance(state, Mapping) or set(state) != ReachedState.__required_keys__:
            raise damaged()
        settled, unguarded = state["settled"], state["unguarded"]
        if not isinstance(settled, bool) or not isinstance(unguarded, list):
            raise damaged()
        one = cls()
        one.mode = GuardMode.OBSERVE if settled else GuardMode.LEARN
        one._unguarded = {_operation(name) for name in unguarded}
        for reach in _reaches(state["learned"]):
            one.learn(reach)
        one._approved = set(_reaches(state["approved"]))
        return one


def damaged() -> ImmuneError:
    """The error for kept targets that aren't in their form."""
    return ImmuneError(
        "immune.state_damaged",
        "What functions reach for was kept in a form that it never has.",
        "Remove it; the functions learn anew what they reach for.",
    )


def _by_operation(reaches: set[Reach]) -> dict[str, list[str]]:
    operations = sorted({operation for operation, _ in reaches})
    return {str(one): sorted(target for which, target in reaches if which is one) for one in operations}


def _reaches(kept: object) -> list[Reach]:
    if not isinstance(kept, Mapping):
        raise damaged()
    found: list[Reach] = []
    for name, targets in kept.items():
        operation = _operation(name)
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            raise damaged()
        found += [(operation, target) for target in targets]
    return found


def _operation(name: object) -> Operation:
    try:
        return Operation(name)  # type: ignore[arg-type]
    except ValueError:
        raise damaged() from None


def _covers(wide: str, target: str) -> bool:
    if wide.endswith("/"):
        return target == wide[:-1] or target.startswith(wide)
    if "/" not in wide:
        return False
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(target) in ip_network(wide, strict=False)
    except ValueError:
        return False
