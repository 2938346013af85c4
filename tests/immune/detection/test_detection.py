"""What is found, what isn't taken for an attack, and what an attacker can't teach."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from cloister.immune.detection import TailDetector
from cloister.immune.detection.learning_weight import LearningWeight
from cloister.immune.observation import Observed
from tests.immune.detection.streams import SHAPES, attend, slower, stream

WARM = 3000


def found(scores: list[float]) -> float:
    """The share of scores above 80."""
    return sum(score > 80.0 for score in scores) / len(scores)


def values(detector: TailDetector, calls: list[Observed]) -> list[float]:
    return [score.value for score in attend(detector, calls)]


@pytest.mark.parametrize("seed", range(40, 44))
def test_a_loop_that_takes_six_times_as_long_is_found_within_ten_calls(seed: int) -> None:
    calls = list(stream(seed, WARM + 40))
    detector = TailDetector()
    attend(detector, calls[:WARM])
    loop = values(detector, [slower(observed, 6.0) for observed in calls[WARM:]])
    assert max(loop[:10]) > 80.0
    assert found(loop) > 0.8


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_ordinary_calls_make_few_candidates(shape: str) -> None:
    detector = TailDetector()
    scores = values(detector, list(stream(50, 6000, SHAPES[shape])))
    assert found(scores[1000:]) < 0.005


@pytest.mark.parametrize("seed", range(60, 63))
def test_a_loop_only_half_as_slow_is_found_by_its_run_though_no_call_stands_out(seed: int) -> None:
    calls = list(stream(seed, WARM + 40))
    detector = TailDetector()
    attend(detector, calls[:WARM])
    scores = attend(detector, [slower(observed, 2.2) for observed in calls[WARM:]])
    hits = [score for score in scores if score.value > 80.0]
    assert hits
    assert "run" in {score.feature for score in hits}


def changed(seed: int, **changes: object) -> tuple[TailDetector, Observed]:
    calls = list(stream(seed, WARM + 1))
    detector = TailDetector()
    attend(detector, calls[:WARM])
    return detector, replace(calls[WARM], entered=replace(calls[WARM].entered, **changes))  # type: ignore[arg-type]


def test_an_argument_hundreds_of_times_as_large_is_found_before_the_body_runs() -> None:
    detector, attack = changed(70, size=100_000)
    assert detector.entry(attack.entered).value > 80.0
    assert detector.entry(attack.entered).feature == "size"


def test_a_caller_that_never_called_is_found_before_the_body_runs() -> None:
    detector, attack = changed(71, caller="attacker:inject")
    assert detector.entry(attack.entered).value > 80.0
    assert detector.entry(attack.entered).feature == "caller"


def test_a_burst_ten_times_as_fast_is_found_while_it_lasts() -> None:
    calls = list(stream(72, WARM))
    detector = TailDetector()
    attend(detector, calls)
    rng = random.Random(1)
    at = calls[-1].entered.at
    scores = []
    for index in range(60):
        at += rng.expovariate(1000.0)
        observed = replace(calls[index], entered=replace(calls[index].entered, at=at))
        scores.append(detector.entry(observed.entered))
        detector.learn(observed)
    hits = [score for score in scores if score.value > 80.0]
    assert len(hits) > 20
    assert {score.feature for score in hits} == {"rate"}


def test_a_burst_of_errors_is_found_though_most_calls_of_it_succeed() -> None:
    calls = list(stream(73, WARM + 40))
    detector = TailDetector()
    attend(detector, calls[:WARM])
    failing = [replace(each, failed=index % 5 < 2) for index, each in enumerate(calls[WARM:])]
    scores = attend(detector, failing)
    assert any(score.value > 80.0 and score.feature == "errors" for score in scores)


def test_a_long_attack_is_seen_for_hundreds_of_calls_and_then_still_shows_in_the_level() -> None:
    calls = list(stream(80, 5500))
    detector = TailDetector()
    attend(detector, calls[:5000])
    before = detector.level("duration")
    attack = [slower(observed, 6.0) for observed in calls[5000:5500]]
    assert found(values(detector, attack[:250])) > 0.95
    attend(detector, attack[250:])
    assert detector.level("duration") > 4.0 * before


@pytest.mark.parametrize("seed", range(70, 74))
def test_one_attack_makes_no_place_for_the_next_of_its_kind(seed: int) -> None:
    """Three episodes, each ten times as slow, 600 ordinary calls apart: the third is seen as the first."""
    calls = list(stream(seed, WARM + 1800))
    detector = TailDetector()
    attend(detector, calls[:WARM])
    for start in range(WARM, WARM + 1800, 600):
        episode = [slower(observed, 10.0) for observed in calls[start : start + 40]]
        assert found(values(detector, episode)[5:]) == 1.0
        attend(detector, calls[start + 40 : start + 600])


@pytest.mark.parametrize("seed", range(81, 87))
def test_poison_in_fifteen_percent_of_what_is_learned_before_blocking_hides_no_later_attack(
    seed: int,
) -> None:
    rng = random.Random(seed)
    calls = list(stream(seed, 1250))
    poisoned = [slower(each, 6.0) if rng.random() < 0.15 else each for each in calls[:200]]
    detector = TailDetector()
    attend(detector, poisoned + calls[200:1200])
    attack = values(detector, [slower(observed, 6.0) for observed in calls[1200:]])
    assert found(attack) > 0.8
    assert found(attack[5:]) >= 0.95


def test_a_slow_drift_is_followed_and_shows_in_the_level() -> None:
    calls = list(stream(90, 8000))
    detector = TailDetector()
    attend(detector, calls[:3000])
    before = detector.level("duration")
    frog = [slower(each, math.exp(math.log(6.0) * index / 5000)) for index, each in enumerate(calls[3000:])]
    alarm = 0
    scores = []
    for index, observed in enumerate(frog):
        scores.append(detector.score(observed).value)
        detector.learn(observed)
        if not alarm and detector.level("duration") > 1.7 * before:
            alarm = index
    assert found(scores) < 0.05
    assert 0 < alarm < 5000 * math.log(2.0) / math.log(6.0)


def test_after_a_deployment_three_times_as_slow_the_level_shows_it_within_a_hundred_calls() -> None:
    calls = list(stream(91, 5000))
    detector = TailDetector()
    attend(detector, calls[:3000])
    before = detector.level("duration")
    attend(detector, [slower(each, 3.0) for each in calls[3000:3100]])
    assert detector.level("duration") > 1.7 * before
    later = values(detector, [slower(each, 3.0) for each in calls[3100:]])
    assert found(later[1000:]) < 0.16


def test_after_approval_a_new_detector_of_the_slower_function_is_quiet_within_two_hundred_calls() -> None:
    calls = [slower(each, 3.0) for each in stream(92, 1200)]
    assert found(values(TailDetector(), calls)[200:]) < 0.005


@pytest.mark.parametrize("seed", range(95, 99))
def test_what_a_person_said_is_normal_is_usual_within_fifty_calls_and_an_attack_on_it_is_not(
    seed: int,
) -> None:
    calls = list(stream(seed, WARM + 1140))
    detector = TailDetector()
    attend(detector, calls[:WARM])
    assert found(values(detector, [slower(each, 3.0) for each in calls[WARM : WARM + 100]])) > 0.9
    detector.trust(100)
    later = values(detector, [slower(each, 3.0) for each in calls[WARM + 100 : WARM + 1100]])
    assert found(later[50:]) < 0.005
    assert found(values(detector, [slower(each, 18.0) for each in calls[WARM + 1100 :]])) > 0.75


def test_what_was_normal_before_a_person_said_so_is_judged_the_same_after() -> None:
    calls = list(stream(99, WARM + 40))
    detector, trusted = TailDetector(), TailDetector()
    attend(detector, calls[:WARM])
    attend(trusted, calls[:WARM])
    trusted.trust(0)
    assert values(detector, calls[WARM:]) == values(trusted, calls[WARM:])


def test_trust_ends_with_the_calls_it_was_given_for() -> None:
    weight = LearningWeight()
    weight.trust(1010)
    found = [weight.of(event, 12.0) for event in range(1000, 1040)]
    assert found[:10] == [1.0] * 10
    assert max(found[10:]) < 0.5


def test_a_hundred_calls_a_day_are_judged_as_well_as_a_hundred_a_second() -> None:
    calls = [
        replace(each, entered=replace(each.entered, at=each.entered.at * 86_400.0))
        for each in stream(93, WARM + 20)
    ]
    detector = TailDetector()
    assert found(values(detector, calls[:WARM])[500:]) < 0.005
    assert max(values(detector, [slower(each, 6.0) for each in calls[WARM:]])) > 80.0


def test_one_call_in_ten_with_exact_counts_finds_a_burst_of_errors_that_nobody_observed() -> None:
    calls = list(stream(94, WARM))
    tenth = [
        replace(each, entered=replace(each.entered, at=each.entered.at * 10.0, calls=10), failed=False)
        for each in calls
    ]
    detector = TailDetector()
    attend(detector, tenth)
    last = tenth[-1].entered
    attack = [replace(last, at=last.at + 0.1 * (index + 1), errors=5) for index in range(4)]
    scores = []
    for entered in attack:
        scores.append(detector.entry(entered))
        detector.learn(Observed(entered, 0.001, failed=False))
    assert any(score.value > 80.0 and score.feature == "errors" for score in scores)
