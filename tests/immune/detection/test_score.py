"""From probabilities to scores; several features as one; promises compared with what was observed."""

from __future__ import annotations

import math
import pickle
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloister.immune.detection.learning_weight import A_FIFTH, LITTLE, LearningWeight
from cloister.immune.detection.score import Calibration, Combination, Scale
from cloister.immune.detection.tail_table import TailTable
from cloister.immune.errors import ImmuneError
from cloister.immune.observation import Score

probabilities = st.floats(min_value=1e-12, max_value=1.0)
alphas = st.floats(min_value=1e-6, max_value=0.05)


def value(p: float, alpha: float) -> float:
    return Scale(alpha).value(-math.log(p), p)


@settings(max_examples=300)
@given(probabilities, alphas)
@example(0.001, 0.001)
@example(math.nextafter(0.001, 0.0), 0.001)
@example(math.nextafter(0.001, 1.0), 0.001)
def test_a_score_above_80_means_a_probability_below_alpha(p: float, alpha: float) -> None:
    """PIC-P7: candidate generation. 80 makes none, anything above does, and it is above iff p < alpha."""
    found = value(p, alpha)
    assert (found > 80.0) == (p < alpha)
    assert 0.0 <= found <= 100.0


@settings(max_examples=200)
@given(alphas)
def test_exactly_alpha_scores_at_most_80_and_the_next_number_below_more(alpha: float) -> None:
    """PIC-P7: candidate generation, at the boundary itself."""
    assert value(alpha, alpha) == pytest.approx(80.0)
    assert value(alpha, alpha) <= 80.0 < value(math.nextafter(alpha, 0.0), alpha)


@settings(max_examples=200)
@given(probabilities, probabilities, alphas)
def test_a_rarer_event_never_scores_lower(one: float, other: float, alpha: float) -> None:
    """PIC-P6: score monotonicity, of the scale."""
    assert value(max(one, other), alpha) <= value(min(one, other), alpha) + 1e-9


@pytest.mark.parametrize(
    ("p", "score"), [(1.0, 0.0), (0.05, 50.2), (0.01, 65.8), (0.001, 80.0), (1e-4, 88.3), (1e-6, 96.0)]
)
def test_at_an_alpha_of_a_thousandth_scores_are_those_of_the_table_in_the_decision(
    p: float, score: float
) -> None:
    assert value(p, 0.001) == pytest.approx(score, abs=0.05)


def test_before_enough_was_seen_the_smallest_counts_as_often_as_there_are_features() -> None:
    combination = Combination(6, TailTable())
    assert combination.surprise(10.0) == pytest.approx(10.0 - math.log(6.0))
    assert combination.surprise(1.0) == 0.0


@pytest.mark.parametrize("live", [1, 2, 6])
def test_features_that_never_vary_cost_no_sensitivity(live: int) -> None:
    rng = random.Random(live)
    combination = Combination(6, TailTable())
    rarest = [max(rng.expovariate(1.0) for _ in range(live)) for _ in range(30_000)]
    for surprise in rarest[:20_000]:
        combination.surprise(surprise)
        combination.learn(1.0)
    combination.table.refit(1.0)
    for p in (0.05, 0.01):
        observed = sum(combination.surprise(each) > -math.log(p) for each in rarest[20_000:]) / 10_000
        assert 0.6 < observed / p < 1.5


@settings(max_examples=100)
@given(
    st.lists(st.floats(min_value=0.0, max_value=27.0), max_size=400),
    st.floats(min_value=0.0, max_value=27.6),
    st.floats(min_value=0.0, max_value=27.6),
)
def test_the_combined_surprise_lies_within_bonferronis_bound_and_never_falls(
    seen: list[float], one: float, other: float
) -> None:
    combination = Combination(6, TailTable())
    for surprise in seen:
        combination.surprise(surprise)
        combination.learn(1.0)
    combination.table.refit(1.0)
    low, high = combination.surprise(min(one, other)), combination.surprise(max(one, other))
    assert low <= high
    assert max(max(one, other) - math.log(6.0), 0.0) <= high <= max(one, other)


def test_observed_shares_are_told_beside_what_was_promised() -> None:
    calibration = Calibration(0.001, 1000)
    assert calibration.observed() == {}
    for index in range(400):
        calibration.learn(0.0005 if index % 100 == 0 else 0.03 if index % 10 == 0 else 0.5)
    assert calibration.observed() == {0.05: 0.1, 0.01: 0.01, 0.001: 0.01}


@pytest.mark.parametrize(("share", "factor"), [(0.0005, 1.0), (0.001, 1.0), (0.002, 1.0)])
def test_alpha_stays_while_its_share_is_within_a_factor_of_two(share: float, factor: float) -> None:
    calibration = Calibration(0.001, 16_000)
    every = int(1 / share)
    for index in range(16_000):
        calibration.learn(0.0001 if index % every == every - 1 else 0.5)
    assert calibration.scale.alpha == pytest.approx(0.001 * factor)


def test_alpha_falls_where_its_share_is_several_times_what_it_should_be() -> None:
    calibration = Calibration(0.001, 16_000)
    for index in range(16_000):
        calibration.learn(0.0001 if index % 250 == 0 else 0.5)
    assert 0.001 / 4.0 <= calibration.scale.alpha < 0.0005
    assert calibration.alpha == 0.001


def test_alpha_rises_where_hardly_anything_is_below_it_but_fourfold_at_most() -> None:
    calibration = Calibration(0.001, 16_000)
    for _ in range(60_000):
        calibration.learn(0.5)
    assert 0.002 < calibration.scale.alpha <= 0.004


def test_an_attack_that_makes_sixty_rare_events_in_a_row_doesnt_move_alpha() -> None:
    calibration = Calibration(0.001, 16_000)
    for index in range(20_000):
        calibration.learn(1e-9 if index % 1000 == 500 or 6000 <= index < 6060 else 0.5)
    assert calibration.scale.alpha == 0.001
    assert calibration.observed()[0.001] > 0.003


def test_counts_are_halved_so_that_they_tell_of_the_newer_events() -> None:
    calibration = Calibration(0.001, 1000)
    for _ in range(2000):
        calibration.learn(0.02)
    for _ in range(8000):
        calibration.learn(0.5)
    assert calibration.events <= 2600
    assert calibration.observed()[0.05] < 0.1


def test_unusual_events_teach_in_full_while_there_are_no_more_than_there_should_be() -> None:
    weight = LearningWeight()
    found = [weight.of(event, 6.0) for event in range(0, 40_000, 200)]
    assert found == [1.0] * 200


def test_a_row_of_unusual_events_teaches_a_tenth_each_from_the_third_on() -> None:
    weight = LearningWeight()
    assert [weight.of(event, 6.0) for event in range(1000, 1040)] == [1.0, 1.0, *[LITTLE] * 38]


def test_what_is_as_good_as_impossible_teaches_a_fifth_of_what_the_unusual_does() -> None:
    weight = LearningWeight()
    found = [weight.of(event, 11.5) for event in range(1000, 1005)]
    assert found == pytest.approx([A_FIFTH, A_FIFTH, *[A_FIFTH * LITTLE] * 3])
    assert weight.of(1005, 6.0) == LITTLE


def test_a_score_names_its_feature_and_size_and_travels_between_processes() -> None:
    score = Score(90.0, 0.0004, "duration", 5.1, ("duration", "size"), (7.0, 0.0))
    assert score.reason == "duration 5.1x median, p=0.0004"
    again = pickle.loads(pickle.dumps(score))
    assert dict(again.p_by_feature) == pytest.approx({"duration": math.exp(-7.0), "size": 1.0})
    assert again == score
    with pytest.raises(KeyError):
        score.p_by_feature["caller"]


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.0},
        {"alpha": "0.001"},
        {"scaled": 0.9},
        {"events": -1},
        {"events": 1.5},
        {"below": [0.0, 0.0]},
        {"below": [1e9, 0.0, 0.0]},
        {"rare": float("nan")},
        {"again": 51},
        {"look": 0},
        {"unknown": 1},
    ],
)
def test_damaged_counts_are_refused(change: dict[str, object]) -> None:
    document = {**Calibration(0.001, 1000).as_json(), **change}
    with pytest.raises(ImmuneError):
        Calibration.from_json(document, 0.001, 1000)


def test_counts_under_another_alpha_start_anew() -> None:
    calibration = Calibration(0.001, 1000)
    calibration.learn(0.5)
    assert Calibration.from_json(calibration.as_json(), 0.01, 1000).events == 0
    assert Calibration.from_json(calibration.as_json(), 0.001, 1000).events == 1
