"""An account whose spends the site states: releases, perturbed models and tunings beside a job's training.

A spend is stated between its settlement and the handing out of what it paid for, so that a ledger which was
set back to before it is refused at its next opening, as for the rounds of a job. The job's data commitment
has to stand in the site's log before it; it names the dataset that the statements are about.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.core.hashes import Sha256
from cloister.evidence.predicates import BudgetSpend
from cloister.evidence.statement import Subject
from cloister.evidence.transcript import RELATION, event_to_json, times
from cloister.evidence.writer import StatementWriter
from cloister.privacy.account import Account
from cloister.privacy.budget import Limit
from cloister.privacy.ledger import BudgetLedger, Reservation


def site_account(
    ledger: BudgetLedger,
    statements: StatementWriter,
    *,
    site: str,
    dataset_sha256: Sha256,
    job_id: str,
    round_number: int,
    limits: Sequence[Limit],
) -> Account:
    """Return an account at a site, each of whose spends is stated before its result is handed out.

    Args:
        ledger: the dataset's ledger.
        statements: the writer of the site's statements in this job.
        site: the hospital's name.
        dataset_sha256: commitment to the records as they are now.
        job_id: the job that asks, whose data commitment the site has written.
        round_number: its round.
        limits: ceilings of manifest and job; the ledger adds the hard stop.
    """
    # The first spend of a job names what other jobs had done before; training states it too.
    first = [not ledger.events(job_id)]

    def state(reservation: Reservation, noise_generator: str) -> None:
        number = times(reservation.event)
        prior = ledger.prior_events(job_id) if first[0] else ()
        statements.write(
            BudgetSpend,
            [Subject(f"dataset/{site}", dataset_sha256)],
            round=round_number,
            purpose=reservation.purpose.value,
            event=event_to_json(reservation.event),
            delta=ledger.delta,
            unit=ledger.unit,
            relation=RELATION,
            mode=ledger.mode,
            plan_steps=None,
            reserved_steps=number,
            executed_steps=number,
            dataset_sha256=dataset_sha256,
            noise_generator=noise_generator,
            ledger_head=ledger.head,
            prior_events=[event_to_json(one) for one in prior],
        )
        first[0] = False

    return Account(ledger, dataset_sha256, job_id, round_number, limits, state)
