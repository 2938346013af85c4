"""The wrapper around a function: watched at the cost of counting an integer, in any Python service."""

from __future__ import annotations

from cloister.immune.wrapping.calls import Bounds, Kind
from cloister.immune.wrapping.faults import FAULTS, Faults
from cloister.immune.wrapping.gate import Gate
from cloister.immune.wrapping.importing import Instrumented, instrument
from cloister.immune.wrapping.monitor import Watch, Watcher, gates, monitor, use
from cloister.immune.wrapping.recording import Recorder
from cloister.immune.wrapping.ring import Ring
from cloister.immune.wrapping.sampling import Mode, Pace, Sampling

__all__ = [
    "FAULTS",
    "Bounds",
    "Faults",
    "Gate",
    "Instrumented",
    "Kind",
    "Mode",
    "Pace",
    "Recorder",
    "Ring",
    "Sampling",
    "Watch",
    "Watcher",
    "gates",
    "instrument",
    "monitor",
    "use",
]
