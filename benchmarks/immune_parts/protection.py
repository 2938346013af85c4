"""What the whole protection takes of functions of several lengths: everything on, as shipped.

Each function is learned first, for as long as its sampling needs to settle; then it runs in turns with itself
unprotected. The share is of processor time; the median latency is of single calls, by the clock on the wall.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cloister.immune import ImmuneSettings, monitor
from cloister.immune.overhead import measure_overhead
from cloister.immune.protection import Protection
from cloister.immune.wrapping.build import gate_of
from immune_parts._figures import Figures, Row, Target
from immune_parts._machine import active_core
from immune_parts._turns import rounds_of

LENGTHS = {"1.3 us": 1.3e-6, "5 us": 5e-6, "20 us": 20e-6, "100 us": 100e-6, "1 ms": 1e-3}
CPU, MEDIAN = "CPU above bare, %", "median latency, ratio"
TARGETS = (
    *(Target(name, CPU, "at most", 2.0) for name in ("20 us", "100 us", "1 ms")),
    *(Target(name, MEDIAN, "at most", 1.05) for name in LENGTHS),
)
_LEARNED, _SETTLES, _SLICE = 1200, 4.0, 0.02


def working(seconds: float) -> Callable[[], object]:
    """A function that adds for so long."""

    def work(numbers: range) -> int:
        return sum(numbers)

    def one() -> object:
        return work(numbers)

    numbers = range(16)
    while True:
        repeats = max(10, round(0.002 / seconds))
        taken = min(_seconds(one, repeats) for _ in range(5)) / repeats
        if taken >= 0.95 * seconds:
            return one
        numbers = range(max(len(numbers) + 1, round(len(numbers) * min(2.0, seconds / taken))))


def _seconds(work: Callable[[], object], calls: int) -> float:
    began = time.thread_time()
    for _ in range(calls):
        work()
    return time.thread_time() - began


def measure(share: float = 1.0) -> Figures:
    """Share of processor time and median latency, by the length of the function."""
    found: dict[str, Row] = {}
    for name, seconds in LENGTHS.items():
        plain = working(seconds)
        protected = monitor(name=f"benchmark:{name}")(plain)
        gate = gate_of(protected)
        assert gate is not None
        with Protection(ImmuneSettings()).start():
            until = time.perf_counter() + _SETTLES * share
            calls = max(1, round(_SLICE * min(1.0, 2 * share) / seconds))
            while gate.observed < _LEARNED * share or time.perf_counter() < until:
                # By the same caller as later: a new one that stays would have each call judged.
                measure_overhead(plain, protected, rounds=6, calls=calls)
            before = gate.observed, gate.calls
            whole = measure_overhead(plain, protected, rounds=rounds_of(share, 61, 6), calls=calls)
            observed, called = gate.observed - before[0], gate.calls - before[1]
            each = measure_overhead(
                plain,
                protected,
                rounds=rounds_of(share, min(5000, round(1.0 / seconds)), 50),
                calls=1,
                clock_ns=time.perf_counter_ns,
            )
        found[name] = {
            CPU: (whole.ratio.value - 1) * 100,
            "from": (whole.ratio.low - 1) * 100,
            "to": (whole.ratio.high - 1) * 100,
            MEDIAN: each.protected.p50 / each.plain.p50,
            "p99, ratio": each.protected.p99 / each.plain.p99,
            "one observed in": called / max(observed, 1),
            "core": active_core(),
        }
    return Figures(
        "The whole protection as shipped, by length of the function; from and to enclose the median at 95 %.",
        found,
        TARGETS,
        ("functions are called without a pause, the dearest way for a budget of time",),
    )
