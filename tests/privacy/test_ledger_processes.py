"""Several processes on one ledger, and processes killed in the middle of a spend."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import SampledGaussian
from cloister.privacy.accountant import epsilon_of
from cloister.privacy.ledger import BudgetLedger

DATASET = sha256_hex(b"a dataset")
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
        assert ledger.epsilon() <= LIMIT < epsilon_of([SampledGaussian(0.1, 2.0, steps + 10)], 1e-5)


def kill_in_the_middle(path: Path, workers: int, seed: int) -> None:
    """Start workers, kill them at random instants, compare the ledger with what they reported."""
    chance = random.Random(seed)
    running = [start(path, f"job {seed} {index}", 60.0) for index in range(workers)]
    for worker in running:
        assert worker.stdout is not None
        worker.stdout.readline()
    for worker in chance.sample(running, workers):
        time.sleep(chance.uniform(0, 0.02))
        worker.kill()
    for index, worker in enumerate(running):
        output, errors = worker.communicate()
        assert errors == ""
        check_nothing_was_lost(path, f"job {seed} {index}", output)


def check_nothing_was_lost(path: Path, job: str, output: str) -> None:
    # The first line was read to see that the worker runs: its reservation is durable.
    lines = [line.split() for line in output.splitlines() if line.count(" ")]
    settled = [int(line[2]) for line in lines if line[0] == "settled" and len(line) == 3]
    reserved = 1 + sum(line[0] == "reserved" and len(line) == 2 for line in lines)
    least = sum(settled) + 10 * (reserved - len(settled))
    with BudgetLedger.open(path, DATASET) as ledger:
        counted = sum(event.steps for event in ledger.events(job) if isinstance(event, SampledGaussian))
        # A settlement that was durable but not yet reported may have given back up to 10 steps; a reservation
        # that was durable but not yet reported may have added 10.
        assert least - 10 <= counted <= least + 10
        assert ledger.epsilon() <= LIMIT


def test_a_killed_process_loses_nothing_and_leaves_its_reservation_spent(path: Path) -> None:
    for seed in range(2):
        kill_in_the_middle(path, 1, seed)


@pytest.mark.nightly
def test_many_killed_processes_lose_nothing(path: Path) -> None:
    for seed in range(25):
        kill_in_the_middle(path, 4, seed)
