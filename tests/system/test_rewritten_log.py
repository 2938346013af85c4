"""A hub may rewrite its own log, head and signatures and all: what it leaves out is still missed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from cloister.core.canonical import b64encode
from cloister.core.clock import parse_time
from cloister.evidence import EvidenceLog, Predicate, StatementWriter, decode_statement
from cloister.evidence.envelope import envelope_from_json
from cloister.evidence.predicates import (
    AttestationVerdict,
    Evaluation,
    JobClosed,
    JobOpened,
    Release,
    RoundAggregated,
)
from tests.system.conftest import MainJob
from tests.system.tampering import HUB_LOG, Body, edited_receipt, entries, failed, judge, parts, party_key


def rewritten_hub_log(main_job: MainJob, folder: Path, keep: Callable[[Predicate], bool]) -> bytes:
    """A receipt in which the hub's log is made anew from some of its statements, soundly signed."""
    signer = party_key(main_job.workspace, "hub", "hub")

    def edit(body: Body) -> None:
        listed = entries(body)
        stated = [
            decode_statement(envelope_from_json(entry["envelope"]).payload)
            for entry in listed
            if entry["log"] == HUB_LOG
        ]
        kept = [one for one in stated if keep(one.predicate)]
        times: Iterator[datetime] = iter([parse_time(one.predicate.recorded_at) for one in kept])
        log = EvidenceLog.create(folder / "log.sqlite", origin=HUB_LOG, signer=signer)
        writer = StatementWriter(log, signer, "hub", main_job.outcome.job_id, lambda: next(times))
        for one in kept:
            if isinstance(one.predicate, JobClosed):
                writer.close("completed")
            else:
                own = one.predicate.model_dump(mode="json", exclude=set(Predicate.model_fields))
                writer.write(type(one.predicate), one.subjects, **own)
        extract = log.extract(main_job.outcome.job_id)
        log.close()
        body["statements"] = [
            {
                "log": HUB_LOG,
                "index": entry.index,
                "envelope": entry.envelope.as_json(),
                "inclusion": [b64encode(one) for one in entry.proof],
            }
            for entry in extract.entries
        ] + [entry for entry in listed if entry["log"] != HUB_LOG]
        parts(body["checkpoints"])[HUB_LOG] = extract.checkpoint.encode()

    return edited_receipt(main_job.outcome.receipt.read_bytes(), edit, signer)


def test_a_log_rewritten_with_all_its_statements_still_verifies(main_job: MainJob, tmp_path: Path) -> None:
    receipt = rewritten_hub_log(main_job, tmp_path, lambda _: True)
    assert set(failed(judge(main_job.outcome, receipt=receipt))) <= {"summary"}


@pytest.mark.parametrize(
    "kind", [JobOpened, AttestationVerdict, RoundAggregated, Evaluation, Release, JobClosed]
)
def test_a_hub_that_rewrites_its_log_without_a_statement_is_refused(
    kind: type[Predicate], main_job: MainJob, tmp_path: Path
) -> None:
    dropped: list[Predicate] = []

    def keep(predicate: Predicate) -> bool:
        if isinstance(predicate, kind) and not dropped:
            dropped.append(predicate)
            return False
        return True

    receipt = rewritten_hub_log(main_job, tmp_path, keep)
    found = failed(judge(main_job.outcome, receipt=receipt))
    assert "statements-complete" in found
    assert not {"receipt-signature", "checkpoint-signature", "log-inclusion", "statement-signature"} & set(
        found
    )
