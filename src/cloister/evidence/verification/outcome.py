"""Checks on what came out: the evaluation, the model file, the summary, and the fixed sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cloister.core.errors import CloisterError
from cloister.evidence.checks import Check, judged
from cloister.evidence.compliance import CLAIMS_NOT_MADE, COMPLIANCE_STATEMENTS
from cloister.evidence.context import ReceiptContext
from cloister.evidence.epsilon import EpsilonFigures
from cloister.evidence.predicates import Evaluation, JobOpened, Release
from cloister.evidence.record import JobRecord
from cloister.evidence.scoring import improvement_score
from cloister.evidence.summary import summarise


def check_evaluation(context: ReceiptContext) -> Check:
    """The metric, test set and threshold are the manifests', and score and verdict follow from the values."""
    record = context.record
    found = record.by(record.issuer, Evaluation)
    problems = [problem for one in found for problem in _evaluation_problems(record, one)]
    if not found:
        problems.append("there is no evaluation")
    return judged("evaluation", problems, "; ".join(map(_in_words, found)))


def _in_words(one: Evaluation) -> str:
    verdict = "reaches" if one.passed else "misses"
    return f"{one.metric} {one.value:.4f} on {one.test_set}, {verdict} {one.threshold:g}"


def _evaluation_problems(record: JobRecord, one: Evaluation) -> Iterator[str]:
    expected = improvement_score(one.value, one.baseline_value)
    if not math.isclose(one.improvement_score, expected, rel_tol=1e-9, abs_tol=1e-12):
        yield f"the improvement score is {expected:.6f}, not {one.improvement_score:.6f}"
    if one.passed != (one.value >= one.threshold):
        yield "the verdict doesn't follow from value and threshold"
    metrics = [
        record.manifests[site].terms.success_metrics
        for site in record.participants
        if site in record.manifests
    ]
    if any(metric.primary_metric != one.metric for metric in metrics):
        yield "the metric is not every manifest's"
    if any(metric.evaluation_method.test_set != one.test_set for metric in metrics):
        yield "the test set is not every manifest's"
    if not metrics or one.threshold != max(metric.threshold for metric in metrics):
        yield "the threshold is not the strictest manifest's"
    if any(opened.test_set != one.test_set for opened in record.by(record.issuer, JobOpened)):
        yield "the job was opened for another test set"


def check_model_hash(context: ReceiptContext) -> Check:
    """The model file is the released one, within all constraints, and holds the weights that were trained."""
    record, model = context.record, context.model
    problems: list[str] = []
    section = context.body.model
    if (section.sha256, section.bytes) != (model.sha256, model.bytes):
        problems.append("the model file is not the one the receipt is about")
    releases = record.by(record.issuer, Release)
    if not releases:
        problems.append("no release is stated")
    for one in releases:
        if (one.model_sha256, one.model_bytes) != (model.sha256, model.bytes):
            problems.append("the model file is not the one that was released")
        if not one.approved or not all(constraint.satisfied for constraint in one.constraints):
            problems.append("the release was not approved")
        if one.weights_sha256 != model.weights_sha256:
            problems.append("the model file doesn't hold the weights that were released")
    for site in record.participants:
        manifest = record.manifests.get(site)
        if manifest is not None and model.bytes > manifest.terms.output_constraints.max_model_bytes:
            problems.append(f"the model file is larger than the manifest of {site} allows")
    return judged("model-hash", problems, f"{section.name} is the released model, {model.bytes} bytes")


def check_summary(context: ReceiptContext) -> Check:
    """Every figure of the summary is what the statements say (epsilon has a check of its own)."""
    stated = context.body.summary
    figures = {
        site: EpsilonFigures(one.epsilon, one.epsilon_dataset_total) for site, one in stated.privacy.items()
    }
    try:
        recomputed = summarise(context.record, figures)
    except CloisterError as error:
        return judged("summary", [error.message], "")
    wrong = [name for name in type(stated).model_fields if getattr(stated, name) != getattr(recomputed, name)]
    return judged(
        "summary", [f"{name} is not what the statements say" for name in wrong], "follows from the statements"
    )


def check_compliance(context: ReceiptContext) -> Check:
    """The fixed sentences are there word for word: what credits are not, and what isn't claimed."""
    problems: list[str] = []
    if context.body.compliance != COMPLIANCE_STATEMENTS:
        problems.append("the compliance sentences are not the agreed ones")
    if context.body.claims_not_made != CLAIMS_NOT_MADE:
        problems.append("the list of claims not made was changed")
    return judged("compliance", problems, f"{len(COMPLIANCE_STATEMENTS)} sentences, word for word")
