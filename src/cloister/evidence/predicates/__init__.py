"""The kinds of statement: one frozen model per step of a job, each with a versioned type."""

from cloister.evidence.predicates.admission import (
    AppraisalCheck,
    AttestationVerdict,
    DataCommitment,
    JobOpened,
    ManifestAccepted,
    QuoteEvidence,
    RequestDecided,
)
from cloister.evidence.predicates.base import Predicate, Role, known_types, predicate_class
from cloister.evidence.predicates.consent import CREDIT_UNIT, Consent, Settlement
from cloister.evidence.predicates.custody import (
    Access,
    Destruction,
    DestructionCheck,
    Export,
    ExportSelection,
    Incident,
)
from cloister.evidence.predicates.log import CheckpointHeld, HeldCheckpoint, Holding, held_checkpoints
from cloister.evidence.predicates.outcome import (
    RELEASE_CONSTRAINTS,
    Evaluation,
    HubEnding,
    JobClosed,
    OutputConstraint,
    Release,
    SiteMetric,
    Violation,
)
from cloister.evidence.predicates.training import (
    MOCK,
    OS_ENTROPY,
    SEEDED_TEST,
    BudgetSpend,
    RoundAggregated,
    TensorShape,
    UpdateReleased,
)

__all__ = [
    "CREDIT_UNIT",
    "MOCK",
    "OS_ENTROPY",
    "RELEASE_CONSTRAINTS",
    "SEEDED_TEST",
    "Access",
    "AppraisalCheck",
    "AttestationVerdict",
    "BudgetSpend",
    "CheckpointHeld",
    "Consent",
    "DataCommitment",
    "Destruction",
    "DestructionCheck",
    "Evaluation",
    "Export",
    "ExportSelection",
    "HeldCheckpoint",
    "Holding",
    "HubEnding",
    "Incident",
    "JobClosed",
    "JobOpened",
    "ManifestAccepted",
    "OutputConstraint",
    "Predicate",
    "QuoteEvidence",
    "Release",
    "RequestDecided",
    "Role",
    "RoundAggregated",
    "Settlement",
    "SiteMetric",
    "TensorShape",
    "UpdateReleased",
    "Violation",
    "held_checkpoints",
    "known_types",
    "predicate_class",
]
