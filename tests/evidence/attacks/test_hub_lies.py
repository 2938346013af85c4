"""What a hub may say in its own log and sign in a receipt, and what gives it away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister.core.canonical import JSON, parse
from cloister.core.hashes import sha256_hex
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    Evaluation,
    JobOpened,
    Release,
    RoundAggregated,
)
from cloister.evidence.receipt import ModelFile
from tests.evidence.attacks.edits import Body, NeverUsed, both_ways, step
from tests.evidence.synthetic import (
    Step,
    SyntheticJob,
    digest,
    failing,
    resealed,
    verify,
)


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        (lambda s: step(s, RoundAggregated)["updates"].update(north=digest("other")), "airlock"),
        (lambda s: step(s, RoundAggregated)["updates"].update(north=digest("update north 1")), "airlock"),
        (lambda s: step(s, RoundAggregated).update(model_sha256_before=digest("other")), "airlock"),
        (lambda s: step(s, RoundAggregated, 1).update(model_sha256_before=digest("other")), "aggregation"),
        (lambda s: step(s, RoundAggregated, 1).update(model_sha256_after=digest("other")), "aggregation"),
        (lambda s: step(s, RoundAggregated)["weights"].update(north=0.5, south=0.5), "aggregation"),
        (lambda s: step(s, RoundAggregated)["weights"].update(north=0.3), "aggregation"),
        (lambda s: step(s, RoundAggregated)["weights"].update(west=0.1), "aggregation"),
        (lambda s: step(s, RoundAggregated)["absent"].update(north="late"), "aggregation"),
        (lambda s: step(s, RoundAggregated).update(strategy="SCAFFOLD"), "aggregation"),
        (lambda s: step(s, Release).update(weights_sha256=digest("other")), "aggregation"),
        (lambda s: step(s, Release).update(model_sha256=digest("other")), "model-hash"),
        (lambda s: step(s, Release).update(approved=False), "model-hash"),
        (lambda s: step(s, Release)["constraints"][0].update(satisfied=False), "model-hash"),
        (lambda s: step(s, Evaluation).update(improvement_score=0.99), "evaluation"),
        (lambda s: step(s, Evaluation).update(threshold=0.5), "evaluation"),
        (
            lambda s: step(s, Evaluation).update(value=120 / 171, improvement_score=13 / 64),
            "evaluation",
        ),
        (lambda s: step(s, Evaluation).update(metric="f1"), "evaluation"),
        (lambda s: step(s, Evaluation).update(test_set="an-easier-one"), "evaluation"),
        (lambda s: step(s, JobOpened).update(test_set="an-easier-one"), "evaluation"),
        (lambda s: step(s, JobOpened).update(job_sha256=digest("other")), "request"),
        (lambda s: step(s, JobOpened).update(rounds=7), "request"),
    ],
)
def test_a_lie_in_the_hubs_own_log(
    honest_job: SyntheticJob, lie: Callable[[list[Step]], None], check: str
) -> None:
    failures = failing(verify(honest_job, honest_job.lying_hub(lie)))
    assert check in failures
    assert failures <= {check, "airlock", "aggregation", "model-hash", "summary"}


def moved(kind: type, before: type) -> Callable[[list[Step]], None]:
    def move(steps: list[Step]) -> None:
        taken = steps.pop(next(place for place, one in enumerate(steps) if one[0] is kind))
        steps.insert(next(place for place, one in enumerate(steps) if one[0] is before), taken)

    return move


@pytest.mark.parametrize(
    "lie",
    [
        moved(Evaluation, RoundAggregated),
        moved(Release, RoundAggregated),
        moved(RoundAggregated, JobOpened),
        moved(RoundAggregated, AttestationVerdict),
        moved(RoundAggregated, Evaluation),
    ],
)
def test_steps_stated_in_an_order_in_which_they_cannot_have_happened(
    honest_job: SyntheticJob, lie: Callable[[list[Step]], None]
) -> None:
    failures = failing(verify(honest_job, honest_job.lying_hub(lie)))
    assert "statement-order" in failures
    # A machine that is attested after the first round released its update before.
    assert failures <= {"statement-order", "airlock"}


def released_first(steps: list[Step]) -> None:
    spend = next(place for place, one in enumerate(steps) if one[0] is BudgetSpend)
    steps[spend], steps[spend + 1] = steps[spend + 1], steps[spend]


def test_an_update_released_before_its_cost_was_stated(honest_job: SyntheticJob) -> None:
    assert failing(verify(honest_job, honest_job.lying_site("north", released_first))) == {"statement-order"}


def test_a_site_whose_updates_nobody_used_states_its_costs_first_as_well(tmp_path: Path) -> None:
    job = NeverUsed(tmp_path).run()
    assert "statement-order" not in failing(verify(job, job.receipt()))
    assert "statement-order" in failing(verify(job, job.lying_site("north", released_first)))


def test_a_site_that_was_never_attested(honest_job: SyntheticJob) -> None:
    with pytest.raises(EvidenceError) as caught:
        honest_job.lying_hub(lambda steps: step(steps, AttestationVerdict).update(status="UNTRUSTED"))
    assert "0 attestation verdicts that trust north" in caught.value.details[0]


def test_a_site_dropped_from_a_round_without_a_word(honest_job: SyntheticJob) -> None:
    def drop(steps: list[Step]) -> None:
        for part in ("updates", "weights"):
            del step(steps, RoundAggregated, 1)[part]["south"]

    failures = failing(verify(honest_job, honest_job.lying_hub(drop)))
    assert {"airlock", "aggregation"} <= failures


def test_a_site_dropped_from_a_round_with_a_reason_still_needs_the_quorum(honest_job: SyntheticJob) -> None:
    def drop(steps: list[Step]) -> None:
        for part in ("updates", "weights"):
            del step(steps, RoundAggregated, 1)[part]["south"]
        step(steps, RoundAggregated, 1)["absent"]["south"] = "late"

    assert failing(verify(honest_job, honest_job.lying_hub(drop))) == {"aggregation"}


def test_a_model_file_above_what_a_manifest_allows(honest_job: SyntheticJob) -> None:
    large = bytes(10_001)

    def lie(steps: list[Step]) -> None:
        step(steps, Release).update(model_sha256=sha256_hex(large), model_bytes=len(large))

    receipt = honest_job.lying_hub(lie, model=ModelFile("m", sha256_hex(large), len(large)))
    assert failing(verify(honest_job, receipt, model=large)) == {"model-hash"}


# Everything else the hub signs


def leaves(value: JSON, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths to every scalar in a JSON value."""
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in leaves(part, (*path, name))]
    if isinstance(value, list):
        return [leaf for place, part in enumerate(value) for leaf in leaves(part, (*path, place))]
    return [path]


def changed(value: JSON) -> JSON:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return 0


THE_HUBS_TO_CHOOSE = {("receipt_id",), ("issued_at",), ("model", "name")}
"""What a hub may freely choose when it issues: the receipt's own id and date, and the file's name."""


def test_a_hub_can_change_nothing_but_the_receipts_own_id_date_and_file_name(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    body = parse(honest_receipt)["body"]  # type: ignore[call-overload, index]
    accepted = set()
    apart = {"envelope", "inclusion"}
    places = [path for path in leaves(body) if not apart & set(path) and path[-2:-1] != ("orders",)]
    for path in places:

        def edit(whole: Body, path: tuple[str | int, ...] = path) -> None:
            part: Any = whole
            for step_ in path[:-1]:
                part = part[step_]
            part[path[-1]] = changed(part[path[-1]])

        if verify(honest_job, resealed(honest_receipt, honest_job.keys["hub"], edit)).accepted:
            accepted.add(path)
    assert len(places) > 120
    assert accepted <= THE_HUBS_TO_CHOOSE


def test_the_fixed_sentences_reworded(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def reword(body: Body) -> None:
        body["compliance"][0] = "Credits are as good as money."

    def unsay(body: Body) -> None:
        body["claims_not_made"].pop(0)

    for edit in (reword, unsay):
        _, hostile = both_ways(honest_job, honest_receipt, edit)
        assert hostile == {"compliance"}


def test_a_receipt_dated_before_the_job_ended(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    early = "2026-11-21T14:00:00.000000Z"
    _, hostile = both_ways(honest_job, honest_receipt, lambda body: body.update(issued_at=early))
    assert hostile == {"statement-order"}
