"""What a receipt makes a verifier do: a stranger's next to nothing, anybody's in proportion to its size."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse
from cloister.core.errors import InputError
from cloister.evidence import receipt as receipts
from cloister.evidence.checks import Outcome
from cloister.evidence.epsilon import MAX_MECHANISMS, EpsilonLimits, epsilon_figures
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import (
    BudgetSpend,
    DataCommitment,
    ManifestAccepted,
    Predicate,
    RequestDecided,
    RoundAggregated,
)
from cloister.evidence.predicates.training import MAX_PRIOR_EVENTS
from cloister.evidence.statement import open_statement
from cloister.evidence.transcript import Pure, SampledGaussian, event_to_json
from cloister.evidence.verifier import COSTLY, Verdict, Verifier, model_artifact
from tests.evidence.attacks.edits import Body, detail
from tests.evidence.synthetic import MODEL, SyntheticJob, edited, failing, plugged, verify

LIMITS = EpsilonLimits(job=3.0, datasets=(4.0, 5.0))

STRANGERS, AGGREGATES = 550, 20
REPEATED = 3000


def first_of(body: Body, kind: type[Predicate]) -> dict[str, Any]:
    """The first statement of a kind in a receipt's body."""
    mark = kind.TYPE.encode()
    return next(one for one in body["statements"] if mark in b64decode(one["envelope"]["payload"]))


def restate(one: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a statement says, without any key."""
    value: Any = parse(b64decode(one["envelope"]["payload"]))
    change(value["predicate"])
    one["envelope"]["payload"] = b64encode(canonicalize(value))


def outcome(verdict: Verdict, check: str) -> Outcome:
    return next(one.outcome for one in verdict.checks if one.id == check)


def test_thousands_of_invented_sites_and_thousands_of_statements_take_seconds(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    """Looked up one by one, each site among all statements, it took half a minute."""

    def crowd(body: Body) -> None:
        for number in range(AGGREGATES):
            one = copy.deepcopy(first_of(body, RoundAggregated))
            invented: dict[str, JSON] = {f"s{number}-{site}": "0" * 64 for site in range(STRANGERS)}
            restate(one, lambda fields, invented=invented: fields.update(updates=invented))
            body["statements"].append(one)
        for kind in (DataCommitment, ManifestAccepted):
            body["statements"] += [first_of(body, kind)] * REPEATED

    hostile = edited(honest_receipt, crowd)
    began = time.process_time()
    verdict = verify(honest_job, hostile)
    assert time.process_time() - began < 6
    assert "aggregates of sites the job doesn't have: s0-0, s0-1" in detail(verdict, "statements-complete")


def test_what_nobody_signed_is_not_computed_from(
    honest_job: SyntheticJob, honest_receipt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of mechanisms that somebody without a key puts in would take many seconds to compose."""
    many: list[JSON] = [event_to_json(SampledGaussian(0.1, 8 + n / 1000, 5)) for n in range(MAX_PRIOR_EVENTS)]
    hostile = edited(
        honest_receipt,
        lambda body: restate(first_of(body, BudgetSpend), lambda fields: fields.update(prior_events=many)),
    )
    monkeypatch.setattr("cloister.evidence.verification.training.epsilon_figures", None)
    verdict = verify(honest_job, hostile)
    assert {"receipt-signature", "statement-signature"} <= failing(verdict)
    assert {outcome(verdict, one) for one in COSTLY} == {Outcome.NOT_RUN}


def spends(job: SyntheticJob) -> list[BudgetSpend]:
    found = [open_statement(one.envelope).predicate for one in job.extracts["north"].entries]
    return [one for one in found if isinstance(one, BudgetSpend)]


def test_no_more_mechanisms_than_the_bound_are_composed_whoever_signed_them(honest_job: SyntheticJob) -> None:
    one = spends(honest_job)[0]
    groups = [
        tuple(event_to_json(Pure(0.001 + (256 * part + n) * 1e-6, 1)) for n in range(256))
        for part in range(3)
    ]
    charged = [one.model_copy(update={"prior_events": group}) for group in groups]
    with pytest.raises(InputError, match=f"at most {MAX_MECHANISMS}"):
        epsilon_figures(charged, LIMITS)
    assert epsilon_figures([one, *[one] * 600], LIMITS).epsilon > 0


def test_a_statement_that_fits_into_no_log_is_not_read(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    wide: dict[str, JSON] = {f"s{number}": "0" * 64 for number in range(1000)}
    hostile = edited(
        honest_receipt,
        lambda body: restate(first_of(body, RoundAggregated), lambda fields: fields.update(updates=wide)),
    )
    assert "at most" in detail(verify(honest_job, hostile), "schema")


def test_statements_of_a_value_every_three_bytes_are_not_read(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    """In Python each such value takes thirty times its bytes."""
    crowded: dict[str, JSON] = {"none": [{} for _ in range(15_000)]}

    def crowd(body: Body) -> None:
        one = first_of(body, RequestDecided)
        restate(one, lambda fields: fields.update(facts=crowded))
        body["statements"] += [one] * 20

    verdict = verify(honest_job, edited(honest_receipt, crowd))
    assert "more values than are read" in detail(verdict, "schema")


def test_a_receipt_of_far_more_values_than_a_real_one_is_not_read(
    honest_job: SyntheticJob, honest_receipt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of a million short lists would take twenty times its size in memory."""
    assert honest_receipt.count(b",") < len(honest_receipt) / 64
    monkeypatch.setattr(receipts, "MAX_RECEIPT_MEMBERS", 20_000)
    crowd: JSON = [[f"{number:020d}"] for number in range(10_000)]
    hostile = edited(honest_receipt, lambda body: body["job"].update(crowd=crowd))
    verdict = Verifier(honest_job.trust, plugged()).verify(hostile, model_artifact(MODEL))
    assert "more values than are read" in detail(verdict, "canonical-form")


def test_a_receipt_too_large_to_be_verified_is_neither_read_nor_issued(
    honest_job: SyntheticJob, honest_receipt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = honest_receipt.ljust(receipts.MAX_RECEIPT_BYTES + 1)
    verdict = Verifier(honest_job.trust, plugged()).verify(huge, model_artifact(MODEL))
    assert "at most" in detail(verdict, "canonical-form")
    monkeypatch.setattr(receipts, "MAX_RECEIPT_BYTES", len(honest_receipt) - 1)
    with pytest.raises(EvidenceError) as refused:
        honest_job.receipt()
    assert refused.value.code == "evidence.receipt_refused"
