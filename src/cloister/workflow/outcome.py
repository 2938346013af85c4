"""What a finished job is, as a value: everything a summary, a report or a program needs.

Every figure here is one that may be shown: it comes from a named public test set, from the budget
ledger, or from signed statements. None is computed on a hospital's training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.enclave.protection import Protection
from cloister.evidence.verifier import Verdict
from cloister.immune import ImmuneIncident


@dataclass(frozen=True)
class RoundRecord:
    """One finished round.

    Attributes:
        number: Counted from 1.
        metric: The primary metric of the global model on the named test set.
        epsilon: Epsilon spent by each site up to and including this round.
        seconds: How long the round took.
    """

    number: int
    metric: float
    epsilon: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class SiteOutcome:
    """One hospital's part.

    Attributes:
        site: Its name.
        records: How many patients it trained on (public by the manifest).
        noise_multiplier: Noise standard deviation over clipping norm, per step.
        steps: DP-SGD steps executed.
        epsilon: Spent by this job.
        epsilon_dataset: Spent on this dataset by all jobs so far.
        epsilon_limit: The strictest limit that bound this job.
        epsilon_budget: The strictest limit over all jobs on the dataset.
        delta: Delta of every epsilon here.
        accuracy: Accuracy on this site's rows of the named test set.
        auroc: Area under the ROC curve there, or None where it is undefined.
        note: Why something is undefined, or empty.
    """

    site: str
    records: int
    noise_multiplier: float
    steps: int
    epsilon: float
    epsilon_dataset: float
    epsilon_limit: float
    epsilon_budget: float
    delta: float
    accuracy: float | None
    auroc: float | None
    note: str


@dataclass(frozen=True)
class JobOutcome:
    """A finished job and where its artifacts lie."""

    job_id: str
    name: str
    folder: Path
    source: str
    architecture: str
    strategy: str
    test_set: str
    test_records: int
    metric: str
    value: float
    interval: tuple[float, float] | None
    baseline_name: str
    baseline: float
    improvement: float
    threshold: float
    passed: bool
    normalisation: str
    randomness: str
    simulated: bool
    protection: Protection
    sites: tuple[SiteOutcome, ...]
    refused_sites: Mapping[str, str]
    rounds: tuple[RoundRecord, ...]
    training_seconds: float
    verdict: Verdict
    noticed: tuple[ImmuneIncident, ...] = ()

    @property
    def model(self) -> Path:
        """The trained model, in safetensors format."""
        return self.folder / MODEL_FILE

    @property
    def receipt(self) -> Path:
        """The receipt."""
        return self.folder / RECEIPT_FILE

    @property
    def trust(self) -> Path:
        """The public keys of this run's parties, one folder per role."""
        return self.folder / TRUST_FOLDER

    @property
    def report(self) -> Path:
        """The report for people."""
        return self.folder / REPORT_FILE

    @property
    def accepted(self) -> bool:
        """Whether the model passed its threshold and the receipt verified."""
        return self.passed and self.verdict.accepted

    def as_json(self) -> dict[str, object]:
        """Return the outcome for machines; paths as text, checks with id, outcome and detail."""
        return {
            "job_id": self.job_id,
            "name": self.name,
            "source": self.source,
            "architecture": self.architecture,
            "strategy": self.strategy,
            "simulated": self.simulated,
            "protection": self.protection.value,
            "randomness": self.randomness,
            "normalisation": self.normalisation,
            "performance": {
                "test_set": self.test_set,
                "test_records": self.test_records,
                "metric": self.metric,
                "value": self.value,
                "interval_95": None if self.interval is None else list(self.interval),
                "baseline": {"name": self.baseline_name, "value": self.baseline},
                "improvement_score": self.improvement,
                "threshold": self.threshold,
                "passed": self.passed,
            },
            "sites": [vars(site) for site in self.sites],
            "refused_sites": dict(self.refused_sites),
            "rounds": [{**vars(record), "epsilon": dict(record.epsilon)} for record in self.rounds],
            "training_seconds": self.training_seconds,
            "incidents": [one.incident_fields() for one in self.noticed],
            "receipt_accepted": self.verdict.accepted,
            "accepted_with": ["test-randomness"] if self.verdict.test_randomness else [],
            "checks": [
                {"id": check.id, "outcome": check.outcome.value, "detail": check.detail}
                for check in self.verdict.checks
            ],
            "files": {
                "folder": str(self.folder),
                "model": str(self.model),
                "receipt": str(self.receipt),
                "trust": str(self.trust),
                "report": str(self.report),
            },
        }


MODEL_FILE = "model.safetensors"
RECEIPT_FILE = "receipt.json"
REPORT_FILE = "report.html"
TRUST_FOLDER = "trust"
