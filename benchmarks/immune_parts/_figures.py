"""What a section measured, what was asked of it, and how both are shown: as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

Row = dict[str, float | str]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that a figure has to keep.

    Attributes:
        row: of the table.
        column: of the table.
        side: of the bound.
        bound: in the column's unit.
    """

    row: str
    column: str
    side: Literal["at least", "at most"]
    bound: float

    def is_kept(self, value: float) -> bool:
        """Whether a figure keeps it."""
        return value >= self.bound if self.side == "at least" else value <= self.bound


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one section.

    Attributes:
        title: what was measured, and in which unit.
        rows: figures and words by row and column.
        targets: what was asked.
        notes: what a reader has to know beside them.
    """

    title: str
    rows: dict[str, Row]
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()

    def verdicts(self) -> Iterator[tuple[Target, float, bool]]:
        """Each target whose figure there is, the figure, and whether it is kept."""
        for target in self.targets:
            value = self.rows.get(target.row, {}).get(target.column)
            if isinstance(value, int | float):
                yield target, value, target.is_kept(value)

    def as_json(self) -> dict[str, object]:
        """The same for a program."""
        return {
            "title": self.title,
            "rows": self.rows,
            "targets": [
                {
                    "row": target.row,
                    "column": target.column,
                    "figure": value,
                    target.side: target.bound,
                    "kept": kept,
                }
                for target, value, kept in self.verdicts()
            ],
            "notes": list(self.notes),
        }

    def show(self, console: Console) -> None:
        """Print a table in Markdown for all rows with the same columns, the targets and the notes."""
        console.print(self.title + "\n", highlight=False)
        for columns in dict.fromkeys(tuple(row) for row in self.rows.values()):
            table = Table(box=box.MARKDOWN)
            table.add_column("", no_wrap=True)
            for column in columns:
                table.add_column(column, justify="right", no_wrap=True)
            for name, row in self.rows.items():
                if tuple(row) == columns:
                    table.add_row(name, *(shown(value) for value in row.values()))
            console.print(table)
        console.print()
        for target, value, kept in self.verdicts():
            word = "[green]kept[/]" if kept else "[red]missed[/]"
            name = f"{target.row}, {target.column}"
            console.print(
                f"{word}: {name}: {shown(value)}, {target.side} {shown(target.bound)}", highlight=False
            )
        for note in self.notes:
            console.print(f"* {note}", highlight=False, markup=False)
        console.print()


def shown(value: float | str) -> str:
    """A figure with three digits that count."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
