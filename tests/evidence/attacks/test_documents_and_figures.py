"""Documents swapped and figures edited: manifests, the request, the job, epsilon.

Each attack is made twice where that makes sense: on the bytes alone, and by a hostile hub that signs again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.core.canonical import JSON
from cloister.evidence.envelope import Envelope, sign_envelope
from cloister.evidence.predicates import (
    SEEDED_TEST,
)
from cloister.evidence.terms import MANIFEST_TYPE
from cloister.evidence.transcript import order_for
from cloister.evidence.verifier import TestRandomness
from cloister.privacy.accountant import calibrate_noise_in_advance
from tests.evidence.attacks.edits import Body, both_ways
from tests.evidence.synthetic import (
    SyntheticJob,
    failing,
    verify,
)

# Documents


def test_a_manifest_swapped_for_a_laxer_one_of_the_same_hospital(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    laxer = honest_job.manifest("north", epsilon_budget=5.0).as_json()
    naive, hostile = both_ways(honest_job, honest_receipt, lambda body: body["manifests"].update(north=laxer))
    assert "manifest" in naive
    assert "manifest" in hostile


def test_a_manifest_signed_by_the_hub(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    payload = honest_job.manifest("north").payload
    forged = sign_envelope(MANIFEST_TYPE, payload, honest_job.keys["hub"]).as_json()
    _, hostile = both_ways(honest_job, honest_receipt, lambda body: body["manifests"].update(north=forged))
    assert hostile == {"manifest"}


def test_manifests_of_two_sites_swapped(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def swap(body: Body) -> None:
        manifests = body["manifests"]
        manifests["north"], manifests["south"] = manifests["south"], manifests["north"]

    _, hostile = both_ways(honest_job, honest_receipt, swap)
    assert {"manifest", "request", "data"} <= hostile


def test_a_manifest_left_out(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    _, hostile = both_ways(honest_job, honest_receipt, lambda body: body["manifests"].pop("north"))
    assert {"manifest", "data", "epsilon"} <= hostile


def test_the_job_changed_after_the_sites_consented(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def more_epsilon(body: Body) -> None:
        body["job"]["privacy"]["target_epsilon"] = 4.5

    def another_seed(body: Body) -> None:
        body["job"]["seed"] = 8

    def fewer_sites(body: Body) -> None:
        body["job"]["min_clients"] = 1

    for edit in (more_epsilon, another_seed, fewer_sites):
        _, hostile = both_ways(honest_job, honest_receipt, edit)
        assert hostile == {"request", "statement-chain"}


def test_a_request_of_somebody_else(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    request = sign_envelope(
        honest_job.request.payload_type, honest_job.request.payload, honest_job.keys["hub"]
    )
    _, hostile = both_ways(honest_job, honest_receipt, lambda body: body.update(request=request.as_json()))
    assert hostile == {"request"}


# Privacy


def test_epsilon_edited(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    for name in ("epsilon", "epsilon_dataset_total", "epsilon_held", "epsilon_dataset_held"):

        def edit(body: Body, name: str = name) -> None:
            body["summary"]["privacy"]["north"][name] -= 0.01

        naive, hostile = both_ways(honest_job, honest_receipt, edit)
        assert "epsilon" in naive
        assert hostile == {"epsilon"}


def test_the_orders_or_the_unit_of_epsilon_edited(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def unit(body: Body) -> None:
        body["summary"]["privacy"]["north"]["unit"] = "hospital"

    def orders(body: Body) -> None:
        body["summary"]["privacy"]["north"]["orders"].pop()

    def limit_orders(body: Body) -> None:
        body["summary"]["privacy"]["north"]["limit_orders"] = [2, 2]

    for edit in (unit, orders, limit_orders):
        _, hostile = both_ways(honest_job, honest_receipt, edit)
        assert hostile == {"summary"}


def test_a_job_that_spent_more_than_its_limits(tmp_path: Path) -> None:
    job = SyntheticJob(tmp_path, noise_multiplier=0.6).run()
    verdict = verify(job, job.receipt())
    assert {"epsilon", "summary"} >= failing(verdict) >= {"epsilon"}
    assert "above the limit" in next(one.detail for one in verdict.checks if one.id == "epsilon")


def test_a_limit_that_only_the_best_order_afterwards_keeps(tmp_path: Path) -> None:
    noise = calibrate_noise_in_advance(3.0, 1e-5, 0.1, 10)
    job = SyntheticJob(tmp_path, noise_multiplier=noise).run()
    receipt = job.receipt()
    stated = json.loads(receipt)["body"]["summary"]["privacy"]["north"]
    assert stated["epsilon"] <= 3.0 < stated["epsilon_held"]
    assert stated["limit_orders"] == [order_for(3.0, 1e-5), order_for(4.0, 1e-5)]
    verdict = verify(job, receipt)
    assert failing(verdict) == {"epsilon"}
    assert "above the limit 3" in next(one.detail for one in verdict.checks if one.id == "epsilon")


class Shared(SyntheticJob):
    """A job at two of several hospitals at which one person may have been."""

    hospitals = 2

    def manifest(self, site: str, **guardrails: JSON) -> Envelope:
        shared: dict[str, JSON] = {"cross_site_subjects": "sum", "subject_sites": self.hospitals}
        return super().manifest(site, **shared | guardrails)


@pytest.mark.parametrize(
    ("hospitals", "says"), [(2, ""), (64, "above the limit 0.0625"), (1, "more sites than")]
)
def test_one_persons_ceiling_is_shared_among_the_manifests_hospitals_and_not_the_jobs(
    tmp_path: Path, hospitals: int, says: str
) -> None:
    job = Shared(tmp_path)
    job.hospitals = hospitals
    job.run()
    verdict = verify(job, job.receipt())
    assert failing(verdict) - {"summary"} == ({"epsilon"} if says else set())
    assert says in next(one.detail for one in verdict.checks if one.id == "epsilon")


def test_without_dp_accounting_epsilon_is_not_run_and_nothing_is_accepted(
    honest_job: SyntheticJob, honest_receipt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> float:
        raise ImportError("dp_accounting")

    monkeypatch.setattr("cloister.evidence.epsilon._epsilon", missing)
    verdict = verify(honest_job, honest_receipt)
    assert [(one.id, one.outcome.value) for one in verdict.failures] == [("epsilon", "not_run")]
    assert not verdict.accepted


def test_seeded_noise_is_refused_unless_a_test_asks_for_it(tmp_path: Path) -> None:
    job = SyntheticJob(tmp_path, noise_generator=SEEDED_TEST).run()
    receipt = job.receipt()
    refused = verify(job, receipt)
    assert failing(refused) == {"randomness"}
    assert refused.test_randomness
    accepted = verify(job, receipt, accept=TestRandomness.ACCEPT)
    assert accepted.accepted
    assert accepted.test_randomness
