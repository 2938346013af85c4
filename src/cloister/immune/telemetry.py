"""What a process tells of its observed calls and its decisions to a service elsewhere, where one is named."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cloister.immune.code_names import event_shown
from cloister.immune.wrapping.faults import FAULTS
from cloister.immune.wrapping.recording import Recorder
from cloister.immune.wrapping.ring import Ring

if TYPE_CHECKING:
    from cloister.immune.observation import Decision
    from cloister.immune.service.otlp import OtlpExport
    from cloister.immune.service.sender import Sender, SentCounts
    from cloister.immune.settings import ImmuneSettings
    from cloister.immune.wrapping.events import TelemetryEvent
    from cloister.immune.wrapping.sampling import Pace


class Telemetry:
    """Of one process; nothing is sent before it is opened.

    Args:
        settings: name the service, or none.
    """

    def __init__(self, settings: ImmuneSettings) -> None:
        self._settings = settings
        self._sender: Sender[TelemetryEvent] | None = None
        self._otlp: OtlpExport | None = None
        self._ring: _Shipped | None = None

    def open(self) -> Recorder | None:
        """Who keeps the events that are sent; None where no service is named.

        Raises:
            ImmuneError: a setting that can't be.
        """
        api, agent = self._settings.api, self._settings.cellagent
        if api.url is None:
            return None
        if api.protocol == "otlp":
            from cloister.immune.service import open_otlp, otlp_sender

            self._otlp = open_otlp(self._settings)
            self._sender = otlp_sender(self._otlp, self._settings)
        else:
            from cloister.immune.service import open_sender

            self._sender = open_sender(self._settings)
        self._ring = _Shipped(agent.buffer_size, self._sender)
        return Recorder(self._ring, tags=agent.resource_tags)

    def follow(self, pace: Pace) -> None:
        """Slow observing down while the sender can't keep up."""
        if self._ring is not None:
            self._ring.pace = pace

    def decided(self, function: str, decision: Decision) -> None:
        """Tell of a decision, where the service takes them; a fault is counted and dropped."""
        if self._otlp is None:
            return
        try:
            self._otlp.decided(function, decision, time.time())
        except Exception as fault:
            FAULTS.note("otlp", fault)

    @property
    def counts(self) -> SentCounts | None:
        """What became of the events; None where none are sent."""
        return None if self._sender is None else self._sender.counts

    def close(self) -> None:
        """Send what is left, as far as that goes, and end."""
        if self._sender is not None:
            self._sender.close()
        if self._otlp is not None:
            self._otlp.close()


class _Shipped(Ring["TelemetryEvent"]):
    """The ring, which also hands each event to the sender, and slows observing while that can't keep up."""

    def __init__(self, capacity: int, sender: Sender[TelemetryEvent]) -> None:
        super().__init__(capacity)
        self._sender = sender
        self.pace: Pace | None = None

    def append(self, event: TelemetryEvent) -> None:
        event = event_shown(event)
        super().append(event)
        self._sender.offer(event)
        if self.pace is not None:
            self.pace.queue(self._sender.fill)
