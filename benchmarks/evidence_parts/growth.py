"""How the log's costs grow from a thousand to ten million entries: appends, proofs, memory, the file.

`CLOISTER_BENCH_ENTRIES` sets another largest size. The memory is this process's, with nothing else loaded
when the section runs alone.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from cloister.evidence.log import EvidenceLog
from evidence_parts._log import ORIGIN, SIGNER, envelopes, grow, items, median_ms, new_log

LARGEST = int(os.environ.get("CLOISTER_BENCH_ENTRIES", "10000000"))
SAMPLES = 300
TARGETS = {
    f"{LARGEST:,}: inclusion proof, ms": ("at most", 1.0),
    f"{LARGEST:,}: consistency proof, ms": ("at most", 2.0),
    f"{LARGEST:,}: opening, ms": ("at most", 50.0),
    "RSS, MiB": ("at most", 200.0),
}


def measure(scratch: Path) -> dict[str, float]:
    """Medians at each power of ten; proofs at random indices and sizes, each verified by the log."""
    ready, draw = envelopes(2000), random.Random(1)
    figures: dict[str, float] = {}
    path, size, building = scratch / "log.sqlite", 0, 0.0
    new_log(path).close()
    sizes = [10**power for power in range(3, 8) if 10**power < LARGEST]
    for target in (*sizes, LARGEST):
        with EvidenceLog.open(path, origin=ORIGIN, signer=SIGNER) as log:
            started = time.perf_counter()
            grow(log, size, target - SAMPLES)
            building += time.perf_counter() - started
            appending = list(items(target - SAMPLES, target, ready))
            spent = time.process_time()
            append, _ = median_ms(
                lambda at, log=log, one=appending: log.append_many([one[at]]), [*range(SAMPLES)]
            )
            spent = time.process_time() - spent
            size = target
            places = [draw.randrange(1, size) for _ in range(SAMPLES)]
            inclusion, slowest = median_ms(lambda at, log=log, n=size: log.inclusion_proof(at, n), places)
            consistency, _ = median_ms(lambda at, log=log, n=size: log.consistency_proof(at, n), places)
        opening, _ = median_ms(
            lambda _: EvidenceLog.open(path, origin=ORIGIN, signer=SIGNER).close(), [*range(9)]
        )
        figures |= {
            f"{size:,}: append, ms": append,
            f"{size:,}: append, CPU ms": spent / SAMPLES * 1000,
            f"{size:,}: inclusion proof, ms": inclusion,
            f"{size:,}: inclusion proof, 99th percentile, ms": slowest,
            f"{size:,}: consistency proof, ms": consistency,
            f"{size:,}: opening, ms": opening,
        }
    figures["building, s"] = building
    figures["file, MiB"] = path.stat().st_size / 2**20
    figures["RSS, MiB"] = resident_mib()
    return figures


def resident_mib() -> float:
    """The process's memory now."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
