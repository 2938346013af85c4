"""What ``pic demo`` shows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from cloister.cli.pic_options import print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cloister.core.canonical import JSON
    from cloister.immune.demo import DemoStep

_FAILED = 1
_TITLES: Final = {
    "learn": ("Learn", "Learning what is ordinary"),
    "first attack": ("Attack", "Somebody copies the table"),
    "promote": ("Decide", "The operator looks at what was found"),
    "recover": ("Recover", "Waiting until the function is free again"),
    "second attack": ("Block", "The same attack again"),
    "explain": ("Explain", "Reading the audit"),
    "audit": ("Prove", "Verifying the audit"),
}
_INDENT: Final = 10
_BAR: Final = 30
_WIDTH: Final = 100
_ENTRY: Final = ("event_id", "timestamp", "function", "action", "score", "reason")


def show(seed: int, *, as_json: bool) -> int:
    """Run the demo and show each step as it happens.

    Returns:
        0 where the second attack was blocked and the audit verifies.
    """
    steps: list[JSON] = []
    blocked = accepted = False
    with tempfile.TemporaryDirectory(prefix="pic-demo-") as name:
        folder = Path(name) / "state"
        folder.mkdir(mode=0o700)
        for step in _played(folder, seed, silent=as_json):
            facts: dict[str, JSON] = {"step": step.name, **step.facts}
            steps.append(facts)
            blocked = blocked or (step.name == "second attack" and bool(step.facts["blocked"]))
            accepted = accepted or (step.name == "audit" and step.facts["accepted"] is True)
    done = blocked and accepted
    if as_json:
        print_json({"steps": steps, "blocked": blocked, "audit_accepted": accepted})
    elif done:
        print("\nThe people are made up; everything else was real. Next:  docs/tutorial/protect-a-service.md")
    return 0 if done else _FAILED


def _played(folder: Path, seed: int, *, silent: bool) -> Iterator[DemoStep]:
    from cloister.cli.console import console
    from cloister.immune.demo import STEPS, demonstrate

    play = demonstrate(folder, seed)
    if silent:
        yield from play
        return
    shown = console()
    for name in STEPS:
        with shown.status(f"{_TITLES[name][1]} …"):
            step = next(play)
        _show(shown, step)
        yield step


def _show(shown: Console, step: DemoStep) -> None:
    """A title in a column of its own, and beside it what was seen."""
    from rich.table import Table
    from rich.text import Text

    from cloister.cli.text import printable

    beside: list[Text] = [Text(printable(one)) for one in step.text]
    beside += _attack(step.facts) if step.name.endswith("attack") else ()
    beside += _candidates(step.facts) if step.name == "promote" else ()
    beside += _entry(step.facts) if step.name == "explain" else ()
    table = Table.grid(padding=0)
    table.add_column(width=_INDENT, style="bold cyan")
    table.add_column(max_width=_WIDTH - _INDENT, overflow="fold")
    for number, one in enumerate(beside):
        table.add_row(_TITLES[step.name][0] if number == 0 else "", one)
    shown.print()
    shown.print(table)


def _attack(facts: dict[str, JSON]) -> list[Text]:
    from rich.text import Text

    from cloister.cli.text import printable

    requests, blocked = cast("int", facts["requests"]), cast("int", facts["blocked"])
    stopped = round(_BAR * blocked / requests)
    lines = [
        Text.assemble(
            ("█" * (_BAR - stopped), "red"),
            ("█" * stopped, "green"),
            f"  {requests - blocked} answered, ",
            (f"{blocked} blocked", "bold green" if blocked else "bold red"),
            f", {facts['records_read']:,} records read",
        )
    ]
    if blocked:
        lines.append(Text(printable(f"because: {facts['reason']}"), style="dim"))
    return lines


def _candidates(facts: dict[str, JSON]) -> list[Text]:
    from rich.text import Text

    from cloister.cli.text import printable

    return [
        Text.assemble(
            ("✓ " if one["promoted"] else "- ", "green"),
            f"{one['id']}  ",
            (printable(str(one["made_by"])), "bold"),
            f"  ·  {printable(str(one['verdict']))}",
        )
        for one in cast("list[dict[str, JSON]]", facts["candidates"])
    ]


def _entry(facts: dict[str, JSON]) -> list[Text]:
    from rich.text import Text

    from cloister.cli.text import printable

    entry = cast("dict[str, JSON]", facts.get("entry", {}))
    return [
        Text.assemble(
            (f"{name:<11}", "dim"), printable(f"{value:g}" if isinstance(value, float) else str(value))
        )
        for name, value in ((one, entry[one]) for one in _ENTRY if one in entry)
    ]
