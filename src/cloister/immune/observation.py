"""What is known of one call: counts, sizes, times and names of code; never a value.

These are the border between the wrapper around a function and what judges it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import exp
from typing import Final, Protocol


class Action(StrEnum):
    """What is done about a call."""

    ALLOW = "allow"
    QUARANTINE = "quarantine"
    BLOCK = "block"


class Ground(StrEnum):
    """Why an action was taken.

    ``ordinary`` has nothing to record. ``unusual`` and ``would-block`` proceed and are marked: the second
    would have been stopped were the function one whose calls may be. ``review`` proceeds, is audited in full
    and asks for a person. ``probe`` is let in to see whether a contained function is itself again.
    """

    ORDINARY = "ordinary"
    UNUSUAL = "unusual"
    REVIEW = "review"
    WOULD_BLOCK = "would-block"
    PROBE = "probe"
    CONTAINED = "contained"
    EFFECTOR_FAILED = "effector-failed"
    SWITCHED_OFF = "switched-off"


# Not frozen: that costs half a microsecond in every observed call. Nobody writes to them; they have a hash.
# Each has an `__init__` of its own, which the compiled core calls as C calls a function, and says how it is
# pickled, which a compiled class doesn't by itself.
@dataclass(slots=True, unsafe_hash=True)
class Entered:
    """A call that is about to run its body.

    Attributes:
        at: monotonic time, seconds.
        size: total size of the arguments: characters of text, bytes of binary, items of containers, 1 for
            anything else.
        caller: ``module:qualname`` of the calling code; empty where it isn't known.
        calls: calls since the last observed one, this one included; exact.
        errors: how many of the ones before this raised, of which nobody was told; exact.
        teaches: whether a tick of chance chose it. What a gate chose is judged and teaches nothing but who
            called: it would bias what is normal.
    """

    at: float
    size: int
    caller: str
    calls: int
    errors: int
    teaches: bool

    def __init__(self, at: float, size: int, caller: str, calls: int, errors: int, teaches: bool) -> None:  # noqa: FBT001
        self.at = at
        self.size = size
        self.caller = caller
        self.calls = calls
        self.errors = errors
        self.teaches = teaches

    def __reduce__(self) -> tuple[type[Entered], tuple[float, int, str, int, int, bool]]:
        return Entered, (self.at, self.size, self.caller, self.calls, self.errors, self.teaches)


@dataclass(slots=True, unsafe_hash=True)
class Observed:
    """A call that has ended.

    Attributes:
        entered: what was known before it.
        duration: seconds from entry to end; of a coroutine or generator, the time that it ran itself.
        failed: whether it raised.
    """

    entered: Entered
    duration: float
    failed: bool

    def __init__(self, entered: Entered, duration: float, failed: bool) -> None:  # noqa: FBT001
        self.entered = entered
        self.duration = duration
        self.failed = failed

    def __reduce__(self) -> tuple[type[Observed], tuple[Entered, float, bool]]:
        return Observed, (self.entered, self.duration, self.failed)


@dataclass(slots=True, unsafe_hash=True)
class Score:
    """How unusual a call is.

    Attributes:
        value: 0 to 100; above 80 exactly where ``p`` is below the operator's alpha.
        p: probability of something at least as unusual under what was learned, over all features.
        feature: the feature that decides.
        times: how many times its median the feature's value is; 0 where that makes no sense.
        features: names of all features that were looked at.
        surprises: of each, -ln of the probability of something at least as unusual.
    """

    value: float
    p: float
    feature: str
    times: float
    features: tuple[str, ...]
    surprises: tuple[float, ...]

    def __init__(
        self,
        value: float,
        p: float,
        feature: str,
        times: float = 0.0,
        features: tuple[str, ...] = (),
        surprises: tuple[float, ...] = (),
    ) -> None:
        self.value = value
        self.p = p
        self.feature = feature
        self.times = times
        self.features = features
        self.surprises = surprises

    def __reduce__(
        self,
    ) -> tuple[type[Score], tuple[float, float, str, float, tuple[str, ...], tuple[float, ...]]]:
        parts = (self.value, self.p, self.feature, self.times, self.features, self.surprises)
        return Score, parts

    @property
    def p_by_feature(self) -> dict[str, float]:
        """The probability of each feature alone."""
        return {name: exp(-surprise) for name, surprise in zip(self.features, self.surprises, strict=True)}

    @property
    def reason(self) -> str:
        """Its feature and size in words: ``duration 5.1x median, p=0.0004``."""
        size = f" {self.times:.1f}x median," if self.times else ""
        return f"{self.feature}{size} p={self.p:.2g}"


NOTHING_UNUSUAL: Final = Score(0.0, 1.0, "none")


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done about one call, and why.

    Attributes:
        action: one of three.
        reason: words and numbers of this package.
        anomaly_score: 0 to 100.
        event_id: its id in the audit log.
        ground: why, as one of a few words.
    """

    action: Action
    reason: str
    anomaly_score: float
    event_id: str
    ground: Ground = Ground.ORDINARY


class Sensor(Protocol):
    """What a wrapped function tells on the calls that it doesn't pass straight through; one per function.

    Whatever it raises but `CallBlocked` is counted and dropped by the wrapper: the call goes on.
    """

    def enter(self, entered: Entered) -> Decision | None:
        """Judge a call before its body runs; None lets it through without a record."""
        ...

    def leave(self, observed: Observed) -> None:
        """Take note of a call that has ended."""
        ...
