"""What a sensor would have seen of a trace, call by call, under a given sampling.

Who decides is the gate of a watched function itself (`wrapping.gate`), with the stages of containment; only
the wrapper around it, which counts down and compares, is played here. Rules this module keeps:

* Which calls are seen is decided before they run, from what a wrapper knows then: a countdown, who calls, how
  large the arguments are, and what was heard of the calls before.
* What an observation costs is given and always the same, as time would depend on the machine.
* Counts of calls and errors are exact, whatever is sampled.
* Only what chance chose teaches. What a gate chose is judged, and its caller is met.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Final

from cloister.immune.acting.containment import (
    Containment,
    ContainmentRules,
    Stage,
    Standing,
    enter,
    leave,
)
from cloister.immune.errors import ImmuneError
from cloister.immune.generators.calls import TracedCall
from cloister.immune.observation import NOTHING_UNUSUAL, Decision, Entered, Observed, Score
from cloister.immune.wrapping.calls import CHANCE, CHECKED, Bounds, Kind
from cloister.immune.wrapping.gate import Gate
from cloister.immune.wrapping.sampling import Mode, Pace, Sampling, Ticks

_SUSPICIOUS: Final = 0.02
_KEPT: Final = 1000
_BOUNDS_EVERY: Final = 100
_KNOWN_CODES: Final = 16
_CALM: Final = frozenset({Stage.LEARNING, Stage.OBSERVE, Stage.RELEASE})
_RULES: Final = ContainmentRules()


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """Which calls are looked at.

    Attributes:
        name: for tables.
        sampling: which of them chance chooses.
        gates: whether calls are compared with known callers and sizes, and looked at more closely after a
            suspicious one, as every watched function's are.
        compiled: whether the compiled shortcut compares them, in a twentieth of the time.
        cost: seconds that observing one call takes, as a gate measures it.
        spare: share of a processor that nobody uses, 0 to 1: time that pays for observing as well.
    """

    name: str
    sampling: Sampling
    gates: bool = True
    compiled: bool = True
    cost: float = 15e-6
    spare: float = 0.0

    def __post_init__(self) -> None:
        if self.cost <= 0 or not 0 <= self.spare <= 1:
            raise ImmuneError("immune.generator_invalid", "A sampling plan has a number out of range.")


EVERY_CALL: Final = SamplingPlan("every call", Sampling(Mode.EVERY_CALL), gates=False)
ONE_IN_TEN: Final = SamplingPlan("1:10", Sampling(Mode.FIXED), gates=False)
BUDGETED: Final = SamplingPlan("budgeted", Sampling())


class TraceSensor:
    """A sensor that is shown a trace.

    Args:
        plan: which calls it looks at.
        seed: decides its ticks.
    """

    def __init__(self, plan: SamplingPlan, seed: int = 0) -> None:
        self._plan = plan
        self._now = 0.0
        self._entry = _Entry() if plan.compiled else None
        self._gate = Gate("trace:function", Kind.SYNC, _nothing, entry=self._entry)
        ticks = Ticks(Random(f"{seed}/ticks").random)  # noqa: S311 - a simulation
        pace = Pace(plan.sampling.cpu_threshold, lambda: plan.spare)
        self._gate.attach(_Mute(), plan.sampling, pace, ticks, lambda: self._now)
        self._left = self._gate.counters["left"]
        self._stage = Containment()
        self._learned, self._judging = 0, False
        self._seen: Entered | None = None
        self._newest: deque[tuple[bool, int, str]] = deque(maxlen=_KEPT)

    def look(self, call: TracedCall) -> Observed | None:
        """What it sees of the next call of the trace; None where it doesn't look.

        Args:
            call: the calls of a trace, each once, in order.

        Returns:
            The observation, with the counts since the one before.
        """
        self._now = call.at
        found = self._look(call)
        if call.failed:
            self._gate.failed(told=found is not None)
        return found

    def hear(self, score: Score) -> None:
        """Tell how unusual the call just seen was; an unusual one has the next ones looked at."""
        seen = self._seen
        if seen is None or not self._plan.gates:
            return
        self._judging = self._judging or score.value > 0.0
        standing = Standing(self._judging, self._learned, enforcing=False, promoted=False)
        entered, _ = enter(self._stage, NOTHING_UNUSUAL, standing, seen.at, _RULES)
        self._stage = leave(entered, score, standing, seen.at, self._now, _RULES)
        self._newest.append((self._stage.stage in _CALM, seen.size, seen.caller))
        if self._stage.stage is Stage.SUSPECT:
            self._gate.arm()
        elif self._gate.armed:
            self._gate.disarm()
        if score.p < _SUSPICIOUS:
            self._gate.once()
        if seen.teaches and self._learned % _BOUNDS_EVERY == 0:
            ordinary = [(size, caller) for calm, size, caller in self._newest if calm]
            callers = frozenset(caller for _, caller in ordinary)
            self._gate.expect(Bounds(max((size for size, _ in ordinary), default=0), callers))

    def _look(self, call: TracedCall) -> Observed | None:
        """As a wrapper does, and `wrapping.observing.look` behind it."""
        gate, left, entry = self._gate, self._left, self._entry
        if left.cell_contents > 1 and (entry is None or entry.passes(call)):
            left.cell_contents -= 1
            return None
        choice = gate.tick()
        bounds = gate.bounds
        if choice is CHECKED and (
            bounds is None or (call.size <= bounds.size and call.caller in bounds.callers)
        ):
            if entry is not None and bounds is not None:
                entry.know(call.caller)
            return None
        calls, errors = gate.since()
        teaches = choice is CHANCE
        self._learned += teaches
        self._seen = Entered(call.at, call.size, call.caller, calls, errors, teaches)
        self._now = call.at + call.duration
        if gate.counted():
            gate.learn(self._plan.cost, call.duration, choice, self._now)
        return Observed(self._seen, call.duration, call.failed)


class _Entry:
    """What the compiled shortcut knows, for calls of a trace: as `Entry` of its C, with names for codes."""

    def __init__(self) -> None:
        self.most, self.allowance, self.anyone = -1, 0, False
        self._known: deque[object] = deque(maxlen=_KNOWN_CODES)

    def know(self, code: object, /) -> None:
        if code not in self._known:
            if self.allowance >= 0 and len(self._known) < _KNOWN_CODES:
                self.allowance += 1
            self._known.append(code)

    def forget(self) -> None:
        self.most = -1
        self._known.clear()

    def passes(self, call: TracedCall) -> bool:
        if self.most < 0 or (call.size <= self.most and (self.anyone or call.caller in self._known)):
            return True
        if self.allowance > 0:
            self.allowance -= 1
            return False
        return self.allowance == 0


class _Mute:
    """A gate has calls judged where there is a sensor; here it is the caller of `TraceSensor` who judges."""

    def enter(self, entered: Entered) -> Decision | None:
        return None

    def leave(self, observed: Observed) -> None:
        return None


def _nothing() -> None:
    """What the gate of a trace is of."""
