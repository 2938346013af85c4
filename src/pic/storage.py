"""What is kept: the state database with baselines, detectors and calls, and the audit."""

from cloister.immune.audit import AuditTrail
from cloister.immune.audit_export import AuditVerdict, export_audit
from cloister.immune.audit_folder import open_audit
from cloister.immune.keeping import BaselineKeeper, DetectorRegistry, StateStore, TraceStore, open_state

__all__ = [
    "AuditTrail",
    "AuditVerdict",
    "BaselineKeeper",
    "DetectorRegistry",
    "StateStore",
    "TraceStore",
    "export_audit",
    "open_audit",
    "open_state",
]
