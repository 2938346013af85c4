"""After training: measure the model, hold it against the manifests, and state both.

Rules kept here:

- The model is measured on the named test set alone; a site's share of that set gives the site's figures.
- Where hospitals ask for different thresholds or sizes, the strictest counts.
- A site's figure that rests on fewer patients than the suppression threshold is undefined, with the reason.
- The release is stated with every constraint looked at, whether it held or not; the caller releases
  nothing unless all did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cloister.core.hashes import Sha256, sha256_hex
from cloister.enclave.protection import Protection
from cloister.enclave.tensors import tensors_sha256
from cloister.evidence.predicates import Evaluation, OutputConstraint, Release, SiteMetric
from cloister.evidence.statement import Subject
from cloister.evidence.writer import StatementWriter
from cloister.federation.job import FederationJob
from cloister.health import TestSet
from cloister.policy import OutputKind, PolicyError, PrimaryMetric, ProtocolManifest
from cloister.workflow.metrics import EvaluationResult, Undefined, accuracy, auroc, evaluate
from cloister.workflow.scoring import scores

INSECURE_RUN: Final = OutputConstraint(
    name="protected-machine",
    satisfied=False,
    detail="INSECURE: started without protection; a model of such a run is never released",
)
"""A constraint that a release names only where it fails; no verifier knows it, and each refuses it."""


@dataclass(frozen=True)
class SiteScore:
    """Accuracy and AUROC on one site's rows of the test set; None has a reason."""

    accuracy: float | None
    auroc: float | None
    reason: str


@dataclass(frozen=True)
class Measured:
    """The evaluation of the final model."""

    result: EvaluationResult
    sites: Mapping[str, SiteScore]


@dataclass(frozen=True)
class Goal:
    """What the hospitals together ask of the model."""

    metric: PrimaryMetric
    threshold: float
    max_model_bytes: int
    suppression_threshold: int
    outputs: frozenset[OutputKind]


def common_goal(manifests: Mapping[str, ProtocolManifest]) -> Goal:
    """Reduce the hospitals' terms to one goal, the strictest of each.

    Args:
        manifests: By site.

    Raises:
        PolicyError: The hospitals name different metrics or test sets.
    """
    metrics = {manifest.success_metrics.primary_metric for manifest in manifests.values()}
    test_sets = {manifest.success_metrics.evaluation_method.test_set for manifest in manifests.values()}
    if len(metrics) != 1 or len(test_sets) != 1:
        raise PolicyError(
            "policy.refused",
            "the hospitals don't agree on how the model is measured",
            "Their manifests have to name the same primary_metric and test_set.",
        )
    return Goal(
        metric=metrics.pop(),
        threshold=max(manifest.success_metrics.threshold for manifest in manifests.values()),
        max_model_bytes=min(manifest.output_constraints.max_model_bytes for manifest in manifests.values()),
        suppression_threshold=max(
            manifest.privacy_guardrails.suppression_threshold for manifest in manifests.values()
        ),
        outputs=frozenset.intersection(
            *(frozenset(manifest.output_constraints.allowed_outputs) for manifest in manifests.values())
        ),
    )


def measure_model(
    job: FederationJob, weights: Mapping[str, np.ndarray], test: TestSet, goal: Goal
) -> Measured:
    """Measure a model on the named test set, as a whole and by site.

    Args:
        job: Names the architecture.
        weights: The model's tensors.
        test: The test set.
        goal: Metric and threshold.

    Raises:
        InputError: The metric is undefined on this test set.
    """
    risk = scores(job.model, job.seed, weights, test.features)
    result = evaluate(goal.metric, test.labels, risk, threshold=goal.threshold, test_set=test.name)
    return Measured(
        result, {site: _site_score(test, site, risk, goal.suppression_threshold) for site in job.clients}
    )


def state_evaluation(measured: Measured, test: TestSet, hub: StatementWriter) -> None:
    """Write the evaluation into the hub's log."""
    result = measured.result
    hub.write(
        Evaluation,
        (Subject(name=f"test-set/{test.name}", sha256=Sha256(test.sha256)),),
        test_set=test.name,
        test_set_sha256=test.sha256,
        records=result.records,
        metric=result.metric.value,
        value=result.value,
        baseline_name=result.baseline_name,
        baseline_value=result.baseline_value,
        improvement_score=result.improvement_score,
        threshold=result.threshold,
        passed=result.passed,
        sites=[
            SiteMetric(
                site=site, metric=metric, value=value, reason="" if value is not None else score.reason
            )
            for site, score in sorted(measured.sites.items())
            for metric, value in (("accuracy", score.accuracy), ("auroc", score.auroc))
        ],
    )


def hold_against(
    model_file: bytes, weights: Mapping[str, np.ndarray], goal: Goal, mechanism: str
) -> tuple[OutputConstraint, ...]:
    """Hold a model file against the hospitals' output constraints.

    Args:
        model_file: The encoded model.
        weights: The tensors in it.
        goal: The hospitals' constraints.
        mechanism: What protected the training, as the job names it.

    Returns:
        Every constraint, with whether it is satisfied.
    """
    size = len(model_file)
    return (
        OutputConstraint(
            name="allowed-outputs",
            satisfied=OutputKind.MODEL_WEIGHTS in goal.outputs,
            detail="every manifest has to allow model-weights",
        ),
        OutputConstraint(
            name="max-model-bytes",
            satisfied=size <= goal.max_model_bytes,
            detail=f"{size} bytes, the strictest manifest allows {goal.max_model_bytes}",
        ),
        OutputConstraint(
            name="finite-weights",
            satisfied=all(bool(np.isfinite(tensor).all()) for tensor in weights.values()),
            detail=f"{len(weights)} tensors, {sum(tensor.size for tensor in weights.values())} values",
        ),
        OutputConstraint(
            name="private-training",
            satisfied=mechanism == "DP_SGD",
            detail=f"trained by {mechanism}; a model trained without noise is never released",
        ),
    )


def require_satisfied(constraints: Sequence[OutputConstraint]) -> None:
    """Refuse a model of which some constraint doesn't hold.

    Args:
        constraints: What it was held against.

    Raises:
        PolicyError: ``policy.refused`` with every unmet constraint in its details.
    """
    unmet = [f"{one.name}: {one.detail}" for one in constraints if not one.satisfied]
    if unmet:
        raise PolicyError(
            "policy.refused",
            "the model isn't released",
            "The manifests' output constraints don't allow it.",
            details=unmet,
        )


def state_release(
    model_file: bytes,
    weights: Mapping[str, np.ndarray],
    goal: Goal,
    hub: StatementWriter,
    mechanism: str,
    *,
    protection: Protection = Protection.SIMULATED,
) -> tuple[OutputConstraint, ...]:
    """Hold the model file against the output constraints and write the result into the hub's log.

    Args:
        model_file: The encoded model.
        weights: The tensors in it.
        goal: The hospitals' constraints.
        hub: The hub's statement writer.
        mechanism: What protected the training, as the job names it.
        protection: How the run was protected; one that was insecure states so, and is never approved.

    Returns:
        Every constraint, with whether it is satisfied.
    """
    constraints = hold_against(model_file, weights, goal, mechanism)
    if protection is Protection.INSECURE:
        constraints = (*constraints, INSECURE_RUN)
    digest = sha256_hex(model_file)
    hub.write(
        Release,
        (Subject(name="model", sha256=digest),),
        model_sha256=digest,
        model_bytes=len(model_file),
        weights_sha256=tensors_sha256(weights),
        constraints=constraints,
        approved=all(one.satisfied for one in constraints),
    )
    return constraints


def _site_score(test: TestSet, site: str, risk: np.ndarray, smallest: int) -> SiteScore:
    rows = test.rows_of(site)
    if rows.size == 0:
        return SiteScore(None, None, "the test set has no rows of this site")
    if rows.size < smallest:
        return SiteScore(None, None, f"fewer than {smallest} patients, the suppression threshold")
    labels, own = test.labels[rows], risk[rows]
    area = auroc(labels, own)
    if isinstance(area, Undefined):
        return SiteScore(accuracy(labels, own), None, area.reason)
    if min(np.count_nonzero(labels), np.count_nonzero(labels == 0)) < smallest:
        reason = f"fewer than {smallest} patients of one class, the suppression threshold"
        return SiteScore(accuracy(labels, own), None, reason)
    return SiteScore(accuracy(labels, own), area, "")
