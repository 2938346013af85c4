"""``cloister data``: check the sites' tables and print what may be shown of them."""

from __future__ import annotations

import json
from pathlib import Path


def data_command(job: Path, data: Path | None, *, as_json: bool) -> int:
    """Load and validate a job's data and print sizes and hashes.

    Args:
        job: The job file.
        data: Folder with the data files; None for the settings' one.
        as_json: Print JSON.

    Returns:
        0.
    """
    from cloister.core.settings import load_settings
    from cloister.health import describe
    from cloister.workflow.admission import load_data
    from cloister.workflow.jobfile import load_job

    data_dir = load_settings({"data_dir": data}).data_dir
    description = describe(load_data(load_job(job, data_dir=data_dir), data_dir))
    if as_json:
        print(json.dumps(description.model_dump(mode="json"), indent=2))
        return 0
    from rich.table import Table

    from cloister.cli.console import console

    table = Table(title=f"{description.source}", title_justify="left", box=None, header_style="dim")
    for name in ("site", "records", "features", "dataset_sha256 (for the manifest)"):
        table.add_column(name, overflow="fold")
    for site in description.sites:
        table.add_row(site.name, str(site.records), str(site.features), site.dataset_sha256)
    out = console()
    out.print(table)
    out.print(
        f"test set: {description.test_set}, {description.test_records} records, {description.test_set_sha256}"
    )
    out.print(f"bounds_sha256: {description.bounds_sha256}")
    out.print(f"normalisation: {description.normalisation}")
    out.print(f"source: {description.citation}", style="dim")
    return 0
