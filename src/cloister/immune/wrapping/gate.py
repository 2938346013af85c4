"""The gate of one wrapped function: which calls pass straight through, and exact counts of all.

A wrapper counts an integer in its closure down. Above zero a call passes straight; at zero or below it takes
the slow path, which asks this gate. Holding the integer at zero sends every call there, the very next call
of every thread included.

Rules kept here:

* Calls and errors are exact where there is a global interpreter lock: CPython switches threads only at calls
  and backward jumps, and the sequences marked "unbroken" have neither. Without it there is `LockedGate`: its
  wrapper reads a flag of its own, the counts are near, and a hold is still exact.
* Chance chooses the calls that teach. Of one that a hold or a request sends here its caller is met at most.
* Where half of the overhead budget pays for it, or it isn't to spare, calls are compared with what is usual:
  by the compiled shortcut (`Entry`), or in the slow path, for which every call is held.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CellType, CodeType
from typing import Final

from cloister.immune.observation import Sensor
from cloister.immune.wrapping.calls import CHANCE, CHECKED, GATED, Bounds, Choice, Kind
from cloister.immune.wrapping.costs import UNSEEN, Costs
from cloister.immune.wrapping.recording import Recorder
from cloister.immune.wrapping.sampling import MOST, WARM_UP, Pace, Sampling, Ticks
from cloister.immune.wrapping.shortened import MOST_CALLERS, SHORT_LOOK, Counter, Entry

MEASURE_ONE_IN: Final = 64
"""Of the calls that are looked at, one in so many is timed."""
LEARN_ONE_IN: Final = 8
"""Of the observations, one in so many is timed; for each, so many beyond the bounds may be judged."""


class Gate:
    """The gate of one function.

    Args:
        name: ``module:qualname``.
        kind: what calling it gives.
        function: what is wrapped.
        substitute: is called with the arguments of a call that was blocked, and gives its result; without one
            the call raises `CallBlocked`.
        counter: makes what the wrapper counts with.
        entry: what a shortcut compares calls with; without one the slow path does.
    """

    __slots__ = (
        "_armed",
        "_asked",
        "_costs",
        "_drawn",
        "_entry",
        "_errors",
        "_fast",
        "_fill",
        "_held",
        "_holding",
        "_known_at",
        "_left",
        "_mean",
        "_pace",
        "_sampling",
        "_seen_calls",
        "_seen_errors",
        "_slow",
        "_sparing",
        "_ticks",
        "_until",
        "blocked",
        "bounds",
        "checks",
        "clock",
        "function",
        "interval",
        "kind",
        "name",
        "observed",
        "recorder",
        "sensor",
        "substitute",
    )

    def __init__(
        self,
        name: str,
        kind: Kind,
        function: Callable[..., object],
        substitute: Callable[..., object] | None = None,
        counter: Callable[[int], Counter] = CellType,
        entry: Entry | None = None,
    ) -> None:
        self.name, self.kind, self.function, self.substitute = name, kind, function, substitute
        self.sensor: Sensor | None = None
        self.bounds: Bounds | None = None
        self.recorder: Recorder | None = None
        self._entry, self._sparing = entry, True
        self._left, self._errors, self._holding = counter(MOST), counter(0), counter(0)
        self.forget()

    def forget(self) -> None:
        """Count from nothing, as the child of a fork does; what is armed stays so."""
        armed = getattr(self, "_armed", False)
        self._armed = self._held = self._asked = False
        self._fast = self._slow = self._seen_calls = self._seen_errors = self.blocked = self.observed = 0
        self._known_at = 0
        self._fill, self._until, self._drawn, self._mean = MOST, 1, MOST, MOST
        self.interval = float(MOST)
        self._left.cell_contents, self._errors.cell_contents, self._holding.cell_contents = MOST, 0, False
        self._costs, self.checks = Costs(), 0
        if self._entry is not None:
            self._costs.look, self._entry.allowance = SHORT_LOOK, LEARN_ONE_IN
            self._entry.forget()
        if self.sensor is not None:
            self._choose_anew(UNSEEN, 0.0)
            self._allow()
            self._reconsider()
        if armed:
            self.arm()

    # What the wrapper closes over.

    @property
    def counters(self) -> dict[str, Counter]:
        """The countdown and the errors that the wrapper counts with."""
        return {"left": self._left, "errors": self._errors}

    @property
    def holding(self) -> Counter:
        """The flag that the wrapper reads besides, where Python has no global lock."""
        return self._holding

    # What whoever judges may ask.

    @property
    def armed(self) -> bool:
        """Whether every call is judged before it runs."""
        return self._armed

    @property
    def calls(self) -> int:
        """Calls since the start; exact."""
        # unbroken
        left = self._left.cell_contents
        return int(self._fast + self._slow + self._fill - (left if left > 0 else 1))

    @property
    def errors(self) -> int:
        """Calls that raised; exact of plain functions.

        A coroutine or generator that passes straight isn't watched while it runs: of these kinds it is the
        errors of calls that were observed.
        """
        return int(self._errors.cell_contents)

    @property
    def rate(self) -> float:
        """Share of the calls that chance chooses at present."""
        return 1.0 / self.interval

    def arm(self) -> None:
        """Judge every call before it runs, from the very next one of every thread."""
        self._armed = True
        self._reconsider()

    def disarm(self) -> None:
        """Let calls pass straight again, but those that chance chooses."""
        self._armed = False
        self._reconsider()

    def once(self) -> None:
        """Judge the next call, whatever chance says."""
        if self.sensor is None:
            return
        self._asked = True
        if not self._held:
            # Not held: the next call fills the countdown with what was left of it.
            self._stop(hold=False)

    def learn_again(self) -> None:
        """Observe as many calls as of a function that isn't known yet, until it is again."""
        self._known_at = self.observed
        if self.sensor is not None:
            self._choose_anew(self._scoring_cost(), self._costs.duration)
            self._reconsider()

    def expect(self, bounds: Bounds | None, *, sparing: bool = True) -> None:
        """Judge calls that are larger or come from elsewhere, where looking at each call is cheap enough.

        Args:
            bounds: what needs no judgement; None looks at no call but those chosen.
            sparing: whether calls are compared only where the budget pays for it, and a shortcut sends on
                only so many as cost what chance's choice does: not each of a caller that is new and stays.
        """
        before, self.bounds, self._sparing = self.bounds, bounds, sparing
        if self._entry is not None:
            if before is None or bounds is None or before.callers != bounds.callers:
                self._entry.forget()
            self._entry.anyone = sparing and bounds is not None and len(bounds.callers) > MOST_CALLERS
        self._allow()
        self._reconsider()

    def usual(self, caller: CodeType, at: float) -> None:
        """Take note of a call that was compared from a time on, and is as calls are; and of who called."""
        if self._entry is not None:
            self._entry.know(caller)
            return
        self.checks += 1
        if not self.checks % MEASURE_ONE_IN:
            self.looked(self.clock() - at)

    @property
    def checking(self) -> bool:
        """Whether each call is compared with `bounds`: always, or for half of the overhead budget at most."""
        if self.bounds is None or self.sensor is None:
            return False
        return not self._sparing or self._costs.shortest * self._sampling.budget >= 2 * self._costs.look

    def looked(self, seconds: float) -> None:
        """Take note of how long a look at a call took that then passed, as of `Costs.looked`."""
        self._costs.looked(seconds)
        self._reconsider()

    # What the slow path does.

    def attach(
        self,
        sensor: Sensor,
        sampling: Sampling,
        pace: Pace,
        ticks: Ticks,
        clock: Callable[[], float],
        recorder: Recorder | None = None,
    ) -> None:
        """Have calls judged.

        Args:
            sensor: who judges.
            sampling: how many calls are chosen by chance.
            pace: the process's factor of that.
            ticks: which.
            clock: monotonic time, seconds.
            recorder: who keeps telemetry events.
        """
        self._sampling, self._pace, self._ticks, self.clock, self.recorder = (
            sampling,
            pace,
            ticks,
            clock,
            recorder,
        )
        self.sensor = sensor
        self._choose_anew(UNSEEN, 0.0)
        self._reconsider()

    def detach(self) -> None:
        """Let all calls pass straight, unjudged; counting goes on."""
        self.sensor = None
        self.expect(None)
        self.disarm()
        self._refill(MOST)

    def tick(self) -> Choice:
        """Count a call that came to the slow path, and say why it is there."""
        # unbroken
        left = self._left
        if not self._held and left.cell_contents > 1:
            # One of those that pass: a shortcut found it unusual, or it came while another thread's call was
            # filling the countdown.
            left.cell_contents -= 1
            return CHECKED
        self._slow += 1
        self._until -= 1
        chance = self._until <= 0
        asked = self._asked or self._armed or not self._held
        self._asked = False
        if chance:
            # A thread that comes while another draws has no distance yet, and takes the mean.
            self._until = self._drawn or self._mean
            self._drawn = 0
        if not self._held:
            self._fast += self._fill - 1
            self._fill = left.cell_contents = self._until
            self._until = 1
        else:
            left.cell_contents = 0
        # to here
        if chance:
            self._drawn = self._ticks.next(self.interval) if self.sensor is not None else MOST
            return CHANCE
        return GATED if asked else CHECKED

    def since(self) -> tuple[int, int]:
        """Calls since this was last asked, the one that asks included, and errors that nobody was told of."""
        # unbroken
        left = self._left.cell_contents
        calls = self._fast + self._slow + self._fill - (left if left > 0 else 1)
        errors = self._errors.cell_contents
        passed = calls - self._seen_calls, errors - self._seen_errors
        self._seen_calls, self._seen_errors = calls, errors
        return passed

    def failed(self, *, told: bool) -> None:
        """Count a call on the slow path that raised; the sensor was told of it, or is by `since`."""
        self._errors.cell_contents += 1  # unbroken
        if told:
            self._seen_errors += 1

    def stopped(self) -> None:
        """Count a call that was blocked."""
        self.blocked += 1

    def counted(self) -> bool:
        """Count an observation: whether its cost is to be learned, as of the first 16 and 1 in 8."""
        self.observed = observed = self.observed + 1
        return observed <= 16 or observed % LEARN_ONE_IN == 0

    def learn(self, cost: float, duration: float, choice: Choice, now: float) -> None:
        """Take note of what an observation cost, and choose as many calls as that allows.

        Args:
            cost: seconds, without the call itself.
            duration: seconds of the call.
            choice: why it was observed.
            now: monotonic time, seconds.
        """
        costs = self._costs
        costs.observed(cost)
        if not self.checking and self._entry is None:
            costs.unlooked()
        # What learning and a suspicion cost is no reason to look away from all afterwards.
        if self.observed - self._known_at > WARM_UP and choice is CHANCE:
            self._pace.add(costs.observation * LEARN_ONE_IN, now)
        if choice is CHANCE:
            costs.took(duration)
            self._allow()
        self.interval = interval = self._sampling.interval(
            self._scoring_cost(),
            # Where nothing is to spare, what a call waits for the processor is in its time as well.
            costs.duration if self._pace.spare > 0.0 else min(costs.shortest, costs.duration),
            self._pace.factor,
            spacing=costs.space(self.calls, now) * self._pace.spare,
            observed=self.observed - self._known_at,
        )
        self._mean = round(interval)
        self._reconsider()

    def _scoring_cost(self) -> float:
        return self._costs.beside_passing(self._sampling.budget, looking=self.checking)

    def _allow(self) -> None:
        if self._entry is not None:
            if self._sparing:
                self._costs.beyond(1.0 - self._entry.allowance / LEARN_ONE_IN)
            self._entry.allowance = LEARN_ONE_IN if self._sparing else -1

    def _choose_anew(self, cost: float, duration: float) -> None:
        known = self.observed - self._known_at
        self.interval = self._sampling.interval(cost, duration, self._pace.factor, observed=known)
        self._mean = round(self.interval)
        self._drawn = self._ticks.next(self.interval)
        self._refill(self._ticks.next(self.interval))

    def _reconsider(self) -> None:
        checking, entry, bounds = self.checking, self._entry, self.bounds
        if entry is not None:
            entry.most = bounds.size if checking and bounds is not None else -1
        wanted = self.sensor is not None and (self._armed or (checking and entry is None))
        if wanted and not self._held:
            self._stop(hold=True)
        elif self._held and not wanted:
            self._refill(self._until)

    def _stop(self, *, hold: bool) -> None:
        # unbroken
        left = self._left.cell_contents
        if left > 0:
            self._fast += self._fill - left
            self._until = left
        else:
            self._fast += self._fill - 1
        self._fill = 1
        self._left.cell_contents = 0
        self._holding.cell_contents = True
        if hold:
            self._held = True

    def _refill(self, calls: int) -> None:
        # unbroken
        if self._armed and self.sensor is not None and self._held:
            return  # another thread armed it meanwhile
        left = self._left.cell_contents
        self._fast += self._fill - (left if left > 0 else 1)
        self._held = False
        self._holding.cell_contents = False
        self._fill = self._left.cell_contents = calls
        self._until = 1
