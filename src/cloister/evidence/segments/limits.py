"""When a stream's marks are made and its segments end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """When marks are made and segments end.

    Attributes:
        entries_per_mark: so many entries at most lie between two marks.
        mark_seconds: an entry waits so long at most for the mark that covers it.
        heartbeat_seconds: so long at most is nothing signed.
        max_bytes: a segment that has so many bytes is closed before the next entry.
        max_seconds: a segment that was opened so long ago is closed before the next entry.
        max_waiting_bytes: so much is held in memory at most before appending waits.
    """

    entries_per_mark: int = 256
    mark_seconds: float = 0.1
    heartbeat_seconds: int = 10
    max_bytes: int = 64 * 1024 * 1024
    max_seconds: float = 3600.0
    max_waiting_bytes: int = 8 * 1024 * 1024
