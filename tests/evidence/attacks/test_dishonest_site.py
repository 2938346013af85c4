"""A site that lies in its own log, with its own key, is given away by the rest of the receipt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister.core.errors import CloisterError
from cloister.evidence.predicates import (
    BudgetSpend,
    DataCommitment,
    ManifestAccepted,
    RequestDecided,
    UpdateReleased,
)
from cloister.evidence.transcript import Gaussian, SampledGaussian, event_to_json
from tests.evidence.synthetic import Step, SyntheticJob, digest, failing, verify


def step(steps: list[Step], kind: type, position: int = 0) -> dict[str, Any]:
    return [fields for found, fields in steps if found is kind][position]  # type: ignore[return-value]


def spend(position: int = 1, **changes: object) -> Callable[[list[Step]], None]:
    return lambda steps: step(steps, BudgetSpend, position).update(changes)


def event(q: float = 0.1, noise: float = 8.0, steps: int = 5) -> dict[str, object]:
    return dict(event_to_json(SampledGaussian(q, noise, steps)))


@pytest.mark.parametrize(
    "lie",
    [
        spend(event=event(noise=80.0)),
        spend(event=event(q=0.01)),
        spend(event=event(steps=1)),
        spend(event=event(steps=1), executed_steps=1, reserved_steps=1),
        spend(event=event(steps=6), executed_steps=6),
        spend(event=dict(event_to_json(Gaussian(8.0, 5)))),
        spend(delta=1e-6),
        spend(delta=1e-3),
        spend(0, delta=1e-3),
        spend(ledger_head=digest("ledger north 0")),
        spend(prior_events=[event()]),
    ],
)
def test_a_charge_that_does_not_follow_the_jobs_plan(
    honest_job: SyntheticJob, lie: Callable[[list[Step]], None]
) -> None:
    failures = failing(verify(honest_job, honest_job.lying_site("north", lie)))
    assert "budget-ledger" in failures
    assert failures <= {"budget-ledger", "epsilon", "summary"}


def test_a_round_stopped_early_is_charged_for_the_steps_it_took(honest_job: SyntheticJob) -> None:
    receipt = honest_job.lying_site("north", spend(event=event(steps=3), executed_steps=3))
    assert verify(honest_job, receipt).accepted


def test_a_charge_nobody_can_read_gets_no_receipt(honest_job: SyntheticJob) -> None:
    with pytest.raises(CloisterError):
        honest_job.lying_site("north", spend(event={"type": "free-of-charge"}))


def test_noise_a_site_calibrated_itself_is_the_same_in_every_round(tmp_path: Path) -> None:
    job = SyntheticJob(tmp_path, calibrated=True).run()
    assert verify(job, job.receipt()).accepted
    receipt = job.lying_site("north", spend(event=event(noise=9.0)))
    assert failing(verify(job, receipt)) == {"budget-ledger"}


def test_a_batch_size_fixes_the_sampling_probability_by_the_number_of_records(tmp_path: Path) -> None:
    job = SyntheticJob(tmp_path, batch_size=10).run()
    verdict = verify(job, job.receipt())
    detail = next(one.detail for one in verdict.checks if one.id == "budget-ledger")
    assert failing(verdict) == {"budget-ledger"}
    assert "south: round 0: the sampling probability is not the job's" in detail
    assert "north" not in detail


def test_a_counting_release_is_charged_beside_the_training(honest_job: SyntheticJob) -> None:
    def count(steps: list[Step]) -> None:
        fields = dict(step(steps, BudgetSpend, 1))
        fields |= {
            "purpose": "evaluation",
            "event": dict(event_to_json(Gaussian(20.0, 2))),
            "executed_steps": 2,
            "reserved_steps": 2,
            "ledger_head": digest("ledger after counting"),
        }
        steps.append((BudgetSpend, fields))

    assert verify(honest_job, honest_job.lying_site("north", count)).accepted


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        (lambda s: step(s, DataCommitment).update(dataset_sha256=digest("other")), "data"),
        (lambda s: step(s, DataCommitment).update(records=19), "data"),
        (lambda s: step(s, DataCommitment).update(dataset_name="tumours-2"), "data"),
        (lambda s: step(s, DataCommitment).update(bounds_sha256=digest("other")), "data"),
        (lambda s: step(s, BudgetSpend).update(dataset_sha256=digest("other")), "data"),
        (lambda s: step(s, ManifestAccepted).update(epsilon_budget=5.0), "manifest"),
        (lambda s: step(s, ManifestAccepted).update(manifest_sha256=digest("other")), "manifest"),
        (lambda s: step(s, ManifestAccepted).update(hospital_id="south"), "manifest"),
        (lambda s: step(s, RequestDecided).update(manifest_sha256=digest("other")), "manifest"),
        (lambda s: step(s, RequestDecided).update(request_sha256=digest("other")), "request"),
        (lambda s: step(s, RequestDecided).update(job_sha256=digest("other")), "request"),
        (lambda s: step(s, RequestDecided).update(approved=False, reasons=["no"]), "request"),
        (lambda s: step(s, RequestDecided).update(reasons=["not quite"]), "request"),
        (lambda s: step(s, UpdateReleased).update(update_sha256=digest("other")), "airlock"),
        (lambda s: step(s, UpdateReleased).update(model_sha256=digest("other")), "airlock"),
        (lambda s: step(s, UpdateReleased).update(airlock_policy_sha256=digest("other")), "airlock"),
        (lambda s: step(s, UpdateReleased).update(scalars=["patients-with-hiv"]), "airlock"),
        (lambda s: step(s, UpdateReleased).update(bytes=13), "airlock"),
        (lambda s: step(s, UpdateReleased)["tensors"][0].update(dtype="int64"), "airlock"),
        (
            lambda s: step(s, UpdateReleased)["tensors"].append(
                {"name": "x", "shape": [1], "dtype": "float32"}
            ),
            "airlock",
        ),
    ],
)
def test_a_lie_in_the_sites_own_log(
    honest_job: SyntheticJob, lie: Callable[[list[Step]], None], check: str
) -> None:
    failures = failing(verify(honest_job, honest_job.lying_site("north", lie)))
    assert check in failures
    assert failures <= {check, "aggregation", "summary", "model-hash"}


def test_a_manifest_that_was_not_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    from tests.evidence import synthetic

    monkeypatch.setattr(synthetic, "START", datetime(2027, 1, 1, tzinfo=UTC))
    job = SyntheticJob(tmp_path).run()
    verdict = verify(job, job.receipt())
    assert failing(verdict) == {"manifest"}
    assert "not in force" in verdict.failures[0].detail
