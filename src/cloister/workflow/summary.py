"""From a finished run to the value that people and programs are shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloister.enclave.protection import Protection
from cloister.evidence.predicates import MOCK, OS_ENTROPY, SEEDED_TEST
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.evidence.transcript import Event, SampledGaussian
from cloister.evidence.verifier import Verdict
from cloister.federation import FederationJob, SiteRuntime
from cloister.health import FederatedData
from cloister.immune import ImmuneIncident
from cloister.policy import OutputKind
from cloister.privacy import HARD_STOP_EPSILON, BudgetLedger
from cloister.workflow.admission import Agreement
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.outcome import JobOutcome, RoundRecord, SiteOutcome
from cloister.workflow.release import Measured, SiteScore


def summarise_outcome(
    spec: JobSpec,
    job: FederationJob,
    folder: Path,
    data: FederatedData,
    agreement: Agreement,
    measured: Measured,
    sites: Mapping[str, SiteRuntime],
    refused: Mapping[str, str],
    rounds: tuple[RoundRecord, ...],
    seconds: float,
    ledgers: Mapping[str, BudgetLedger],
    verdict: Verdict,
    protection: Protection,
    noticed: tuple[ImmuneIncident, ...],
) -> JobOutcome:
    """Gather what a finished job shows.

    Args:
        spec: The job file.
        job: The job as it ran.
        folder: Where its artifacts will lie.
        data: The sites' data; only names and public counts are read.
        agreement: The signed documents.
        measured: The evaluation.
        sites: The sites' nodes.
        refused: Sites that took no part to the end, with the reason.
        rounds: The rounds' history.
        seconds: How long the federated part took.
        ledgers: Each site's budget ledger.
        verdict: What the verifier said of the receipt.
        protection: How the run was protected.
        noticed: What the immune system noticed.
    """
    result = measured.result
    interval = None if result.interval is None else (result.interval.low, result.interval.high)
    return JobOutcome(
        job_id=job.job_id,
        name=spec.file.name,
        folder=folder,
        source=data.source,
        architecture=job.model.architecture,
        strategy=job.strategy.value,
        test_set=result.test_set,
        test_records=result.records,
        metric=result.metric.value,
        value=result.value,
        interval=interval,
        baseline_name=result.baseline_name,
        baseline=result.baseline_value,
        improvement=result.improvement_score,
        threshold=result.threshold,
        passed=result.passed,
        normalisation=data.normalisation,
        randomness=_randomness(job, verdict),
        simulated=verdict.simulated,
        protection=protection,
        noticed=noticed,
        sites=tuple(
            _site(site, job, data, agreement, sites[site], ledgers[site], measured.sites[site])
            for site in job.clients
        ),
        refused_sites=dict(refused),
        rounds=rounds,
        training_seconds=seconds,
        verdict=verdict,
    )


def _site(
    site: str,
    job: FederationJob,
    data: FederatedData,
    agreement: Agreement,
    node: SiteRuntime,
    ledger: BudgetLedger,
    score: SiteScore,
) -> SiteOutcome:
    guardrails = agreement.manifests[site].privacy_guardrails
    budget = min(guardrails.epsilon_budget, guardrails.epsilon_hard_stop, HARD_STOP_EPSILON)
    return SiteOutcome(
        site=site,
        records=agreement.manifests[site].dataset_scope.sample_size,
        noise_multiplier=node.plan.noise_multiplier,
        steps=_steps(ledger.events(job.job_id)),
        epsilon=node.epsilon_spent(),
        epsilon_dataset=ledger.epsilon(),
        epsilon_limit=min(job.privacy.target_epsilon, budget),
        epsilon_budget=budget,
        delta=ledger.delta,
        accuracy=score.accuracy,
        auroc=score.auroc,
        note=_note(data, agreement, site, score),
    )


def _randomness(job: FederationJob, verdict: Verdict) -> str:
    if job.privacy.mechanism == MOCK_MECHANISM:
        return MOCK
    return SEEDED_TEST if verdict.test_randomness else OS_ENTROPY


def _steps(events: tuple[Event, ...]) -> int:
    return sum(event.steps for event in events if isinstance(event, SampledGaussian))


def _note(data: FederatedData, agreement: Agreement, site: str, score: SiteScore) -> str:
    told = OutputKind.SINGLE_CLASS_FLAG in agreement.manifests[site].output_constraints.allowed_outputs
    parts = []
    if told and data.sites[site].single_class:
        parts.append("trained on one class only")
    if score.auroc is None:
        parts.append(f"AUROC undefined: {score.reason}")
    return "; ".join(parts)
