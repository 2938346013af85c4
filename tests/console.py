"""The command as it is installed, for tests that need a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

CLOISTER: Final = (sys.executable, str(Path(sys.executable).with_name("cloister")))
"""With ``python -m`` instead, the interpreter may leave by the signal of an interrupt that was long handled:
where it came amid the ``exec`` of a text, as a library's dataclasses have while they are imported."""
