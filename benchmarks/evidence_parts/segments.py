"""The local audit stream: durable entries a second, and verified lines a second on one core.

An entry counts when it is on disk, covered by a signed checkpoint, and a second file has that checkpoint.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path

from cloister.core.canonical import JSON
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence.segments import (
    FileSink,
    OpeningKey,
    SegmentLimits,
    SegmentWriter,
    parse_held,
    verify_segment,
)
from evidence_parts._cores import PINNABLE, one_core

RUNS = 5
THREADS = 64
EACH = 200
GROUP = 64
GROUPS = 200
LINES = 50_000
EVENT: dict[str, JSON] = {
    "caller": "app.views.charge",
    "decision": "observe",
    "duration_ms": 1.25,
    "function": "app.payments.charge",
    "id": "0f9b3c3f2a7d4e11",
    "scores": {"entry": 0.12, "rate": 3},
    "state": "learning",
}
TARGETS = {
    "64 threads, durable entries/s": ("at least", 15_000.0),
    "64 threads on one core, durable entries/s": ("at least", 15_000.0),
    "groups of 64, durable entries/s": ("at least", 15_000.0),
    "verified by a third party, lines/s": ("at least", 150_000.0),
    "verified with the secrets, lines/s": ("at least", 150_000.0),
}


def measure(scratch: Path) -> dict[str, float]:
    """Medians of five runs on new segments; verifying is in thread CPU time, writing in wall time."""
    signer, opening = EphemeralKeyStore().generate("bench"), OpeningKey.generate()
    sink = FileSink(scratch / "held")

    def writer() -> SegmentWriter:
        limits = SegmentLimits(max_bytes=1 << 30)
        return SegmentWriter(scratch, "bench", signer, opening.sealing_key, sinks=[sink], limits=limits)

    def threads() -> float:
        with writer() as one:

            def work() -> None:
                for _ in range(EACH):
                    one.append_durable(EVENT)

            started = [threading.Thread(target=work) for _ in range(THREADS)]
            since = time.perf_counter()
            for thread in started:
                thread.start()
            for thread in started:
                thread.join()
            return THREADS * EACH / (time.perf_counter() - since)

    def groups() -> float:
        with writer() as one:
            since = time.perf_counter()
            for _ in range(GROUPS):
                for _ in range(GROUP - 1):
                    one.append(EVENT)
                one.append_durable(EVENT)
            return GROUPS * GROUP / (time.perf_counter() - since)

    figures = {
        "64 threads, durable entries/s": statistics.median(threads() for _ in range(RUNS)),
        "groups of 64, durable entries/s": statistics.median(groups() for _ in range(RUNS)),
    }
    if PINNABLE:
        with one_core():
            pinned = [threads() for _ in range(RUNS)]
        figures["64 threads on one core, durable entries/s"] = statistics.median(pinned)
    with writer() as one:
        for _ in range(LINES):
            segment = one.append(EVENT).receipt.segment
    sink.close()
    data = (scratch / f"{segment}.jsonl").read_bytes()
    held = [each for each in parse_held((scratch / "held").read_bytes()) if each.segment == segment]
    for name, secrets in (("by a third party", None), ("with the secrets", opening)):
        rates = []
        for _ in range(RUNS):
            since = time.thread_time()
            verdict = verify_segment(data, keys=[signer.public_key], held=held, secrets=secrets)
            rates.append(verdict.lines / (time.thread_time() - since))
            if not verdict.accepted:
                raise SystemExit("the segment that was measured doesn't verify")
        figures[f"verified {name}, lines/s"] = statistics.median(rates)
    figures["bytes a line"] = len(data) / verdict.lines
    figures["load average over the last minute"] = os.getloadavg()[0]
    return figures
