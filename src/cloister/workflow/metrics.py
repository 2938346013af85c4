"""How good a model is on a test set, and how much better than no model.

Rules kept here:

- Two classes: labels are 0 and 1, a score is the probability of class 1, and a score of 0.5 or more
  predicts class 1.
- A metric that the labels leave undefined is :class:`Undefined` with the reason, never a number.
- The baseline is computed on the same test set: the constant answer that scores best there. Nobody can
  claim one.
- Reaching the threshold is decided on the value itself, not on a rounded one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cloister.core.errors import InputError
from cloister.evidence.scoring import improvement_score
from cloister.policy.manifest import PrimaryMetric

Labels: TypeAlias = npt.NDArray[np.int64]
Scores: TypeAlias = npt.NDArray[np.float64] | npt.NDArray[np.float32]

DECISION_POINT = 0.5
BASELINE_NAME = "best-constant"
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Undefined:
    """A metric that has no value here, and why."""

    reason: str


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of a proportion."""

    low: float
    high: float


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        test_set: The test set's name.
        records: Number of records in it.
        metric: The metric.
        value: The model's value.
        interval: Interval of the value; for accuracy only, which alone is a proportion.
        baseline_name: Name of the baseline.
        baseline_value: The baseline's value of the same metric on the same records.
        improvement_score: Share of the baseline's shortfall that the model makes up.
        threshold: Value the manifest asks for.
        passed: Whether the value reaches the threshold.
    """

    test_set: str
    records: int
    metric: PrimaryMetric
    value: float
    interval: Interval | None
    baseline_name: str
    baseline_value: float
    improvement_score: float
    threshold: float
    passed: bool


def accuracy(labels: Labels, scores: Scores) -> float:
    """Return the share of records predicted right.

    Args:
        labels: Classes, int [n].
        scores: Probability of class 1, float [n].

    Raises:
        InputError: The arrays are empty, differ in length or hold what they mustn't.
    """
    _check(labels, scores)
    return _correct(labels, scores) / labels.size


def auroc(labels: Labels, scores: Scores) -> float | Undefined:
    """Return the area under the ROC curve: how often a positive scores above a negative, ties half.

    Args:
        labels: Classes, int [n].
        scores: Probability of class 1, float [n].

    Returns:
        The area, or Undefined if the labels hold one class only.

    Raises:
        InputError: The arrays are empty, differ in length or hold what they mustn't.

    Source: Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006), section 7;
    computed by average ranks (Mann-Whitney U).
    """
    _check(labels, scores)
    positives = int(np.count_nonzero(labels == 1))
    negatives = labels.size - positives
    if positives == 0 or negatives == 0:
        return Undefined(f"all {labels.size} records of the test set have the same class")
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(sizes, dtype=np.float64)
    mean_rank = last_rank - (sizes - 1) / 2
    rank_sum = float(mean_rank[group][labels == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def f1(labels: Labels, scores: Scores) -> float | Undefined:
    """Return the harmonic mean of precision and recall for class 1.

    Args:
        labels: Classes, int [n].
        scores: Probability of class 1, float [n].

    Returns:
        The score, or Undefined if no record is positive and none is predicted so.

    Raises:
        InputError: The arrays are empty, differ in length or hold what they mustn't.

    Source: van Rijsbergen, "Information Retrieval", 2nd ed. (1979), chapter 7.
    """
    _check(labels, scores)
    predicted = scores >= DECISION_POINT
    hits = int(np.count_nonzero(predicted & (labels == 1)))
    named = int(np.count_nonzero(predicted)) + int(np.count_nonzero(labels == 1))
    if named == 0:
        return Undefined("no record is positive and none is predicted to be")
    return 2 * hits / named


def measure(metric: PrimaryMetric, labels: Labels, scores: Scores) -> float | Undefined:
    """Return the value of a metric; see :func:`accuracy`, :func:`auroc` and :func:`f1`."""
    match metric:
        case PrimaryMetric.ACCURACY:
            return accuracy(labels, scores)
        case PrimaryMetric.AUROC:
            return auroc(labels, scores)
        case PrimaryMetric.F1:
            return f1(labels, scores)


def best_constant(metric: PrimaryMetric, labels: Labels) -> float | Undefined:
    """Return what the better of the two constant answers scores on a test set.

    For accuracy that is the share of the majority class, for AUROC one half.

    Args:
        metric: The metric.
        labels: Classes, int [n].

    Raises:
        InputError: The labels are empty or hold something else than 0 and 1.
    """
    values = [
        measure(metric, labels, np.full(labels.shape, answer, dtype=np.float64)) for answer in (0.0, 1.0)
    ]
    numbers = [value for value in values if isinstance(value, float)]
    return max(numbers) if numbers else values[0]


def wilson_interval(correct: int, records: int) -> Interval:
    """Return the 95 % interval of a proportion.

    Args:
        correct: Number of successes.
        records: Number of trials, 1 or more.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    share, z2 = correct / records, _Z_95**2
    centre = (share + z2 / (2 * records)) / (1 + z2 / records)
    half = _Z_95 / (1 + z2 / records) * sqrt(share * (1 - share) / records + z2 / (4 * records**2))
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def evaluate(
    metric: PrimaryMetric, labels: Labels, scores: Scores, *, threshold: float, test_set: str
) -> EvaluationResult:
    """Measure a model on a test set against a threshold and the baseline.

    Args:
        metric: The manifest's metric.
        labels: Classes of the test set, int [n].
        scores: The model's probability of class 1, float [n].
        threshold: Value to reach.
        test_set: The test set's name.

    Raises:
        InputError: The arrays don't fit, or the metric is undefined on this test set.
    """
    value, baseline = measure(metric, labels, scores), best_constant(metric, labels)
    for found in (value, baseline):
        if isinstance(found, Undefined):
            raise InputError(
                "input.schema",
                f"{metric.value} can't be measured on the test set {test_set}: {found.reason}",
                "Name a test set with both classes, or another primary metric, in the manifest.",
            )
    assert isinstance(value, float)
    assert isinstance(baseline, float)
    return EvaluationResult(
        test_set=test_set,
        records=int(labels.size),
        metric=metric,
        value=value,
        interval=wilson_interval(_correct(labels, scores), int(labels.size))
        if metric is PrimaryMetric.ACCURACY
        else None,
        baseline_name=BASELINE_NAME,
        baseline_value=baseline,
        improvement_score=improvement_score(value, baseline),
        threshold=threshold,
        passed=value >= threshold,
    )


def _correct(labels: Labels, scores: Scores) -> int:
    return int(np.count_nonzero((scores >= DECISION_POINT) == (labels == 1)))


def _check(labels: Labels, scores: Scores) -> None:
    if labels.ndim != 1 or labels.size == 0 or scores.shape != labels.shape:
        raise InputError(
            "input.schema",
            "labels and scores must be two lists of the same length, with at least one record",
            "Check the test set and the model's output.",
        )
    if not bool(np.isin(labels, (0, 1)).all()) or not bool(np.isfinite(scores).all()):
        raise InputError(
            "input.schema",
            "labels must be 0 or 1 and scores must be finite",
            "Check the test set, and whether training diverged.",
        )
