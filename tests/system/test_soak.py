"""Job after job in one process: nothing piles up."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.workflow.jobfile import load_job
from tests.nightly import spread
from tests.system.conftest import run
from tests.system.example_job import FAST, ExampleJob

GROWTH_KIB = 48 * 1024


def resident_kib() -> int:
    """Resident memory of this process (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def descriptors() -> int:
    """Open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_jobs_in_a_row_leave_memory_threads_and_descriptors_as_they_were(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    job = ExampleJob(job={**FAST, "privacy.target_epsilon": 0.5}).write(tmp_path)

    def once(number: int) -> None:
        run(load_job(job), tmp_path / f"work-{number}")

    for number in range(-3, 0):
        once(number)
    gc.collect()
    before = resident_kib(), threading.active_count(), descriptors()
    for number in spread(range(100), record_property):
        once(number)
    gc.collect()
    assert resident_kib() - before[0] < GROWTH_KIB
    assert (threading.active_count(), descriptors()) == before[1:]
