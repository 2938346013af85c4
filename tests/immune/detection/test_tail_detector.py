"""A detector of one function: what it says of a call, what it learns, what it keeps."""

from __future__ import annotations

import json
import math
import random
import sys
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.canonical import canonicalize
from cloister.immune.detection import (
    FEATURES,
    DetectorSettings,
    PercentileDetector,
    TailDetector,
    new_detector,
    read_detector,
)
from cloister.immune.errors import ImmuneError
from cloister.immune.observation import NOTHING_UNUSUAL, Entered, Observed
from tests.immune.detection.streams import SHAPES, attend, call, slower, stream
from tests.nightly import needs

any_float = st.floats(allow_nan=True, allow_infinity=True)
any_int = st.integers(min_value=-(10**30), max_value=10**330)
wild = st.builds(
    Observed,
    st.builds(Entered, any_float, any_int, st.text(max_size=20), any_int, any_int, st.booleans()),
    any_float,
    st.booleans(),
)


def taught(seed: int = 1, count: int = 1500, shape: str = "lognormal") -> TailDetector:
    detector = TailDetector()
    attend(detector, stream(seed, count, SHAPES[shape]))
    return detector


TAUGHT = {shape: taught(shape=shape) for shape in SHAPES}
END = {shape: list(stream(1, 1501, SHAPES[shape]))[-1] for shape in SHAPES}


def test_nineteen_calls_judge_nothing_and_the_twentieth_begins() -> None:
    detector = TailDetector()
    attend(detector, stream(3, 19))
    assert not detector.judging
    assert detector.summary() is None
    assert math.isnan(detector.level("duration"))
    assert detector.score(call(9.0, 1e6)) is NOTHING_UNUSUAL
    assert detector.entry(call(9.0).entered) is NOTHING_UNUSUAL
    assert detector.egress("connect example.org:443") is NOTHING_UNUSUAL
    detector.learn(call(9.0))
    assert detector.judging
    assert detector.summary() is not None


def test_two_hours_after_the_first_call_fewer_are_enough() -> None:
    detector = TailDetector()
    detector.learn(call(0.0))
    detector.learn(call(7199.0))
    assert not detector.judging
    detector.learn(call(7200.0))
    assert detector.judging


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.floats(min_value=1e-6, max_value=1e3),
    st.floats(min_value=1e-6, max_value=1e3),
)
def test_a_longer_duration_never_scores_lower(shape: str, one: float, other: float) -> None:
    """PIC-P6: score monotonicity, restated per coordinate: the duration."""
    detector, last = TAUGHT[shape], END[shape]
    low = detector.score(replace(last, duration=min(one, other)))
    high = detector.score(replace(last, duration=max(one, other)))
    assert high.value >= low.value - 1e-9


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.integers(min_value=0, max_value=10**12),
    st.integers(min_value=0, max_value=10**12),
)
def test_a_larger_argument_never_scores_lower(shape: str, one: int, other: int) -> None:
    """PIC-P6: score monotonicity, restated per coordinate: the size of the arguments."""
    detector, last = TAUGHT[shape], END[shape]
    values = [
        detector.score(replace(last, entered=replace(last.entered, size=size))).value
        for size in sorted((one, other))
    ]
    assert values[0] <= values[1] + 1e-9


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.floats(min_value=0.0, max_value=100.0),
    st.floats(min_value=0.0, max_value=100.0),
)
def test_an_earlier_call_never_scores_lower(shape: str, one: float, other: float) -> None:
    """PIC-P6: score monotonicity, restated per coordinate: the call rate."""
    detector, last = TAUGHT[shape], END[shape]
    before = list(stream(1, 1500, SHAPES[shape]))[-1].entered.at
    values = [
        detector.score(replace(last, entered=replace(last.entered, at=before + passed))).value
        for passed in sorted((one, other), reverse=True)
    ]
    assert values[0] <= values[1] + 1e-9


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.integers(min_value=0, max_value=50),
    st.integers(min_value=0, max_value=50),
    st.booleans(),
)
def test_more_errors_never_score_lower(shape: str, one: int, other: int, failed: bool) -> None:
    """PIC-P6: score monotonicity, restated per coordinate: the errors before a call, and its own."""
    detector, last = TAUGHT[shape], END[shape]
    values = [
        detector.score(
            Observed(replace(last.entered, calls=50, errors=errors), last.duration, failed=each)
        ).value
        for errors, each in ((min(one, other), False), (max(one, other), failed))
    ]
    assert values[0] <= values[1] + 1e-9


@settings(max_examples=150)
@given(st.sampled_from(sorted(SHAPES)), st.floats(min_value=1e-6, max_value=1e2), st.integers(0, 10**6))
def test_what_is_known_at_entry_never_scores_more_than_all_that_is_known_at_the_end(
    shape: str, duration: float, size: int
) -> None:
    detector = TAUGHT[shape]
    observed = replace(END[shape], duration=duration, entered=replace(END[shape].entered, size=size))
    assert detector.entry(observed.entered).value <= detector.score(observed).value


@settings(max_examples=100)
@given(st.lists(wild, max_size=25))
def test_no_number_however_wild_raises_or_makes_a_score_that_is_none(calls: list[Observed]) -> None:
    detector = taught(count=40)
    for observed in calls:
        for score in (detector.entry(observed.entered), detector.score(observed)):
            assert 0.0 <= score.value <= 100.0
            assert 0.0 < score.p <= 1.0
            assert 0.0 <= score.times < math.inf
            assert (score.value > 80.0) == (score.p < detector.calibration.scale.alpha)
        detector.learn(observed)
    assert detector.score(END["lognormal"]).value <= 100.0
    document = json.loads(json.dumps(detector.as_json(), allow_nan=False))
    assert TailDetector.from_json(document).as_json() == document


@pytest.mark.parametrize("duration", [math.nan, math.inf])
def test_a_duration_that_is_no_number_teaches_nothing(duration: float) -> None:
    detector = taught(count=300)
    before = detector.learned
    detector.learn(call(1e6, duration))
    assert detector.learned == before


def test_what_a_gate_chose_is_judged_and_teaches_nothing() -> None:
    detector = taught(count=500)
    before = detector.as_json()
    at = END["lognormal"].entered.at
    scores = []
    for index in range(30):
        observed = call(at + index * 0.01, 0.05, 10, "service:route0", teaches=False)
        scores.append(detector.score(observed))
        detector.learn(observed)
    after = detector.as_json()
    assert detector.learned == 500
    for learned in ("duration", "run_table", "size", "rate", "errors_table", "callers", "level", "mean"):
        assert after[learned] == before[learned]
    assert max(score.value for score in scores) > 80.0
    assert after["run"] != before["run"]


def test_a_stranger_that_a_gate_found_is_unheard_of_once_and_rare_from_then_on() -> None:
    """Chance may not come to who calls seldom for days; each of its calls would be as new as the first."""
    detector = TailDetector()
    at = 0.0
    for _ in range(1000):
        at += 0.1
        detector.learn(call(at, calls=50))
    probable = []
    for _ in range(100):
        at += 0.1
        observed = call(at, caller="service:nightly", teaches=False)
        probable.append(detector.score(observed).p_by_feature["caller"])
        detector.learn(observed)
    assert probable[0] < 0.00013
    assert probable[1] > 4 * probable[0]
    assert probable == sorted(probable)
    assert detector.learned == 1000
    # Fifty calls of all weigh as one of those that taught, and chance is to say more than that.
    names: Any = detector.as_json()["callers"]
    names = names["names"]
    assert names["service:nightly"] == pytest.approx(names["service:main"] / 1000, rel=0.15)


def test_a_decoy_hides_no_other_stranger() -> None:
    """How often new callers come is for chance to say: who makes a few up would be followed by one unseen."""
    detector = taught(count=700)
    at = END["lognormal"].entered.at + 1.0
    probable = []
    for number in range(80):
        at += 0.1
        stranger = call(at, caller=f"shell:{number}", teaches=False)
        probable.append(detector.score(stranger).p_by_feature["caller"])
        detector.learn(stranger)
    assert max(probable) <= probable[0] < 0.001
    for route in range(4):
        known = call(at, caller=f"service:route{route}")
        assert detector.score(known).p_by_feature["caller"] > 0.005, "pushed out by strangers"


def test_a_call_that_is_noted_changes_nothing_of_what_is_normal_whoever_made_it() -> None:
    detector = taught(count=500)
    before = detector.as_json()
    for teaches in (True, False):
        stranger = call(END["lognormal"].entered.at + 1.0, 0.05, 900, "shell:main", teaches=teaches)
        detector.note(stranger)
    after = detector.as_json()
    for learned in ("duration", "run_table", "size", "rate", "errors_table", "callers", "level", "mean"):
        assert after[learned] == before[learned]
    assert after["traffic"] != before["traffic"]
    young = TailDetector()
    young.note(call(1.0))
    assert young.learned == 0


def test_judging_changes_nothing() -> None:
    detector = taught(count=700)
    before = detector.as_json()
    for observed in stream(77, 50):
        detector.score(observed)
        detector.entry(observed.entered)
    assert detector.as_json() == before


def test_learning_without_judging_first_learns_the_same() -> None:
    one, other = TailDetector(), TailDetector()
    for observed in stream(8, 900):
        one.score(observed)
        one.learn(observed)
        other.learn(observed)
    assert one.as_json() == other.as_json()


def test_an_entry_between_score_and_learn_of_another_call_spoils_neither() -> None:
    one, other = TailDetector(), TailDetector()
    stranger = call(3.0, size=10**6, caller="elsewhere:attack")
    for observed in stream(8, 900):
        one.score(observed)
        one.entry(stranger.entered)
        one.learn(observed)
        other.score(observed)
        other.learn(observed)
    assert one.as_json() == other.as_json()


def test_each_score_names_its_feature_and_how_large_it_is() -> None:
    detector, last = TAUGHT["lognormal"], END["lognormal"]
    assert detector.score(replace(last, duration=0.02)).feature == "duration"
    assert detector.score(replace(last, duration=0.02)).times == pytest.approx(20.0, rel=0.15)
    large = detector.score(replace(last, entered=replace(last.entered, size=10**9)))
    assert large.feature == "size"
    assert large.times == pytest.approx(10**9 / 55.0, rel=0.3)
    assert large.reason.startswith("size ")
    edge = detector.score(replace(last, entered=replace(last.entered, caller="elsewhere:attack")))
    assert edge.feature == "caller"
    assert edge.times == 0.0
    many = detector.score(
        replace(last, entered=replace(last.entered, at=last.entered.at + 0.6, calls=40, errors=30))
    )
    assert many.feature == "errors"
    assert many.times > 10.0
    fast = detector.score(replace(last, entered=replace(last.entered, calls=2000)))
    assert fast.feature == "rate"
    assert fast.times > 10.0
    assert set(fast.p_by_feature) == set(FEATURES)
    assert min(fast.p_by_feature.values()) == fast.p_by_feature["rate"]


def test_a_lone_error_of_a_function_that_never_failed_is_not_unusual() -> None:
    detector = TailDetector()
    attend(detector, stream(4, 3000, lively=False))
    last = list(stream(4, 3001, lively=False))[-1]
    assert detector.score(replace(last, failed=True)).value < 50.0


def test_what_was_reached_for_before_is_usual_and_what_never_was_is_not() -> None:
    detector = taught(count=3000)
    for _ in range(1500):
        detector.learn_egress("connect db.internal:5432")
    assert detector.knows_egress("connect db.internal:5432")
    assert not detector.knows_egress("connect evil.example:443")
    assert detector.egress("connect db.internal:5432").value < 20.0
    strange = detector.egress("connect evil.example:443")
    assert strange.value > 80.0
    assert strange.feature == "egress"
    for _ in range(200):
        detector.learn_egress("connect evil.example:443")
    assert detector.egress("connect evil.example:443").value < 80.0


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.floats(min_value=1e-5, max_value=10.0), st.floats(0.05, 0.8))
def test_what_is_usual_comes_near_the_truth_as_calls_come(seed: int, median: float, sigma: float) -> None:
    """PIC-P5: baseline convergence. 20 calls give a baseline; more give a nearer one."""
    rng = random.Random(seed)
    detector = TailDetector()
    durations = [median * math.exp(rng.gauss(0.0, sigma)) for _ in range(800)]
    for index, duration in enumerate(durations):
        detector.learn(call(index * 0.01, duration))
        assert (detector.summary() is None) == (index < 19)
    summary = detector.summary()
    assert summary is not None
    assert summary.learned == summary.calls == 800
    assert summary.p50 == pytest.approx(median, rel=0.25 * sigma + 0.1)
    assert summary.p95 == pytest.approx(median * math.exp(1.645 * sigma), rel=0.5 * sigma + 0.1)
    assert summary.mean == pytest.approx(median * math.exp(sigma**2 / 2), rel=0.3 * sigma + 0.05)
    assert summary.p50 <= summary.p95 <= summary.p99


def test_mean_and_deviation_are_those_of_the_definition_with_fading_weights() -> None:
    durations = [observed.duration for observed in stream(12, 600)]
    detector = TailDetector(DetectorSettings(half_life=500.0))
    attend(detector, stream(12, 600))
    keep = 1.0 - math.log(2.0) / 500.0
    weights = [keep ** (599 - index) for index in range(600)]
    mean = sum(w * d for w, d in zip(weights, durations, strict=True)) / sum(weights)
    squares = sum(w * (d - mean) ** 2 for w, d in zip(weights, durations, strict=True)) / sum(weights)
    summary = detector.summary()
    assert summary is not None
    assert summary.mean == pytest.approx(mean, rel=1e-9)
    assert summary.std == pytest.approx(math.sqrt(squares), rel=1e-9)


def test_calls_and_errors_that_nobody_observed_are_counted_exactly() -> None:
    detector = TailDetector()
    for index in range(50):
        detector.learn(call(float(index), calls=10, errors=2, failed=index % 2 == 0))
    summary = detector.summary()
    assert summary is not None
    assert (summary.calls, summary.errors) == (500, 125)


def test_the_present_level_is_in_each_features_unit() -> None:
    detector = TailDetector()
    for index in range(600):
        detector.learn(call(index * 0.5, 0.002, 99, failed=index % 4 == 0))
    assert detector.level("duration") == pytest.approx(0.002, rel=0.01)
    assert detector.level("size") == pytest.approx(99.0, rel=0.01)
    assert detector.level("rate") == pytest.approx(2.0, rel=0.05)
    assert detector.level("errors") == pytest.approx(0.25, abs=0.06)
    assert math.isnan(detector.level("caller"))


@pytest.mark.parametrize("count", [0, 7, 25, 333, 2500])
def test_a_detector_that_was_written_down_goes_on_as_if_nothing_had_happened(count: int) -> None:
    detector = TailDetector()
    calls = list(stream(21, count + 400))
    attend(detector, calls[:count])
    detector.learn_egress("open /srv/data")
    document = json.loads(json.dumps(detector.as_json(), allow_nan=False))
    canonicalize(document)
    again = TailDetector.from_json(document)
    assert again.as_json() == document
    assert attend(again, calls[count:]) == attend(detector, calls[count:])
    assert again.as_json() == detector.as_json()


def damaged(document: Any) -> list[Any]:
    """A document with one thing wrong, for each of its parts, at every depth."""
    found: list[Any] = []
    for key, value in document.items():
        found.append({name: part for name, part in document.items() if name != key})
        found.extend({**document, key: wrong} for wrong in (math.nan, math.inf, "x", [[]], True, -1e30, 1e30))
        if isinstance(value, dict) and key != "names":
            found.extend({**document, key: part} for part in damaged(value))
    found.append({**document, "more": 0})
    return found


def detector_or_refusal(document: object) -> TailDetector | ImmuneError:
    try:
        return TailDetector.from_json(document)
    except ImmuneError as error:
        return error


def test_each_way_to_damage_a_document_is_refused_or_judges_like_a_number() -> None:
    document = TAUGHT["lognormal"].as_json()
    refused = 0
    for wrong in damaged(document):
        detector = detector_or_refusal(wrong)
        if isinstance(detector, ImmuneError):
            refused += 1
            assert detector.code == "immune.baseline_damaged"
            assert "1e30" not in str(detector)
        else:
            attend(detector, stream(5, 20))
    assert refused > 0.9 * len(damaged(document))


@pytest.mark.parametrize("document", [None, 1, "x", [], {}, {"kind": "tail"}, {"kind": "l2-percentile"}])
def test_what_is_no_document_is_refused(document: object) -> None:
    with pytest.raises(ImmuneError):
        read_detector(document, DetectorSettings())


def test_a_document_of_one_kind_isnt_read_as_the_other() -> None:
    with pytest.raises(ImmuneError):
        TailDetector.from_json({**TAUGHT["lognormal"].as_json(), "kind": "l2-percentile"})
    with pytest.raises(ImmuneError):
        PercentileDetector.from_json(TAUGHT["lognormal"].as_json())


def test_the_kind_decides_which_detector_is_made_and_read() -> None:
    for kind, made in (("tail", TailDetector), ("l2-percentile", PercentileDetector)):
        detector = new_detector(kind, DetectorSettings())
        assert isinstance(detector, made)
        assert isinstance(read_detector(detector.as_json(), DetectorSettings()), made)
    with pytest.raises(ImmuneError) as refused:
        new_detector("z-score", DetectorSettings())
    assert refused.value.code == "immune.setting_invalid"


def test_the_same_calls_make_the_same_detector() -> None:
    assert taught(6, 800).as_json() == taught(6, 800).as_json()


def test_weights_stay_finite_however_long_a_detector_lives() -> None:
    detector = TailDetector(DetectorSettings(half_life=100.0))
    scores = attend(detector, stream(30, 12_000))
    assert detector._unit < 1e10
    assert sum(score.p < 0.05 for score in scores[6000:]) / 6000 < 0.15
    assert detector.score(slower(list(stream(30, 12_001))[-1], 50.0)).value > 80.0


def memory_of(functions: int, calls: int) -> float:
    observed = [list(stream(seed, calls)) for seed in range(4)]
    tracemalloc.start()
    try:
        detectors = []
        for index in range(functions):
            detector = TailDetector()
            attend(detector, observed[index % 4])
            detectors.append(detector)
        return tracemalloc.get_traced_memory()[0] / functions
    finally:
        tracemalloc.stop()


def test_a_function_costs_less_than_52_kilobytes() -> None:
    assert memory_of(20, 300) < 52_000


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_thousand_functions_cost_less_than_52_kilobytes_each() -> None:
    needs(60)
    assert memory_of(1000, 300) < 52_000


def test_nothing_heavy_is_imported() -> None:
    import subprocess

    code = "import sys, cloister.immune.detection; print('pydantic' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
