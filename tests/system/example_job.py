"""The example jobs as values that a test changes in one place and writes into a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cloister.core.canonical import JSON
from cloister.core.documents import load_yaml
from cloister.workflow.jobfile import JobSpec, load_job
from cloister.workflow.outcome import JobOutcome
from cloister.workflow.run import run_job
from cloister.workflow.watching import Watcher
from cloister.workflow.workspace import open_workspace

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TUMOUR = EXAMPLES / "tumour" / "job.yaml"
SITES = ("lakeview", "northgate", "riverside")

Edits = Mapping[str, JSON]
"""New values by dotted path, such as ``hospitals.0.sample_size``."""


class Absent:
    """Stands for a field that is taken out."""


ABSENT = cast(JSON, Absent())
FAST: Edits = {"federation.rounds": 2, "privacy.target_epsilon": 1.0}
EASY: Edits = {"success_metrics.threshold": 0.01}
"""Two rounds of noise may miss any real threshold; where the model doesn't matter, none is asked for."""


@dataclass(frozen=True)
class ExampleJob:
    """One example with edits to its three files.

    Attributes:
        name: Folder below ``examples``.
        job: Edits of ``job.yaml``.
        manifest: Edits of ``manifest.yaml``.
        request: Edits of ``request.yaml``.
    """

    name: str = "tumour"
    job: Edits = field(default_factory=lambda: FAST)
    manifest: Edits = field(default_factory=lambda: EASY)
    request: Edits = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the three files and return the job file's path. JSON is YAML."""
        folder.mkdir(parents=True, exist_ok=True)
        for what, edits in (("job", self.job), ("manifest", self.manifest), ("request", self.request)):
            document = edited(load_yaml(EXAMPLES / self.name / f"{what}.yaml"), edits)
            (folder / f"{what}.yaml").write_text(json.dumps(document, indent=1))
        return folder / "job.yaml"

    def spec(self, folder: Path) -> JobSpec:
        """Write the files and parse them."""
        return load_job(self.write(folder))


def edited(document: JSON, edits: Edits) -> JSON:
    """A copy of a document with some values changed."""
    changed = deepcopy(document)
    for path, value in edits.items():
        *parents, last = path.split(".")
        place: object = changed
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else cast(dict[str, JSON], place)[part]
        key: int | str = int(last) if isinstance(place, list) else last
        if isinstance(value, Absent):
            del place[key]  # type: ignore[attr-defined]
        else:
            place[key] = value  # type: ignore[index]
    return changed


def ignore(event: object) -> None:
    """Watch nothing."""


def run(
    spec: JobSpec,
    workspace: Path,
    *,
    watch: Watcher = ignore,
    test_seed: int | None = None,
    data_dir: Path | None = None,
) -> JobOutcome:
    """Run a job in a workspace that is opened for this run only."""
    with open_workspace(workspace) as opened:
        return run_job(spec, opened, watch=watch, test_seed=test_seed, data_dir=data_dir)


def finished_jobs(workspace: Path) -> list[str]:
    """Names of everything below the workspace's ``jobs``, hidden names too."""
    jobs = workspace / "jobs"
    return sorted(path.name for path in jobs.iterdir()) if jobs.exists() else []
