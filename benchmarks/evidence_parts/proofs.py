"""Checking proofs: what it takes a verifier to check one proof of a large log, beside pymerkle and sigstore.

The peers get the same entries and proofs, in an environment of their own that `make bench-evidence` sets up;
where it is missing they are left out. `peer/inclusion.py` says what is timed of them.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cloister.core.canonical import b64encode
from cloister.evidence.merkle import leaf_hash, verify_consistency, verify_inclusion
from evidence_parts._log import grow, median_ms, new_log

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".venv-peers/bin/python"
SIZE = 100_000
SAMPLES = 2000
TARGETS = {"inclusion proof checked, us": ("at most", 50.0)}


def measure(scratch: Path) -> dict[str, float]:
    """Medians over proofs at random places of one log; an inclusion proof with its leaf's hash."""
    draw = random.Random(2)
    with new_log(scratch / "log.sqlite") as log:
        grow(log, 0, SIZE)
        root = log.checkpoint().root
        places = [draw.randrange(1, SIZE) for _ in range(SAMPLES)]
        entries = [next(log.entries(at, at + 1)).data for at in places]
        included = [log.inclusion_proof(at, SIZE) for at in places]
        roots = [log.root_at(at) for at in places]
        consistent = [log.consistency_proof(at, SIZE) for at in places]

    def check_inclusion(number: int) -> None:
        verify_inclusion(leaf_hash(entries[number]), places[number], SIZE, included[number], root)

    def check_consistency(number: int) -> None:
        verify_consistency(places[number], SIZE, consistent[number], roots[number], root)

    figures = {
        "inclusion proof checked, us": _median_us(check_inclusion),
        "consistency proof checked, us": _median_us(check_consistency),
    }
    if not PEERS.exists():
        print("The peers aren't measured: `make bench-evidence` installs them.", file=sys.stderr)
        return figures
    given = {
        "entries": [b64encode(one) for one in entries],
        "indexes": places,
        "proofs": [[b64encode(one) for one in proof] for proof in included],
        "root": b64encode(root),
        "size": SIZE,
    }
    command = [str(PEERS), str(ROOT / "benchmarks/peer/inclusion.py")]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True)
    peers = json.loads(done.stdout)
    return figures | {f"inclusion proof checked by {name}, us": peers[name] for name in sorted(peers)}


def _median_us(check: Callable[[int], object]) -> float:
    return median_ms(check, [*range(SAMPLES)])[0] * 1000
