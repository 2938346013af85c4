"""The protocol manifest: what one hospital allows to be done with one dataset.

Rules kept here:

- Five parts are required: purpose limitation, dataset scope, privacy guardrails, success metrics and
  incentive terms. So are the output constraints, the terms of airlock, attestation and evidence log, and
  the validity. Nothing has a default: what isn't written isn't agreed. What may be left out of the
  attestation terms stands for the strict word (`cloister.policy.attestation_terms`).
- A manifest is signed over its RFC 8785 canonical JSON in a DSSE envelope, by the key that it names.
  The signature and the hash are outside of the document that they cover.
- A purpose can't be allowed and prohibited at once; a range can't end before it starts.
- Epsilon is bounded by the hard stop, and the hard stop can be lowered but not raised.
- Only test data may go to a simulated machine, or be trained on without noise: a manifest that allows either
  for patients' records contradicts itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cloister.core.hashes import Sha256Field
from cloister.core.keys import PublicKey, Signer
from cloister.evidence.envelope import Envelope
from cloister.evidence.terms import HARD_STOP_EPSILON, MANIFEST_TYPE, REAL_RECORDS, TEST_DATA, DatasetContents
from cloister.policy.airlock_terms import AirlockTerms, NormBound
from cloister.policy.attestation_terms import AttestationTerms
from cloister.policy.fields import (
    LONGEST_LIST,
    Count,
    Day,
    Delta,
    DocumentId,
    Epsilon,
    PublicKeyPem,
    Section,
    Sentences,
    Slug,
    Text,
    Timestamp,
    Version,
    Words,
    WordsOrNone,
    unique,
)
from cloister.policy.signing import SignedDocument, decode_document, open_document, sign_document

__all__ = [
    "AirlockTerms",
    "AttestationTerms",
    "DatasetScope",
    "EvaluationMethod",
    "EvidenceLogTerms",
    "Hospital",
    "IncentiveTerms",
    "NormBound",
    "OutputConstraints",
    "OutputKind",
    "Outputs",
    "PrimaryMetric",
    "PrivacyGuardrails",
    "ProtocolManifest",
    "PurposeLimitation",
    "SharedScope",
    "SuccessMetrics",
    "TemporalRange",
    "UnwitnessedLog",
    "Validity",
    "decode_manifest",
    "open_manifest",
    "sign_manifest",
]


class PrimaryMetric(StrEnum):
    """What a model is judged by."""

    ACCURACY = "accuracy"
    AUROC = "auroc"
    F1 = "f1"


class OutputKind(StrEnum):
    """What may leave a site.

    ``model-weights`` are weights trained with DP-SGD; ``dp-scalars`` are counts and means released with noise
    and charged to the budget ledger; ``single-class-flag`` is the exact fact whether all training labels are
    alike, which no noise protects.
    """

    MODEL_WEIGHTS = "model-weights"
    DP_SCALARS = "dp-scalars"
    SINGLE_CLASS_FLAG = "single-class-flag"


Outputs = Annotated[
    tuple[Annotated[OutputKind, Field(strict=False)], ...],
    Field(min_length=1, max_length=LONGEST_LIST, strict=False),
    AfterValidator(unique),
]


class Hospital(Section):
    """Who signs the manifest; ``id`` is also the site's name in a job."""

    id: Slug
    name: Text
    public_key: PublicKeyPem


class PurposeLimitation(Section):
    """What the data may and may not be used for, and how long plaintext may be kept, in days."""

    allowed_purposes: Words
    prohibited_uses: WordsOrNone
    data_retention_days: Annotated[int, Field(ge=0, le=36_500)]

    @model_validator(mode="after")
    def _no_purpose_is_both(self) -> Self:
        both = sorted(set(self.allowed_purposes) & set(self.prohibited_uses))
        if both:
            raise ValueError(f"both allowed and prohibited: {', '.join(both)}")
        return self


class TemporalRange(Section):
    """First and last day on which the records were taken."""

    start: Day
    end: Day

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.start > self.end:
            raise ValueError("start must not be later than end")
        return self


class SharedScope(Section):
    """The part of a dataset's scope that hospitals of one agreement have in common.

    Attributes:
        name: The dataset's name, as its own declaration gives it; a hospital's budget is kept under it.
        contents: ``records`` of patients, or ``test-data``, which is public or made up. The keys to the
            dataset are for this and nothing else; no machine that proves nothing gets the former's.
        bounds_sha256: Hash of the declaration of columns, public bounds and classes.
        data_types: What kinds of data it holds.
        patient_criteria: Whose records they are.
        temporal_range: When the records were taken.
    """

    name: Slug
    contents: DatasetContents
    bounds_sha256: Sha256Field
    data_types: Words
    patient_criteria: Sentences
    temporal_range: TemporalRange


class DatasetScope(SharedScope):
    """Which dataset: what hospitals have in common, the commitment to its content and its size.

    Attributes:
        sha256: The commitment to the records, as the site computes it.
        sample_size: How many records there are.
    """

    sha256: Sha256Field
    sample_size: Count


class PrivacyGuardrails(Section):
    """The limits of privacy loss, counted over every job on the dataset.

    Attributes:
        unit: What is protected, by adding or removing it: one record, or one subject with all its records.
        accounting: How the dataset's ledger composes spends, fixed when it is made. ``adaptive`` stays valid
            when jobs are chosen after seeing earlier results, and gives back unused steps; ``fixed_plan`` is
            tighter, valid where every plan was fixed in advance, and gives nothing back. That every plan was
            is the hospital's word: nothing enforces it.
        cross_site_subjects: What is known of persons at two hospitals. ``sum``: nothing, so the hospitals'
            losses add up. ``linked``: the hospitals state that they looked, and no person is at two.
        epsilon_per_subject: Largest epsilon that one person may lose at all hospitals together, over every
            job on their datasets, whichever of them each job runs at. Where losses add up each hospital keeps
            to an equal share of it. It is a ceiling where all of them state the same one.
        subject_sites: Among how many hospitals that is shared: all whose data is ever used under such an
            agreement, not those of one job. A job at more sites is refused where losses add up.
        epsilon_budget: Largest epsilon that all jobs together may spend.
        delta_budget: Delta at which that epsilon is stated.
        epsilon_hard_stop: Epsilon at which training halts whatever else is agreed; 5.0 at most.
        minimum_group_size: Fewest records, or subjects, a dataset may hold to be trained on.
        suppression_threshold: A statistic about fewer records, or subjects, than this isn't released.
        allow_mock: Whether a job may be tried out on these records without noise (``MOCK``): weights that
            protect nobody then leave the site, uncharged. For test data only.
    """

    unit: Literal["record", "subject"]
    accounting: Literal["adaptive", "fixed_plan"]
    cross_site_subjects: Literal["sum", "linked"]
    epsilon_per_subject: Epsilon
    subject_sites: Count
    epsilon_budget: Epsilon
    delta_budget: Delta
    epsilon_hard_stop: Annotated[float, Field(gt=0, le=HARD_STOP_EPSILON)]
    minimum_group_size: Count
    suppression_threshold: Count
    allow_mock: bool

    @model_validator(mode="after")
    def _budget_is_within_the_hard_stop(self) -> Self:
        if self.epsilon_budget > self.epsilon_hard_stop:
            raise ValueError("epsilon_budget must not be above epsilon_hard_stop")
        return self


class EvaluationMethod(Section):
    """How the metric is measured.

    Attributes:
        kind: On a test set that is public or consented, and named.
        test_set: The test set's name.
        test_set_sha256: Hash of its records, so that a name can't be given to other ones.
        test_set_records: How many records it holds.
        baseline: What the model is compared with: the constant answer that scores best on the same
            test set. It is computed, never claimed.
    """

    kind: Literal["named-test-set"]
    test_set: Slug
    test_set_sha256: Sha256Field
    test_set_records: Count
    baseline: Literal["best-constant"]


class SuccessMetrics(Section):
    """What the model has to reach."""

    primary_metric: Annotated[PrimaryMetric, Field(strict=False)]
    threshold: Annotated[float, Field(gt=0, le=1)]
    evaluation_method: EvaluationMethod


class OutputConstraints(Section):
    """What may leave, and how large the model file may be."""

    allowed_outputs: Outputs
    max_model_bytes: Count


class UnwitnessedLog(StrEnum):
    """Whether a party may write on in a log of which nobody off its machine holds a checkpoint."""

    REFUSE = "refuse"
    ALLOW = "allow"


class EvidenceLogTerms(Section):
    """What the hospital asks of the logs that the job is stated in: the hub's and its own.

    Attributes:
        without_outside_checkpoint: What to do where no checkpoint of a log is held off its machine. Then an
            older copy of the log, restored from a backup, can't be told from the newest one.
    """

    without_outside_checkpoint: Annotated[UnwitnessedLog, Field(strict=False)]


class IncentiveTerms(Section):
    """What a verified improvement is worth, and to whom it goes."""

    base_credits: Annotated[int, Field(ge=0, le=1_000_000)]
    performance_multiplier: Annotated[float, Field(ge=0, le=1_000)]
    fund_destination: Slug


class Validity(Section):
    """From when to when the manifest holds: ``not_before`` included, ``not_after`` excluded."""

    not_before: Timestamp
    not_after: Timestamp

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.not_before >= self.not_after:
            raise ValueError("not_before must be earlier than not_after")
        return self


def require_no_contradiction(
    scope: SharedScope, guardrails: PrivacyGuardrails, *, allow_simulated: bool
) -> None:
    """Refuse terms that would let patients' records go where only test data may.

    Args:
        scope: What the dataset holds.
        guardrails: Whether it may be trained on without noise.
        allow_simulated: Whether a simulated platform will do.

    Raises:
        ValueError: With what to write instead.
    """
    permitted = {
        "attestation.allow_simulated": allow_simulated,
        "privacy_guardrails.allow_mock": guardrails.allow_mock,
    }
    wrong = " and ".join(name for name, is_so in permitted.items() if is_so)
    if wrong and scope.contents == REAL_RECORDS:
        raise ValueError(
            f"{wrong} must be false for patients' records; if these are public or made up, write "
            f"contents: {TEST_DATA} under dataset_scope"
        )


class ProtocolManifest(SignedDocument):
    """What one hospital allows to be done with one dataset (PR-X1)."""

    document: Literal["cloister.manifest/v1"]
    manifest_id: DocumentId
    version: Version
    hospital: Hospital
    purpose_limitation: PurposeLimitation
    dataset_scope: DatasetScope
    privacy_guardrails: PrivacyGuardrails
    success_metrics: SuccessMetrics
    output_constraints: OutputConstraints
    airlock: AirlockTerms
    attestation: AttestationTerms
    evidence_log: EvidenceLogTerms
    incentive_terms: IncentiveTerms
    validity: Validity

    @model_validator(mode="after")
    def _allows_no_more_than_its_contents_do(self) -> Self:
        require_no_contradiction(
            self.dataset_scope,
            self.privacy_guardrails,
            allow_simulated=self.attestation.allow_simulated,
        )
        return self

    @property
    def signing_pem(self) -> str:
        """The hospital's public key."""
        return self.hospital.public_key


def decode_manifest(payload: bytes) -> ProtocolManifest:
    """Parse a manifest's canonical bytes.

    Args:
        payload: RFC 8785 JSON.

    Raises:
        InputError: Not JSON, or a field is missing, unknown or wrong.
        PolicyError: ``policy.not_canonical``.
    """
    return decode_document(ProtocolManifest, payload, "manifest")


def sign_manifest(manifest: ProtocolManifest, signer: Signer) -> Envelope:
    """Sign a manifest as the hospital that it names.

    Raises:
        PolicyError: ``policy.wrong_key`` if the signer isn't that hospital.
    """
    return sign_document(manifest, signer, MANIFEST_TYPE, "manifest")


def open_manifest(envelope: Envelope, key: PublicKey) -> ProtocolManifest:
    """Verify a signed manifest and return it.

    Args:
        envelope: The DSSE envelope.
        key: The key by which the hospital is known, from a source other than the envelope.

    Raises:
        PolicyError: Another key signed it, it names another key, it is another kind of document or it
            isn't canonical.
        InputError: The content isn't a manifest.
    """
    return open_document(ProtocolManifest, envelope, key, MANIFEST_TYPE, "manifest")
