"""What went wrong inside the instrumentation: counted, never raised."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

_MOST_KINDS: Final = 100


class Faults:
    """Counts faults by step and kind of exception; keeps no message, for a message may quote a value."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, str], int] = {}
        self._count = 0

    @property
    def count(self) -> int:
        """How many there were."""
        return self._count

    @property
    def by_kind(self) -> MappingProxyType[tuple[str, str], int]:
        """How many of each, by step and name of the exception's type."""
        return MappingProxyType(dict(self._by_kind))

    def note(self, step: str, fault: BaseException) -> None:
        """Count one.

        Args:
            step: what was being done.
            fault: what was raised; only its type's name is kept.
        """
        self._count += 1
        kind = (step, type(fault).__name__)
        if kind not in self._by_kind and len(self._by_kind) >= _MOST_KINDS:
            kind = (step, "other")
        self._by_kind[kind] = self._by_kind.get(kind, 0) + 1

    def forget(self) -> None:
        """Start from nothing."""
        self._by_kind.clear()
        self._count = 0


FAULTS: Final = Faults()
"""Those of this process."""


def counted(name: str, step: Callable[[], object]) -> None:
    """Take a step, and count what is raised in it.

    Args:
        name: of the step.
        step: what is done.
    """
    try:
        step()
    except Exception as fault:
        FAULTS.note(name, fault)
