"""Durable appends a second: one writer, 64 threads, tasks on an event loop; each answered after its fsync.

Threads of one process hand the interpreter from core to core. So the 64 are measured on one core as well.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
import time
from pathlib import Path

from cloister.evidence.log import AsyncEvidenceLog
from evidence_parts._cores import PINNABLE, one_core
from evidence_parts._log import envelopes, new_log

RUNS = 3
THREADS = 64
TASKS = 1000
TARGETS = {
    "one writer, appends/s": ("at least", 2_000.0),
    "64 threads, appends/s": ("at least", 15_000.0),
    "64 threads on one core, appends/s": ("at least", 15_000.0),
    "1000 tasks (async), appends/s": ("at least", 30_000.0),
}


def measure(scratch: Path) -> dict[str, float]:
    """Each figure is the median of three runs on a new log; fsync and load say how the machine was."""
    ready = envelopes(2000)

    def threads(count: int, each: int, name: str) -> float:
        with new_log(scratch / name) as log:

            def work(number: int) -> None:
                for position in range(each):
                    log.append(ready[position % len(ready)], stream=f"writer-{number}", position=position)

            running = [threading.Thread(target=work, args=(number,)) for number in range(count)]
            started = time.perf_counter()
            for one in running:
                one.start()
            for one in running:
                one.join()
            taken = time.perf_counter() - started
            assert log.size == count * each
        return count * each / taken

    def tasks(count: int, each: int, name: str) -> float:
        async def main() -> float:
            with new_log(scratch / name) as log:
                async with AsyncEvidenceLog(log) as writer:

                    async def work(number: int) -> None:
                        for position in range(each):
                            one = ready[position % len(ready)]
                            await writer.append(one, stream=f"writer-{number}", position=position)

                    started = time.perf_counter()
                    await asyncio.gather(*(work(number) for number in range(count)))
                    taken = time.perf_counter() - started
                assert log.size == count * each
            return count * each / taken

        return asyncio.run(main())

    one = [threads(1, 3000, f"one-{run}") for run in range(RUNS)]
    many = [threads(THREADS, 600, f"many-{run}") for run in range(RUNS)]
    figures = {
        "one writer, appends/s": statistics.median(one),
        "64 threads, appends/s": statistics.median(many),
        "64 threads, best run, appends/s": max(many),
    }
    if PINNABLE:
        with one_core():
            pinned = [threads(THREADS, 600, f"pinned-{run}") for run in range(RUNS)]
        figures["64 threads on one core, appends/s"] = statistics.median(pinned)
    loop = [tasks(TASKS, 50, f"loop-{run}") for run in range(RUNS)]
    return figures | {
        "1000 tasks (async), appends/s": statistics.median(loop),
        "1000 tasks (async), best run, appends/s": max(loop),
        "fsync, us": fsync_us(scratch / "fsync"),
        "load of the machine, 1 min": os.getloadavg()[0],
    }


def fsync_us(path: Path) -> float:
    """What the disk takes to make one page durable."""
    taken = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    for _ in range(300):
        os.write(descriptor, bytes(4096))
        started = time.perf_counter()
        os.fsync(descriptor)
        taken.append((time.perf_counter() - started) * 1e6)
    os.close(descriptor)
    return statistics.median(taken)
