"""One real run of the main job, shared by every test that only looks at what it left."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.workflow.jobfile import load_job
from cloister.workflow.outcome import JobOutcome
from cloister.workflow.watching import RunEvent
from tests.system.example_job import TUMOUR, run


@dataclass(frozen=True)
class MainJob:
    """The tumour job after its end.

    Attributes:
        outcome: What it led to.
        workspace: Where it ran.
        events: What its watcher heard.
        threads_left: Threads that were not there before and still are.
    """

    outcome: JobOutcome
    workspace: Path
    events: tuple[RunEvent, ...]
    threads_left: tuple[str, ...]


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> MainJob:
    """The main job, run once in this process with the operating system's entropy."""
    workspace = tmp_path_factory.mktemp("main-job") / "work"
    before = set(threading.enumerate())
    events: list[RunEvent] = []
    outcome = run(load_job(TUMOUR), workspace, watch=events.append)
    left = tuple(sorted(thread.name for thread in threading.enumerate() if thread not in before))
    return MainJob(outcome, workspace, tuple(events), left)
