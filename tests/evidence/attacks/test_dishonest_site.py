"""A site that lies in its own log, with its own key, is given away by the rest of the receipt."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from cloister.core.errors import CloisterError
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence import Role, Trust, TrustEntry
from cloister.evidence.airlock_policy import constraints_of, policy_sha256
from cloister.evidence.change_limit import ChangeLimit
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    DataCommitment,
    ManifestAccepted,
    RequestDecided,
    RoundAggregated,
    UpdateReleased,
)
from cloister.evidence.transcript import Gaussian, SampledGaussian, event_to_json
from cloister.evidence.weights import TensorForm
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
    # The airlock's bound follows from the charge: another charge contradicts the bound that is stated.
    assert failures <= {"budget-ledger", "epsilon", "summary", "airlock"}


def test_a_round_stopped_early_is_charged_for_the_steps_it_took(honest_job: SyntheticJob) -> None:
    receipt = honest_job.lying_site("north", spend(event=event(steps=3), executed_steps=3))
    assert verify(honest_job, receipt).accepted


def applied(steps: list[Step], **changes: object) -> None:
    """State an airlock policy, its hash and its constraints as they are, but not those of the manifest."""
    fields = step(steps, UpdateReleased)
    fields.update(changes)
    change = fields["change"]
    limit = None if change is None else ChangeLimit(**change)
    bits = fields["mantissa_bits"]
    fields["airlock_policy_sha256"] = policy_sha256(
        [TensorForm("weight", "float32", (3,))],
        max_bytes=fields["max_bytes"],
        mantissa_bits=bits,
        change=limit,
        max_bits=fields["max_bits"],
    )
    fields["constraints"] = constraints_of(mantissa_bits=bits, change=limit, max_bits=fields["max_bits"])


def wider(steps: list[Step], name: str) -> dict[str, float]:
    change = dict(step(steps, UpdateReleased)["change"])
    return change | {name: change[name] * (1 + 1e-6)}


def test_a_manifest_that_asks_for_no_bound_gets_none(tmp_path: Path) -> None:
    job = SyntheticJob(tmp_path, airlock={"norm_bound": "none"}).run()
    assert verify(job, job.receipt()).accepted
    limit = {"l2": 1.0, "largest": 1.0, "rounding": 0.0}
    receipt = job.lying_site("north", lambda steps: applied(steps, change=limit))
    assert failing(verify(job, receipt)) == {"airlock"}


def test_a_bound_that_machines_round_differently_is_the_same_bound(honest_job: SyntheticJob) -> None:
    def lie(steps: list[Step]) -> None:
        change = dict(step(steps, UpdateReleased)["change"])
        applied(steps, change=change | {"l2": math.nextafter(change["l2"], math.inf)})

    assert verify(honest_job, honest_job.lying_site("north", lie)).accepted


def test_a_charge_nobody_can_read_gets_no_receipt(honest_job: SyntheticJob) -> None:
    with pytest.raises(CloisterError):
        honest_job.lying_site("north", spend(event={"type": "free-of-charge"}))


def test_noise_a_site_calibrated_itself_is_the_same_in_every_round(tmp_path: Path) -> None:
    job = SyntheticJob(tmp_path, calibrated=True).run()
    assert verify(job, job.receipt()).accepted
    receipt = job.lying_site("north", spend(event=event(noise=9.0)))
    assert failing(verify(job, receipt)) == {"budget-ledger", "airlock"}


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
        (lambda s: step(s, UpdateReleased).update(manifest_sha256=digest("other")), "airlock"),
        (lambda s: step(s, UpdateReleased).update(attested_key_id="sha256:" + digest("other")), "airlock"),
        (lambda s: step(s, UpdateReleased).update(constraints=["listed-tensors"]), "airlock"),
        (lambda s: applied(s, max_bytes=101), "airlock"),
        (lambda s: applied(s, mantissa_bits=23), "airlock"),
        (lambda s: applied(s, mantissa_bits=None), "airlock"),
        (lambda s: applied(s, max_bits=10**9), "airlock"),
        (lambda s: step(s, UpdateReleased).update(bits=62), "airlock"),
        (lambda s: applied(s, change=None), "airlock"),
        (lambda s: applied(s, change=wider(s, "l2")), "airlock"),
        (lambda s: applied(s, change=wider(s, "largest")), "airlock"),
        (lambda s: applied(s, change=wider(s, "rounding")), "airlock"),
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
    # Fewer records would allow a larger change than the airlock's bound states.
    assert failures <= {check, "aggregation", "summary", "model-hash", "airlock"}


class LateInTheSecondRound(SyntheticJob):
    """A hub that used nothing of north's second round, whatever north says that it released in it."""

    def hub_steps(self) -> list[Step]:
        steps = super().hub_steps()
        second = step(steps, RoundAggregated, 1)
        del second["updates"]["north"]
        second["weights"] = {"south": 1.0}
        second["absent"] = {"north": "late"}
        return steps


def released_again(steps: list[Step]) -> None:
    places = [place for place, one in enumerate(steps) if one[0] is UpdateReleased]
    steps.insert(places[1] + 1, copy.deepcopy(steps[places[1]]))


def released_for_nothing(steps: list[Step]) -> None:
    charged = [place for place, one in enumerate(steps) if one[0] is BudgetSpend]
    del steps[charged[1]]


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (released_again, "round 1: north released 2 updates"),
        (released_for_nothing, "round 1: north released an update that nothing was charged for"),
    ],
)
def test_what_left_in_a_round_that_nobody_used_left_once_and_was_charged_for(
    tmp_path: Path, lie: Callable[[list[Step]], None], said: str
) -> None:
    job = LateInTheSecondRound(tmp_path, airlock={"norm_bound": "none"}).run()
    honest = next(one for one in verify(job, job.receipt()).checks if one.id == "airlock")
    assert honest.outcome == "passed"
    verdict = verify(job, job.lying_site("north", lie))
    check = next(one for one in verdict.checks if one.id == "airlock")
    assert check.outcome == "failed"
    assert said in check.detail


def capped(folder: Path, cap: int) -> SyntheticJob:
    """Hospitals cap the information of a job of two rounds, of which each update has room for 63 bits."""
    folder.mkdir(exist_ok=True)
    return SyntheticJob(folder, airlock={"max_job_bits": cap}, bits_cap=cap // 2)


def test_a_cap_on_the_information_of_a_job_is_shared_out_over_its_rounds(tmp_path: Path) -> None:
    for cap, failures in ((126, set()), (127, set()), (125, {"airlock"})):
        job = capped(tmp_path / str(cap), cap).run()
        assert failing(verify(job, job.receipt())) == failures


def test_a_site_that_leaves_its_manifests_cap_out_is_found_out(tmp_path: Path) -> None:
    job = capped(tmp_path, 125)
    job.bits_cap = None
    job.run()
    verdict = verify(job, job.receipt())
    assert failing(verdict) == {"airlock"}
    found = next(one.detail for one in verdict.checks if one.id == "airlock")
    assert "more information than its manifest allows, or applied another cap" in found


class TwoKeys(SyntheticJob):
    """North has two pinned keys, as after a change of keys; its machine is attested for the first."""

    @cached_property
    def old(self) -> Signer:
        return EphemeralKeyStore().generate("old-north")

    @property
    def trust(self) -> Trust:
        pinned = [
            TrustEntry(role, party, self.keys[key].public_key.pem.encode())
            for role, party, key in self.pinned
        ]
        former = TrustEntry(Role.SITE, "north", self.old.public_key.pem.encode(), former=True)
        return Trust([*pinned, former])


def test_an_update_signed_with_another_key_than_the_attested_one_it_names(tmp_path: Path) -> None:
    """Both keys are the site's own and pinned; only one of them is held where the evidence was made."""
    job = TwoKeys(tmp_path)
    attested = job.old.public_key.key_id

    def name_the_old(steps: list[Step]) -> None:
        for kind, fields in steps:
            if kind is AttestationVerdict and fields["site"] == "north":
                fields["site_key_id"] = attested
            if kind is UpdateReleased:
                fields["attested_key_id"] = attested

    steps = {site: job.site_steps(site) for site in job.sites}
    hub = job.hub_steps()
    name_the_old(steps["north"])
    name_the_old(hub)
    verdict = verify(job, job.receipt(extracts=list(job.play(steps, hub).values())))
    assert failing(verdict) == {"airlock"}
    found = next(one.detail for one in verdict.checks if one.id == "airlock")
    assert "signed the release of an update with another key than the attested one it names" in found


def test_an_update_released_before_its_key_was_attested(honest_job: SyntheticJob) -> None:
    """The hub attests north only after it has its update of the first round."""

    def late(steps: list[Step]) -> None:
        verdict = next(one for one in steps if one[0] is AttestationVerdict and one[1]["site"] == "north")
        steps.remove(verdict)
        first = next(place for place, one in enumerate(steps) if one[0] is RoundAggregated)
        steps.insert(first + 1, verdict)

    check = next(one for one in verify(honest_job, honest_job.lying_hub(late)).checks if one.id == "airlock")
    assert "north released an update before its key was attested" in check.detail
    assert "south" not in check.detail


def test_a_manifest_that_was_not_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    from tests.evidence import synthetic

    monkeypatch.setattr(synthetic, "START", datetime(2027, 1, 1, tzinfo=UTC))
    job = SyntheticJob(tmp_path).run()
    verdict = verify(job, job.receipt())
    assert failing(verdict) == {"manifest"}
    assert "not in force" in verdict.failures[0].detail
