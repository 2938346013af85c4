"""What a wrapper and the compiled shortcut through it share: counts, and what needs no judgement."""

from __future__ import annotations

from types import CodeType
from typing import Any, Final, Protocol

SHORT_LOOK: Final = 5e-8
"""Seconds that the shortcut takes to compare a call."""
MOST_CALLERS: Final = 12
"""Callers that it tells apart; each may be several codes of one name."""


class Counter(Protocol):
    """What a wrapper counts with: a cell of its closure, or a whole number of the compiled core."""

    cell_contents: Any


class Entry(Protocol):
    """What the compiled shortcut compares calls with.

    Attributes:
        most: the largest usual size; below zero nothing is compared.
        allowance: calls beyond the bounds that are still to be judged; below zero each is.
        anyone: whether only sizes are compared.
    """

    most: int
    allowance: int
    anyone: bool

    def know(self, code: CodeType, /) -> None:
        """Take note of the code of a known caller, whose call was a usual one."""
        ...

    def forget(self) -> None:
        """Compare nothing, and know nobody."""
        ...
