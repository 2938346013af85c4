"""Submitting a job from Python: one call, a handle and its result (CE-4.c)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister.core.settings import load_settings
from cloister.workflow.jobfile import JobSpec, load_job
from cloister.workflow.outcome import JobOutcome
from cloister.workflow.run import run_job
from cloister.workflow.watching import RunEvent, Watcher
from cloister.workflow.workspace import open_workspace


@dataclass(frozen=True)
class JobHandle:
    """A submitted job.

    Attributes:
        job_id: Its UUID, by which logs and receipts know it.
        result: What it led to.
    """

    job_id: str
    result: JobOutcome


def orchestrate(
    job_definition: JobSpec | Path | str,
    *,
    workspace: Path | str = "cloister-work",
    data: Path | str | None = None,
    watch: Watcher | None = None,
) -> JobHandle:
    """Run a job to its end.

    Args:
        job_definition: A parsed job, or the path of a job file.
        workspace: Folder for keys, logs, ledgers and finished jobs.
        data: Folder with the data files, if the job's source needs one.
        watch: Called with each event, one at a time.

    Returns:
        The job's id and its outcome.

    Raises:
        CloisterError: Whatever stopped the job.

    Example:
        >>> handle = orchestrate("examples/tumour/job.yaml", workspace="work")  # doctest: +SKIP
        >>> handle.result.verdict.accepted  # doctest: +SKIP
        True
    """
    data_dir = None if data is None else Path(data)
    spec = (
        job_definition
        if isinstance(job_definition, JobSpec)
        else load_job(Path(job_definition), data_dir=data_dir)
    )
    settings = load_settings({"workspace": Path(workspace)})
    with open_workspace(settings.workspace, settings=settings) as opened:
        outcome = run_job(spec, opened, data_dir=data_dir, watch=watch or _unwatched)
    return JobHandle(job_id=outcome.job_id, result=outcome)


def _unwatched(event: RunEvent) -> None:
    """Nobody watches."""
