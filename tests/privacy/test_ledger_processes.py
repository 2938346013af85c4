"""Several processes on one ledger, and processes killed in the middle of a spend."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.evidence.transcript import SampledGaussian
from cloister.privacy.accountant import held_of
from cloister.privacy.ledger import BudgetLedger
from tests.nightly import nightly_seed, spread

DATASET = "wards"
WORKER = Path(__file__).with_name("ledger_worker.py")
LIMIT = 2.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    BudgetLedger.create(tmp_path / "budget.sqlite", DATASET, 1e-5).close()
    return tmp_path / "budget.sqlite"


def start(path: Path, job: str, noise: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(path), DATASET, job, str(noise), str(LIMIT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_can_not_overspend_together(path: Path) -> None:
    workers = [start(path, f"job {index}", 2.0) for index in range(2)]
    outputs = [worker.communicate(timeout=60) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert all(output.endswith("spent\n") for output, _ in outputs)
    steps = sum(
        int(line.split()[2])
        for output, _ in outputs
        for line in output.splitlines()
        if line.startswith("settled")
    )
    with BudgetLedger.open(path, DATASET) as ledger:
        assert ledger.events() == (SampledGaussian(0.1, 2.0, steps),)
        assert ledger.epsilon() <= LIMIT < held_of([SampledGaussian(0.1, 2.0, steps + 10)], 1e-5, LIMIT)


def kill_in_the_middle(path: Path, workers: int, seed: int) -> None:
    """Start workers, kill them at random instants, compare the ledger with what they reported."""
    chance = random.Random(seed)
    running = [start(path, f"job {seed} {index}", 60.0) for index in range(workers)]
    try:
        # Read through the pipes' own buffers throughout: communicate() would drop what readline() read ahead.
        firsts = [read_line(worker) for worker in running]
        for worker in chance.sample(running, workers):
            time.sleep(chance.uniform(0, 0.02))
            worker.kill()
        rests = [read_to_end(worker) for worker in running]
    finally:
        for worker in running:
            worker.kill()
            worker.wait()
    for index, (first, rest) in enumerate(zip(firsts, rests, strict=True)):
        assert first.startswith("reserved")
        check_nothing_was_lost(path, f"job {seed} {index}", first + rest)


def read_line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline()


def read_to_end(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    assert worker.stderr is not None
    output, errors = worker.stdout.read(), worker.stderr.read()
    worker.stdout.close()
    worker.stderr.close()
    assert errors == ""
    return output


def check_nothing_was_lost(path: Path, job: str, output: str) -> None:
    lines = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
    settled = [int(line[2]) for line in lines if line[0] == "settled"]
    reserved = sum(line[0] == "reserved" for line in lines)
    reported = sum(settled) + 10 * (reserved - len(settled))
    # The job may have been killed between making its next entry durable and reporting it.
    if reserved > len(settled):
        possible = {reported, reported - 10 + len(settled) % 11}
    else:
        possible = {reported, reported + 10}
    with BudgetLedger.open(path, DATASET) as ledger:
        counted = sum(event.steps for event in ledger.events(job) if isinstance(event, SampledGaussian))
        assert counted in possible
        assert ledger.epsilon() <= LIMIT


def test_a_killed_process_loses_nothing_and_leaves_its_reservation_spent(path: Path) -> None:
    for seed in range(2):
        kill_in_the_middle(path, 1, seed)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_many_killed_processes_lose_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """500 kills in all: four jobs at a time on one ledger, killed at random instants.

    Each ledger serves twenty times: its budget has to outlast those who reserve until they are killed.
    """
    first = 125 * nightly_seed()
    for number, seed in enumerate(spread(range(first, first + 125), record_property)):
        path = tmp_path / f"budget-{number // 20}.sqlite"
        if number % 20 == 0:
            BudgetLedger.create(path, DATASET, 1e-5).close()
        kill_in_the_middle(path, 4, seed)
