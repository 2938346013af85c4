"""The receipt of a job of 4 sites and 50 rounds: the verifier's own checks, and composing it.

The receipt is judged again and again, so that epsilon, which is dp-accounting's time, comes from memory; the
two checks that rooms above plug in are content with everything.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNS = 15
SITES = ("north", "south", "east", "west")
ROUNDS = 50
TARGETS = {"own checks, ms": ("at most", 150.0)}


def measure(scratch: Path) -> dict[str, float]:
    """Milliseconds of the checks (median) and of composing, and the receipt's size."""
    sys.path.insert(0, str(ROOT))
    from tests.evidence.synthetic import MODEL, SyntheticJob, plugged

    from cloister.evidence.verifier import Verifier, model_artifact

    folder = scratch / "job"
    folder.mkdir()
    job = SyntheticJob(folder, sites=SITES, rounds=ROUNDS).run()
    job.receipt()
    began = time.perf_counter()
    receipt = job.receipt()
    composing = time.perf_counter() - began
    verifier, model = Verifier(job.trust, plugged()), model_artifact(MODEL)
    times: list[float] = []
    for _ in range(RUNS):
        began = time.perf_counter()
        verdict = verifier.verify(receipt, model)
        times.append(time.perf_counter() - began)
        assert verdict.accepted, verdict.failures
    return {
        "own checks, ms": statistics.median(times) * 1000,
        "composing, ms": composing * 1000,
        "receipt, KB": len(receipt) / 1000,
    }
