"""How a bound on time is held where neighbours come and go.

What else runs on a machine shares its cores and their caches, and only ever adds: of several runs the
shortest is nearest to what a piece of work costs. A bound that isn't kept is tried again for a while. Tests
that use this are marked `timed` and run after the others, alone.

A shared machine also has minutes in which everything takes twice as long. Where a bound is a goal for a quiet
machine with little room above it, and only there, a run is told `at_a_quiet_pace`.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 45.0
"""Seconds after which a bound that no run kept counts as broken."""


QUIET: Final = 1.6e-3
"""Processor seconds of the known piece of work on a core that has nothing else to do."""
SLOWEST: Final = 3.0
"""A machine that is slower than this is too slow to say anything."""


def shortest(run: Callable[[], float], bound: float, *, least: int = 1) -> float:
    """The least of what some runs took: at least so many, and more until one is below the bound.

    Args:
        run: gives the seconds that it took.
        bound: seconds.
        least: runs, whatever the first took.
    """
    began, taken = time.monotonic(), [run() for _ in range(least)]
    while min(taken) >= bound and time.monotonic() - began < PATIENCE:
        time.sleep(0.2)
        taken.append(run())
    return min(taken)


def at_a_quiet_pace(run: Callable[[], float]) -> Callable[[], float]:
    """The same run, told in seconds of a quiet machine: by a known piece of work, timed before and after it.

    Args:
        run: gives the seconds that it took.

    Returns:
        Gives the seconds that it would have taken: at most as many, and at least a third.
    """

    def told() -> float:
        before, taken = _slowness(), run()
        return taken / min(before, _slowness())

    return told


def _slowness() -> float:
    """How many times as long as on a quiet core work takes at present: 1 to `SLOWEST`."""
    return min(max(min(_spent(_known_work, time.thread_time) for _ in range(5)) / QUIET, 1.0), SLOWEST)


def _known_work() -> None:
    text = "1 22 333 4444 " * 1500
    for one in re.finditer("[0-9]+", text):
        len(text[slice(*one.span())])


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time of this process, without the collector: it looks at what other tests have left."""
    return _spent(work, time.process_time)


def _spent(work: Callable[[], object], clock: Callable[[], float]) -> float:
    gc.disable()
    try:
        began = clock()
        work()
        return clock() - began
    finally:
        gc.enable()
