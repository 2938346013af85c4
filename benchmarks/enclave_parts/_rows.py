"""Figures as a table, each beside what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping


def rows(figures: Mapping[str, float], targets: Mapping[str, tuple[str, float]]) -> str:
    """A line for each figure.

    Args:
        figures: by name, with the unit in the name.
        targets: "at most" or "at least", and the number.
    """
    lines = ["| figure | measured | asked |", "|---|---:|---|"]
    for name, value in figures.items():
        kind, bound = targets.get(name, ("", 0.0))
        lines.append(f"| {name} | {value:.2f} | {f'{kind} {bound:g}' if kind else ''} |")
    return "\n".join(lines)
