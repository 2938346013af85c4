"""``cloister data``: check the sites' tables, make the salts they lack, print what may be shown of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def data_command(job: Path, data: Path | None, *, as_json: bool) -> int:
    """Load and validate a job's data and print sizes and hashes.

    Private tables that have no secret salt yet get one; each is named on stderr.

    Args:
        job: The job file.
        data: Folder with the data files; None for the settings' one.
        as_json: Print JSON.

    Returns:
        0.
    """
    from cloister.cli.watching import watched
    from cloister.core.settings import load_settings
    from cloister.health import describe, prepare_source
    from cloister.workflow.admission import load_data
    from cloister.workflow.jobfile import load_job

    settings = load_settings({"data_dir": data})
    data_dir = settings.data_dir
    spec = load_job(job, data_dir=data_dir)
    section = spec.file.data
    for name in prepare_source(section.source, data_dir=data_dir, sites=section.sites):
        print(f"cloister: made {name}, a secret: keep it with the table and its backups", file=sys.stderr)
    with watched(settings):
        description = describe(load_data(spec, data_dir))
    if as_json:
        print(json.dumps(description.model_dump(mode="json"), indent=2))
        return 0
    from rich.markup import escape
    from rich.table import Table

    from cloister.cli.console import console
    from cloister.cli.text import printable

    table = Table(title=f"{description.source}", title_justify="left", box=None, header_style="dim")
    known = any(site.subjects is not None for site in description.sites)
    counted = ("records", "subjects") if known else ("records",)
    for name in ("site", *counted, "features", "dataset_sha256 (for the manifest)"):
        table.add_column(name, overflow="fold")
    for site in description.sites:
        counts = (site.records, site.subjects) if known else (site.records,)
        table.add_row(site.name, *map(str, counts), str(site.features), site.dataset_sha256)
    out = console()
    out.print(table)
    held = f"{description.test_records} records, {description.test_set_sha256}"
    out.print(escape(printable(f"test set: {description.test_set}, {held}")))
    out.print(f"bounds_sha256: {description.bounds_sha256}")
    out.print(escape(printable(f"normalisation: {description.normalisation}")))
    out.print(escape(printable(f"source: {description.citation}")), style="dim")
    return 0
