"""What a verdict is made of: checks by name, and the register in which rooms above plug theirs.

Rules kept here:

1. A check that isn't plugged in, or that breaks, counts as not passed. Nothing is accepted by absence.
2. A check reads the context it is given and nothing else: no file, no network, no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from cloister.evidence.context import ReceiptContext


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a verdict.

    Attributes:
        id: its stable name.
        outcome: how it ended.
        detail: the reason, for people; never a record's content. Characters that don't print, which a receipt
            may have put there, are escaped.
    """

    id: str
    outcome: Outcome
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", escaped(self.detail))


class Checked:
    """A verdict: what was found out, check by check. One without a check accepts nothing."""

    __slots__ = ()
    checks: tuple[Check, ...]

    @property
    def accepted(self) -> bool:
        """Whether there were checks and every one passed."""
        return bool(self.checks) and not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed or were not run."""
        return tuple(one for one in self.checks if one.outcome is not Outcome.PASSED)


def escaped(text: str) -> str:
    """Text with every character that doesn't print written as its code, safe for a terminal."""
    return "".join(one if one.isprintable() else f"\\u{{{ord(one):x}}}" for one in text)


def passed(check_id: str, detail: str) -> Check:
    """A check that found nothing wrong."""
    return Check(check_id, Outcome.PASSED, detail)


def failed(check_id: str, detail: str) -> Check:
    """A check that found something wrong."""
    return Check(check_id, Outcome.FAILED, detail)


def not_run(check_id: str, detail: str) -> Check:
    """A check that couldn't be made, which is as bad as one that failed."""
    return Check(check_id, Outcome.NOT_RUN, detail)


def judged(check_id: str, problems: list[str], detail: str) -> Check:
    """A check that failed if there are problems, and passed with this detail if there are none."""
    if not problems:
        return passed(check_id, detail)
    shown = "; ".join(problems[:3])
    return failed(check_id, shown if len(problems) <= 3 else f"{shown}; and {len(problems) - 3} more")


PluggedCheck: TypeAlias = "Callable[[ReceiptContext], Check]"

PLUGGED_CHECKS: Final = ("policy", "attestation")
"""Checks every receipt needs whose code lives in rooms above this one."""


DEMANDED_CHECKS: Final = ("attestation-today",)
"""Checks whose code lives in rooms above and that are made where a verifying party asks for them."""


class CheckRegistry:
    """Where rooms above plug the checks that re-run their verdicts."""

    def __init__(self) -> None:
        self._checks: dict[str, PluggedCheck] = {}

    def register(self, check_id: str, check: PluggedCheck) -> None:
        """Plug a check in.

        Args:
            check_id: one of ``PLUGGED_CHECKS`` or ``DEMANDED_CHECKS``.
            check: a pure function of the receipt's context.

        Raises:
            ValueError: if the name isn't one of those, or is taken.
        """
        if check_id not in (*PLUGGED_CHECKS, *DEMANDED_CHECKS) or check_id in self._checks:
            raise ValueError(f"{check_id} can't be plugged in here, or already is")
        self._checks[check_id] = check

    @property
    def demanded(self) -> tuple[str, ...]:
        """The checks that were asked for besides."""
        return tuple(one for one in DEMANDED_CHECKS if one in self._checks)

    def run(self, check_id: str, context: ReceiptContext) -> Check:
        """Run a plugged check; not run if it isn't plugged in or breaks."""
        check = self._checks.get(check_id)
        if check is None:
            return not_run(check_id, "the code of this check is not installed here")
        try:
            result = check(context)
        except (
            Exception
        ) as error:  # a defect in a plugged check must refuse the receipt, not stop the verdict
            return not_run(check_id, f"the check broke: {type(error).__name__}")
        return Check(check_id, result.outcome, result.detail)
