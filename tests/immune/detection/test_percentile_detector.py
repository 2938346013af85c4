"""The seed's detector, as it is described, for comparison."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.detection import DetectorSettings, PercentileDetector
from cloister.immune.detection.normalizer import FeatureNormalizer, percentile
from cloister.immune.errors import ImmuneError
from tests.immune.detection.streams import call, slower, stream

values = st.floats(min_value=-1e9, max_value=1e9)


@settings(max_examples=150)
@given(st.lists(values, min_size=1, max_size=80), st.floats(min_value=0.0, max_value=100.0))
def test_percentiles_are_those_of_numpy(column: list[float], percent: float) -> None:
    expected = float(np.percentile(column, percent))
    assert percentile(sorted(column), percent) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@settings(max_examples=150)
@given(st.lists(values, min_size=2, max_size=80), values)
def test_every_value_is_scaled_to_between_0_and_1_in_its_order(column: list[float], other: float) -> None:
    normalizer = FeatureNormalizer([[value] for value in column])
    scaled = [normalizer.capped([value])[0] for value in sorted([*column, other])]
    assert scaled == sorted(scaled)
    assert 0.0 <= scaled[0] <= scaled[-1] <= 1.0
    assert normalizer.capped([min(column)]) == [0.0]


def test_a_value_above_the_99th_percentile_is_1_and_uncapped_keeps_how_far() -> None:
    normalizer = FeatureNormalizer([[float(value)] for value in range(101)])
    assert normalizer.capped([99.0]) == [1.0]
    assert normalizer.capped([200.0]) == normalizer.capped([1e6]) == [1.0]
    assert normalizer.uncapped([198.0]) == [2.0]


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_a_missing_value_is_taken_for_the_median(missing: float) -> None:
    rows = [[1.0], [2.0], [9.0], [missing]]
    normalizer = FeatureNormalizer(rows)
    assert normalizer.capped([missing]) == normalizer.capped([2.0])


def test_a_column_without_values_and_one_that_never_varies_are_harmless() -> None:
    normalizer = FeatureNormalizer([[math.nan, 5.0], [math.nan, 5.0]])
    assert normalizer.capped([math.nan, 5.0]) == [0.0, 0.0]
    assert normalizer.capped([3.0, 6.0]) == [1.0, 1.0]


def taught(count: int = 900, seed: int = 3) -> PercentileDetector:
    detector = PercentileDetector()
    for observed in stream(seed, count):
        detector.learn(observed)
    return detector


def test_nineteen_calls_judge_nothing_and_the_twentieth_begins() -> None:
    assert taught(19).score(call(1e3)).value == 0.0
    assert not taught(19).judging
    assert taught(19).summary() is None
    assert taught(20).judging


def test_the_distance_is_l2_from_the_mean_of_normalised_vectors() -> None:
    detector = taught(200)
    rows = np.array(detector._rows).reshape(-1, 4)
    medians = np.nanmedian(rows, axis=0)
    rows = np.where(np.isnan(rows), medians, rows)
    low, cap = rows.min(axis=0), np.array([np.percentile(column, 99) for column in rows.T])
    detector.refit()
    raw = np.array(detector._rows).reshape(-1, 4)
    cap[2] = np.nanpercentile(raw[:, 2], 99)
    scaled = np.clip((rows - low) / (cap - low), 0.0, 1.0)
    expected = np.sort(np.linalg.norm(scaled - scaled.mean(axis=0), axis=1))
    assert np.array(detector._distances) == pytest.approx(expected, rel=1e-9)


def test_the_rank_of_a_distance_is_the_share_of_smaller_ones() -> None:
    detector = taught(99)
    detector.refit()
    known = list(detector._distances)
    assert detector.rank(known[0]) == pytest.approx(0.5)
    assert detector.rank(known[49]) == pytest.approx(49.5)
    assert detector.rank(math.inf) == pytest.approx(99.5)


def test_the_thresholds_are_the_95th_percentile_and_the_originals_three_deviations() -> None:
    detector = taught(400)
    found = detector.distances()
    assert found is not None
    assert found.threshold == pytest.approx(float(np.percentile(detector._distances, 95)))
    mean, std = float(np.mean(detector._distances)), float(np.std(detector._distances))
    assert found.mean_and_three_std == pytest.approx(mean + 3 * std)
    assert PercentileDetector().distances() is None


DETECTOR = taught()
LAST = list(stream(3, 901))[-1]


@settings(max_examples=150)
@given(st.floats(min_value=0.0, max_value=2.0), st.floats(min_value=0.0, max_value=2.0))
def test_a_larger_distance_never_scores_lower(one: float, other: float) -> None:
    """PIC-P6: score monotonicity, in the seed's own words."""
    low, high = DETECTOR.rank(min(one, other)), DETECTOR.rank(max(one, other))
    assert low <= high


@settings(max_examples=150)
@given(st.floats(min_value=0.1, max_value=1e5), st.integers(min_value=0, max_value=10**9))
def test_above_80_means_a_rank_above_the_threshold(factor: float, size: int) -> None:
    """PIC-P7: candidate generation, of the seed's detector."""
    observed = slower(replace(LAST, entered=replace(LAST.entered, size=size)), factor)
    score = DETECTOR.score(observed)
    assert (score.value > 80.0) == (score.p < 1.0 - 95.0 / 100.0)
    assert 0.0 <= score.value <= 100.0


def test_an_outlier_of_twice_and_of_a_hundred_times_differ_in_how_large_they_are_said_to_be() -> None:
    far, farther = DETECTOR.score(slower(LAST, 1e2)), DETECTOR.score(slower(LAST, 1e4))
    assert far.value == farther.value
    assert farther.times > 10.0 * far.times
    assert far.feature == "distance"


def test_five_percent_of_ordinary_calls_are_above_80() -> None:
    flagged = [DETECTOR.score(observed).value > 80.0 for observed in stream(44, 3000)]
    assert 0.02 < sum(flagged[30:]) / 2970 < 0.1


def test_at_entry_the_duration_is_taken_for_the_median() -> None:
    large = replace(LAST.entered, size=10**7)
    assert DETECTOR.entry(large).value > 80.0
    assert DETECTOR.entry(LAST.entered).value < 80.0


def test_the_summary_is_that_of_the_newest_thousand_durations() -> None:
    detector = taught(1500)
    durations = [observed.duration for observed in stream(3, 1500)][500:]
    summary = detector.summary()
    assert summary is not None
    assert summary.learned == 1500
    assert summary.mean == pytest.approx(float(np.mean(durations)))
    assert summary.std == pytest.approx(float(np.std(durations)))
    for name, percent in (("p50", 50), ("p95", 95), ("p99", 99)):
        assert getattr(summary, name) == pytest.approx(float(np.percentile(durations, percent)))
    assert detector.level("duration") == pytest.approx(float(np.median(durations[-100:])))
    assert math.isnan(detector.level("caller"))


@pytest.mark.parametrize("count", [0, 10, 350, 1200])
def test_a_detector_that_was_written_down_goes_on_as_if_nothing_had_happened(count: int) -> None:
    detector = taught(count)
    document = json.loads(json.dumps(detector.as_json(), allow_nan=False))
    again = PercentileDetector.from_json(document)
    assert again.as_json() == document
    for observed in stream(9, 150):
        assert again.score(observed) == detector.score(observed)
        again.learn(observed)
        detector.learn(observed)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [1.0]},
        {"rows": [None, 1.0, 1.0, 1.0]},
        {"rows": [-1.0, 1.0, 1.0, 1.0]},
        {"rows": [1.0] * 4004},
        {"rows": [math.inf, 1.0, 1.0, 1.0]},
        {"learned": 0},
        {"errors": 10**6},
        {"calls": "many"},
        {"started": math.nan},
        {"kind": "tail"},
        {"more": 1},
    ],
)
def test_a_damaged_document_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ImmuneError) as refused:
        PercentileDetector.from_json({**taught(30).as_json(), **change})
    assert refused.value.code == "immune.baseline_damaged"


def test_no_number_however_wild_raises() -> None:
    rng = random.Random(1)
    wild = [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 1e-320, 10**400, -(10**30), 7]
    detector = taught(50)
    for _ in range(500):
        at, duration = (float(rng.choice(wild[:7])) for _ in range(2))
        size, calls, errors = (int(rng.choice([10**400, -5, 0, 3])) for _ in range(3))
        observed = call(at, duration, size, "", calls, errors, failed=rng.random() < 0.5)
        assert 0.0 <= detector.score(observed).value <= 100.0
        assert 0.0 <= detector.entry(observed.entered).value <= 100.0
        detector.learn(observed)
    assert PercentileDetector.from_json(detector.as_json(), DetectorSettings()).learned == detector.learned
