"""Draws what is easier looked at: a panel for each section that was measured and has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

from immune_parts._figures import Figures

OURS, OTHERS, ASKED = "#0b6e99", "#8a8f98", "#b5541c"


def draw(figures: Mapping[str, Figures], path: Path) -> None:
    """Write a picture with a panel for each section that has one; none where no section has.

    Args:
        figures: by section.
        path: the file to write; its ending says the format.
    """
    wanted = [(panel, figures[name]) for name, panel in PANELS if name in figures]
    if not wanted:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(wanted), 1, figsize=(9, 4.2 * len(wanted)), layout="constrained", squeeze=False
    )
    for (panel, one), axis in zip(wanted, axes[:, 0], strict=True):
        panel(one, axis)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _bars(title: str, column: str, label: str) -> Callable[[Figures, Any], None]:
    def panel(figures: Figures, axis: Any) -> None:
        rows = {name: row[column] for name, row in figures.rows.items() if column in row}
        rows = {name: cost for name, cost in rows.items() if isinstance(cost, float) and cost > 0}
        names = list(reversed(rows))
        colours = [OURS if "cloister" in name else OTHERS for name in names]
        bars = axis.barh(names, [rows[name] for name in names], color=colours)
        axis.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
        axis.margins(x=0.15)
        axis.set(title=title, xscale="log", xlabel=label)

    return panel


def _protection(figures: Figures, axis: Any) -> None:
    names = list(figures.rows)
    column = "CPU above bare, %"
    middle, low, high = ([float(figures.rows[name][one]) for name in names] for one in (column, "from", "to"))
    spread = [
        [max(0.0, at - below) for at, below in zip(middle, low, strict=True)],
        [max(0.0, above - at) for at, above in zip(middle, high, strict=True)],
    ]
    axis.errorbar(names, middle, yerr=spread, color=OURS, marker="o", capsize=4, linestyle="none")
    axis.axhline(2.0, color=ASKED, linestyle="--", label="asked, from 20 us")
    axis.set(
        title="The whole protection", xlabel="length of the function", ylabel="processor time above bare, %"
    )
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)


def _attacks(figures: Figures, axis: Any) -> None:
    rows = {name: row for name, row in figures.rows.items() if name.startswith("attacks, ")}
    columns = list(next(iter(rows.values())))
    kinds = columns[columns.index("after") + 1 : columns.index("core")]
    width = 0.8 / len(rows)
    for number, (name, row) in enumerate(rows.items()):
        places = [place + number * width for place in range(len(kinds))]
        axis.bar(places, [row[kind] for kind in kinds], width, label=name.removeprefix("attacks, "))
    words = ["\n".join(wrap(kind, 12)) for kind in kinds]
    axis.set_xticks([place + 0.4 - width / 2 for place in range(len(kinds))], words, fontsize=8)
    axis.set(title="Attacks on the service that were flagged, p < 0.001", ylim=(0, 1.35))
    axis.legend(frameon=False, ncols=2, loc="upper center", fontsize=8)


PANELS: tuple[tuple[str, Callable[[Figures, Any], None]], ...] = (
    ("calls", _bars("A call of a plain function", "ns above bare", "ns above a bare call")),
    ("async", _bars("An awaited call", "ns above bare", "ns above a bare awaited call")),
    ("protection", _protection),
    ("handler", _bars("A request to the service", "above bare, us", "us of processor time above bare")),
    ("handler", _attacks),
)
