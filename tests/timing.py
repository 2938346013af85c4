"""How a bound on time is held where neighbours come and go.

What else runs on a machine shares its cores and their caches, and only ever adds: of several runs the
shortest is nearest to what a piece of work costs. A shared machine also has minutes in which everything takes
twice as long; so each run is told in seconds of a quiet machine, by a known piece of work that is timed just
before and after it. A bound that isn't kept is tried again for a while. Tests that use this are marked
`timed` and run after the others, alone.
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


def slowness() -> float:
    """How many times as long as on a quiet core work takes at present: 1 to `SLOWEST`."""
    return min(max(min(processor_seconds(_known_work) for _ in range(5)) / QUIET, 1.0), SLOWEST)


def _known_work() -> None:
    text = "1 22 333 4444 " * 1500
    for one in re.finditer("[0-9]+", text):
        len(text[slice(*one.span())])


def shortest(run: Callable[[], float], bound: float, *, least: int = 1) -> float:
    """The least of what some runs took: at least so many, and more until one is below the bound.

    Args:
        run: gives the seconds that it took, which are told as of a quiet machine.
        bound: seconds.
        least: runs, whatever the first took.
    """

    def once() -> float:
        before, taken = slowness(), run()
        return taken / min(before, slowness())

    began, taken = time.monotonic(), [once() for _ in range(least)]
    while min(taken) >= bound and time.monotonic() - began < PATIENCE:
        time.sleep(0.2)
        taken.append(once())
    return min(taken)


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time of this thread, without the collector: it looks at what other tests have left."""
    gc.disable()
    try:
        began = time.thread_time()
        work()
        return time.thread_time() - began
    finally:
        gc.enable()
