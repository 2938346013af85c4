"""Finding a period in a log without reading all of it: entries stand in the order of their times, nearly.

Rules kept here:

1. A log's times run forwards but for the moments in which entries queue, and what was written before writers
   saw to that; so a search by halves is widened by a tolerance, and what lies within is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.core.clock import format_time, parse_time
from cloister.evidence.custody.bundle import IndexRange
from cloister.evidence.custody.completeness import CLOCK_TOLERANCE
from cloister.evidence.envelope import decode_envelope
from cloister.evidence.statement import open_statement

if TYPE_CHECKING:
    from cloister.evidence.log import EvidenceLog


@dataclass(frozen=True)
class DatedLog:
    """A log, as it was at a head, by the times of its entries.

    Attributes:
        log: the log.
        size: how many entries it had.
    """

    log: EvidenceLog
    size: int

    def span(self, start: str, end: str) -> IndexRange:
        """The smallest range that holds every entry dated in a period and has neighbours that aren't."""
        low, high = self.index(_moved(start, -CLOCK_TOLERANCE)), self.index(_moved(end, CLOCK_TOLERANCE))
        span = _span(self.times(low, high), start, end)
        return IndexRange(start=low + span.start, end=low + span.end)

    def index(self, moment: str) -> int:
        """The first entry dated at a moment or later; the log's size if there is none."""
        low, high = 0, self.size
        while low < high:
            middle = (low + high) // 2
            (when,) = self.times(middle, middle + 1)
            if when < moment:
                low = middle + 1
            else:
                high = middle
        return low

    def times(self, start: int, end: int) -> list[str]:
        """When these entries were recorded, by their owner's clock."""
        return [
            open_statement(decode_envelope(one.data)).predicate.recorded_at
            for one in self.log.entries(start, end)
        ]


def _moved(moment: str, by: timedelta) -> str:
    try:
        return format_time(parse_time(moment) + by)
    except OverflowError:
        return moment


def _span(times: Sequence[str], start: str, end: str) -> IndexRange:
    inside = [index for index, when in enumerate(times) if start <= when < end]
    if inside:
        first, stop = inside[0], inside[-1] + 1
    else:
        first = stop = next((index for index, when in enumerate(times) if when >= end), len(times))
    while first > 0 and times[first - 1] >= start:
        first -= 1
    while stop < len(times) and times[stop] < end:
        stop += 1
    return IndexRange(start=first, end=stop)
