"""``cloister compare``: show the unprotected baselines, marked as such."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path


def compare_command(job: Path, data: Path | None, *, as_json: bool) -> int:
    """Compute and show the baselines of a job.

    Args:
        job: The job file.
        data: Folder with the data files; None for the settings' one.
        as_json: Print JSON.

    Returns:
        0.
    """
    from cloister.cli.watching import watched
    from cloister.core.settings import load_settings
    from cloister.workflow.compare import compare
    from cloister.workflow.jobfile import load_job

    settings = load_settings({"data_dir": data})
    spec = load_job(job, data_dir=settings.data_dir)
    with watched(settings):
        comparison = compare(spec, settings.data_dir)
    if as_json:
        print(json.dumps(asdict(comparison), indent=2))
        return 0
    from rich.table import Table

    from cloister.cli.console import console

    table = Table(
        title=f"{comparison.architecture} on {comparison.test_set} ({comparison.test_records} records)",
        caption=f"[bold yellow]{comparison.mark}[/]: trained without noise on public data",
        title_justify="left",
        caption_justify="left",
        box=None,
        header_style="dim",
    )
    table.add_column("baseline")
    for name in ("records", "accuracy", "AUROC"):
        table.add_column(name, justify="right")
    for baseline in comparison.baselines:
        area = "undefined" if baseline.auroc is None else f"{baseline.auroc:.3f}"
        table.add_row(baseline.name, str(baseline.records), f"{baseline.accuracy:.3f}", area)
    console().print(table)
    return 0
