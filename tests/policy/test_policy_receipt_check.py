"""The verifier makes every hospital's decision again, and isn't content with what was stated."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from policy_documents import (
    BOUNDS,
    DATASET,
    DEVELOPER,
    HOSPITAL,
    JOB,
    KEYS,
    NOW,
    OTHER_DATASET,
    SITE,
    STRANGER,
    Changes,
    Document,
    changed,
    facts,
    manifest,
    request,
)

from cloister.core.canonical import canonicalize
from cloister.core.clock import fixed_clock
from cloister.core.hashes import Sha256, sha256_hex
from cloister.core.keys import PublicKey
from cloister.evidence.checks import Outcome
from cloister.evidence.context import ModelArtifact, ReceiptContext
from cloister.evidence.log import EvidenceLog
from cloister.evidence.predicates import DataCommitment, JobOpened, RequestDecided, Role
from cloister.evidence.receipt import Receipt
from cloister.evidence.record import JobRecord, build_record
from cloister.evidence.statement import Subject
from cloister.evidence.trust import Trust, TrustEntry
from cloister.evidence.verification.acceptance import VerificationPolicy
from cloister.evidence.writer import StatementWriter
from cloister.policy import (
    POLICY_CHECK_ID,
    ProtocolManifest,
    TrainingRequest,
    check_policy,
    sign_manifest,
    sign_request,
)
from cloister.policy.receipt_check import policy_problems

HUB_KEY = KEYS.generate("hub")
SITE_KEY = KEYS.generate("site")


@dataclass(frozen=True)
class Story:
    """What is stated about one job, which is the truth unless a test changes it."""

    manifest: ProtocolManifest = field(default_factory=manifest)
    request: TrainingRequest = field(default_factory=request)
    job: Document = field(default_factory=lambda: JOB)
    facts: Changes = field(default_factory=dict)
    decided: dict[str, object] = field(default_factory=dict)
    committed: dict[str, object] = field(default_factory=dict)
    test_set: str = "wisconsin-holdout"

    def record(self, folder: Path) -> JobRecord:
        """Let the hub and the site state it, each into its log."""
        clock = fixed_clock(NOW)
        job_id = str(self.job["job_id"])
        job_sha256 = sha256_hex(canonicalize(self.job))
        subject = (Subject(name="job", sha256=job_sha256),)
        hub_log = EvidenceLog.create(folder / "hub.sqlite", origin="cloister/hub/hub", signer=HUB_KEY)
        site_log = EvidenceLog.create(folder / "site.sqlite", origin=f"cloister/site/{SITE}", signer=SITE_KEY)
        StatementWriter(hub_log, HUB_KEY, "hub", job_id, clock).write(
            JobOpened,
            subject,
            job_sha256=job_sha256,
            job_folder_sha256="0" * 64,
            code_measurement="c" * 96,
            sites=(SITE,),
            rounds=10,
            strategy="FED_AVG",
            test_set=self.test_set,
        )
        site = StatementWriter(site_log, SITE_KEY, SITE, job_id, clock)
        decision: dict[str, object] = {
            "request_sha256": self.request.sha256,
            "manifest_sha256": self.manifest.sha256,
            "job_sha256": job_sha256,
            "approved": True,
            "reasons": (),
            "facts": facts(self.facts).as_json(),
        }
        site.write(RequestDecided, subject, **(decision | self.decided))
        commitment: dict[str, object] = {
            "dataset_name": "tumour-registry",
            "dataset_sha256": DATASET,
            "records": 190,
            "subject_count": None,
            "features": 30,
            "single_class": False,
            "normalisation": "declared-public-bounds",
            "bounds_sha256": BOUNDS,
        }
        site.write(DataCommitment, subject, **(commitment | self.committed))
        return build_record(
            issuer="hub",
            job=self.job,
            manifests={SITE: sign_manifest(self.manifest, HOSPITAL)},
            request=sign_request(self.request, DEVELOPER),
            extracts=(hub_log.extract(job_id), site_log.extract(job_id)),
        )


def trust(hospital: PublicKey = HOSPITAL.public_key, developer: PublicKey = DEVELOPER.public_key) -> Trust:
    return Trust(
        [
            TrustEntry(Role.HOSPITAL, SITE, hospital.pem.encode()),
            TrustEntry(Role.DEVELOPER, "openlab", developer.pem.encode()),
        ]
    )


def test_an_approval_that_the_documents_bear_out_passes(tmp_path: Path) -> None:
    record = Story().record(tmp_path)
    assert policy_problems(record, trust()) == []
    context = ReceiptContext(
        receipt=cast(Receipt, None),
        signed=b"",
        record=record,
        trust=trust(),
        model=ModelArtifact(Sha256("0" * 64), 1, None),
        policy=VerificationPolicy(),
    )
    check = check_policy(context)
    assert (check.id, check.outcome) == (POLICY_CHECK_ID, Outcome.PASSED)
    assert check.detail.startswith("1 decisions")
    assert check_policy(replace(context, trust=Trust([]))).outcome is Outcome.FAILED


WITHOUT_WEIGHTS = manifest({"output_constraints.allowed_outputs": ["dp-scalars"]})
LATE = "2028-01-01T00:00:00.000000Z"
FORGERIES: dict[str, tuple[Story, str]] = {
    "prohibited purpose": (Story(request=request({"purpose": "marketing"})), "purpose-prohibited"),
    "too much epsilon": (Story(request=request({"privacy.epsilon": 4})), "epsilon-budget"),
    "another manifest": (Story(manifest=manifest({"version": "1.3.0"})), "manifest-reference"),
    "expired manifest": (Story(facts={"decided_at": LATE}), "manifest-validity"),
    "backdated decision": (Story(facts={"decided_at": "2026-11-21T13:50:00.000000Z"}), "another time"),
    "small group": (Story(facts={"records": 3}, committed={"records": 3}), "group-size"),
    "other records": (Story(committed={"dataset_sha256": OTHER_DATASET}), "other records"),
    "other record count": (Story(committed={"records": 191}), "other records"),
    "other subject count": (Story(facts={"subjects": 90}, committed={"subject_count": 91}), "other records"),
    "subjects that nobody committed to": (Story(facts={"subjects": 90}), "other records"),
    "other bounds": (Story(committed={"bounds_sha256": "0" * 64}), "another name or declaration"),
    "another name": (Story(committed={"dataset_name": "fresh-budget"}), "another name or declaration"),
    "another name in facts": (
        Story(facts={"dataset_name": "fresh-budget"}, committed={"dataset_name": "fresh-budget"}),
        "dataset-name",
    ),
    "easier cases under the test set's name": (Story(facts={"test_set_sha256": "f" * 64}), "test-set"),
    "weights that nobody allowed to leave": (
        Story(manifest=WITHOUT_WEIGHTS, request=request({"outputs": ["dp-scalars"]}, under=WITHOUT_WEIGHTS)),
        "job-outputs",
    ),
    "another site's facts": (Story(facts={"site": "riverside"}), "another site"),
    "unreadable facts": (Story(decided={"facts": {"site": SITE}}), "can't be read"),
    "a job with more rounds": (Story(job=changed(JOB, {"rounds": 11})), "job-rounds"),
    "a job with more epsilon": (
        Story(job=changed(JOB, {"privacy.target_epsilon": 2})),
        "job-epsilon",
    ),
    "a job without DP": (Story(job=changed(JOB, {"privacy.mechanism": "NONE"})), "lacks fields"),
    "another test set": (Story(test_set="easy-cases"), "job-test-set"),
    "a decision on another job": (Story(decided={"job_sha256": "d" * 64}), "another job"),
    "a decision on another request": (Story(decided={"request_sha256": "d" * 64}), "another request"),
    "a decision under another manifest": (Story(decided={"manifest_sha256": "d" * 64}), "another manifest"),
    "a refusal": (Story(decided={"approved": False, "reasons": ("x: y",)}), "refused"),
    "a reason with an approval": (Story(decided={"reasons": ("x: y",)}), "not the one stated"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_an_approval_that_should_not_have_been_is_found_out(tmp_path: Path, forgery: str) -> None:
    story, says = FORGERIES[forgery]
    found = policy_problems(story.record(tmp_path), trust())
    assert any(says in problem for problem in found), found


def test_an_honest_refusal_is_no_approval_either(tmp_path: Path) -> None:
    story = Story(request=request({"privacy.epsilon": 4}))
    reason = "epsilon-budget: epsilon 4 is above the budget of 3"
    honest = replace(story, decided={"approved": False, "reasons": (reason,)})
    assert policy_problems(honest.record(tmp_path), trust()) == [
        f"{SITE}: {reason}",
        f"{SITE}: the request was refused",
    ]


def test_documents_signed_by_keys_that_are_not_pinned_are_refused(tmp_path: Path) -> None:
    record = Story().record(tmp_path)
    (manifest_problem,) = policy_problems(record, trust(hospital=STRANGER.public_key))
    assert "manifest isn't signed by the key" in manifest_problem
    (request_problem,) = policy_problems(record, trust(developer=STRANGER.public_key))
    assert "request isn't signed by the key" in request_problem


def test_a_site_without_a_manifest_or_with_two_decisions_is_refused(tmp_path: Path) -> None:
    record = Story().record(tmp_path)
    assert policy_problems(replace(record, manifests={}), trust()) == [f"{SITE}: no manifest"]
    twice = replace(record, logged=(*record.logged, *record.logged))
    assert policy_problems(twice, trust()) == [f"{SITE}: 2 decisions on the request"]
