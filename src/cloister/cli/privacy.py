"""``cloister privacy``: put a claim of privacy to the test, or release a figure at a price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.options import Data, Debug, Json, Workspace

if TYPE_CHECKING:
    from cloister.workflow.figures import Figure


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    group.command(
        "audit",
        help="Test the trainer, bound epsilon from below with canaries, attack models and updates, and write "
        "a report with plots. It may contradict a claim; it can't prove one.",
        epilog="Examples:  cloister privacy audit examples/tumour/job.yaml   ·   "
        "cloister privacy audit model.safetensors --job examples/tumour/job.yaml",
    )(_audit)
    group.command(
        "release",
        help="Release the mean of a number, or how many fall into each category, of one site's records: with "
        "noise, paid from the dataset's budget, stated in the site's log.",
        epilog="Example:  cloister privacy release examples/tumour/job.yaml --site northgate "
        "--column diagnosis --epsilon 0.2",
    )(_release)


def _audit(
    target: Annotated[
        Path, typer.Argument(metavar="MODEL|JOB", help="A job file, or a model file together with --job.")
    ],
    job: Annotated[
        Path | None, typer.Option("--job", help="The job file a model belongs to, where TARGET is a model.")
    ] = None,
    site: Annotated[
        str | None, typer.Option("--site", help="Whose plan and records; by default the first site's.")
    ] = None,
    data: Data = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html and report.json.")] = Path(
        "privacy-audit"
    ),
    confidential: Annotated[
        bool,
        typer.Option(
            "--confidential", help="Attack records that are not public, too; the report must stay with them."
        ),
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Look at twenty times as much; finds errors of half a percent.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.failure import EXIT_REFUTED
    from cloister.cli.watching import watched
    from cloister.core.errors import InputError
    from cloister.core.files import write_atomic
    from cloister.core.settings import load_settings
    from cloister.privacy.audit.report import render
    from cloister.workflow.jobfile import load_job
    from cloister.workflow.privacy_audit import AuditRequest, Records, audit_job, full_power

    model = target if target.suffix == ".safetensors" else None
    if model is not None and job is None:
        raise InputError(
            "input.schema", "a model alone doesn't say how it was trained", "Name its job file with --job."
        )
    settings = load_settings({"data_dir": data})
    request = AuditRequest(
        spec=load_job(target if job is None else job, data_dir=settings.data_dir),
        data_dir=settings.data_dir,
        model=model,
        site=site,
        records=Records.CONFIDENTIAL if confidential else Records.IF_PUBLIC,
    )
    if full:
        from dataclasses import replace

        request = replace(request, power=full_power())
    with watched(settings):
        report = audit_job(request)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "report.html", render(report).encode())
    write_atomic(out / "report.json", report.encode())
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        _show(report, out)
    return 0 if report.passed else EXIT_REFUTED


def _release(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="The job file: names data, manifest, request.")],
    site: Annotated[str, typer.Option("--site", metavar="NAME", help="Whose records.")],
    column: Annotated[
        str, typer.Option("--column", metavar="NAME", help="A column that the schema declares, or the label.")
    ],
    epsilon: Annotated[
        float, typer.Option("--epsilon", min=1e-3, max=5.0, help="What the figure may cost; it is spent.")
    ],
    data: Data = None,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.watching import watched
    from cloister.core.settings import load_settings
    from cloister.workflow.figures import FigureRequest, release_figure
    from cloister.workflow.jobfile import load_job
    from cloister.workflow.workspace import open_workspace

    settings = load_settings({"data_dir": data, "workspace": workspace})
    spec = load_job(job, data_dir=settings.data_dir)
    request = FigureRequest(site, column, epsilon)
    with open_workspace(settings.workspace, settings=settings) as opened, watched(settings):
        figure = release_figure(spec, opened, request, data_dir=settings.data_dir)
    if as_json:
        print(json.dumps(figure.as_json(), indent=2))
    else:
        _tell(figure)
    return 0


def _tell(figure: Figure) -> None:
    from rich.markup import escape
    from rich.table import Table

    from cloister.cli.console import console

    release, request = figure.release, figure.request
    about = "the records" if release.about == "records" else "the people the records are a sample of"
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "with noise", f"95 % interval for {about}"):
        table.add_column(name)
    for name, one in release.figures.items():
        table.add_row(escape(name), f"{one.value:,.6g}", f"{one.low:,.6g} to {one.high:,.6g}")
    screen = console()
    screen.print(
        f"[bold]{escape(request.column)}[/] at [bold]{request.site}[/], {figure.dataset}: {release.kind}"
    )
    screen.print(table)
    if figure.suppressed:
        names = escape(", ".join(figure.suppressed))
        screen.print(
            f"Not told, as too small by the manifest's suppression threshold: {names}", soft_wrap=True
        )
    screen.print(
        f"It cost epsilon {figure.epsilon:.4f} at delta {figure.delta:g} for one {figure.unit} added or "
        f"removed; the dataset stands at {figure.epsilon_dataset:.4f} of {figure.budget:g}.",
        soft_wrap=True,
    )
    screen.print(f"Stated in the log of {request.site} as {figure.job_id}.", style="dim")


def _show(report: object, out: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from cloister.cli.console import console
    from cloister.cli.text import printable
    from cloister.privacy.audit.report import AuditReport

    assert isinstance(report, AuditReport)
    claim, suite, canaries = report.claim, report.conformance, report.canaries
    table = Table(
        title=f"privacy audit of {claim.name}, site {claim.site}: epsilon {claim.epsilon:.3f}, "
        f"delta {claim.delta:g}, per {claim.unit} ({claim.accountant})",
        title_justify="left",
        box=None,
        show_header=False,
    )
    passed = sum(check.passed for check in suite.checks)
    table.add_row("conformance", f"{passed} of {len(suite.checks)} checks passed", " ".join(suite.failed))
    table.add_row(
        "canaries",
        f"epsilon is at least {canaries.bound:.2f} ({canaries.confidence:.0%} confidence)",
        "REFUTES THE CLAIM" if canaries.refutes else "below the claim",
    )
    for one in report.memberships:
        table.add_row(
            "membership", one.name, f"AUC {one.lira.area:.3f} (guessing: 0.5 ± {one.lira.spread:.3f})"
        )
    if report.model is not None:
        table.add_row(
            "membership",
            "this model",
            f"AUC {report.model.area:.3f} (guessing: 0.5 ± {report.model.spread:.3f})",
        )
    for pictures in report.pictures:
        for found in pictures.results:
            table.add_row(
                "inversion",
                found.name,
                f"similarity {found.similarity.mean():.2f} (chance {found.chance:.2f})",
            )
    screen = console()
    screen.print(table)
    for what, why in report.not_done.items():
        screen.print(escape(printable(f"not done: {what}: {why}")), style="dim")
    screen.print(escape(printable(f"written to {out / 'report.html'} and {out / 'report.json'}")))
    screen.print(
        "Nothing contradicts the claim; that does not prove it." if report.passed else "CONTRADICTED"
    )
