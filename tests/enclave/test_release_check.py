"""A receipt whose data keys went elsewhere than the manifests allow is refused, whoever signed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.errors import CloisterError
from cloister.enclave.keyrelease.policy import KeyPurpose
from cloister.enclave.protection import RECORDS_WITHOUT_KEY
from cloister.evidence import sign_envelope
from cloister.evidence.checks import Outcome
from cloister.evidence.envelope import Envelope
from cloister.evidence.predicates import BudgetSpend, Incident, KeyRelease, RoundAggregated, WorkerSealed
from cloister.evidence.terms import MANIFEST_TYPE
from tests.enclave.test_receipt_check import AttestedJob, judge, sealed_as
from tests.evidence.synthetic import Step, digest, failing, verify

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> AttestedJob:
    made = AttestedJob(tmp_path_factory.mktemp("released"))
    made.run()
    return made


def stating(kind: type, change: Change) -> Callable[[list[Step]], None]:
    """A lie in the first statement of a kind."""

    def lie(steps: list[Step]) -> None:
        change(next(fields for found, fields in steps if found is kind))

    return lie


def attested(**changes: object) -> Change:
    return lambda fields: fields["attested"].update(changes)


def measured(name: str, outcome: str) -> Change:
    def change(fields: dict[str, Any]) -> None:
        next(one for one in fields["measures"] if one["name"] == name)["outcome"] = outcome

    return change


CHECKED_AND_FAILED = [{"name": "measurement", "outcome": "failed", "detail": ""}]
LIES: dict[str, tuple[type, Change, str]] = {
    "another policy": (
        KeyRelease,
        lambda one: one.update(policy_sha256=digest("lenient")),
        "under another policy than its manifest implies",
    ),
    "more releases than one": (KeyRelease, lambda one: one.update(limit=2), "under another policy"),
    "the key to other records": (
        KeyRelease,
        lambda one: one.update(dataset=f"table/north/{digest('other records')}"),
        "for other records or another job",
    ),
    "the key to other records than the manifest's": (
        KeyRelease,
        lambda one: one.update(purpose="records"),
        "for records, and its manifest says that these are test-data",
    ),
    "a package's key": (KeyRelease, lambda one: one.update(purpose="package"), "for package, and its"),
    "another job": (KeyRelease, lambda one: one.update(scope="study"), "for other records or another job"),
    "a machine that the hub has not seen": (
        KeyRelease,
        attested(measurement="cd" * 48),
        "to another machine than the hub has verified",
    ),
    "a machine that is said to be hardware": (
        KeyRelease,
        attested(simulated=False),
        "to another machine than the hub has verified",
    ),
    "evidence that failed": (
        KeyRelease,
        lambda one: one.update(checks=CHECKED_AND_FAILED),
        "on evidence that fails a check",
    ),
    "a worker without a seal": (
        KeyRelease,
        lambda one: one.update(enclave_key="sha256:" + digest("bare process")),
        "whose seal was not stated before",
    ),
    "a worker that was sealed otherwise than was quoted": (
        KeyRelease,
        lambda one: one.update(seal_sha256=digest("another seal")),
        "sealed otherwise than was stated",
    ),
    "a level that was not agreed": (
        WorkerSealed,
        lambda one: one.update(level="no-namespaces"),
        "a level that its manifest doesn't accept: no-namespaces",
    ),
    "a level that there is not": (
        WorkerSealed,
        lambda one: one.update(level="perfect"),
        "a level that its manifest doesn't accept: perfect",
    ),
    "a measure that failed": (
        WorkerSealed,
        measured("call-filter", "failed"),
        "lacks measures of its level: call-filter",
    ),
    "a measure that was not tried": (
        WorkerSealed,
        measured("network-namespace", "not_tried"),
        "lacks measures of its level: network-namespace",
    ),
    "a measure that is left out": (
        WorkerSealed,
        lambda one: one["measures"].pop(0),
        "lacks measures of its level: user-namespace",
    ),
}


def test_keys_that_went_where_the_manifests_say_are_accepted(job: AttestedJob) -> None:
    assert judge(job, job.receipt()).outcome is Outcome.PASSED


@pytest.mark.parametrize("lie", LIES)
def test_a_site_that_gave_its_key_otherwise_is_refused_and_told_why(job: AttestedJob, lie: str) -> None:
    kind, change, why = LIES[lie]
    check = judge(job, job.lying_site("north", stating(kind, change)))
    assert check.outcome is Outcome.FAILED
    assert f"north: its {'worker' if kind is WorkerSealed else 'data key'}" in check.detail
    assert why in check.detail


@pytest.mark.parametrize("kind", [KeyRelease, WorkerSealed])
def test_a_site_that_trained_without_a_release_or_a_seal_has_no_receipt(job: AttestedJob, kind: type) -> None:
    def leave_out(steps: list[Step]) -> None:
        steps[:] = [one for one in steps if one[0] is not kind]

    with pytest.raises(CloisterError):
        job.lying_site("north", leave_out)


def test_a_receipt_that_lacks_a_release_is_refused_for_that(
    job: AttestedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave_out(steps: list[Step]) -> None:
        steps[:] = [one for one in steps if one[0] is not KeyRelease]

    with monkeypatch.context() as patch:
        patch.setattr("cloister.evidence.receipt.missing_statements", lambda _: ())
        receipt = job.lying_site("north", leave_out)
    assert "statements-complete" in failing(verify(job, receipt))
    check = judge(job, receipt)
    assert check.outcome is Outcome.FAILED
    assert "north: trained without one release of its data key" in check.detail


def test_a_key_that_came_after_the_first_round_is_refused(job: AttestedJob) -> None:
    def late(steps: list[Step]) -> None:
        moved = next(one for one in steps if one[0] is KeyRelease)
        steps.remove(moved)
        spends = [place for place, one in enumerate(steps) if one[0] is BudgetSpend]
        steps.insert(spends[0] + 1, moved)

    check = judge(job, job.lying_site("north", late))
    assert check.outcome is Outcome.FAILED
    assert "after the first training was charged" in check.detail


class MoreReleases(AttestedJob):
    """South lets its key go more often than its manifest says."""

    def key_steps(self, site: str) -> list[Step]:
        worker, release = super().key_steps(site)
        if site == "south":
            release[1]["limit"] = 2
        return [worker, release]


def test_the_key_of_a_site_that_trained_and_whose_updates_nobody_used_is_judged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave_out(steps: list[Step]) -> None:
        for kind, fields in steps:
            if kind is RoundAggregated:
                del fields["updates"]["south"], fields["weights"]["south"]
                fields["absent"] = {"south": "late"}

    job = MoreReleases(tmp_path)
    job.run()
    monkeypatch.setattr("cloister.evidence.receipt.missing_statements", lambda _: ())
    check = judge(job, job.lying_hub(leave_out))
    assert check.outcome is Outcome.FAILED
    assert "south: its data key was released under another policy" in check.detail


class OfPatients(AttestedJob):
    """Simulated machines, and hospitals whose manifests say that these are patients' records."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, contents="records")


class PassedOffAsTestData(OfPatients):
    """The same, and the sites released their keys as those to test data, under such a policy."""

    released_as = KeyPurpose.TEST_DATA


def test_a_simulated_machine_that_got_the_key_to_patients_records_is_refused(tmp_path: Path) -> None:
    job = OfPatients(tmp_path)
    job.run()
    assert job.simulated_allowed
    check = judge(job, job.receipt())
    assert check.outcome is Outcome.FAILED
    assert "north: its data key was released to a simulated machine" in check.detail


def test_what_a_key_is_for_follows_from_the_manifest_and_not_from_the_machine_that_got_it(
    tmp_path: Path,
) -> None:
    job = PassedOffAsTestData(tmp_path)
    job.run()
    check = judge(job, job.receipt())
    assert check.outcome is Outcome.FAILED
    for said in (
        "its data key is for test-data, and its manifest says that these are records",
        "its data key was released under another policy than its manifest implies",
        "its data key was released to a simulated machine",
    ):
        assert f"north: {said}" in check.detail


def without_key(steps: list[Step]) -> None:
    """What a site of an insecure run states in place of a release."""
    place = next(number for number, one in enumerate(steps) if one[0] is KeyRelease)
    steps[place] = (
        Incident,
        {
            "incident_class": RECORDS_WITHOUT_KEY,
            "severity": "high",
            "detail": "INSECURE",
            "detected_at": "2026-11-21T14:00:00.000000Z",
            "response": "none",
        },
    )


def test_a_worker_that_got_its_records_without_a_key_has_no_receipt_where_the_model_is_approved(
    job: AttestedJob,
) -> None:
    with pytest.raises(CloisterError) as refused:
        job.lying_site("north", without_key)
    assert refused.value.details == ("north: 0 releases of its data key",)


def test_a_site_that_states_a_key_and_that_it_had_none_is_refused(job: AttestedJob) -> None:
    def both(steps: list[Step]) -> None:
        released = next(one for one in steps if one[0] is KeyRelease)
        without_key(steps)
        steps.insert(2, released)

    check = judge(job, job.lying_site("north", both))
    assert check.outcome is Outcome.FAILED
    assert "north: INSECURE: its records went to its worker without a key" in check.detail


class Lenient(AttestedJob):
    """Hospitals that accept a worker without namespaces."""

    def manifest(self, site: str, **guardrails: JSON) -> Envelope:
        document = parse(super().manifest(site, **guardrails).payload)
        assert isinstance(document, dict)
        assert isinstance(document["attestation"], dict)
        document["attestation"]["seal_levels"] = ["namespaces", "no-namespaces"]
        return sign_envelope(MANIFEST_TYPE, canonicalize(document), self.keys[f"hospital-{site}"])


def test_a_level_that_the_manifest_names_will_do(tmp_path: Path) -> None:
    lenient = Lenient(tmp_path)
    lenient.run()

    def without_namespaces(steps: list[Step]) -> None:
        worker, release = (
            next(fields for kind, fields in steps if kind is wanted) for wanted in (WorkerSealed, KeyRelease)
        )
        worker["level"] = "no-namespaces"
        release["seal_sha256"] = sealed_as(worker)

    receipt = lenient.lying_site("north", without_namespaces)
    assert judge(lenient, receipt).outcome is Outcome.PASSED
