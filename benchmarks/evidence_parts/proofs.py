"""Checking proofs: what it takes a verifier to check one inclusion or consistency proof of a large log."""

from __future__ import annotations

import random
from pathlib import Path

from cloister.evidence.merkle import verify_consistency, verify_inclusion
from evidence_parts._log import grow, median_ms, new_log

SIZE = 100_000
SAMPLES = 2000
TARGETS = {"inclusion proof checked, us": ("at most", 50.0)}


def measure(scratch: Path) -> dict[str, float]:
    """Medians over proofs at random places of one log."""
    draw = random.Random(2)
    with new_log(scratch / "log.sqlite") as log:
        grow(log, 0, SIZE)
        root = log.checkpoint().root
        places = [draw.randrange(1, SIZE) for _ in range(SAMPLES)]
        leaves = [log.subtrees(0, at, at + 1)[0] for at in places]
        included = [log.inclusion_proof(at, SIZE) for at in places]
        roots = [log.root_at(at) for at in places]
        consistent = [log.consistency_proof(at, SIZE) for at in places]

    def check_inclusion(number: int) -> None:
        verify_inclusion(leaves[number], places[number], SIZE, included[number], root)

    def check_consistency(number: int) -> None:
        verify_consistency(places[number], SIZE, consistent[number], roots[number], root)

    numbers = [*range(SAMPLES)]
    return {
        "inclusion proof checked, us": median_ms(check_inclusion, numbers)[0] * 1000,
        "consistency proof checked, us": median_ms(check_consistency, numbers)[0] * 1000,
    }
