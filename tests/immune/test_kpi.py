"""Rates, thresholds, percentiles: by hand, against brute force, and never over nothing."""

from __future__ import annotations

import statistics
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.errors import ImmuneError
from cloister.immune.kpi import (
    Detection,
    area_under_curve,
    detection,
    latency,
    percentile,
    threshold_at,
    true_positive_rate_at,
)

judged = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200)
# Few different scores, so that ties happen.
scores = st.lists(st.one_of(st.integers(0, 8).map(float), st.floats(0, 8)), min_size=1, max_size=60)


@settings(max_examples=200)
@given(judged)
def test_the_false_positive_rate_is_the_flagged_share_of_the_ordinary_ones_exactly(
    calls: list[tuple[bool, bool]],
) -> None:
    """PIC-P48: FPR calculation: FPR = F / B."""
    benign = sum(not bad for bad, _ in calls)
    flagged = sum(marked and not bad for bad, marked in calls)
    found = detection(calls)
    assert (found.benign, found.flagged) == (benign, flagged)
    if benign:
        assert found.false_positive_rate == float(Fraction(flagged, benign))
    else:
        with pytest.raises(ImmuneError):
            _ = found.false_positive_rate


@settings(max_examples=200)
@given(judged)
def test_the_true_positive_rate_is_the_detected_share_of_the_malicious_ones_exactly(
    calls: list[tuple[bool, bool]],
) -> None:
    """PIC-P49: TPR calculation: TPR = D / M."""
    malicious = sum(bad for bad, _ in calls)
    detected = sum(bad and marked for bad, marked in calls)
    found = detection(calls)
    assert (found.malicious, found.detected) == (malicious, detected)
    if malicious:
        assert found.true_positive_rate == float(Fraction(detected, malicious))
    else:
        with pytest.raises(ImmuneError):
            _ = found.true_positive_rate


def test_rates_by_hand() -> None:
    found = Detection(benign=1000, flagged=37, malicious=40, detected=31)
    assert found.false_positive_rate == 0.037
    assert found.true_positive_rate == 0.775


@pytest.mark.parametrize("counts", [(1, 2, 0, 0), (0, 0, 1, 2), (1, -1, 0, 0), (0, 0, 1, -1)])
def test_more_flagged_than_there_are_is_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ImmuneError) as refused:
        Detection(*counts)
    assert refused.value.code == "immune.measure_undefined"


@settings(max_examples=150)
@given(scores, scores)
def test_the_area_under_the_curve_is_the_share_of_pairs_in_the_right_order_ties_half(
    benign: list[float], malicious: list[float]
) -> None:
    right = sum((bad > good) + 0.5 * (bad == good) for bad in malicious for good in benign)
    assert area_under_curve(benign, malicious) == pytest.approx(right / len(benign) / len(malicious))


@settings(max_examples=150)
@given(scores, scores, st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.99]))
def test_a_threshold_is_the_lowest_score_above_which_no_more_than_the_share_lies(
    benign: list[float], malicious: list[float], share: float
) -> None:
    threshold = threshold_at(benign, share)
    assert sum(score > threshold for score in benign) <= share * len(benign)
    for lower in sorted(set(benign)):
        if lower < threshold:
            assert sum(score > lower for score in benign) > share * len(benign)
    expected = sum(score > threshold for score in malicious) / len(malicious)
    assert true_positive_rate_at(benign, malicious, share) == expected


def test_rates_at_a_threshold_by_hand() -> None:
    benign = [float(one) for one in range(1, 101)]
    assert threshold_at(benign, 0.05) == 95.0
    assert true_positive_rate_at(benign, [94.0, 95.0, 95.5, 200.0], 0.05) == 0.5
    assert true_positive_rate_at(benign, [99.0, 99.5], 0.01) == 0.5


@settings(max_examples=150)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=80))
def test_percentiles_are_those_of_the_statistics_module(values: list[float]) -> None:
    reference = statistics.quantiles(values, n=100, method="inclusive")
    for rank in (1, 50, 95, 99):
        assert percentile(values, rank) == pytest.approx(reference[rank - 1], rel=1e-9, abs=1e-9)
    assert percentile(values, 0) == min(values)
    assert percentile(values, 100) == max(values)


def test_latency_by_hand() -> None:
    found = latency([one / 1000 for one in range(101)])
    assert (found.p50, found.p95, found.p99) == pytest.approx((0.050, 0.095, 0.099))
    assert latency([2.0]).p99 == 2.0


@pytest.mark.parametrize(
    "ask",
    [
        lambda: area_under_curve([], [1.0]),
        lambda: area_under_curve([1.0], []),
        lambda: threshold_at([], 0.05),
        lambda: threshold_at([1.0], 1.0),
        lambda: threshold_at([1.0], -0.1),
        lambda: true_positive_rate_at([1.0], [], 0.05),
        lambda: percentile([], 50),
        lambda: percentile([1.0], 101),
        lambda: latency([]),
    ],
)
def test_a_figure_over_nothing_is_refused_by_its_code(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(ImmuneError) as refused:
        ask()
    assert refused.value.code == "immune.measure_undefined"
