"""What a call of a plain function costs under each wrapper, on top of a bare one."""

from __future__ import annotations

import functools
import time

from immune_parts._figures import Figures, Row, Target
from immune_parts._machine import active_core
from immune_parts._turns import Work, above, rounds_of, times_of
from immune_parts._wrappers import Function, armed, in_transaction, judged, no_op, observed_at, peers, said

OURS = {
    "cloister, unsampled": observed_at(None),
    "cloister, 1 in 10": observed_at(0.1),
    "cloister, observed": observed_at(1.0),
    "cloister, armed": armed,
    "cloister, judged": judged,
}
NS, OF_NO_OP = "ns above bare", "of no-op"
TARGETS = (
    Target("cloister, unsampled", OF_NO_OP, "at most", 0.8),
    Target("cloister, observed", OF_NO_OP, "at most", 4.0),
)
COMPILED = (
    Target("cloister, unsampled", OF_NO_OP, "at most", 0.3),
    Target("cloister, observed", OF_NO_OP, "at most", 1.0),
)


def add(left: int, right: int) -> int:
    """The function that is called."""
    return left + right


def calling(function: Function) -> Work:
    """Processor seconds of so many calls."""

    def work(calls: int) -> float:
        began = time.thread_time()
        for _ in range(calls):
            function(1, 2)
        return time.thread_time() - began

    return work


def measure(share: float = 1.0) -> Figures:
    """Nanoseconds above a bare call, and how many times the wrapper that does nothing."""
    others, absent = peers()
    works = {"bare": calling(add), "functools.wraps no-op": calling(no_op(add))}
    works |= {name: calling(wrap(add)) for name, wrap in (OURS | others).items()}
    if "sentry-sdk trace" in works:
        works["sentry-sdk trace, in a transaction"] = in_transaction(works["sentry-sdk trace"])
    times = times_of(works, rounds_of(share, 61))
    return Figures(
        "A call of a plain function, above a bare one; thread processor time.",
        rows(times, "bare", "functools.wraps no-op"),
        TARGETS if active_core() == "pure" else COMPILED,
        (
            "observed: a sensor that does nothing; judged: scored, learned from, kept and decided about",
            "no peer reaches a network: exporters throw away what they get, on threads not counted here",
            *said(absent),
        ),
    )


def rows(times: dict[str, list[float]], bare: str, nothing: str) -> dict[str, Row]:
    """A row for each way but the bare one; ours say on which core."""
    cost = functools.partial(above, times, bare=bare)
    least = cost(nothing)
    return {
        name: {
            NS: cost(name),
            OF_NO_OP: cost(name) / least,
            "core": active_core() if name in OURS or name.startswith("cloister") else "",
        }
        for name in times
        if name != bare
    }
