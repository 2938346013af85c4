"""Checks on what came out: the evaluation, the model file, the summary, and the fixed sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from cloister.core.errors import CloisterError
from cloister.evidence.checks import Check, judged
from cloister.evidence.compliance import CLAIMS_NOT_MADE, COMPLIANCE_STATEMENTS
from cloister.evidence.context import ReceiptContext
from cloister.evidence.epsilon import EpsilonFigures
from cloister.evidence.predicates import (
    RELEASE_CONSTRAINTS,
    Evaluation,
    JobOpened,
    Release,
    Settlement,
    UpdateReleased,
)
from cloister.evidence.record import JobRecord
from cloister.evidence.scoring import improvement_score
from cloister.evidence.summary import summarise
from cloister.evidence.terms import MODEL_WEIGHTS
from cloister.evidence.verification.airlock import forms_of

WHOLE: Final = 1e-6


def check_evaluation(context: ReceiptContext) -> Check:
    """The metric, test set and threshold are the manifests', and score and verdict follow from the values.

    Credits, where the hub settled the job, are for that score and go to sites whose updates were used.
    """
    record = context.record
    found = record.by(record.issuer, Evaluation)
    problems = [problem for one in found[:1] for problem in _evaluation_problems(record, one)]
    if len(found) != 1:
        problems.append(f"there are {len(found)} evaluations")
    problems += _settlement_problems(record, found)
    return judged("evaluation", problems, "".join(map(_in_words, found[:1])))


def _settlement_problems(record: JobRecord, found: Sequence[Evaluation]) -> Iterator[str]:
    settled = record.by(record.issuer, Settlement)
    if len(settled) > 1:
        yield f"the job was settled {len(settled)} times"
    for one in settled:
        if any(one.improvement_score != evaluation.improvement_score for evaluation in found):
            yield "the credits are for another improvement score"
        strangers = sorted(one.credits.keys() - set(record.participants))
        if strangers:
            yield f"credits went to {', '.join(strangers)}, whose updates were not used"


def _in_words(one: Evaluation) -> str:
    verdict = "reaches" if one.passed else "misses"
    return f"{one.metric} {one.value:.4f} on {one.test_set}, {verdict} {one.threshold:g}"


def _evaluation_problems(record: JobRecord, one: Evaluation) -> Iterator[str]:
    expected = improvement_score(one.value, one.baseline_value)
    if not math.isclose(one.improvement_score, expected, rel_tol=1e-9, abs_tol=1e-12):
        yield f"the improvement score is {expected:.6f}, not {one.improvement_score:.6f}"
    if one.passed != (one.value >= one.threshold):
        yield "the verdict doesn't follow from value and threshold"
    metrics = [manifest.terms.success_metrics for manifest in record.manifests.values()]
    if any(metric.primary_metric != one.metric for metric in metrics):
        yield "the metric is not every manifest's"
    test_set = (one.test_set, one.test_set_sha256, one.records)
    for method in (metric.evaluation_method for metric in metrics):
        if (method.test_set, method.test_set_sha256, method.test_set_records) != test_set:
            yield "the test set is not every manifest's, by name, hash and records"
            break
    if not metrics or one.threshold != max(metric.threshold for metric in metrics):
        yield "the threshold is not the strictest manifest's"
    if any(opened.test_set != one.test_set for opened in record.by(record.issuer, JobOpened)):
        yield "the job was opened for another test set"
    yield from _impossible_figures(record, one)


def _impossible_figures(record: JobRecord, one: Evaluation) -> Iterator[str]:
    """What no measurement on so many records can have come to, whoever made it."""
    if one.metric == "auroc" and one.baseline_value != 0.5:
        yield "a constant answer has an AUROC of 0.5, not the baseline stated"
    if one.metric == "accuracy":
        if one.baseline_value < 0.5:
            yield "the better of two constant answers is right at least half the time, the baseline is not"
        for name, value in (("accuracy", one.value), ("baseline", one.baseline_value)):
            if abs(value * one.records - round(value * one.records)) > WHOLE:
                yield f"the {name} is no whole number of {one.records} records"
    figures = [(figure.site, figure.metric) for figure in one.sites]
    if len(set(figures)) != len(figures) or any(site not in record.clients for site, _ in figures):
        yield "a figure is given twice, or for no site of the job"
    if any((figure.value is None) != bool(figure.reason) for figure in one.sites):
        yield "a site has neither a figure nor a reason why not, or both"


def check_model_hash(context: ReceiptContext) -> Check:
    """The model file is the released one, within all constraints, and holds the tensors that were trained."""
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
        if sorted(constraint.name for constraint in one.constraints) != sorted(RELEASE_CONSTRAINTS):
            problems.append("the release was held against other constraints than it has to be")
        if not one.approved or not all(constraint.satisfied for constraint in one.constraints):
            problems.append("the release was not approved")
        if one.weights_sha256 != model.weights_sha256:
            problems.append("the model file doesn't hold the weights that were released")
    for site, manifest in sorted(record.manifests.items()):
        outputs = manifest.terms.output_constraints
        if model.bytes > outputs.max_model_bytes:
            problems.append(f"the model file is larger than the manifest of {site} allows")
        if MODEL_WEIGHTS not in outputs.allowed_outputs:
            problems.append(f"the manifest of {site} lets no weights out")
    if any(forms_of(one) != model.tensors for one in record.of(UpdateReleased)):
        problems.append("the model file holds other tensors than the sites trained")
    return judged("model-hash", problems, f"{section.name} is the released model, {model.bytes} bytes")


def check_summary(context: ReceiptContext) -> Check:
    """Every figure of the summary is what the statements say (epsilon has a check of its own)."""
    stated = context.body.summary
    figures = {
        site: EpsilonFigures(
            one.epsilon,
            one.epsilon_dataset_total,
            one.epsilon_other,
            one.epsilon_held,
            one.epsilon_dataset_held,
        )
        for site, one in stated.privacy.items()
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
