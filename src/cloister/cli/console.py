"""Tables and marks shared by the commands; rich is imported when something is shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cloister.cli.text import printable
from cloister.evidence.checks import Outcome

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cloister.evidence.verifier import Verdict

_FILE_WIDTH = 500

_MARKS = {
    Outcome.PASSED: "[green]passed[/]",
    Outcome.FAILED: "[bold red]FAILED[/]",
    Outcome.NOT_RUN: "[bold red]NOT RUN[/]",
}


def console() -> Console:
    """Return a console on stdout; lines that go into a file or a pipe are not folded."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)


def check_table(verdict: Verdict) -> Table:
    """Build the table of a verdict's checks."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Checks", title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("detail", overflow="fold")
    for check in verdict.checks:
        table.add_row(check.id, _MARKS[check.outcome], escape(printable(check.detail)))
    return table


def simulated_banner() -> str:
    """Return the line that stands over everything with simulated attestation in it."""
    return (
        "[bold black on yellow] SIMULATED [/] attestation was signed by a simulated chip: "
        "no hardware protected this run"
    )


def test_randomness_banner() -> str:
    """Return the line that stands over a run whose noise was seeded."""
    return "[bold white on red] TEST RANDOMNESS [/] seeded noise: repeatable, and not private"
