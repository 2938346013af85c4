"""The detector: a tail table for each feature of one function, and the rarest of them decides.

Rules this module keeps:

* A call is judged by what was learned before it, and teaches afterwards (prequential).
* Only what a tick of chance chose teaches. What a gate chose is judged, and is part of the run of durations
  and of the newest calls. Of what is normal it changes one thing: a caller to whom chance didn't come was
  met, in one call among all, so that who calls seldom isn't unheard of again and again.
* A duration and a call rate count against their present level, which follows slow change. The run of
  durations is the running mean of the durations' surprise, and has a table of its own.
* What is unusual teaches little once there is more of it than chance explains (`learning_weight`).
* Constant memory, a few microseconds for a call, and no more at any single one than the refit of a table.
"""

from __future__ import annotations

import copy
from math import exp, isnan, log, nan
from typing import Final, Self, final

from cloister.immune.detection.features import FEATURES, MOST_CALLS, WINDOW, Traffic, log_duration
from cloister.immune.detection.learning_weight import LITTLE, UNUSUAL
from cloister.immune.detection.level import Level, centre_of, median
from cloister.immune.detection.tail_state import (
    KIND,
    LEAST_RUN,
    LEVEL_SPEED,
    MOST_BETWEEN_REFITS,
    PARTS,
)
from cloister.immune.detection.tail_usual import TailUsual
from cloister.immune.observation import NOTHING_UNUSUAL, Entered, Observed, Score

__all__ = ["KIND", "TailDetector"]

RUN_SPEED: Final = 0.1
UNKNOWN_SPREAD: Final = 0.5
MOST_OF_RUN: Final = 7.0
"""What a single call gives to the run of durations at most, so that the run ends soon after they do."""
HEAVIEST: Final = 1e9
NEW_CALLER_REFIT: Final = 8
EGRESS: Final = ("egress",)
_SIZE: Final = 2
_RATE: Final = 3
_ERRORS: Final = 4
"""Places among `FEATURES`."""


@final
class TailDetector(TailUsual):
    """Judges one function's calls.

    Args:
        settings: alpha, half-life and how much is learned before anything is judged.

    Attributes:
        settings: as given.
        calibration: observed against promised shares of rare calls.
    """

    __slots__ = ()

    def entry(self, entered: Entered) -> Score:
        """Judge a call before its body runs: by size, rate, errors before it, and caller.

        Args:
            entered: the call.

        Returns:
            A score that what is learned of the call later can raise, not lower.
        """
        if self._level is None:
            return NOTHING_UNUSUAL
        self._judged = None
        if self._read_of is not entered:
            self._read(entered)
        errors = self._traffic.errors
        return self._judgement(0.0, 0.0, nan, errors, fresh=entered.errors > 0)

    def score(self, observed: Observed) -> Score:
        """Judge a call that has ended, by all features.

        Args:
            observed: the call.

        Returns:
            Its score; 0 before enough was learned.
        """
        level = self._level
        if level is None:
            return NOTHING_UNUSUAL
        if self._read_of is not observed.entered:
            self._read(observed.entered)
        errors = self._traffic.one_more if observed.failed else self._traffic.errors
        duration = log_duration(observed.duration)
        run = self._run
        if isnan(duration):
            of_duration = of_run = 0.0
        else:
            of_duration = self._duration.look(duration - level.centre)
            run += RUN_SPEED * ((of_duration if of_duration < MOST_OF_RUN else MOST_OF_RUN) - run)
            run = max(run, LEAST_RUN)
            of_run = self._run_table.look(log(run))
        self._next_run = run
        self._log_duration = duration
        self._judged = observed
        fresh = observed.failed or observed.entered.errors > 0
        return self._judgement(of_duration, of_run, duration - level.centre, errors, fresh=fresh)

    def learn(self, observed: Observed) -> None:
        """Take note of a call that has ended; if chance chose it, learn from it.

        Args:
            observed: the call; best the one that was just judged, which then isn't looked at twice.
        """
        entered = observed.entered
        level = self._level
        self.note(observed)
        if level is None:
            self._learn_first(observed)
            return
        traffic = self._traffic
        duration = self._log_duration
        if not entered.teaches or isnan(duration):
            self._meet(entered.caller)
            return
        self._learned += 1
        combined = self._combined
        weight = 1.0 if combined <= UNUSUAL else self._caution.of(self._learned, combined)
        follows = weight if weight > LITTLE else LITTLE
        added = self._unit * weight
        self._duration.learn(added)
        self._run_table.learn(added)
        self._size.learn(added)
        self._errors.learn(added)
        self._combination.learn(added)
        if self._callers.learn(entered.caller, self._unit * follows) and self._callers_due <= self._learned:
            self._callers_due = self._learned + NEW_CALLER_REFIT
        level.learn(duration, follows)
        if not isnan(traffic.rate):
            self._learn_rate(traffic.rate, added, follows)
        self._follow(duration, traffic.size, level.spread)
        self._add(observed.duration)
        self.calibration.learn(exp(-self._combined))
        self._unit += added * self._fade
        self._left -= 1
        if self._left <= 0:
            self._refit_next()
        if self._learned == self._callers_due:
            self._callers.refit(self._unit)

    def note(self, observed: Observed) -> None:
        """Take note of a call that may not teach: what is normal stays as it is.

        Args:
            observed: the call; best the one that was just judged.
        """
        if self._level is None:
            self._traffic.read(observed.entered)
        else:
            if self._judged is not observed:
                self.score(observed)
            self._run = self._next_run
        self._take(observed)

    def follow(self, observed: Observed) -> None:
        """Let the levels follow a call that chance chose and that may not teach: nothing else changes.

        Args:
            observed: the call, taken note of already.
        """
        level, duration = self._level, log_duration(observed.duration)
        if level is not None and not isnan(duration):
            self._follow(duration, self._traffic.size, level.spread)

    def egress(self, target: str) -> Score:
        """Judge what the function reaches for, before it does.

        Args:
            target: kind and name, such as ``connect example.org:443``.

        Returns:
            Its score by novelty alone; 0 before enough was learned.
        """
        if self._level is None:
            return NOTHING_UNUSUAL
        surprise = self._egress.surprise(target)
        p = exp(-surprise)
        value = self.calibration.scale.value(surprise, p)
        return Score(value, p, EGRESS[0], 0.0, EGRESS, (surprise,))

    def learn_egress(self, target: str) -> None:
        """Learn what the function reached for."""
        surprise = self._egress.surprise(target)
        weight = 1.0 if surprise <= UNUSUAL else self._caution.of(self._learned, surprise)
        if self._egress.learn(target, self._unit * weight) or not self._egress.seen % 16:
            self._egress.refit(self._unit)

    def knows_egress(self, target: str) -> bool:
        """Whether the function is known to reach for this."""
        return self._egress.knows(target)

    def trust(self, calls: int) -> None:
        """Learn in full from so many calls, and at once where the level lies elsewhere: a person said so."""
        self._caution.trust(self._learned + calls + 1)
        level = self._level
        if level is not None and abs(self._present - level.centre) > level.spread:
            level.centre = self._present

    def rest(self) -> None:
        """Forget the calls just before, not what was learned: those that come next are of another time."""
        self._traffic, self._run, self._next_run = Traffic(), 1.0, 1.0
        self._read_of = self._judged = None

    def rested(self) -> Self:
        """A copy that has rested, to try calls on."""
        # Its parts have defaults for this: a copy is made empty first.
        found = copy.deepcopy(self)
        found.rest()
        return found

    def _read(self, entered: Entered) -> None:
        traffic = self._traffic
        traffic.read(entered)
        self._read_of = entered
        self._of_size = self._size.look(traffic.size - self._size_middle)
        level = self._rate_level
        if level is None or isnan(traffic.rate):
            self._of_rate = 0.0
        else:
            self._of_rate = self._rate.look(traffic.rate - level.centre)
        self._of_caller = self._callers.surprise(entered.caller)

    def _judgement(
        self, of_duration: float, of_run: float, away: float, errors: float, *, fresh: bool
    ) -> Score:
        of_size, of_rate, of_caller = self._of_size, self._of_rate, self._of_caller
        of_errors = self._errors.look(_log_errors(errors) if fresh else 0.0)
        # Of equal ones the first; written out, for this is done for every observed call, twice.
        rarest, index = of_duration, 0
        if of_run > rarest:
            rarest, index = of_run, 1
        if of_size > rarest:
            rarest, index = of_size, 2
        if of_rate > rarest:
            rarest, index = of_rate, 3
        if of_errors > rarest:
            rarest, index = of_errors, 4
        if of_caller > rarest:
            rarest, index = of_caller, 5
        surprise = self._combination.surprise(rarest)
        self._combined = surprise
        p = exp(-surprise)
        times = exp(away) if index == 0 and not isnan(away) else self._times(index, errors)
        value = self.calibration.scale.value(surprise, p)
        each = (of_duration, of_run, of_size, of_rate, of_errors, of_caller)
        return Score(value, p, FEATURES[index], times, FEATURES, each)

    def _times(self, index: int, errors: float) -> float:
        """How many times its middle a feature is; 0 where that makes no sense."""
        if index == _SIZE:
            return exp(min(self._traffic.size, 700.0)) / max(exp(self._size_middle) - 1.0, 1.0)
        if index == _RATE and self._rate_level is not None and not isnan(self._traffic.rate):
            return exp(self._traffic.rate - self._rate_level.centre)
        if index == _ERRORS and self._failed:
            return errors * self._calls / (WINDOW * self._failed)
        return 0.0

    def _take(self, observed: Observed) -> None:
        """Count a call exactly, and let it be the newest."""
        entered = observed.entered
        self._traffic.take(failed=observed.failed)
        self._read_of = self._judged = None
        calls = 1 if entered.calls <= 1 else min(entered.calls, MOST_CALLS)
        self._calls += calls
        if entered.errors > 0:
            self._failed += min(entered.errors, calls)
        if observed.failed:
            self._failed += 1

    def _meet(self, caller: str) -> None:
        """Count a caller to whom chance didn't come yet: one call of all, of which so many taught."""
        share = self._learned / self._calls if self._calls > self._learned else 1.0
        if self._callers.meet(caller, self._unit * share, self._unit):
            self._callers.refit(self._unit)

    def _learn_first(self, observed: Observed) -> None:
        """Keep the first calls; when there are enough, begin with their medians."""
        entered, traffic = observed.entered, self._traffic
        duration = log_duration(observed.duration)
        if not entered.teaches or isnan(duration):
            return
        self._learned += 1
        self._first.append((duration, traffic.size, traffic.rate))
        errors = traffic.one_more if observed.failed else traffic.errors
        self._errors.look(_log_errors(errors) if observed.failed or entered.errors > 0 else 0.0)
        self._errors.learn(1.0)
        self._callers.learn(entered.caller, 1.0)
        self._add(observed.duration)
        if isnan(self._started):
            self._started = entered.at
        old = entered.at - self._started >= self.settings.min_seconds
        if self._learned >= self.settings.min_samples or (old and self._learned > 1):
            self._begin()

    def _begin(self) -> None:
        first = self._first
        durations = [duration for duration, _, _ in first]
        rates = [rate for _, _, rate in first if not isnan(rate)]
        level = centre_of(durations, LEVEL_SPEED)
        self._present = level.centre
        self._size_middle = self._present_size = median([size for _, size, _ in first])
        if rates:
            self._rate_level = centre_of(rates, LEVEL_SPEED)
        for duration, size, rate in first:
            self._duration.look(duration - level.centre)
            self._duration.learn(1.0)
            self._size.look(size - self._size_middle)
            self._size.learn(1.0)
            if not isnan(rate):
                self._learn_rate(rate, 1.0, 1.0)
        self._duration.refit(1.0)
        for duration in durations:
            surprise = min(self._duration.look(duration - level.centre), MOST_OF_RUN)
            self._run = max(self._run + RUN_SPEED * (surprise - self._run), LEAST_RUN)
            self._run_table.look(log(self._run))
            self._run_table.learn(1.0)
        self._first = []
        for _ in range(PARTS):
            self._refit_next()
        self._level = level

    def _learn_rate(self, rate: float, added: float, weight: float) -> None:
        level = self._rate_level
        if level is None:
            level = self._rate_level = Level(rate, UNKNOWN_SPREAD, LEVEL_SPEED)
        self._rate.look(rate - level.centre)
        self._rate.learn(added)
        level.learn(rate, weight)

    def _refit_next(self) -> None:
        """Bring one table up to date; the next time another."""
        self._left = min(MOST_BETWEEN_REFITS, 1 + self._learned // 64)
        turn = self._turn
        self._turn = (turn + 1) % PARTS
        if turn == PARTS - 1:
            self._callers.refit(self._unit)
            if self._unit > HEAVIEST:
                self._rescale()
            if self._rate_level is not None:
                self._traffic.expect(exp(-self._rate_level.centre))
        else:
            self._tables()[turn].refit(self._unit)


def _log_errors(errors: float) -> float:
    """A lone error is as none."""
    return log(errors) if errors > 1.0 else 0.0
