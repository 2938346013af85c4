"""A budget's history as a picture: epsilon after each spend, under the limits. Colours: Okabe and Ito."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cloister.core.errors import InputError
from cloister.core.files import write_atomic
from cloister.privacy.budget import HARD_STOP_EPSILON
from cloister.workflow.budgets import Budget

_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#777777"
_WIDTH: Final = 30
_KINDS: Final = (".png", ".svg")


def draw(budgets: Sequence[Budget], path: Path) -> None:
    """Write a picture of the budgets' histories, one panel each.

    Args:
        budgets: At least one.
        path: Where; a PNG or SVG file by its name.

    Raises:
        InputError: ``input.schema`` for another kind of file.
        StorageError: It can't be written.
    """
    if path.suffix.lower() not in _KINDS:
        raise InputError("input.schema", "A plot is a PNG or SVG file.", "Name it history.png.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.4 * len(budgets)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(budgets), 1, squeeze=False)[:, 0]
    for axes, budget in zip(panels, budgets, strict=True):
        view = budget.view
        values = [0.0, *(one.epsilon_after for one in budget.spends)]
        axes.step(range(len(values)), values, where="post", color=_BLUE, linewidth=1.6)
        axes.fill_between(range(len(values)), values, step="post", color=_BLUE, alpha=0.12)
        axes.axhline(view.limit, color=_RED, linewidth=1.0, label=f"{view.limit_name} {view.limit:g}")
        if view.limit < HARD_STOP_EPSILON:
            axes.axhline(
                HARD_STOP_EPSILON,
                color=_GREY,
                linewidth=0.8,
                linestyle=":",
                label="hard stop",
            )
        jobs = [one.job_id for one in budget.spends]
        for place in range(1, len(jobs)):
            if jobs[place] != jobs[place - 1]:
                axes.axvline(place, color=_GREY, linewidth=0.4)
        axes.set_title(
            f"{view.dataset} at {view.site}: epsilon {view.epsilon:.3f} per {view.unit}, "
            f"delta {view.delta:g}, {view.accountant}",
            fontsize=8.5,
            loc="left",
        )
        axes.set_xlabel("spends, in order; lines part jobs", fontsize=7.5)
        axes.set_ylabel("epsilon", fontsize=7.5)
        axes.set_ylim(0, 1.3 * max(view.limit, *values, HARD_STOP_EPSILON))
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, loc="upper left", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower())
    write_atomic(path, buffer.getvalue(), mode=0o644)


def bar(spent: float, limit: float) -> str:
    """Return a bar of characters that is full at the limit."""
    filled = min(_WIDTH, round(_WIDTH * spent / limit))
    return "\u2588" * filled + "\u2591" * (_WIDTH - filled)
