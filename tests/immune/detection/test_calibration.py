"""What is said to happen once in twenty or a hundred calls happens as often, where nothing changes."""

from __future__ import annotations

import math

import pytest

from cloister.immune.detection import TailDetector
from tests.immune.detection.streams import SHAPES, attend, stream


def ratios(shape: str, seeds: range, count: int, *, lively: bool) -> dict[float, float]:
    """Observed over promised, after the first thousand calls."""
    below = dict.fromkeys((0.05, 0.01), 0)
    judged = 0
    for seed in seeds:
        scores = attend(TailDetector(), stream(seed, count, SHAPES[shape], lively=lively))[1000:]
        judged += len(scores)
        for p in below:
            below[p] += sum(score.p < p for score in scores)
    return {p: found / (p * judged) for p, found in below.items()}


@pytest.mark.parametrize("lively", [True, False], ids=["all-features", "durations-only"])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_of_stationary_calls_the_promised_shares_are_unusual(shape: str, lively: bool) -> None:
    found = ratios(shape, range(500, 503), 6000, lively=lively)
    assert all(0.5 <= ratio <= 2.0 for ratio in found.values()), found


@pytest.mark.nightly
@pytest.mark.parametrize("lively", [True, False], ids=["all-features", "durations-only"])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_of_many_stationary_calls_the_promised_shares_are_unusual(shape: str, lively: bool) -> None:
    found = ratios(shape, range(600, 606), 40_000, lively=lively)
    assert all(0.5 <= ratio <= 2.0 for ratio in found.values()), found


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_median_of_what_was_learned_is_usual(shape: str) -> None:
    detector = TailDetector()
    scores = attend(detector, stream(510, 3000, SHAPES[shape]))
    usual = sorted(score.value for score in scores[1000:])
    assert usual[len(usual) // 2] < 35.0
    assert not math.isnan(usual[-1])


def test_the_observed_shares_can_be_read_from_the_detector() -> None:
    detector = TailDetector()
    scores = attend(detector, stream(520, 4000))
    told = detector.calibration.observed()
    judged = [score.p for score in scores[20:]]
    for level in (0.05, 0.01, 0.001):
        assert told[level] == pytest.approx(sum(p < level for p in judged) / len(judged))
