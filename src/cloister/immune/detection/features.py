"""The features of a call: what can be said of it in numbers, before its body runs and after.

`FEATURES` names them; a seventh, ``egress``, is of what a call reaches for. Rules this module keeps:

* Rate and errors are of the newest calls, about ``WINDOW`` of them, all counted exactly whether observed or
  not: older ones fade by the number of calls since, not by the number of observations.
* A silence counts as eight usual intervals at most: a burst after a quiet night is as visible as at noon.
* A clock that goes backwards or isn't finite tells nothing of the rate, and harms nothing.
* A lone error is never unusual: errors count from the second among the newest calls on.
* Whatever numbers come in, none that isn't finite comes out but ``nan`` for "nothing is known".
"""

from __future__ import annotations

from math import inf, log, nan
from typing import TYPE_CHECKING, Final

from cloister.immune.detection import state

if TYPE_CHECKING:
    from cloister.core.canonical import JSON
    from cloister.immune.observation import Entered

FEATURES: Final = ("duration", "run", "size", "rate", "errors", "caller")
"""Duration against its level; the run of durations; size of the arguments; call rate; error rate; caller."""

WINDOW: Final = 24.0
FADING: Final = 1.0 - 1.0 / WINDOW
LONGEST_GAP: Final = 8.0
FIRST_CALLS: Final = 4.0
ENDED: Final = 2.0
"""The rate is at most so many times that of the newest interval alone: a burst ends when it does."""
SHORTEST: Final = 1e-9
LONGEST: Final = 1e9
MOST_CALLS: Final = 1_000_000_000
MOST_TIME: Final = 1e15


def log_duration(seconds: float) -> float:
    """ln of a duration, from a nanosecond up; ``nan`` where it is no number or has no end."""
    if seconds >= LONGEST:
        return nan if seconds == inf else log(LONGEST)
    if seconds >= SHORTEST:
        return log(seconds)
    return log(SHORTEST) if seconds < SHORTEST else nan


class Traffic:
    """Calls, their time and their errors, fading with each call; and the moment of the newest.

    `read` says what can be said of a call that is about to run, `take` makes it the newest.

    Attributes:
        size: of the call that was read: ln(1 + size of its arguments).
        rate: ln of the calls per second over the newest calls with it; ``nan`` where it isn't known.
        errors: errors among the newest `WINDOW` calls before it.
        one_more: what they become if it fails.
    """

    __slots__ = (
        "_at", "_calls", "_failed", "_longest", "_next_at", "_next_calls", "_next_failed", "_next_seconds",
        "_seconds", "errors", "one_more", "rate", "size",
    )  # fmt: skip

    def __init__(self) -> None:
        self.size: float = 0.0
        self.rate: float = nan
        self.errors: float = 0.0
        self.one_more: float = 1.0
        self._at: float = nan
        self._calls: float = 0.0
        self._seconds: float = 0.0
        self._failed: float = 0.0
        self._longest: float = LONGEST
        self._next_at: float = nan
        self._next_calls: float = 0.0
        self._next_seconds: float = 0.0
        self._next_failed: float = 0.0

    @property
    def error_share(self) -> float:
        """Errors over calls, of the newest."""
        return self._failed / self._calls if self._calls else 0.0

    def read(self, entered: Entered) -> None:
        """Find the features of a call that is about to run."""
        calls, errors, size, at = entered.calls, entered.errors, entered.size, entered.at
        before = self._calls
        seconds = self._seconds
        if calls == 1:
            window = before * FADING + 1.0
            kept: float = FADING
        else:
            calls = min(max(calls, 1), MOST_CALLS)
            kept = FADING**calls
            window = before * kept + calls
        failed = self._failed * kept
        if errors > 0:
            failed += min(errors, calls)
        passed = at - self._at
        if 0.0 <= passed < inf:
            longest = self._longest * calls
            seconds = seconds * kept + (passed if passed < longest else longest)
            if seconds > SHORTEST and before >= FIRST_CALLS:
                rate = window / seconds
                if passed * rate > ENDED * calls:
                    rate = ENDED * calls / passed
                self.rate = log(rate)
            else:
                self.rate = nan
        else:
            seconds = seconds * window / before if before else 0.0
            self.rate = nan
        self.size = log(size + 1) if size > 0 else 0.0
        per_window = WINDOW / window if window > WINDOW else 1.0
        self.errors = failed * per_window
        self.one_more = self.errors + per_window
        self._next_at = at
        self._next_calls = window
        self._next_seconds = seconds
        self._next_failed = failed

    def take(self, *, failed: bool) -> None:
        """Let the call that was read last be the newest.

        Args:
            failed: whether it raised.
        """
        self._at = self._next_at
        self._calls = self._next_calls
        self._seconds = self._next_seconds
        self._failed = min(self._next_failed + 1.0, self._calls) if failed else self._next_failed

    def expect(self, interval: float) -> None:
        """Say what the usual time between two calls is, seconds; a silence counts as eight of them."""
        self._longest = min(LONGEST_GAP * interval, LONGEST)

    def as_json(self) -> dict[str, JSON]:
        """The window and its moment, which may mean nothing to another process and harms nothing there."""
        at: JSON = self._at if -MOST_TIME < self._at < MOST_TIME else None
        return {
            "at": at,
            "calls": self._calls,
            "failed": self._failed,
            "longest": self._longest,
            "seconds": self._seconds,
        }

    @classmethod
    def from_json(cls, value: object) -> Traffic:
        """The window that `as_json` wrote.

        Raises:
            ImmuneError: ``immune.baseline_damaged`` where the value isn't one of its documents.
        """
        part = state.members(value, "traffic", ("at", "calls", "failed", "longest", "seconds"))
        found = cls()
        found._calls = state.number(part["calls"], "calls", 0.0, MOST_CALLS * 2.0 * WINDOW)
        found._failed = state.number(part["failed"], "failed", 0.0, found._calls)
        found._seconds = state.number(part["seconds"], "seconds", 0.0, LONGEST * MOST_CALLS * 2.0 * WINDOW)
        if part["at"] is not None:
            found._at = state.number(part["at"], "at", -MOST_TIME, MOST_TIME)
        found._longest = state.number(part["longest"], "longest", 0.0, LONGEST)
        return found
