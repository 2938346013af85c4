"""Metrics equal scikit-learn's, the baseline is computed, and what is undefined says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as reference

from cloister.core.errors import InputError
from cloister.evidence.scoring import improvement_score
from cloister.policy import PrimaryMetric
from cloister.workflow.metrics import (
    Labels,
    Scores,
    Undefined,
    accuracy,
    auroc,
    best_constant,
    evaluate,
    f1,
    measure,
    wilson_interval,
)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Labels, Scores]:
    records = draw(st.integers(1, 60))
    labels = draw(arrays(np.int64, records, elements=st.integers(0, 1)))
    # Few distinct scores make ties, which is where rank sums go wrong.
    score = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))
    return labels, draw(arrays(np.float64, records, elements=score))


@given(predictions())
def test_accuracy_equals_the_reference(drawn: tuple[Labels, Scores]) -> None:
    labels, scores = drawn
    assert accuracy(labels, scores) == pytest.approx(reference.accuracy_score(labels, scores >= 0.5))


@given(predictions())
def test_auroc_equals_the_reference_ties_included(drawn: tuple[Labels, Scores]) -> None:
    labels, scores = drawn
    assume(len(set(labels)) == 2)
    assert auroc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, scores), abs=1e-12)


@given(predictions())
def test_f1_equals_the_reference(drawn: tuple[Labels, Scores]) -> None:
    labels, scores = drawn
    predicted = (scores >= 0.5).astype(np.int64)
    assume(labels.any() or predicted.any())
    assert f1(labels, scores) == pytest.approx(reference.f1_score(labels, predicted, zero_division=0.0))


@pytest.mark.parametrize("label", [0, 1])
def test_auroc_of_a_single_class_is_undefined_and_says_why(label: int) -> None:
    found = auroc(np.full(16, label), np.linspace(0, 1, 16))
    assert found == Undefined("all 16 records of the test set have the same class")


def test_f1_without_a_positive_is_undefined_and_says_why() -> None:
    assert isinstance(f1(np.zeros(5, dtype=np.int64), np.zeros(5)), Undefined)
    assert f1(np.zeros(5, dtype=np.int64), np.ones(5)) == 0.0


@given(predictions())
def test_the_baseline_is_what_the_better_constant_answer_scores(drawn: tuple[Labels, Scores]) -> None:
    labels, _ = drawn
    share = labels.mean()
    assert best_constant(PrimaryMetric.ACCURACY, labels) == pytest.approx(max(share, 1 - share))
    if 0 < share < 1:
        assert best_constant(PrimaryMetric.AUROC, labels) == 0.5
    assert best_constant(PrimaryMetric.F1, labels) == pytest.approx(2 * share / (1 + share))


def test_a_baseline_that_is_undefined_says_why() -> None:
    assert isinstance(best_constant(PrimaryMetric.AUROC, np.ones(4, dtype=np.int64)), Undefined)


@pytest.mark.parametrize(
    ("value", "baseline", "score"),
    [(0.88, 0.78, 0.4545454545), (1.0, 0.5, 1.0), (0.5, 0.5, 0.0), (0.4, 0.5, -0.2), (0.75, 0.5, 0.5)],
)
def test_known_pairs_give_known_improvement_scores(value: float, baseline: float, score: float) -> None:
    assert improvement_score(value, baseline) == pytest.approx(score)


def test_a_perfect_baseline_leaves_nothing_to_improve() -> None:
    assert improvement_score(1.0, 1.0) == 0.0
    assert improvement_score(0.9, 1.0) == 0.0


def test_the_interval_equals_published_figures() -> None:
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    for correct, records, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
    ):
        interval = wilson_interval(correct, records)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.data())
def test_the_interval_holds_the_share_it_is_about(records: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, records))
    interval = wilson_interval(correct, records)
    assert 0 <= interval.low <= correct / records + 1e-12
    assert correct / records - 1e-12 <= interval.high <= 1


LABELS = np.array([0, 0, 0, 1, 1])
SCORES = np.array([0.1, 0.2, 0.6, 0.7, 0.9])


@pytest.mark.parametrize(
    ("metric", "value", "baseline"),
    [(PrimaryMetric.ACCURACY, 0.8, 0.6), (PrimaryMetric.AUROC, 1.0, 0.5), (PrimaryMetric.F1, 0.8, 4 / 7)],
)
def test_an_evaluation_says_what_was_measured_and_against_what(
    metric: PrimaryMetric, value: float, baseline: float
) -> None:
    found = evaluate(metric, LABELS, SCORES, threshold=value, test_set="small")
    assert (found.metric, found.test_set, found.records) == (metric, "small", 5)
    assert found.value == pytest.approx(value) == measure(metric, LABELS, SCORES)
    assert found.baseline_name == "best-constant"
    assert found.baseline_value == pytest.approx(baseline)
    assert found.improvement_score == pytest.approx((value - baseline) / (1 - baseline))
    assert (found.interval is not None) == (metric is PrimaryMetric.ACCURACY)


def test_the_threshold_is_reached_or_missed_by_the_value_itself() -> None:
    assert evaluate(PrimaryMetric.ACCURACY, LABELS, SCORES, threshold=0.8, test_set="small").passed
    assert not evaluate(PrimaryMetric.ACCURACY, LABELS, SCORES, threshold=0.8000001, test_set="small").passed


def test_an_undefined_primary_metric_is_an_error_and_not_a_score() -> None:
    with pytest.raises(InputError, match="same class"):
        evaluate(PrimaryMetric.AUROC, np.ones(5, dtype=np.int64), SCORES, threshold=0.5, test_set="small")


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        (LABELS, SCORES[:4]),
        (LABELS[:0], SCORES[:0]),
        (LABELS, SCORES.reshape(5, 1)),
        (LABELS, np.array([0.1, 0.2, np.nan, 0.7, 0.9])),
        (LABELS, np.array([0.1, 0.2, np.inf, 0.7, 0.9])),
        (np.array([0, 1, 2, 1, 0]), SCORES),
        (np.array([0, 1, -1, 1, 0]), SCORES),
    ],
)
@pytest.mark.parametrize("metric", list(PrimaryMetric))
def test_input_that_does_not_fit_is_refused(metric: PrimaryMetric, labels: Labels, scores: Scores) -> None:
    with pytest.raises(InputError) as caught:
        measure(metric, labels, scores)
    assert caught.value.code == "input.schema"
