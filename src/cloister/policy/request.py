"""The training request: what a developer asks to do with which datasets.

Rules kept here:

- A request pins, for every site, the manifest it was written for (id, version and hash) and the
  dataset it wants (hash). Another manifest or other data need another request.
- It states the privacy loss it asks for and what shall leave; a job may ask for less, never for more.
- It is signed like a manifest, by the developer that it names. What becomes of it is no part of it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cloister.core.hashes import Sha256Field
from cloister.core.keys import PublicKey, Signer
from cloister.evidence.envelope import Envelope
from cloister.evidence.terms import REQUEST_TYPE
from cloister.policy.fields import (
    LARGEST_INTEGER,
    LONGEST_LIST,
    Delta,
    DocumentId,
    Epsilon,
    ParameterName,
    PublicKeyPem,
    Section,
    Slug,
    Text,
    Timestamp,
    Version,
)
from cloister.policy.manifest import Outputs
from cloister.policy.signing import SignedDocument, decode_document, open_document, sign_document

Integer = Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
Plain = bool | Integer | float | Text
Hyperparameter = Plain | Annotated[list[Plain], Field(max_length=64)]


class Developer(Section):
    """Who asks."""

    id: Slug
    name: Text
    public_key: PublicKeyPem


class TrainingConfiguration(Section):
    """How long and by which strategy is trained: a job may do less.

    Attributes:
        strategy: How updates are aggregated, such as ``FED_AVG``.
        rounds: Most rounds.
        local_steps: Most optimiser steps of one site in one round.
    """

    strategy: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,62}$")]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    local_steps: Annotated[int, Field(ge=1, le=1_000_000)]


class ModelSpecification(Section):
    """Which model is trained, and how."""

    architecture: Slug
    hyperparameters: Annotated[dict[ParameterName, Hyperparameter], Field(max_length=64)]
    training_config: TrainingConfiguration


class RequestedPrivacy(Section):
    """The privacy loss the request asks for at each site."""

    epsilon: Epsilon
    delta: Delta


class ComputeRequirements(Section):
    """What a site has to provide: kind of machine, minutes at most, memory in MiB."""

    instance_type: Slug
    max_training_minutes: Annotated[int, Field(ge=1, le=525_600)]
    memory_mib: Annotated[int, Field(ge=1, le=2**30)]


class RequestedSite(Section):
    """One site of a request: the manifest it was written for and the dataset it wants."""

    site: Slug
    manifest_id: DocumentId
    manifest_version: Version
    manifest_sha256: Sha256Field
    dataset_sha256: Sha256Field


class TrainingRequest(SignedDocument):
    """What a developer asks to do with which datasets (PR-X2)."""

    document: Literal["cloister.request/v1"]
    request_id: DocumentId
    ai_developer: Developer
    purpose: Slug
    sites: Annotated[tuple[RequestedSite, ...], Field(min_length=1, max_length=LONGEST_LIST, strict=False)]
    model_specification: ModelSpecification
    privacy: RequestedPrivacy
    outputs: Outputs
    compute_requirements: ComputeRequirements
    submission_timestamp: Timestamp

    @model_validator(mode="after")
    def _sites_are_sorted_and_named_once(self) -> Self:
        names = [site.site for site in self.sites]
        if names != sorted(set(names)):
            raise ValueError("sites must be sorted by name and named once")
        return self

    @property
    def signing_pem(self) -> str:
        """The developer's public key."""
        return self.ai_developer.public_key

    def for_site(self, site: str) -> RequestedSite | None:
        """Return what is asked of one site, or None if nothing is."""
        return next((asked for asked in self.sites if asked.site == site), None)


def decode_request(payload: bytes) -> TrainingRequest:
    """Parse a request's canonical bytes.

    Raises:
        InputError: Not JSON, or a field is missing, unknown or wrong.
        PolicyError: ``policy.not_canonical``.
    """
    return decode_document(TrainingRequest, payload, "request")


def sign_request(request: TrainingRequest, signer: Signer) -> Envelope:
    """Sign a request as the developer that it names.

    Raises:
        PolicyError: ``policy.wrong_key`` if the signer isn't that developer.
    """
    return sign_document(request, signer, REQUEST_TYPE, "request")


def open_request(envelope: Envelope, key: PublicKey) -> TrainingRequest:
    """Verify a signed request and return it.

    Args:
        envelope: The DSSE envelope.
        key: The key by which the developer is known, from a source other than the envelope.

    Raises:
        PolicyError: Another key signed it, it names another key, it is another kind of document or it
            isn't canonical.
        InputError: The content isn't a request.
    """
    return open_document(TrainingRequest, envelope, key, REQUEST_TYPE, "request")
