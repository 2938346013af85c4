"""What the verifier reads of documents that rooms above define: the job, the manifests, the request.

These are views: they read the fields a receipt is checked by, and leave the rest to the room that owns the
document. Documents are compared by the hash of their signed bytes, so nothing is lost by not reading it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Final, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from cloister.core.canonical import JSON, parse_canonical
from cloister.core.errors import CloisterError
from cloister.core.hashes import Sha256Field
from cloister.evidence.attestation_terms import ManifestAttestation
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates.base import CountField, NameField, PartyField, UuidField
from cloister.evidence.transcript import Mode, Unit

MANIFEST_TYPE: Final = "application/vnd.cloister.manifest+json"
REQUEST_TYPE: Final = "application/vnd.cloister.request+json"
HARD_STOP_EPSILON: Final = 5.0
MODEL_MARK: Final = "cloister"
"""The one name in a model file's metadata: how the run that made it was protected, where it wasn't."""

MODEL_MARKS: Final = ("SIMULATED", "INSECURE")
"""What stands there."""

MOCK_MECHANISM: Final = "MOCK"
SINGLE_CLASS_FLAG: Final = "single-class-flag"
MODEL_WEIGHTS: Final = "model-weights"
MAX_DOCUMENT_BYTES: Final = 1024 * 1024
MAX_LIST: Final = 1000
REAL_RECORDS: Final = "records"
TEST_DATA: Final = "test-data"
DatasetContents = Literal["records", "test-data"]
"""A hospital's signed word on its dataset: patients' own records, or public or made-up ones."""


class View(BaseModel):
    """A partial, frozen reading of a document."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class JobPrivacy(View):
    """The privacy a job asks for; ``noise_multiplier`` is None where each site calibrates its own."""

    mechanism: NameField
    noise_multiplier: float | None
    max_grad_norm: float = Field(gt=0)
    target_epsilon: float
    delta: float


class JobTraining(View):
    """How much a site trains per round."""

    sampling_probability: float | None = None
    batch_size: int | None = None
    local_steps: int
    learning_rate: float = Field(gt=0)


class JobTerms(View):
    """A federated job."""

    job_id: UuidField
    clients: tuple[PartyField, ...] = Field(min_length=1, max_length=10_000)
    min_clients: int
    rounds: int = Field(ge=1, le=10_000)
    strategy: NameField
    privacy: JobPrivacy
    training: JobTraining


class ManifestHospital(View):
    """Who signs the manifest; its id is the site's name."""

    id: PartyField
    public_key: str


class ManifestScope(View):
    """Which dataset the manifest is about, whether it is test data, and the declared public bounds it is
    scaled by.
    """

    name: NameField
    contents: DatasetContents
    sha256: Sha256Field
    bounds_sha256: Sha256Field


class ManifestGuardrails(View):
    """The limits the manifest sets over every job on the dataset."""

    unit: Unit
    accounting: Mode
    cross_site_subjects: Literal["sum", "linked"]
    epsilon_budget: float
    epsilon_per_subject: float
    subject_sites: int = Field(ge=1)
    delta_budget: float
    epsilon_hard_stop: float
    minimum_group_size: int


class ManifestEvaluation(View):
    """How the metric is measured: on which public test set, by name, hash and number of records."""

    test_set: NameField
    test_set_sha256: Sha256Field
    test_set_records: CountField = Field(gt=0)


class ManifestSuccess(View):
    """What the model has to reach."""

    primary_metric: NameField
    threshold: float
    evaluation_method: ManifestEvaluation


class ManifestOutputs(View):
    """What may leave."""

    allowed_outputs: tuple[NameField, ...] = Field(max_length=MAX_LIST)
    max_model_bytes: int


class ManifestAirlock(View):
    """What the airlock holds each update against."""

    max_update_bytes: CountField
    norm_bound: Literal["from-clipping", "none"]
    mantissa_bits: int = Field(ge=1, le=23)
    max_update_bits: CountField | None = None
    max_job_bits: CountField | None = None


class ManifestValidity(View):
    """From when to when the manifest holds; the end is excluded."""

    not_before: AwareDatetime
    not_after: AwareDatetime

    def holds_at(self, moment: datetime) -> bool:
        """Whether the moment lies within the validity."""
        return self.not_before <= moment < self.not_after


class ManifestTerms(View):
    """A hospital's manifest."""

    manifest_id: UuidField
    version: NameField
    hospital: ManifestHospital
    dataset_scope: ManifestScope
    privacy_guardrails: ManifestGuardrails
    success_metrics: ManifestSuccess
    output_constraints: ManifestOutputs
    airlock: ManifestAirlock
    attestation: ManifestAttestation
    validity: ManifestValidity


class RequestDeveloper(View):
    """Who asks."""

    id: PartyField
    public_key: str


class RequestPrivacy(View):
    """The privacy loss asked for."""

    epsilon: float
    delta: float


class RequestSite(View):
    """What is asked of one site."""

    site: PartyField
    manifest_sha256: Sha256Field
    dataset_sha256: Sha256Field


class RequestTerms(View):
    """A developer's request."""

    request_id: UuidField
    ai_developer: RequestDeveloper
    purpose: NameField
    privacy: RequestPrivacy
    sites: tuple[RequestSite, ...] = Field(max_length=MAX_LIST)

    @cached_property
    def _by_site(self) -> Mapping[str, RequestSite]:
        return {one.site: one for one in reversed(self.sites)}

    def of_site(self, site: str) -> RequestSite | None:
        """What is asked of this site, or None."""
        return self._by_site.get(site)


V = TypeVar("V", bound=View)


def read_terms(view: type[V], value: JSON, what: str) -> V:
    """Read a view of a parsed document.

    Args:
        view: which one.
        value: the parsed document.
        what: the document's name, for the error.

    Raises:
        EvidenceError: ``evidence.receipt_malformed`` if a field the verifier needs is missing or wrong.
    """
    try:
        return view.model_validate(value)
    except ValidationError as error:
        fields = sorted({".".join(map(str, one["loc"])) for one in error.errors(include_input=False)})
        raise EvidenceError(
            "evidence.receipt_malformed", f"The {what} in the receipt lacks or garbles: {', '.join(fields)}."
        ) from None


def read_document(view: type[V], payload: bytes, what: str) -> V:
    """Read a view of a signed document's payload, which must be canonical JSON.

    Raises:
        EvidenceError: ``evidence.receipt_malformed``.
    """
    try:
        value = parse_canonical(payload, max_bytes=MAX_DOCUMENT_BYTES)
    except CloisterError as error:
        raise EvidenceError(
            "evidence.receipt_malformed", f"The {what} can't be read: {error.message}."
        ) from error
    return read_terms(view, value, what)
