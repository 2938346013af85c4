"""What people write: one manifest file for a group of hospitals, and one request file.

A draft holds the terms; keys, ids and measurements are filled in by the party that signs.

Rules kept here:

- Every hospital gets a manifest of its own, with its own dataset, and signs it itself.
- A manifest's id follows from the agreement's id and the hospital (UUID version 5, RFC 9562), so that
  the same agreement gives the same ids wherever it is filled in.
- A draft that says nothing of the evidence log or the airlock asks for the strict rule: the signed manifest
  says so. One that doesn't say what the dataset holds means patients' records.
- The word ``installed-release`` among the measurements stands for the code installed where the manifest
  is signed, and nowhere else; the signed manifest always holds the number.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from uuid import UUID, uuid5

from pydantic import Field, model_validator

from cloister.core.clock import format_time
from cloister.core.documents import load_yaml
from cloister.core.hashes import Sha256Field
from cloister.core.keys import PublicKey
from cloister.core.parsing import parse_model
from cloister.evidence.airlock_policy import MAX_UPDATE_BYTES
from cloister.evidence.terms import DatasetContents
from cloister.policy.airlock_terms import AirlockTerms, NormBound
from cloister.policy.attestation_terms import DraftAttestation
from cloister.policy.errors import PolicyError
from cloister.policy.fields import (
    LONGEST_LIST,
    Count,
    DocumentId,
    Section,
    Slug,
    Text,
    Version,
)
from cloister.policy.manifest import (
    DatasetScope,
    EvidenceLogTerms,
    Hospital,
    IncentiveTerms,
    OutputConstraints,
    Outputs,
    PrivacyGuardrails,
    ProtocolManifest,
    PurposeLimitation,
    SharedScope,
    SuccessMetrics,
    UnwitnessedLog,
    Validity,
    require_no_contradiction,
)
from cloister.policy.request import (
    ComputeRequirements,
    Developer,
    ModelSpecification,
    RequestedPrivacy,
    RequestedSite,
    TrainingRequest,
)

USUAL_AIRLOCK: Final = AirlockTerms(
    max_update_bytes=MAX_UPDATE_BYTES, norm_bound=NormBound.FROM_CLIPPING, mantissa_bits=23
)


class DraftHospital(Section):
    """A hospital of the agreement and the dataset it brings."""

    id: Slug
    name: Text
    dataset_sha256: Sha256Field
    sample_size: Count


class DraftScope(SharedScope):
    """The part of the dataset's scope that all hospitals have in common; patients' records unless it says
    otherwise.
    """

    contents: DatasetContents = "records"


class ManifestDraft(Section):
    """The terms that a group of hospitals agreed on."""

    document: Literal["cloister.manifest-draft/v1"]
    agreement_id: DocumentId
    version: Version
    hospitals: Annotated[
        tuple[DraftHospital, ...], Field(min_length=1, max_length=LONGEST_LIST, strict=False)
    ]
    purpose_limitation: PurposeLimitation
    dataset_scope: DraftScope
    privacy_guardrails: PrivacyGuardrails
    success_metrics: SuccessMetrics
    output_constraints: OutputConstraints
    airlock: AirlockTerms = USUAL_AIRLOCK
    attestation: DraftAttestation
    evidence_log: EvidenceLogTerms = EvidenceLogTerms(without_outside_checkpoint=UnwitnessedLog.REFUSE)
    incentive_terms: IncentiveTerms
    validity: Validity

    @model_validator(mode="after")
    def _hospitals_are_named_once(self) -> Self:
        if len(set(self.hospital_ids)) != len(self.hospitals):
            raise ValueError("names a hospital twice")
        return self

    @model_validator(mode="after")
    def _allows_no_more_than_its_contents_do(self) -> Self:
        require_no_contradiction(
            self.dataset_scope,
            self.privacy_guardrails,
            allow_simulated=self.attestation.allow_simulated,
        )
        return self

    @property
    def hospital_ids(self) -> tuple[str, ...]:
        """The hospitals, in the order of the file."""
        return tuple(hospital.id for hospital in self.hospitals)

    def for_hospital(
        self, hospital_id: str, public_key: PublicKey, *, installed_measurement: str
    ) -> ProtocolManifest:
        """Fill in one hospital's manifest.

        Args:
            hospital_id: The hospital, as the draft names it.
            public_key: The key the hospital signs with.
            installed_measurement: SHA-384 measurement of the installed code, 96 hex digits.

        Raises:
            PolicyError: ``policy.unknown_hospital``.
        """
        hospital = next((known for known in self.hospitals if known.id == hospital_id), None)
        if hospital is None:
            raise PolicyError(
                "policy.unknown_hospital",
                f"the manifest draft names no hospital {hospital_id}",
                f"It names {', '.join(self.hospital_ids)}; add the hospital, or take it out of the job.",
            )
        scope = self.dataset_scope
        return ProtocolManifest(
            document="cloister.manifest/v1",
            manifest_id=str(uuid5(UUID(self.agreement_id), hospital.id)),
            version=self.version,
            hospital=Hospital(id=hospital.id, name=hospital.name, public_key=public_key.pem),
            purpose_limitation=self.purpose_limitation,
            dataset_scope=DatasetScope(
                name=scope.name,
                contents=scope.contents,
                bounds_sha256=scope.bounds_sha256,
                sha256=hospital.dataset_sha256,
                data_types=scope.data_types,
                patient_criteria=scope.patient_criteria,
                temporal_range=scope.temporal_range,
                sample_size=hospital.sample_size,
            ),
            privacy_guardrails=self.privacy_guardrails,
            success_metrics=self.success_metrics,
            output_constraints=self.output_constraints,
            airlock=self.airlock,
            attestation=self.attestation.complete(installed_measurement),
            evidence_log=self.evidence_log,
            incentive_terms=self.incentive_terms,
            validity=self.validity,
        )


class DraftDeveloper(Section):
    """Who asks."""

    id: Slug
    name: Text


class DraftSite(Section):
    """A site whose data the request wants."""

    site: Slug
    dataset_sha256: Sha256Field


class RequestDraft(Section):
    """What a developer wants, before ids, keys and the manifests' hashes are filled in."""

    document: Literal["cloister.request-draft/v1"]
    ai_developer: DraftDeveloper
    purpose: Slug
    sites: Annotated[tuple[DraftSite, ...], Field(min_length=1, max_length=LONGEST_LIST, strict=False)]
    model_specification: ModelSpecification
    privacy: RequestedPrivacy
    outputs: Outputs
    compute_requirements: ComputeRequirements

    @model_validator(mode="after")
    def _sites_are_named_once(self) -> Self:
        if len({site.site for site in self.sites}) != len(self.sites):
            raise ValueError("names a site twice")
        return self

    def complete(
        self,
        manifests: Mapping[str, ProtocolManifest],
        developer_key: PublicKey,
        *,
        request_id: UUID,
        submitted_at: datetime,
    ) -> TrainingRequest:
        """Fill in a request for the manifests in force.

        Args:
            manifests: Manifest of each site the draft names; others are left out.
            developer_key: The key the developer signs with.
            request_id: The request's id.
            submitted_at: Time of submission.

        Raises:
            PolicyError: ``policy.unknown_hospital`` if a site has no manifest.
        """
        unknown = sorted(site.site for site in self.sites if site.site not in manifests)
        if unknown:
            raise PolicyError(
                "policy.unknown_hospital",
                f"no manifest covers the requested site {', '.join(unknown)}",
                "Ask the hospital for a manifest, or take the site out of the request.",
            )
        return TrainingRequest(
            document="cloister.request/v1",
            request_id=str(request_id),
            ai_developer=Developer(
                id=self.ai_developer.id, name=self.ai_developer.name, public_key=developer_key.pem
            ),
            purpose=self.purpose,
            sites=tuple(
                RequestedSite(
                    site=wanted.site,
                    manifest_id=manifests[wanted.site].manifest_id,
                    manifest_version=manifests[wanted.site].version,
                    manifest_sha256=manifests[wanted.site].sha256,
                    dataset_sha256=wanted.dataset_sha256,
                )
                for wanted in sorted(self.sites, key=lambda wanted: wanted.site)
            ),
            model_specification=self.model_specification,
            privacy=self.privacy,
            outputs=self.outputs,
            compute_requirements=self.compute_requirements,
            submission_timestamp=format_time(submitted_at),
        )


def load_manifest_draft(path: Path) -> ManifestDraft:
    """Read a manifest draft from a YAML file.

    Raises:
        InputError: The file is missing, isn't YAML, or a field is missing, unknown or wrong.
    """
    return parse_model(ManifestDraft, load_yaml(path), f"manifest {path.name}")


def load_request_draft(path: Path) -> RequestDraft:
    """Read a request draft from a YAML file.

    Raises:
        InputError: The file is missing, isn't YAML, or a field is missing, unknown or wrong.
    """
    return parse_model(RequestDraft, load_yaml(path), f"request {path.name}")
