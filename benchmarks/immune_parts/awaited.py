"""What an awaited call of a coroutine function costs under each wrapper, on top of a bare one."""

from __future__ import annotations

import contextlib
import time

from immune_parts._figures import Figures, Target
from immune_parts._turns import Work, rounds_of, times_of
from immune_parts._wrappers import Function, in_transaction, judged, no_op_awaited, observed_at, peers, said
from immune_parts.calls import OF_NO_OP, rows

OURS = {
    "cloister, unsampled": observed_at(None),
    "cloister, 1 in 10": observed_at(0.1),
    "cloister, observed": observed_at(1.0),
    "cloister, judged": judged,
}
TARGETS = (Target("cloister, unsampled", OF_NO_OP, "at most", 0.6),)


async def add_soon(left: int, right: int) -> int:
    """The coroutine function that is called."""
    return left + right


def awaiting(function: Function) -> Work:
    """Processor seconds of so many awaited calls; driven by hand, for a loop would cost more than they do."""

    def work(calls: int) -> float:
        async def many() -> None:
            for _ in range(calls):
                await function(1, 2)

        running = many()
        began = time.thread_time()
        with contextlib.suppress(StopIteration):
            running.send(None)
        return time.thread_time() - began

    return work


def measure(share: float = 1.0) -> Figures:
    """Nanoseconds above a bare awaited call, and how many times the wrapper that does nothing."""
    others, absent = peers()
    works = {"bare": awaiting(add_soon), "async no-op": awaiting(no_op_awaited(add_soon))}
    works |= {name: awaiting(wrap(add_soon)) for name, wrap in (OURS | others).items()}
    if "sentry-sdk trace" in works:
        works["sentry-sdk trace, in a transaction"] = in_transaction(works["sentry-sdk trace"])
    times = times_of(works, rounds_of(share, 61))
    return Figures(
        "An awaited call of a coroutine function, above a bare one; thread processor time.",
        rows(times, "bare", "async no-op"),
        TARGETS,
        said(absent),
    )
