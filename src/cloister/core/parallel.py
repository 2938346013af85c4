"""The same work over many items, on as many processor cores as there are.

Threads are enough where the work is done by a library that lets other threads run meanwhile, as OpenSSL's
signature check and SHA-256 of large inputs do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

MAX_THREADS: Final = 8
LEAST_SHARE: Final = 32
"""A thread for fewer items than this costs more than it saves."""

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Do the work for each item.

    Args:
        work: may be called from any thread, for several items at a time.
        items: what it is done for.

    Returns:
        The results, in the items' order.

    Raises:
        Exception: the first one that the work raised, in the order of the shares.
    """
    count = min(cores(), MAX_THREADS, len(items) // LEAST_SHARE)
    if count < 2:
        return [work(one) for one in items]
    results: list[list[R]] = [[] for _ in range(count)]
    failures: list[BaseException | None] = [None] * count

    def share(number: int) -> None:
        try:
            results[number] = [work(one) for one in items[number::count]]
        except BaseException as error:
            failures[number] = error

    threads = [threading.Thread(target=share, args=(number,)) for number in range(1, count)]
    for thread in threads:
        thread.start()
    share(0)
    for thread in threads:
        thread.join()
    for failure in failures:
        if failure is not None:
            raise failure
    return [results[place % count][place // count] for place in range(len(items))]


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
