"""What a receipt shows of the keys to the records: each went, once, to the worker that the manifest asks for.

Rules kept here:

* The release policy, and what the key is for, are derived from the hospital's signed manifest; the site's
  word only has to agree, and what the machine was decides neither.
* Records that went to a worker count, whether or not an update of theirs was used.
* A key was released before the first training was charged, to a worker whose seal was stated before that,
  and is the one that the machine's quote had sealed in.
* What got the key runs the code, on the kind of hardware, that the hub has verified at this site. The raw
  evidence of that is in the receipt; that of the release is with its keeper, and here by its hash. So that
  both came from one machine, and not from two alike, is the keeper's word.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloister.core.errors import CloisterError
from cloister.enclave.keyrelease.policy import KeyPurpose, policy_for_job, table_dataset
from cloister.enclave.protection import RECORDS_WITHOUT_KEY
from cloister.enclave.sealed.claims import Measure, SealClaims, SealLevel
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    DataCommitment,
    Incident,
    KeyRelease,
    WorkerSealed,
)
from cloister.evidence.record import JobRecord, SignedManifest


def release_problems(record: JobRecord) -> Iterator[str]:
    """Judge how each site that took part, or spent budget, got its data key.

    Args:
        record: the job's.

    Yields:
        One line per problem.
    """
    for site in record.involved:
        manifest = record.manifests.get(site)
        released = [one for one in record.by(site, KeyRelease) if one.outcome == "released"]
        if any(one.incident_class == RECORDS_WITHOUT_KEY for one in record.by(site, Incident)):
            yield f"{site}: INSECURE: its records went to its worker without a key"
            if not released:
                continue
        if manifest is None or len(released) != 1:
            yield f"{site}: trained without one release of its data key under its manifest"
            continue
        found = (
            *_of_release(record, site, manifest, released[0]),
            *_of_seal(record, site, manifest, released[0]),
        )
        yield from (f"{site}: {text}" for text in found)


def _of_release(record: JobRecord, site: str, manifest: SignedManifest, one: KeyRelease) -> Iterator[str]:
    if one.attested is None or any(check.outcome == "failed" for check in one.checks):
        yield "its data key was released on evidence that fails a check"
        return
    if not one.sequence < min((spend.sequence for spend in record.by(site, BudgetSpend)), default=0):
        yield "its data key was released after the first training was charged"
    datasets = {table_dataset(site, data.dataset_sha256) for data in record.by(site, DataCommitment)}
    if one.dataset not in datasets or one.scope != record.job.job_id:
        yield "its data key is for other records or another job"
    validity, contents = manifest.terms.validity, manifest.terms.dataset_scope.contents
    if one.purpose != contents:
        yield f"its data key is for {one.purpose}, and its manifest says that these are {contents}"
    try:
        policy = policy_for_job(
            manifest.terms.attestation,
            data_key=one.data_key,
            dataset=one.dataset,
            scope=one.scope,
            holds=(validity.not_before, validity.not_after),
            purpose=KeyPurpose(contents),
        )
    except (CloisterError, ValueError):
        yield "its manifest implies no release policy"
        return
    if (one.policy_sha256, one.limit) != (policy.sha256, policy.releases):
        yield "its data key was released under another policy than its manifest implies"
    if one.attested.simulated and not policy.allows_simulated:
        yield "its data key was released to a simulated machine"
    machines = {
        (verdict.measurement, verdict.platform, verdict.simulated)
        for verdict in record.by(record.issuer, AttestationVerdict)
        if verdict.site == site and verdict.status == "TRUSTED"
    }
    if (one.attested.measurement, one.attested.platform, one.attested.simulated) not in machines:
        yield "its data key was released to another machine than the hub has verified"


def _of_seal(record: JobRecord, site: str, manifest: SignedManifest, one: KeyRelease) -> Iterator[str]:
    sealed = [
        worker
        for worker in record.by(site, WorkerSealed)
        if worker.enclave_key == one.enclave_key and worker.sequence < one.sequence
    ]
    if len(sealed) != 1:
        yield "its data key was released to a worker whose seal was not stated before"
        return
    worker = sealed[0]
    if worker.level not in manifest.terms.attestation.accepted_seal_levels or worker.level not in set(
        SealLevel
    ):
        yield f"its worker was sealed at a level that its manifest doesn't accept: {worker.level}"
        return
    outcomes = {measure.name: measure.outcome for measure in worker.measures}
    lacking = [name for name in SealLevel(worker.level).measures if outcomes.get(name) != "held"]
    if lacking or len(outcomes) != len(worker.measures):
        yield f"its worker lacks measures of its level: {', '.join(lacking) or 'named twice'}"
    measures = tuple(Measure(each.name, each.outcome, each.detail) for each in worker.measures)
    if SealClaims(SealLevel(worker.level), measures, worker.kernel).sha256 != one.seal_sha256:
        yield "its data key was released to a worker that is sealed otherwise than was stated"
