"""What a sensor would have seen of a trace, call by call, under a given sampling.

Rules this module keeps:

* Which calls are seen is decided before they run, from what a wrapper knows then: a countdown, who calls, how
  large the arguments are, and what was heard of the calls before.
* Counts of calls and errors are exact, whatever is sampled.
* Only what chance chose teaches. What a gate chose is judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

from cloister.immune.errors import ImmuneError
from cloister.immune.generators.calls import TracedCall
from cloister.immune.observation import Entered, Observed

_SUSPICIOUS: Final = 0.02
_FIRST_GAP: Final = 10
_MEMORY: Final = 1 / 64  # share that a new duration has in the running mean
_RARER: Final = 1000  # a budget never thins further than this


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """Which calls are looked at.

    Attributes:
        name: for tables.
        one_in: of so many calls one, at random; 0 spends a budget instead.
        gates: whether an unknown caller and arguments larger than any learned are looked at as well, where
            comparing every call costs no more than half of the budget, and the calls after a suspicious one.
        budget: share of the calls' own time that looking may cost.
        cost: seconds that looking at one call costs.
        check: seconds that comparing a call's caller and size costs.
        watch: calls that are looked at after a suspicious one.
    """

    name: str
    one_in: int
    gates: bool
    budget: float = 0.02
    cost: float = 10e-6
    check: float = 0.6e-6
    watch: int = 20

    def __post_init__(self) -> None:
        if self.one_in < 0 or not 0 < self.budget <= 1 or min(self.cost, self.check) <= 0 or self.watch < 0:
            raise ImmuneError("immune.generator_invalid", "A sampling plan has a number out of range.")


EVERY_CALL: Final = SamplingPlan("every call", 1, gates=False)
ONE_IN_TEN: Final = SamplingPlan("1:10", 10, gates=False)
BUDGETED: Final = SamplingPlan("budgeted", 0, gates=True)


class TraceSensor:
    """A sensor that is shown a trace.

    Args:
        plan: which calls it looks at.
        seed: decides its ticks.
    """

    def __init__(self, plan: SamplingPlan, seed: int = 0) -> None:
        self._plan = plan
        self._random = Random(f"{seed}/ticks").random  # noqa: S311 - a simulation
        self._gap = plan.one_in or _FIRST_GAP
        self._left = self._next_tick()
        self._calls = self._errors = self._watching = 0
        self._mean = 0.0
        self._checking = False
        self._largest = 0
        self._callers: set[str] = set()

    def look(self, call: TracedCall) -> Observed | None:
        """What it sees of the next call of the trace; None where it doesn't look.

        Args:
            call: the calls of a trace, each once, in order.

        Returns:
            The observation, with the counts since the one before.
        """
        self._calls += 1
        self._left -= 1
        teaches = self._left <= 0
        if teaches:
            self._left = self._next_tick()
        if not teaches and not self._gated(call):
            self._errors += call.failed
            return None
        entered = Entered(call.at, call.size, call.caller, self._calls, self._errors, teaches)
        self._calls = self._errors = 0
        if teaches:
            self._learn(call)
        return Observed(entered, call.duration, call.failed)

    def hear(self, p: float) -> None:
        """Tell how probable the call just seen was; after an improbable one it looks at the next ones."""
        if p < _SUSPICIOUS and self._plan.gates:
            self._watching = self._plan.watch

    def _gated(self, call: TracedCall) -> bool:
        if not self._plan.gates:
            return False
        if self._watching:
            self._watching -= 1
            return True
        return self._checking and (call.caller not in self._callers or call.size > self._largest)

    def _learn(self, call: TracedCall) -> None:
        self._callers.add(call.caller)
        self._largest = max(self._largest, call.size)
        first = self._mean == 0.0
        self._mean = call.duration if first else self._mean + _MEMORY * (call.duration - self._mean)
        if not self._plan.one_in and self._mean > 0:
            affordable = self._plan.budget * self._mean
            # Comparing every call takes half of the budget; the other half is left for looking.
            self._checking = self._plan.gates and 2 * self._plan.check <= affordable
            cost = self._plan.cost * 2 if self._checking else self._plan.cost
            self._gap = min(_RARER, math.ceil(cost / affordable))

    def _next_tick(self) -> int:
        # At random, so that nobody can slip between two ticks; the mean is the gap.
        return 1 + int(self._random() * (2 * self._gap - 1))
