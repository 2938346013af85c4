"""Whatever a hub writes and signs, the verifier answers, and its answer can be shown on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloister.core.canonical import b64decode, canonicalize, parse
from cloister.core.hashes import sha256_hex
from cloister.evidence import sign_envelope, verifier
from cloister.evidence.checks import Check, Outcome
from cloister.evidence.context import ReceiptContext
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import (
    AttestationVerdict,
    Evaluation,
    Release,
    RoundAggregated,
)
from cloister.evidence.receipt import ModelFile
from cloister.evidence.statement import PAYLOAD_TYPE
from cloister.evidence.verifier import Verdict
from tests.evidence.synthetic import (
    MODEL,
    Step,
    SyntheticJob,
    failing,
    resealed,
    verify,
)

Lie = Callable[[list[Step]], None]


def step(steps: list[Step], kind: type, position: int = 0) -> dict[str, Any]:
    return [fields for found, fields in steps if found is kind][position]  # type: ignore[return-value]


def detail(verdict: Verdict, check: str) -> str:
    return next(one.detail for one in verdict.checks if one.id == check)


# What a person reads can't steer the terminal


ESCAPES = (
    "\x1b[2J\x1b[32maccepted",
    "a\nb",
    "a\rb",
    "a\u202eb",
    "a\u2066b",
    "a\u200bb",
    "a\x9bb",
    "a\u2028b",
)


@pytest.mark.parametrize("name", [*ESCAPES, "", ".", "../m", "a/b", "a b", "-rf", "m" * 101])
def test_a_model_file_name_that_is_not_plain(
    honest_job: SyntheticJob, honest_receipt: bytes, name: str
) -> None:
    hostile = resealed(
        honest_receipt,
        honest_job.keys["hub"],
        lambda body: body["model"].update(name=name),  # type: ignore[union-attr]
    )
    verdict = verify(honest_job, hostile)
    assert failing(verdict) >= {"schema"}
    assert all(one.detail.isprintable() for one in verdict.checks)
    with pytest.raises(EvidenceError, match="file name"):
        honest_job.receipt(model=ModelFile(name, sha256_hex(MODEL), len(MODEL)))


@pytest.mark.parametrize("text", ESCAPES)
@pytest.mark.parametrize(
    "lie",
    [
        lambda s, text: step(s, Evaluation).update(test_set=text),
        lambda s, text: step(s, Evaluation)["sites"][0].update(reason=text),
        lambda s, text: step(s, Release)["constraints"][0].update(detail=text),
        lambda s, text: step(s, AttestationVerdict).update(platform=text),
        lambda s, text: step(s, AttestationVerdict)["checks"][0].update(detail=text),
        lambda s, text: step(s, RoundAggregated).update(strategy=text),
    ],
)
def test_text_that_does_not_print_is_not_stated(
    honest_job: SyntheticJob, lie: Callable[[list[Step], str], None], text: str
) -> None:
    with pytest.raises(EvidenceError) as refused:
        honest_job.lying_hub(lambda steps: lie(steps, text))
    assert refused.value.code == "evidence.statement_refused"


def test_whatever_a_receipt_holds_every_detail_of_the_verdict_prints(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    def edit(body: dict[str, Any]) -> None:
        body["job"]["clients"] = ["north", "south\x1b[2J"]
        body["job\x1b[2J"] = 1

    for change in (edit, lambda body: body["job"].update(strategy="\x1b[2J")):
        verdict = verify(honest_job, resealed(honest_receipt, honest_job.keys["hub"], change))
        assert not verdict.accepted
        assert all(one.detail.isprintable() for one in verdict.checks)


# No receipt stops the verifier


def test_weights_too_large_to_add_up_get_a_verdict(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    key = honest_job.keys["hub"]

    def edit(body: dict[str, Any]) -> None:
        for one in body["statements"]:
            statement: Any = parse(b64decode(one["envelope"]["payload"]))
            if statement["predicateType"] == RoundAggregated.TYPE:
                statement["predicate"]["weights"] = {"north": 1.7e308, "south": 1.7e308}
                one["envelope"] = sign_envelope(PAYLOAD_TYPE, canonicalize(statement), key).as_json()

    assert "schema" in failing(verify(honest_job, resealed(honest_receipt, key, edit)))


@pytest.mark.parametrize("weight", [0.0, -0.5, 1.1, 1.7e308])
def test_a_weight_is_a_share(honest_job: SyntheticJob, weight: float) -> None:
    with pytest.raises(EvidenceError) as refused:
        honest_job.lying_hub(lambda steps: step(steps, RoundAggregated)["weights"].update(north=weight))
    assert refused.value.code == "evidence.statement_refused"


@pytest.mark.parametrize("error", [OverflowError, RecursionError, KeyError, ValueError, MemoryError])
def test_a_check_that_breaks_is_not_run_and_nothing_is_accepted(
    honest_job: SyntheticJob,
    honest_receipt: bytes,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    def broken(context: ReceiptContext) -> Check:
        raise error(context.body.issuer)

    checks = {**verifier._CHECKS, "aggregation": broken}
    monkeypatch.setattr(verifier, "_CHECKS", checks)
    verdict = verify(honest_job, honest_receipt)
    assert [(one.id, one.outcome) for one in verdict.failures] == [("aggregation", Outcome.NOT_RUN)]
    assert error.__name__ in verdict.failures[0].detail
    monkeypatch.setattr(verifier, "record_of", broken)
    assert "schema" in failing(verify(honest_job, honest_receipt))
