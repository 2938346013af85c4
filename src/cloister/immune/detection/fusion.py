"""Signals of several kinds in one number, for people who look at a function as a whole.

Timing weighs 0.3, input and output 0.3, network 0.2, system calls 0.2; where a signal is missing, the others
weigh in proportion. An average hides what one signal shows (`docs/adr/0021-scores-by-tail-probability.md`),
so decisions follow from the rarest feature, unless a person selects the average (`fusion_detector`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cloister.immune.observation import Score

TIMING: Final = 0.3
IO: Final = 0.3
NETWORK: Final = 0.2
SYSCALLS: Final = 0.2

_KIND_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        "read": "io",
        "write": "io",
        "connect": "network",
        "resolve": "network",
        "listen": "network",
        "run": "syscalls",
        "signal": "syscalls",
        "load": "syscalls",
    }
)


@dataclass(frozen=True, slots=True)
class Signals:
    """Scores from 0 to 100 by kind; None where nothing is known of it.

    Attributes:
        timing: of the call itself.
        io: of the files that it read and wrote.
        network: of where it connected to, what it looked up and where it listened.
        syscalls: of the programs that it started and the libraries that it loaded.
    """

    timing: float | None = None
    io: float | None = None
    network: float | None = None
    syscalls: float | None = None

    def fused(self) -> float:
        """Their weighted average, 0 to 100; 0 where nothing is known."""
        weighted = weights = 0.0
        for weight, value in (
            (TIMING, self.timing),
            (IO, self.io),
            (NETWORK, self.network),
            (SYSCALLS, self.syscalls),
        ):
            if value is not None:
                weighted += weight * value
                weights += weight
        return weighted / weights if weights else 0.0


def signals_of(call: Score | None, reached: list[tuple[str, Score]]) -> Signals:
    """The signals of one call.

    Args:
        call: the score of the call itself.
        reached: operations inside it, in the words of `cloister.immune.acting.reach.Operation`, each with its
            score; the highest of each kind counts. Others are left out.
    """
    highest: dict[str, float] = {}
    for operation, score in reached:
        kind = _KIND_OF.get(operation)
        if kind is not None:
            highest[kind] = max(highest.get(kind, 0.0), score.value)
    return Signals(
        None if call is None else call.value,
        highest.get("io"),
        highest.get("network"),
        highest.get("syscalls"),
    )
