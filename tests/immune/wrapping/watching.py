"""A watcher that keeps what it is told, and functions that other processes import."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloister.immune.observation import Action, Decision, Entered, Observed
from cloister.immune.wrapping import Gate, Mode, Recorder, Sampling, Watch, monitor, use

EVERY = Sampling(Mode.EVERY_CALL)
TENTH = Sampling(Mode.FIXED, rate=0.1, cpu_threshold=1000.0)
"""Whatever observing costs: a slow or traced machine would choose fewer."""


class Keeping:
    """A sensor that keeps what it is told, and blocks while `blocks` says so."""

    def __init__(self) -> None:
        self.entered: list[Entered] = []
        self.left: list[Observed] = []
        self.blocks = False
        self.on_enter: Callable[[], object] = lambda: None
        self.on_leave: Callable[[], object] = lambda: None

    def enter(self, entered: Entered) -> Decision | None:
        self.entered.append(entered)
        self.on_enter()
        return Decision(Action.BLOCK, "size 9.0x median, p=1e-06", 97.0, "event-1") if self.blocks else None

    def leave(self, observed: Observed) -> None:
        self.left.append(observed)
        self.on_leave()


class KeepingWatcher:
    """Gives every function a `Keeping`."""

    def __init__(self) -> None:
        self.sensors: dict[str, Keeping] = {}
        self.gates: dict[str, Gate] = {}

    def watch(self, function_name: str, gate: Gate) -> Keeping:
        self.gates[function_name] = gate
        return self.sensors.setdefault(function_name, Keeping())

    def sensor(self, name: str) -> Keeping:
        """That of the function of this name that was wrapped last."""
        return self.sensors[self._last(name)]

    def gate(self, name: str) -> Gate:
        """That of the function of this name that was wrapped last."""
        return self.gates[self._last(name)]

    def _last(self, name: str) -> str:
        return [known for known in self.gates if re.split("[:.]", known)[-1] == name][-1]


@contextmanager
def watching(sampling: Sampling = EVERY, recorder: Recorder | None = None) -> Iterator[KeepingWatcher]:
    """Watch everything that is wrapped, with chance from a seed."""
    watcher = KeepingWatcher()
    chance = lambda name: random.Random(name).random  # noqa: E731
    # Of a machine that has nothing else to do, whatever this one has.
    use(Watch(watcher, sampling=sampling, chance=chance, recorder=recorder, spare=lambda: 1.0))
    try:
        yield watcher
    finally:
        use(None)


@monitor
def doubled(number: int) -> int:
    """What other processes call."""
    return 2 * number


@monitor
async def doubled_soon(number: int) -> int:
    """What other processes await."""
    return 2 * number


@monitor
def refused(number: int) -> int:
    """What other processes are refused."""
    raise ValueError(f"not {number > 0}")


def doubled_here(number: int) -> tuple[int, int]:
    """The result, and how many calls the process has seen after it; for a process that was spawned."""
    with watching() as watcher:
        result = doubled(number)
        return result, len(watcher.sensor("doubled").left)
