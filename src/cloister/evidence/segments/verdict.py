"""What is found out about one segment, and how the walk through it stops."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloister.evidence.checks import Check, Checked, failed, not_run, passed
from cloister.evidence.segments.checkpoint import SegmentCheckpoint
from cloister.evidence.segments.layout import Header


class Ending(StrEnum):
    """How a segment ends."""

    CLOSED = "closed"
    """With its closing mark."""
    OPEN = "open"
    """With a whole line: its process is running, was killed, or its end was cut off."""
    TORN = "torn"
    """In the middle of a line: its process was killed, the disk was full, or its end was cut off."""


@dataclass(frozen=True, slots=True)
class SegmentVerdict(Checked):
    """What was found.

    Attributes:
        header: what the segment says of itself, None where it can't be read.
        opened: the time that its first line says, None where there is none.
        lines: how many lines hold together, from the first.
        proven: up to which of them it is shown who wrote them: by a mark behind them, or by their tags.
        entries: how many of the proven lines are events. Others count for nothing.
        signed: up to which line marks in the segment sign it.
        vouched: up to which line checkpoints held outside vouch for it.
        last: the last mark that its key signed.
        ending: how it ends.
        broken_at: the first line that doesn't hold, or may not; None where all do.
        checks: every check, with its reason.
    """

    header: Header | None
    opened: str | None
    lines: int
    proven: int
    entries: int
    signed: int
    vouched: int
    last: SegmentCheckpoint | None
    ending: Ending
    broken_at: int | None
    checks: tuple[Check, ...]

    @property
    def unverified(self) -> int:
        """How many lines at the end anybody may have written."""
        return self.lines - self.proven


class Broken(Exception):  # noqa: N818 - it never leaves this package
    """A line that doesn't hold.

    Args:
        check: the id of the check that fails by it.
        line: its number.
        reason: what is wrong with it.
    """

    def __init__(self, check: str, line: int, reason: str) -> None:
        super().__init__(reason)
        self.check, self.line, self.reason = check, line, reason


def check_unbroken(check: str, broken: Broken | None, detail: str = "") -> Check:
    """A check that passed if no line is broken, failed if that is by it, and else was not run to the end."""
    if broken is None:
        return passed(check, detail)
    if broken.check == check:
        return failed(check, f"line {broken.line}: {broken.reason}")
    return not_run(check, f"line {broken.line} doesn't hold")
