"""A runtime immune system for Python functions: it learns how each behaves, scores, stops, and records.

from cloister.immune import monitor, protect

@monitor
def export(patients): ...

protect()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use
from cloister.immune.compiled_core import choose, core

if TYPE_CHECKING:
    from cloister.immune.acting.stubs import returning, stub_for
    from cloister.immune.errors import CallBlocked, EgressBlocked, ImmuneError
    from cloister.immune.incident import ImmuneIncident
    from cloister.immune.observation import Action, Decision, Score
    from cloister.immune.protection import Protection, present, protect
    from cloister.immune.settings import ImmuneSettings
    from cloister.immune.settings_file import load_immune_settings
    from cloister.immune.wrapping.importing import Instrumented, instrument
    from cloister.immune.wrapping.monitor import monitor

_NAMES = {
    "acting.stubs": ("returning", "stub_for"),
    "errors": ("CallBlocked", "EgressBlocked", "ImmuneError"),
    "incident": ("ImmuneIncident",),
    "observation": ("Action", "Decision", "Score"),
    "protection": ("Protection", "present", "protect"),
    "settings": ("ImmuneSettings",),
    "settings_file": ("load_immune_settings",),
    "wrapping.importing": ("Instrumented", "instrument"),
    "wrapping.monitor": ("monitor",),
}

__all__ = [
    "Action",
    "CallBlocked",
    "Decision",
    "EgressBlocked",
    "ImmuneError",
    "ImmuneIncident",
    "ImmuneSettings",
    "Instrumented",
    "Protection",
    "Score",
    "core",
    "instrument",
    "load_immune_settings",
    "monitor",
    "present",
    "protect",
    "returning",
    "stub_for",
]

# Before any module that may be compiled is imported.
choose()

__getattr__ = on_first_use(__name__, {name: home for home, names in _NAMES.items() for name in names})
