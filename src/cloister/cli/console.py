"""The console and the marks that commands share; rich is imported when something is shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_FILE_WIDTH = 500


def console() -> Console:
    """Return a console on stdout; lines that go into a file or a pipe are not folded."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)


def simulated_banner() -> str:
    """Return the line that stands over everything with simulated attestation in it."""
    return (
        "[bold black on yellow] SIMULATED [/] attestation was signed by a simulated chip: "
        "no hardware protected this run"
    )


def insecure_banner() -> str:
    """Return the line that stands over everything of a run without protection."""
    return (
        "[bold white on red] INSECURE [/] nothing protects the records from this machine's owner: "
        "no keys are released to it, and every verifier refuses its receipt"
    )


def test_randomness_banner() -> str:
    """Return the line that stands over a run whose noise was seeded."""
    return "[bold white on red] TEST RANDOMNESS [/] seeded noise: repeatable, and not private"


def mock_banner() -> str:
    """Return the line that stands over everything that was trained without noise."""
    return "[bold white on red] MOCK [/] trained without noise: no epsilon here holds, nothing is released"
