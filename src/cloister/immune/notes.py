"""Where a brain's decisions and events go: the audit, and whoever wants to know of incidents.

Without a folder nothing is kept: decisions are counted, and the log of ``cloister.immune`` tells of blocks.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cloister.core.clock import Clock, format_time, system_clock
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.event_ids import EventIds
from cloister.immune.incident import ImmuneIncident, IncidentGate
from cloister.immune.keeping.events import Happened, StateEvent
from cloister.immune.keeping.locks import ForkSafe
from cloister.immune.observation import Action, Decision, Ground
from cloister.immune.wrapping.faults import FAULTS

if TYPE_CHECKING:
    from cloister.immune.audit import AuditTrail

_LOG: Final = logging.getLogger("cloister.immune")
_KINDS: Final[Mapping[Happened, AuditKind]] = MappingProxyType(
    {
        Happened.BASELINE_MADE: AuditKind.BASELINE,
        Happened.ANCHOR_APPROVED: AuditKind.APPROVE,
        Happened.ANCHOR_SIGNED: AuditKind.APPROVE,
        Happened.ANCHOR_INVALID: AuditKind.FAULT,
        Happened.DEPLOYED: AuditKind.DEPLOY,
        Happened.EGRESS_APPROVED: AuditKind.APPROVE,
        Happened.DRIFT_BEGAN: AuditKind.DRIFT,
        Happened.DRIFT_ENDED: AuditKind.DRIFT,
        Happened.CANDIDATE_MADE: AuditKind.CANDIDATE,
        Happened.DETECTOR_VALIDATED: AuditKind.VALIDATION,
        Happened.RETRY_ASKED: AuditKind.VALIDATION,
        Happened.DETECTOR_PROMOTED: AuditKind.PROMOTION,
        Happened.DETECTOR_REJECTED: AuditKind.REJECTION,
        Happened.DETECTOR_EXPIRED: AuditKind.EXPIRY,
        Happened.ROLLED_BACK: AuditKind.ROLLBACK,
        Happened.STATE_DAMAGED: AuditKind.FAULT,
        Happened.STAGE_RESUMED: AuditKind.STATE_CHANGE,
        Happened.STAGE_RELEASED: AuditKind.STATE_CHANGE,
        Happened.STAGE_INVALID: AuditKind.FAULT,
        Happened.UPKEEP_FAILED: AuditKind.FAULT,
    }
)

IncidentSink = Callable[[ImmuneIncident], None]


def tell_nobody(_: ImmuneIncident) -> None:
    """Nobody is told of incidents."""


def tell_none(_function: str, _decision: Decision) -> None:
    """Nobody is told of decisions."""


class Notes(ForkSafe):
    """Takes down what a brain decides and what happens to its state.

    Args:
        trail: the audit; None keeps none.
        on_incident: told of blocks, drift and damage, not of each one of many.
        on_decision: told of each decision once it is taken down; it raises nothing.
        clock: dates entries.
        monotonic: seconds, for the pace of incidents.
    """

    def __init__(
        self,
        trail: AuditTrail | None,
        *,
        on_incident: IncidentSink = tell_nobody,
        on_decision: Callable[[str, Decision], None] = tell_none,
        clock: Clock = system_clock,
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__()
        self.trail, self._clock = trail, clock
        self._on_decision = on_decision
        self._on_incident, self._gate = on_incident, IncidentGate(monotonic)
        self._ids = EventIds()
        self._counts: dict[str, dict[Ground, int]] = {}

    def decided(self, function: str, decision: Decision) -> None:
        """Take down a decision.

        Every block is taken down, and the first of a containment is durable when this returns, where the disk
        lets it be; in an event loop's thread nobody waits for a disk. Of what is only marked, the first,
        second, fourth, eighth ... since the function's stage changed is taken down, with its number.
        """
        blocked = decision.action is Action.BLOCK
        times = self._count(function, decision.ground)
        if blocked or times & (times - 1) == 0:
            event = AuditEvent.of_decision(self._now(), function, decision)
            if times > 1 and not blocked:
                event = replace(event, reason=f"{event.reason}; time {times}")
            self._write(event, durable=blocked and times == 1 and not _in_an_event_loop())
        self._on_decision(function, decision)

    def stage_changed(self, function: str, action: str, reason: str) -> None:
        """Take down a change of a function's stage, with how often what was decided in the one before."""
        with self._lock:
            counts = self._counts.pop(function, {})
        before = ", ".join(f"{times} {ground.value}" for ground, times in sorted(counts.items()))
        reason = f"{reason}, after {before}" if before else reason
        self.note(AuditKind.STATE_CHANGE, action, function, reason)

    def happened(self, event: StateEvent) -> None:
        """Take down something that happened to what is kept."""
        reason = f"{event.reason}; by {event.by}" if event.by else event.reason
        if event.detector:
            reason = f"detector {event.detector}: {reason}"
        self.note(_KINDS[event.kind], event.kind.value, event.function, reason)

    def note(
        self, kind: AuditKind, action: str, function: str, reason: str, score: float | None = None
    ) -> None:
        """Take down anything else."""
        self._write(AuditEvent(self._now(), kind, action, function, score, reason, self._ids.next()))

    def close(self) -> None:
        """Write what waits, and close the audit."""
        if self.trail is not None:
            self.trail.close()

    def _write(self, event: AuditEvent, *, durable: bool = False) -> None:
        if self.trail is None:
            level = logging.WARNING if event.action == Action.BLOCK.value else logging.INFO
            _LOG.log(level, "immune: %s %s %s", event.event_type.value, event.action, event.function)
        elif durable:
            self.trail.record_durably(event)
        else:
            self.trail.record(event)
        incident = self._gate.admit(event)
        if incident is not None:
            try:
                self._on_incident(incident)
            except Exception as fault:
                # Whoever is told has no part in the decision that is on its way.
                FAULTS.note("incident", fault)

    def _count(self, function: str, ground: Ground) -> int:
        with self._lock:
            counts = self._counts.setdefault(function, {})
            counts[ground] = times = counts.get(ground, 0) + 1
            return times

    def _now(self) -> str:
        return format_time(self._clock())


def _in_an_event_loop() -> bool:
    """Whether this thread runs an event loop, which nothing may hold up."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None
