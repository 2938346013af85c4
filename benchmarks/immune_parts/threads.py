"""What a call costs when several threads make it at once: processor time of all of them, above bare calls."""

from __future__ import annotations

import functools
import threading

from immune_parts._figures import Figures, Row
from immune_parts._machine import active_core
from immune_parts._turns import Work, above, rounds_of, times_of
from immune_parts._wrappers import judged, no_op, observed_at, peers, said
from immune_parts.calls import add, calling

COUNTS = (1, 2, 4)
OURS = {
    "cloister, unsampled": observed_at(None),
    "cloister, 1 in 10": observed_at(0.1),
    "cloister, judged": judged,
}
_SLICE = 0.02  # long enough for the interpreter's lock to change hands: it does so every 5 ms


def on_threads(work: Work, count: int) -> Work:
    """The same work, shared between so many threads."""

    def shared(calls: int) -> float:
        spent = [0.0] * count
        start = threading.Barrier(count)

        def run(number: int) -> None:
            start.wait()
            spent[number] = work(calls // count)

        running = [threading.Thread(target=run, args=(number,)) for number in range(count)]
        for one in running:
            one.start()
        for one in running:
            one.join()
        return sum(spent)

    return shared


def measure(share: float = 1.0) -> Figures:
    """Nanoseconds of one call above a bare one, on 1, 2 and 4 threads."""
    others, absent = peers()
    ways = {"bare": add, "functools.wraps no-op": no_op(add)}
    ways |= {name: wrap(add) for name, wrap in (OURS | others).items()}
    works = {
        f"{name}/{count}": on_threads(calling(function), count)
        for name, function in ways.items()
        for count in COUNTS
    }
    times = times_of(works, rounds_of(share, 15), slice_seconds=max(_SLICE * min(share * 2, 1), 0.001))
    found: dict[str, Row] = {}
    for name in ways:
        if name == "bare":
            continue
        cost = functools.partial(above, times)
        row: Row = {f"{count} threads, ns": cost(f"{name}/{count}", f"bare/{count}") for count in COUNTS}
        found[name] = row | {"core": active_core() if name in OURS else ""}
    return Figures(
        "A call of a plain function from several threads at once, above bare ones; their processor time.",
        found,
        (),
        said(absent),
    )
