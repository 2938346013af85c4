"""A writer's clock against the time since the boot, which nobody can set back.

Rules kept here:

1. No line is earlier than the one before, and between two marks both clocks go equally far.
2. A process that lives signs a mark in each heartbeat. One that was stopped longer than that, by whomever, is
   told: what happened meanwhile is in nobody's stream.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cloister.core.clock import parse_time
from cloister.core.errors import InputError
from cloister.evidence.checks import Check, failed, passed
from cloister.evidence.segments.checkpoint import SegmentCheckpoint
from cloister.evidence.segments.layout import Header

CLOCK_TOLERANCE: Final = timedelta(seconds=1)
"""How far a writer's clock may step against the time since the boot."""
SILENCE_TOLERANCE: Final = timedelta(seconds=10)
"""How much longer than its heartbeat a process may be silent: a disk, sink or busy machine that stalls."""
_SHOWN: Final = 3


class Pace:
    """The times of one segment, as its lines come.

    Args:
        at: the time that its first line says.
        header: what it says of itself.
    """

    def __init__(self, at: str, header: Header) -> None:
        self._reference = (_moment(at), header.uptime)
        self._allowed = _allowed(header)
        self._longest = 0
        self._problems: list[str] = []
        self._more = 0

    def mark(self, mark: SegmentCheckpoint, number: int) -> None:
        """A mark's two clocks."""
        moment, (earlier, uptime) = _moment(mark.at), self._reference
        since = mark.uptime - uptime
        passed_by = timedelta(microseconds=since)
        self._longest = max(self._longest, since)
        if moment is None or earlier is None or since < 0:
            self._tell(f"line {number} is of no time that follows")
        elif abs(moment - earlier - passed_by) > CLOCK_TOLERANCE:
            self._tell(f"by line {number} the clock was set by {moment - earlier - passed_by}")
        if since > self._allowed:
            self._tell(f"nothing was signed for {since / 1e6:.1f} s before line {number}")
        self._reference = (moment, mark.uptime)

    def set_back(self, number: int, latest: bytes, at: bytes) -> None:
        """A line whose time is earlier than the one before."""
        earlier, moment = (_moment(one.decode("ascii", "replace")) for one in (latest, at))
        if earlier is None or moment is None or earlier - moment > CLOCK_TOLERANCE:
            self._tell(f"line {number} is earlier than the line before")

    def check(self) -> Check:
        """The check ``segment-clock``."""
        if self._problems:
            more = f"; and {self._more} more" if self._more else ""
            return failed("segment-clock", "; ".join(self._problems) + more)
        step, silence = CLOCK_TOLERANCE.seconds, self._longest / 1e6
        return passed("segment-clock", f"no step of more than {step} s; longest silence {silence:.1f} s")

    def _tell(self, problem: str) -> None:
        if len(self._problems) < _SHOWN:
            self._problems.append(problem)
        else:
            self._more += 1


def silence_between(last: SegmentCheckpoint, following: Header) -> int:
    """How many microseconds a process was silent between two of its segments; 0 where it may have been."""
    since = following.uptime - last.uptime
    return since if since > _allowed(following) else 0


def _allowed(header: Header) -> int:
    return int(header.heartbeat * 1e6 + SILENCE_TOLERANCE / timedelta(microseconds=1))


def _moment(text: str) -> datetime | None:
    try:
        return parse_time(text)
    except InputError:
        return None
