"""How the machine stood when figures were taken, and which core the immune room ran on."""

from __future__ import annotations

import os
import platform

from cloister import immune


def active_core() -> str:
    """The core that wraps and scores: ``pure`` Python, or ``compiled``."""
    return immune.core().kind


def machine() -> dict[str, float | str]:
    """Python, processors, load of the last minute, core."""
    return {
        "python": platform.python_version(),
        "processors": float(os.cpu_count() or 1),
        "load": round(os.getloadavg()[0], 2),
        "core": active_core(),
    }
