"""What the service needs of the brain behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cloister.core.canonical import JSON
    from cloister.immune.service.telemetry_form import TelemetryForm


class WatchdogState(StrEnum):
    """Whether somebody looks after the brain."""

    ABSENT = "absent"
    WATCHING = "watching"
    SAFE_MODE = "safe_mode"


@dataclass(frozen=True, slots=True)
class BrainMetrics:
    """What only the brain can count (PIC-R23.1).

    Attributes:
        detections: decisions since the start by action: ``allow``, ``quarantine``, ``block``.
        fpr_estimate: observed share of ordinary calls that were flagged; None before there are enough.
        detector_count: detectors that are active.
        sandbox_queue_length: candidates that wait for their validation.
        watchdog: whether somebody looks after it.
    """

    detections: Mapping[str, int]
    fpr_estimate: float | None
    detector_count: int
    sandbox_queue_length: int
    watchdog: WatchdogState


class BrainPort(Protocol):
    """A brain as the service sees it. Each method is called on one worker thread, never two at once."""

    def take(self, events: Sequence[TelemetryForm]) -> None:
        """Take a batch in, whole. What it raises makes the sender try again."""
        ...

    def status(self) -> Mapping[str, JSON]:
        """What ``/status`` shows of it: per function its state, observed against nominal rates, losses."""
        ...

    def metrics(self) -> BrainMetrics:
        """What ``/metrics`` shows of it."""
        ...

    def ready(self) -> bool:
        """Whether its store can be used."""
        ...
