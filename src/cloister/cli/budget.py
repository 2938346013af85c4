"""``cloister budget``: what the patients' privacy budgets were spent on, and what is left of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.options import Debug, Json, Workspace

if TYPE_CHECKING:
    from cloister.workflow.budgets import Budget

Site = Annotated[str | None, typer.Option("--site", metavar="NAME", help="Only this site's budgets.")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", metavar="NAME", help="Only this dataset's budgets.")
]


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    group.command(
        "show",
        help="Show every dataset's epsilon beside its limit. A ledger that was set back is refused.",
        epilog="Example:  cloister budget show -w runs   ·   cloister budget show --site northgate --json",
    )(_show)
    group.command(
        "history",
        help="List every spend with the epsilon after it; --plot draws it as PNG or SVG.",
        epilog="Example:  cloister budget history --site northgate --plot northgate.png",
    )(_history)
    group.command(
        "explain",
        help="Say in sentences what the figures mean, and how many more steps of a kind would fit.",
        epilog="Example:  cloister budget explain --site northgate --sampling 0.1 --noise 2",
    )(_explain)


def _budgets(workspace: Path | None, site: str | None, dataset: str | None) -> tuple[Budget, ...]:
    from cloister.cli.asking import existing_workspace
    from cloister.workflow.budgets import read_budgets

    with existing_workspace(workspace) as opened:
        return read_budgets(opened, site=site, dataset=dataset)


def _show(
    site: Site = None,
    dataset: Dataset = None,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from rich.table import Table

    from cloister.cli.console import console
    from cloister.workflow.budget_plot import bar

    budgets = _budgets(workspace, site, dataset)
    if as_json:
        print(json.dumps({"budgets": [one.view.as_json() for one in budgets]}, indent=2))
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("site", "dataset", "epsilon / limit", "", "delta", "per", "accountant", "jobs", "unsettled"):
        table.add_column(name)
    for one in budgets:
        view = one.view
        table.add_row(
            view.site,
            view.dataset,
            f"{view.epsilon:.4f} / {view.limit:g}",
            bar(view.epsilon_held, view.limit),
            f"{view.delta:g}",
            view.unit,
            f"{view.accountant} ({view.mode})",
            str(len(view.jobs)),
            str(view.unsettled),
        )
    out = console()
    out.print(table)
    out.print("Each epsilon is for one unit added or removed, over every job on the dataset.", style="dim")
    return 0


def _history(
    site: Site = None,
    dataset: Dataset = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the histories: .png or .svg.")
    ] = None,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from dataclasses import asdict

    from cloister.cli.console import console
    from cloister.workflow.budget_plot import bar, draw

    budgets = _budgets(workspace, site, dataset)
    if plot is not None:
        draw(budgets, plot)
    if as_json:
        histories = [
            {**one.view.as_json(), "spends": [asdict(spend) for spend in one.spends]} for one in budgets
        ]
        print(json.dumps({"budgets": histories, "plot": str(plot) if plot else None}, indent=2))
        return 0
    out = console()
    for one in budgets:
        out.print(f"[bold]{one.view.dataset}[/] at [bold]{one.view.site}[/], limit {one.view.limit:g}")
        for spend in one.spends:
            done = "not settled" if spend.executed is None else f"{spend.executed} done"
            out.print(
                f"  {spend.recorded_at[:19]}  {spend.job_id[:8]}  round {spend.round + 1:<4} "
                f"{spend.event['type']}, {done:<12} {bar(spend.epsilon_after, one.view.limit)} "
                f"{spend.epsilon_after:.4f}",
                soft_wrap=True,
            )
    if plot is not None:
        out.print(f"drawn in {plot}")
    return 0


def _explain(
    site: Site = None,
    dataset: Dataset = None,
    sampling: Annotated[
        float,
        typer.Option("--sampling", min=1e-9, max=1, help="Sampling probability of the steps."),
    ] = 0.1,
    noise: Annotated[
        float, typer.Option("--noise", min=1e-3, max=1e6, help="Noise multiplier of the steps.")
    ] = 2.0,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.asking import existing_workspace
    from cloister.cli.console import console
    from cloister.workflow.budgets import fitting_steps, read_budgets

    with existing_workspace(workspace) as opened:
        told = [
            (one, fitting_steps(opened, one, sampling, noise))
            for one in read_budgets(opened, site=site, dataset=dataset)
        ]
    if as_json:
        explained = [
            {**one.view.as_json(), "fitting_steps": steps, "explanation": one.explain(sampling, noise, steps)}
            for one, steps in told
        ]
        print(json.dumps({"budgets": explained}, indent=2))
        return 0
    out = console()
    for one, steps in told:
        out.print(f"[bold]{one.view.dataset}[/] at [bold]{one.view.site}[/]")
        for line in one.explain(sampling, noise, steps):
            out.print(f"  {line}", soft_wrap=True)
    return 0
