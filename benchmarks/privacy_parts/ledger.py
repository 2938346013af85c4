"""How fast the budget ledger is: pairs of reservation and settlement; admission after 10,000 spends.

A pair is two durable transactions, so its rate is the disk's; the processor's part is told beside. The 10,000
past spends are written to memory, where there is such a folder: what is timed after them reads no disk.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import SampledGaussian
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.ledger import BudgetLedger, Purpose
from cloister.privacy.ledger_limits import limits_passed

_RECORDS = sha256_hex(b"records")
_PAIRS, _PAST, _MECHANISMS = 100, 10_000, 100
_LIMITS = [Limit("manifest", 4.0, Scope.DATASET), Limit("job", 4.0, Scope.JOB)]


def measure() -> dict[str, float]:
    """Measure on ledgers in temporary folders; medians."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        with BudgetLedger.create(Path(folder) / "budget.sqlite", "wards", 1e-5) as ledger:
            rates, processor = [], []
            for batch in range(5):
                begin, spent = time.perf_counter(), time.process_time()
                for number in range(_PAIRS):
                    _pair(ledger, f"job {batch}", number)
                rates.append(_PAIRS / (time.perf_counter() - begin))
                processor.append(1000 * (time.process_time() - spent) / _PAIRS)
        figures["pairs_per_second"] = statistics.median(rates)
        figures["processor_ms_a_pair"] = statistics.median(processor)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        path = Path(folder) / "budget.sqlite"
        with BudgetLedger.create(path, "wards", 1e-5) as ledger:
            begin = time.perf_counter()
            for number in range(_PAST):
                _pair(ledger, f"job {number % 50}", number)
            figures["pairs_per_second_in_memory"] = _PAST / (time.perf_counter() - begin)
            figures["admission_ms_after_10000"] = _admission_ms(ledger)
        begin = time.perf_counter()
        BudgetLedger.open(path, "wards").close()
        figures["opening_s_after_10000"] = time.perf_counter() - begin
    return figures


def table(figures: dict[str, float]) -> str:
    """The figures beside their targets."""
    return (
        f"reserve and settle: {figures['pairs_per_second']:.0f} pairs/s (300 or more), "
        f"{figures['processor_ms_a_pair']:.2f} ms of processor a pair; "
        f"{figures['pairs_per_second_in_memory']:.0f} pairs/s in memory\n"
        f"admission after 10,000 spends of {_MECHANISMS} mechanisms: "
        f"{figures['admission_ms_after_10000']:.3f} ms (below 1)\n"
        f"opening it, every entry checked: {figures['opening_s_after_10000']:.2f} s"
    )


def _pair(ledger: BudgetLedger, job: str, number: int) -> None:
    held = ledger.reserve(
        SampledGaussian(0.0005, 60.0 + number % _MECHANISMS, 1),
        dataset_sha256=_RECORDS,
        job_id=job,
        round_number=number,
        purpose=Purpose.TRAINING,
        limits=_LIMITS,
    )
    ledger.settle(held, 1)


def _admission_ms(ledger: BudgetLedger) -> float:
    event = SampledGaussian(0.01, 20.0, 10)
    taken = []
    for _ in range(50):
        begin = time.perf_counter()
        limits_passed(ledger._state, event, "job 1", _LIMITS)
        taken.append(1000 * (time.perf_counter() - begin))
    return statistics.median(taken)
