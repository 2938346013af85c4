"""Which entries of the audit are incidents, and what an `Incident` statement says of them.

A site's operators read few alerts, and none if there are thousands. Rules kept here:

1. An incident is what a person should look at: a call that was stopped, a drift, a fault, changed code, safe
   mode, a kill switch. All else stays in the audit.
2. Of one kind at one function there is one incident in a while; the next one says how many were left out.
3. No value of a call is in it: names of functions, sizes and probabilities, in this package's words. In a
   statement there are no sizes and times either.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cloister.immune.audit_event import AuditEvent, AuditKind

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

_MAX_DETAIL: Final = 500
_MAX_FUNCTION: Final = 200
_MAX_REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True)
class ImmuneIncident:
    """What a person should look at.

    Attributes:
        incident_class: what kind of incident, by name.
        severity: ``low``, ``medium``, ``high`` or ``critical``.
        detail: what was noticed.
        detected_at: when, RFC 3339.
        response: what was done about it.
        function: ``module:qualname``; empty where it is about the whole system.
        event_id: of the entry in the audit.
    """

    incident_class: str
    severity: str
    detail: str
    detected_at: str
    response: str
    function: str = ""
    event_id: str = ""

    def incident_fields(self) -> dict[str, JSON]:
        """The fields of an `Incident` statement (`cloister.evidence.predicates`).

        Statements travel, and how long a call took or how much it was given may depend on records: figures
        stay in the audit.
        """
        what = self.function or "the immune system"
        return {
            "incident_class": self.incident_class,
            "severity": self.severity,
            "detail": f"{what}: entry {self.event_id or 'of that time'} of the immune audit",
            "detected_at": self.detected_at,
            "response": self.response,
        }


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    severity: str
    response: str


_RESTORED: Final = frozenset({"restored", "seen-restored"})
_BLOCKED: Final = _Kind("call-blocked", "high", "the call was stopped before its body ran")
_KINDS: Final[Mapping[AuditKind, _Kind]] = MappingProxyType(
    {
        AuditKind.DRIFT: _Kind("behaviour-drift", "medium", "nothing more is learned until it is approved"),
        AuditKind.FAULT: _Kind("immune-fault", "medium", "calls go on; what was not judged is counted"),
        AuditKind.KILL_SWITCH: _Kind("immune-switched-off", "high", "nothing is blocked while it is off"),
        AuditKind.SAFE_MODE: _Kind(
            "immune-safe-mode",
            "critical",
            "no brain is started until an operator resets it; services judge on",
        ),
        AuditKind.TAMPER: _Kind(
            "code-changed", "critical", "the brain was stopped and is not started again with this code"
        ),
    }
)


def incident_of(event: AuditEvent) -> ImmuneIncident | None:
    """The incident that an entry of the audit is; None where it is none.

    Args:
        event: an entry, as `AuditEvent.from_json` reads it or as it was recorded.
    """
    kind = _KINDS.get(event.event_type)
    if event.event_type is AuditKind.EGRESS and event.action == "block":
        kind = _Kind("egress-blocked", "high", "the operation was stopped before it happened")
    elif event.event_type is AuditKind.DECISION and event.action == "block":
        kind = _BLOCKED
    if kind is None or (event.event_type is AuditKind.KILL_SWITCH and event.action in _RESTORED):
        return None
    where = f"{_plain(event.function)[:_MAX_FUNCTION]}: " if event.function else ""
    detail = f"{where}{_plain(event.reason) or event.action or kind.name}"
    return ImmuneIncident(
        kind.name,
        kind.severity,
        _cut(_plain(detail), _MAX_DETAIL),
        event.timestamp,
        kind.response,
        _plain(event.function)[:_MAX_FUNCTION],
        event.event_id,
    )


class IncidentGate:
    """Lets one incident of a kind and function through in a while, and counts the others.

    Args:
        clock: seconds, monotonic.
        seconds: how long the while is.
    """

    def __init__(self, clock: Callable[[], float], seconds: float = 600.0) -> None:
        self._clock, self._seconds = clock, seconds
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def admit(self, event: AuditEvent) -> ImmuneIncident | None:
        """The incident that an entry is, unless one like it was let through a short while ago."""
        incident = incident_of(event)
        if incident is None:
            return None
        left_out = self._left_out((incident.incident_class, event.function))
        if left_out is None:
            return None
        if not left_out:
            return incident
        more = f" (and {left_out} more like the one before)"
        detail = _cut(incident.detail, _MAX_DETAIL - len(more)) + more
        return replace(incident, detail=detail)

    def _left_out(self, key: tuple[str, str]) -> int | None:
        """How many were left out since the last one that went out; None where this one is left out too."""
        with self._lock:
            now = self._clock()
            since, left_out = self._open.pop(key, (None, 0))
            if since is not None and now - since < self._seconds:
                self._open[key] = (since, left_out + 1)
                return None
            self._open[key] = (now, 0)
            while len(self._open) > _MAX_REMEMBERED:
                self._open.popitem(last=False)
            return left_out


def _plain(text: str) -> str:
    """Text as statements carry it: printable, in one line."""
    return "".join(one if one.isprintable() else " " for one in text).strip()


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
