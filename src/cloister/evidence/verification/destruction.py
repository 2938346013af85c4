"""The check on what was destroyed: every worker that trained has ended, and no look at its end failed.

A site that spent budget has had a worker with its records, whether or not the hub used what it released.

A look that couldn't be made doesn't refuse a receipt, as some kernels and users forbid it; it's named in the
check and in the summary, and nothing is concluded from it. That the process is gone has to have been seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloister.evidence.checks import Check, judged
from cloister.evidence.context import ReceiptContext
from cloister.evidence.predicates import BudgetSpend, Destruction, UpdateReleased, WorkerSealed
from cloister.evidence.predicates.custody import REAPED, WIPED, WORKER_LOOKS, WORKER_MEMORY
from cloister.evidence.record import JobRecord

DESTRUCTION_CHECK_ID = "destruction"


def check_destruction(context: ReceiptContext) -> Check:
    """Each worker of a site that took part or spent budget has ended; no look failed, at any party."""
    record = context.record
    stated = record.of(Destruction)
    problems = [
        f"{one.party}: {one.what}: {look.name} failed"
        for one in stated
        for look in one.checks
        if look.outcome == "failed"
    ]
    problems += [f"{one.party}: {text}" for one in stated if one.what == WORKER_MEMORY for text in _form(one)]
    problems += [f"{site}: {text}" for site in record.involved for text in _unended(record, site)]
    left_out = sorted(
        {f"{one.party}: {look.name}" for one in stated for look in one.checks if look.outcome == "not_run"}
    )
    detail = f"{len(stated)} destructions stated, no look at them failed"
    if left_out:
        detail += f"; WARNING, could not be looked at: {', '.join(left_out)}"
    return judged(DESTRUCTION_CHECK_ID, problems, detail)


def _form(one: Destruction) -> Iterator[str]:
    outcomes = {look.name: look.outcome for look in one.checks}
    if outcomes.keys() != set(WORKER_LOOKS) or len(outcomes) != len(one.checks):
        yield "the end of its worker was looked at otherwise than agreed"
        return
    done = one.method.split(", ")
    if ("wiped" in done) != (outcomes[WIPED] == "passed"):
        yield "it states to have wiped its worker's buffers, and its own look says otherwise, or the reverse"
    if outcomes[REAPED] == "not_run" or ("reaped" in done) != (outcomes[REAPED] == "passed"):
        yield "nobody saw the end of its worker's process"


def _unended(record: JobRecord, site: str) -> Iterator[str]:
    ends = [one for one in record.by(site, Destruction) if one.what == WORKER_MEMORY]
    trained = [one for one in record.by(site, BudgetSpend) if one.purpose == "training"]
    last = max((one.sequence for one in (*trained, *record.by(site, UpdateReleased))), default=0)
    for worker in record.by(site, WorkerSealed):
        own = [one for one in ends if worker.enclave_key.removeprefix("sha256:") in one.artifacts]
        if not own:
            yield "a worker was sealed whose end is not stated"
        elif own[-1].sequence < last:
            yield "its worker's end is stated before its last round"
        elif own[-1].simulated:
            yield "its worker's end was only rehearsed"
