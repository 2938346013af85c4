"""What the immune system keeps: baselines, anchors, detectors, their history, and the newest calls.

Keeping decides nothing about a call. It says what is approved (`AnchorKeeper`), what is promoted
(`DetectorRegistry`), and what was ordinary (`TraceStore`, `BaselineKeeper`), in one SQLite file that survives
kills, forks and damage (`StateStore`); `Upkeep` looks after all of it every hundred observed calls.
"""

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.immune.keeping.anchor import Anchor, Mark
    from cloister.immune.keeping.approval import AnchorKeeper, Standing
    from cloister.immune.keeping.baseline import BaselineKeeper, is_ready
    from cloister.immune.keeping.detector import Detector, DetectorState
    from cloister.immune.keeping.detectors import POLICY, DetectorRegistry
    from cloister.immune.keeping.drift import Band, DriftAlarm, drift_of
    from cloister.immune.keeping.events import Alarm, Happened, StateEvent
    from cloister.immune.keeping.pattern import open_pattern_key, pattern_key, pattern_of
    from cloister.immune.keeping.profile import BaselineProfile, profile_of
    from cloister.immune.keeping.snapshots import Snapshot, roll_back, snapshots_of
    from cloister.immune.keeping.store import StateStore, open_state
    from cloister.immune.keeping.traces import Kept, TraceStore
    from cloister.immune.keeping.upkeep import Upkeep
    from cloister.immune.keeping.validation import Verdict, is_candidate, is_eligible, validate

_NAMES = {
    "anchor": ("Anchor", "Mark"),
    "approval": ("AnchorKeeper", "Standing"),
    "baseline": ("BaselineKeeper", "is_ready"),
    "detector": ("Detector", "DetectorState"),
    "detectors": ("POLICY", "DetectorRegistry"),
    "drift": ("Band", "DriftAlarm", "drift_of"),
    "events": ("Alarm", "Happened", "StateEvent"),
    "pattern": ("open_pattern_key", "pattern_key", "pattern_of"),
    "profile": ("BaselineProfile", "profile_of"),
    "snapshots": ("Snapshot", "roll_back", "snapshots_of"),
    "store": ("StateStore", "open_state"),
    "traces": ("Kept", "TraceStore"),
    "upkeep": ("Upkeep",),
    "validation": ("Verdict", "is_candidate", "is_eligible", "validate"),
}

__all__ = [
    "POLICY",
    "Alarm",
    "Anchor",
    "AnchorKeeper",
    "Band",
    "BaselineKeeper",
    "BaselineProfile",
    "Detector",
    "DetectorRegistry",
    "DetectorState",
    "DriftAlarm",
    "Happened",
    "Kept",
    "Mark",
    "Snapshot",
    "Standing",
    "StateEvent",
    "StateStore",
    "TraceStore",
    "Upkeep",
    "Verdict",
    "drift_of",
    "is_candidate",
    "is_eligible",
    "is_ready",
    "open_pattern_key",
    "open_state",
    "pattern_key",
    "pattern_of",
    "profile_of",
    "roll_back",
    "snapshots_of",
    "validate",
]

__getattr__ = on_first_use(__name__, {name: home for home, names in _NAMES.items() for name in names})
