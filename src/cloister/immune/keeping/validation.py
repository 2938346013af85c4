"""Validation: what a candidate would have done to the newest ordinary calls.

Rules kept here:

1. It is tried on the last 100 ordinary calls of its function with the code that scores calls, on a copy that
   doesn't learn. Which calls are ordinary is not decided by their score, or every candidate would pass.
2. At most 5 of 100 may be flagged. With fewer than 100 there is no verdict that passes.
3. A scorer that fails, or answers no number from 0 to 100, has flagged the call: a broken one never passes.
4. The verdict holds the flagged calls as sizes, times, counts and scores; names of code are redacted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, TypeAlias

from cloister.immune.errors import ImmuneError
from cloister.immune.observation import Observed, Score

EVENTS: Final = 100
MAX_PERCENT: Final = 5
_SHOWN: Final = 20
_LONGEST: Final = 200

Scorer: TypeAlias = Callable[[Observed], Score]
"""Scores a call as the detector does, without learning from it."""

Redact: TypeAlias = Callable[[str], str]
"""Takes what could identify a person out of a text."""


@dataclass(frozen=True, slots=True)
class SanitisedTrace:
    """A flagged ordinary call, without anything that could identify a person.

    Attributes:
        score: 0 to 100; 100 where the scorer failed.
        feature: that decided.
        duration_ms: milliseconds.
        size: of its arguments.
        caller: name of code, redacted.
        failed: whether it raised.
    """

    score: float
    feature: str
    duration_ms: float
    size: int
    caller: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a validation found.

    Attributes:
        total: ordinary calls that it was tried on.
        false_positives: how many of them it flagged.
        broken: for how many of these the scorer failed.
        threshold: score above which a call is flagged.
        at: seconds since 1970.
        traces: the first of the flagged ones.
    """

    total: int
    false_positives: int
    broken: int
    threshold: float
    at: float
    traces: tuple[SanitisedTrace, ...] = field(default=())

    @property
    def rate(self) -> float:
        """False positives over all; 1 where there was nothing to try."""
        return self.false_positives / self.total if self.total else 1.0

    @property
    def passed(self) -> bool:
        """Whether it may be promoted."""
        return is_eligible(self.false_positives, self.total)

    @property
    def reason(self) -> str:
        """It in words and numbers."""
        return f"{self.false_positives} of {self.total} ordinary calls flagged"

    def to_json(self) -> str:
        """It as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Read what `to_json` writes.

        Raises:
            ImmuneError: ``immune.state_damaged``.
        """
        try:
            members = json.loads(text)
            traces = tuple(SanitisedTrace(**one) for one in members.pop("traces"))
            verdict = cls(**members, traces=traces)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise _no_verdict() from None
        counts = (verdict.total, verdict.false_positives, verdict.broken)
        if any(type(one) is not int or one < 0 for one in counts):
            raise _no_verdict()
        return verdict


def _no_verdict() -> ImmuneError:
    return ImmuneError("immune.state_damaged", "A stored verdict isn't one.")


def is_eligible(false_positives: int, total: int) -> bool:
    """Whether a false positive rate is 5 % or less, over 100 calls or more; exact."""
    return total >= EVENTS and 0 <= false_positives * 100 <= MAX_PERCENT * total


def is_candidate(score: Score, threshold: float) -> bool:
    """Whether a score makes a candidate, or flags a call: above the threshold, not at it."""
    return score.value > threshold


def validate(
    ordinary: Sequence[Observed], scorer: Scorer, threshold: float, now: float, redact: Redact
) -> Verdict:
    """Try a candidate on ordinary calls.

    Args:
        ordinary: newest first; of more than 100, the newest 100 count.
        scorer: the detector's own, on a copy that doesn't learn.
        threshold: the candidate's.
        now: seconds since 1970.
        redact: for names of code.
    """
    newest = ordinary[:EVENTS]
    flagged: list[SanitisedTrace] = []
    broken = 0
    for observed in newest:
        score = _score(scorer, observed)
        if score is None:
            broken += 1
            flagged.append(_sanitised(observed, _BROKEN, redact))
        elif is_candidate(score, threshold):
            flagged.append(_sanitised(observed, score, redact))
    return Verdict(len(newest), len(flagged), broken, threshold, now, tuple(flagged[:_SHOWN]))


_BROKEN: Final = Score(100.0, 0.0, "scorer failed")


def _score(scorer: Scorer, observed: Observed) -> Score | None:
    try:
        score = scorer(observed)
        usable = 0 <= score.value <= 100
    except Exception:
        # Whatever a scorer does wrong only counts against the candidate.
        return None
    return score if usable else None


def _sanitised(observed: Observed, score: Score, redact: Redact) -> SanitisedTrace:
    seconds = observed.duration if math.isfinite(observed.duration) else 0.0
    caller = redact(observed.entered.caller)[:_LONGEST]
    feature = redact(score.feature)[:_LONGEST]
    return SanitisedTrace(
        round(score.value, 2),
        feature,
        round(seconds * 1000, 6),
        observed.entered.size,
        caller,
        observed.failed,
    )
