"""The values that are written down: events, baselines, detectors, decisions and entries of the audit."""

from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.decision_form import read_decision, write_decision
from cloister.immune.keeping.detector import Detector, DetectorState
from cloister.immune.keeping.profile import BaselineProfile
from cloister.immune.observation import Action, Decision, Ground, Score
from cloister.immune.wrapping.events import TelemetryEvent

__all__ = [
    "Action",
    "AuditEvent",
    "AuditKind",
    "BaselineProfile",
    "Decision",
    "Detector",
    "DetectorState",
    "Ground",
    "Score",
    "TelemetryEvent",
    "read_decision",
    "write_decision",
]
