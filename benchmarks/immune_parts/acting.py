"""What deciding on a call and guarding what it reaches for cost.

Nanoseconds of this thread's processor time, the smallest of many short runs: a busy machine makes a run
longer and never shorter. Operations are events raised by `sys.audit`, without the kernel. What they cost is
what is added to one that nobody hears. All frames here are of the watched function's module: the dearest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from cloister.immune.acting.containment import ContainmentRules, Standing
from cloister.immune.acting.effector import Effector
from cloister.immune.acting.egress import EgressGuard
from cloister.immune.acting.reached import GuardMode
from cloister.immune.observation import Score
from immune_parts._figures import Figures
from immune_parts._turns import rounds_of

ROUNDS, CALLS = 600, 300


def call() -> int:
    """A call that nothing watches."""
    return 1


def calls(count: int) -> None:
    """Plain calls."""
    for _ in range(count):
        call()


def opens(count: int) -> None:
    """Audited operations: one file is opened."""
    for _ in range(count):
        sys.audit("open", "/etc/hostname", "r", 0)


def watched(count: int) -> None:
    """The same inside of a watched function."""
    for _ in range(count):
        sys.audit("open", "/etc/hostname", "r", 0)


def least(work: Callable[[int], None], rounds: int) -> float:
    """Nanoseconds of one of many."""
    taken = []
    for _ in range(rounds):
        started = time.thread_time_ns()
        work(CALLS)
        taken.append((time.thread_time_ns() - started) / CALLS)
    return min(taken)


def guard(rounds: int) -> dict[str, float]:
    """The egress guard; an audit hook can't be removed, so the order matters."""
    plain, bare = least(calls, rounds), least(opens, rounds)
    one = EgressGuard()
    one.arm()
    one.disarm()
    figures = {"operation, disarmed": least(opens, rounds) - bare}
    one.arm()
    figures["operation, armed, no watched function"] = least(opens, rounds) - bare
    one.register(watched, "benchmark:watched")
    watched(1)
    one.set_mode("benchmark:watched", GuardMode.ENFORCE)
    figures["operation, known target of an enforcing function"] = least(watched, rounds) - bare
    figures["plain call, armed"] = least(calls, rounds) - plain
    one.disarm()
    return figures


def decisions(rounds: int) -> dict[str, float]:
    """The effector, before and after a call."""
    effector = Effector(ContainmentRules())
    standing, score = Standing(True, 1000, True, True), Score(10.0, 0.5, "size")

    def consider(count: int) -> None:
        for _ in range(count):
            effector.consider("benchmark:watched", score, standing, 1.0)

    def ended(count: int) -> None:
        for _ in range(count):
            effector.ended("benchmark:watched", score, standing, 1.0, 1.0)

    figures = {
        "decision, ordinary call": least(consider, rounds),
        "end of an ordinary call": least(ended, rounds),
    }
    for _ in range(3):
        effector.consider("benchmark:watched", Score(90.0, 1e-4, "size"), standing, 1.0)
    figures["decision, contained"] = least(consider, rounds)
    return figures


def measure(share: float = 1.0) -> Figures:
    """Nanoseconds of processor time, the least of many rounds."""
    rounds = rounds_of(share, ROUNDS)
    figures = {**decisions(rounds), **guard(rounds)}
    return Figures(
        "Decisions of the effector, and what the guard of egress adds to an audited operation.",
        {name: {"ns": value} for name, value in figures.items()},
    )
