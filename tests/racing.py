"""Work that meets in several threads, which change hands far more often than they otherwise would."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence


def race(works: Sequence[Callable[[], object]], *, hands: float = 1e-6) -> None:
    """Do some work in a thread each, at once, and wait for all of it.

    The threads change hands often only once all of them run: where threads are traced and an audit hook is
    there, Python 3.11 loses one that has to change hands while its tracing is being installed.

    Args:
        works: what each thread does.
        hands: seconds after which the interpreter goes from thread to thread.
    """
    ready = threading.Barrier(len(works) + 1)

    def begun(work: Callable[[], object]) -> None:
        ready.wait(60)
        work()

    threads = [threading.Thread(target=begun, args=(one,)) for one in works]
    for one in threads:
        one.start()
    ready.wait(60)
    before = sys.getswitchinterval()
    sys.setswitchinterval(hands)
    try:
        for one in threads:
            one.join(60)
    finally:
        sys.setswitchinterval(before)
    assert not any(one.is_alive() for one in threads)
