"""Before anything runs: load the data, sign the manifests and the request, and let every hospital decide.

Rules kept here:

- Each hospital completes and signs its own manifest and decides with its own facts; one hospital's
  no is a no, and every reason of every hospital is listed.
- The decision is written into the site's log before it takes effect, a refusal too.
- No hospital approves a mock, a job without noise. It goes on in spite of that one reason where the machine
  and every hospital's manifest allow mocks; the refusal stays written, and every verifier finds it.
- The hashes of the dataset, of its declaration and of the test set are those of what will be trained and
  measured on, at the time of the decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from cloister.core.clock import Clock, format_time
from cloister.core.hashes import Sha256
from cloister.core.parsing import parse_model
from cloister.enclave.measure import code_measurement
from cloister.evidence import Envelope, StatementWriter, Subject
from cloister.evidence.predicates import DataCommitment, ManifestAccepted, RequestDecided
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.federation.job import FederationJob
from cloister.health import FederatedData, load_source
from cloister.policy import (
    Decision,
    DecisionFacts,
    ManifestDraft,
    OutputKind,
    PolicyError,
    ProtocolManifest,
    Reason,
    TrainingRequest,
    UnwitnessedLog,
    decide,
    decide_job,
    job_terms,
    load_request_draft,
    sign_manifest,
    sign_request,
)
from cloister.policy.job_decision import MOCK_RULE
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.workspace import Workspace


@dataclass(frozen=True)
class Agreement:
    """The signed documents under which a job runs."""

    manifests: Mapping[str, ProtocolManifest]
    manifest_envelopes: Mapping[str, Envelope]
    request: TrainingRequest
    request_envelope: Envelope

    @property
    def log_rules(self) -> Mapping[str, UnwitnessedLog]:
        """What each site's manifest says about opening a log that nobody off its machine has seen."""
        return {
            site: manifest.evidence_log.without_outside_checkpoint
            for site, manifest in self.manifests.items()
        }


def load_data(spec: JobSpec, data_dir: Path | None) -> FederatedData:
    """Load and validate the data a job names.

    Args:
        spec: The job.
        data_dir: Folder with the data files, for sources that need one.

    Raises:
        InputError: A file is missing or can't be read.
        HealthError: The records don't fit their schema; no value of a record is told.
    """
    section = spec.file.data
    return load_source(section.source, data_dir=data_dir, sites=section.sites, seed=section.split_seed)


def sign_agreement(spec: JobSpec, draft: ManifestDraft, workspace: Workspace, *, clock: Clock) -> Agreement:
    """Let each hospital complete and sign its manifest, and the developer sign the request.

    Args:
        spec: The job.
        draft: The manifest that it names, as it was read.
        workspace: Holds the parties' keys.
        clock: The time of submission.

    Raises:
        InputError: A document is missing or has wrong fields.
        PolicyError: A hospital of the job isn't in the manifest.
    """
    request_draft = load_request_draft(spec.request_path)
    measurement = code_measurement().hex()
    manifests: dict[str, ProtocolManifest] = {}
    envelopes: dict[str, Envelope] = {}
    for site in sorted(spec.file.data.sites):
        hospital = workspace.party("hospital", site)
        manifest = draft.for_hospital(site, hospital.signer.public_key, installed_measurement=measurement)
        manifests[site] = manifest
        envelopes[site] = sign_manifest(manifest, hospital.signer)
    developer = workspace.party("developer", request_draft.ai_developer.id)
    request = request_draft.complete(
        manifests, developer.signer.public_key, request_id=uuid4(), submitted_at=clock()
    )
    return Agreement(manifests, envelopes, request, sign_request(request, developer.signer))


def admit(
    agreement: Agreement,
    job: FederationJob,
    data: FederatedData,
    writers: Mapping[str, StatementWriter],
    *,
    clock: Clock,
) -> None:
    """Let every hospital decide on the request and the job, and write each decision down.

    Args:
        agreement: The signed documents.
        job: The job that is asked for.
        data: Each site's records.
        writers: Each site's statement writer.
        clock: The time of the decision.

    Raises:
        PolicyError: A hospital refused; ``details`` holds every reason of every hospital.
        PrivacyError: ``privacy.mock_refused``: a mock, where this machine doesn't allow any.
    """
    terms = job_terms(
        job.model_dump(mode="json"),
        datasets={site: data.sites[site].dataset_sha256 for site in job.clients},
        test_set=data.test.name,
    )
    mock = job.privacy.mechanism == MOCK_MECHANISM
    if mock:
        from cloister.privacy.mock import require_mock_allowed

        require_mock_allowed()
    refusals: list[str] = []
    for site in job.clients:
        against = decide_job(agreement.manifests[site], agreement.request, terms).reasons
        asked = Asked(Sha256(job.sha256), against)
        reasons = decide_at(site, agreement, asked, data, writers[site], clock).reason_lines
        refusals += [f"{site}: {reason}" for reason in reasons if not (mock and _only_mocks(reason))]
    if refusals:
        raise PolicyError(
            "policy.refused",
            "the request was refused",
            "Ask for what the manifest allows; each reason names the rule it breaks.",
            details=refusals,
        )


def commit_data(data: FederatedData, agreement: Agreement, writers: Mapping[str, StatementWriter]) -> None:
    """Let every site state which records it will train on, by hash.

    Args:
        data: Each site's records.
        agreement: The signed documents.
        writers: Each site's statement writer.
    """
    for site, writer in writers.items():
        table = data.sites[site]
        allowed = agreement.manifests[site].output_constraints.allowed_outputs
        unit = agreement.manifests[site].privacy_guardrails.unit
        writer.write(
            DataCommitment,
            (Subject(name=f"dataset/{site}", sha256=Sha256(table.dataset_sha256)),),
            dataset_name=agreement.manifests[site].dataset_scope.name,
            dataset_sha256=table.dataset_sha256,
            records=table.records,
            subject_count=table.subject_count if unit == "subject" else None,
            features=len(table.feature_names),
            single_class=table.single_class if OutputKind.SINGLE_CLASS_FLAG in allowed else None,
            normalisation="declared-public-bounds",
            bounds_sha256=data.bounds_sha256,
        )


@dataclass(frozen=True)
class Asked:
    """What a hospital decides on beside the request.

    Attributes:
        sha256: SHA-256 of the job, or of whatever else is asked for.
        against: What speaks against it, beside what the request's rules find.
        facts: What it is, where no job file tells.
    """

    sha256: Sha256
    against: tuple[Reason, ...]
    facts: Mapping[str, str | float] = field(default_factory=dict)


def decide_at(
    site: str,
    agreement: Agreement,
    asked: Asked,
    data: FederatedData,
    writer: StatementWriter,
    clock: Clock,
) -> Decision:
    """Let one hospital decide by its manifest and its own facts, and write the decision down.

    Args:
        site: The hospital.
        agreement: The signed documents.
        asked: What is asked for.
        data: Each site's records.
        writer: The site's statement writer.
        clock: The time of the decision.

    Returns:
        The decision, with every reason against.
    """
    manifest, request = agreement.manifests[site], agreement.request
    subjects = (
        Subject(name=f"manifest/{site}", sha256=manifest.sha256),
        Subject(name="request", sha256=request.sha256),
    )
    writer.write(
        ManifestAccepted,
        subjects[:1],
        manifest_sha256=manifest.sha256,
        hospital_id=manifest.hospital.id,
        manifest_id=str(manifest.manifest_id),
        version=str(manifest.version),
        epsilon_budget=manifest.privacy_guardrails.epsilon_budget,
        delta_budget=manifest.privacy_guardrails.delta_budget,
    )
    facts = _facts_at(site, data, manifest, clock)
    decision = Decision((*decide(manifest, request, facts).reasons, *asked.against))
    writer.write(
        RequestDecided,
        subjects,
        request_sha256=request.sha256,
        manifest_sha256=manifest.sha256,
        job_sha256=asked.sha256,
        approved=decision.approved,
        reasons=list(decision.reason_lines),
        facts={**facts.as_json(), **asked.facts},
    )
    return decision


def _only_mocks(reason: str) -> bool:
    return reason.startswith(f"{MOCK_RULE}: ")


def _facts_at(site: str, data: FederatedData, manifest: ProtocolManifest, clock: Clock) -> DecisionFacts:
    """What the decision rests on; how many persons there are only where the hospital protects persons."""
    by_subject = manifest.privacy_guardrails.unit == "subject"
    return parse_model(
        DecisionFacts,
        {
            "site": site,
            "dataset_name": data.schema.name,
            "bounds_sha256": data.bounds_sha256,
            "dataset_sha256": data.sites[site].dataset_sha256,
            "records": data.sites[site].records,
            "subjects": data.sites[site].subject_count if by_subject else None,
            "test_set_sha256": data.test.sha256,
            "test_set_records": data.test.records,
            "decided_at": format_time(clock()),
        },
        f"declaration of the data at {site}",
    )
