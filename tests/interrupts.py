"""Ctrl-C at every place of a piece of code, one after the other, where Python lets a signal in.

The signal is raised before an instruction without an instruction of Python's own in between, so the
interpreter itself decides when its handler runs: after a call, at the beginning of a function, in a loop.
"""

from __future__ import annotations

import _thread
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType
from typing import Any


def interrupts(run: Callable[[], object], *files: str) -> Iterator[KeyboardInterrupt]:
    """Run something again and again, interrupted before its first, second, third ... instruction.

    Args:
        run: what is interrupted.
        files: ends of the names of the files whose instructions count.

    Yields:
        Each interrupt, caught as `run` let it out, with its traceback.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _interrupted(run, 0, files)
        for place in count(1):
            try:
                swallowed = _interrupted(run, place, files)
            except KeyboardInterrupt as interrupt:
                yield interrupt
            else:
                assert not swallowed
                return
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted(run: Callable[[], object], place: int, files: tuple[str, ...]) -> bool:
    left = place

    def each(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(files):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                # Unlike a call, unpacking lets no signal in.
                [*map(_thread.interrupt_main, (signal.SIGINT,))]
        return each

    before, collecting = sys.gettrace(), gc.isenabled()
    # Python lets nothing out of a collector's callback or of a finalizer: a collection that begins at the
    # place would swallow the interrupt.
    gc.disable()
    try:
        sys.settrace(each)
        try:
            run()
        finally:
            sys.settrace(before)
    finally:  # an interrupt of run's last instruction is raised by the line above
        if collecting:
            gc.enable()
    return place > 0 and left <= 0
