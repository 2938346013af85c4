"""Switches the immune system on when it is imported: ``import cloister.immune.auto``.

What is watched and what may be blocked comes from ``pic.yaml`` and the environment (see the reference of
settings). It is switched off, and what was learned kept, when the interpreter ends.
"""

from __future__ import annotations

import atexit

from cloister.immune.protection import protect

PROTECTION = protect()
"""What is on."""

atexit.register(PROTECTION.close)
