"""A job in a process of its own: reserves and settles until it is killed or the budget is spent.

It prints a line once a spend is durable, so that whoever kills it knows what must not be lost.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import SampledGaussian
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.errors import BudgetExceeded
from cloister.privacy.ledger import BudgetLedger, Purpose


def main(path: str, dataset: str, job: str, noise: str, limit: str) -> None:
    with BudgetLedger.open(Path(path), dataset) as ledger:
        number = 0
        while True:
            try:
                held = ledger.reserve(
                    SampledGaussian(0.1, float(noise), 10),
                    dataset_sha256=sha256_hex(b"records"),
                    job_id=job,
                    round_number=number,
                    purpose=Purpose.TRAINING,
                    limits=[Limit("dataset", float(limit), Scope.DATASET)],
                )
            except BudgetExceeded:
                print("spent", flush=True)
                return
            print("reserved", held.id, flush=True)
            ledger.settle(held, number % 11)
            print("settled", held.id, number % 11, flush=True)
            number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
