"""Detectors: found, validated, promoted, ended and rolled back; of their patterns only a hash is kept."""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import (
    Detector,
    DetectorRegistry,
    DetectorState,
    Happened,
    StateStore,
    Verdict,
    is_candidate,
    is_eligible,
    pattern_key,
    pattern_of,
    roll_back,
    snapshots_of,
    validate,
)
from cloister.immune.keeping.detectors import forget_old_detectors
from cloister.immune.keeping.snapshots import detectors_document
from cloister.immune.observation import Observed, Score
from tests.immune.keeping.conftest import FUNCTION, START, HandClock, call, keep_as_it_is

DAY = 86_400.0
HIGH = Score(96.0, 1e-6, "duration", 5.1)


def scorer(observed: Observed) -> Score:
    """A call of two seconds or more is unusual."""
    return Score(90.0, 1e-4, "duration", 5.0) if observed.duration >= 2 else Score(10.0, 0.5, "duration")


def calls(flagged: int, total: int = 100) -> list[Observed]:
    return [call(3.0 if number < flagged else 0.01) for number in range(total)]


def candidate(registry: DetectorRegistry, pattern: bytes = b"p", function: str = FUNCTION) -> Detector:
    made, _ = registry.store_detector(function, pattern, 80.0, "event-1")
    return made


def promoted(registry: DetectorRegistry, pattern: bytes = b"p", function: str = FUNCTION) -> Detector:
    number = candidate(registry, pattern, function).id
    registry.validate(number, calls(0), scorer)
    registry.promote(number, "dana")
    return registry.detector(number)


def active(registry: DetectorRegistry, function: str = FUNCTION) -> list[int]:
    return [one.id for one in registry.get_active_detectors(function)]


def code_of(error: pytest.ExceptionInfo[ImmuneError]) -> str:
    return error.value.code


# Candidates


def test_a_score_of_80_makes_no_candidate_and_one_above_does() -> None:
    assert not is_candidate(Score(80.0, 0.001, "duration"), 80.0)
    assert is_candidate(Score(80.01, 0.001, "duration"), 80.0)
    assert not is_candidate(Score(math.nan, 0.001, "duration"), 80.0)


def test_a_candidate_is_kept_with_where_it_comes_from_and_when_it_ends(registry: DetectorRegistry) -> None:
    made, event = registry.store_detector(FUNCTION, b"p", 80.0, "event-7")
    assert registry.detector(made.id) == made
    assert (made.function_name, made.threshold, made.provenance, made.version) == (
        FUNCTION,
        80.0,
        "event-7",
        1,
    )
    assert (made.created_at, made.expires_at) == (START, START + 90 * DAY)
    assert made.state is DetectorState.CANDIDATE
    assert made.verdict is None
    assert event is not None
    assert (event.kind, event.detector, event.function) == (Happened.CANDIDATE_MADE, made.id, FUNCTION)


def test_a_pattern_makes_one_candidate_however_often_it_is_seen(registry: DetectorRegistry) -> None:
    first, _ = registry.store_detector(FUNCTION, b"p", 80.0, "event-1")
    again, event = registry.store_detector(FUNCTION, b"p", 80.0, "event-2")
    assert (again, event) == (first, None)
    registry.reject(first.id, "dana", "the nightly batch")
    again, event = registry.store_detector(FUNCTION, b"p", 80.0, "event-3")
    assert (again.state, event) == (DetectorState.REJECTED, None)


def test_a_pattern_whose_time_was_up_may_be_found_anew(registry: DetectorRegistry, hand: HandClock) -> None:
    first = promoted(registry)
    hand.now += 90 * DAY
    again, event = registry.store_detector(FUNCTION, b"p", 85.0, "event-9")
    assert event is not None
    assert (again.id, again.state, again.verdict) == (first.id, DetectorState.CANDIDATE, None)
    assert again.version == first.version + 1
    assert again.expires_at == hand.now + 90 * DAY


def test_a_pattern_that_is_known_is_recognised_while_another_process_writes(
    registry: DetectorRegistry, path: Path
) -> None:
    first = candidate(registry)
    other = StateStore(path)
    with other.writing():
        assert registry.store_detector(FUNCTION, b"p", 80.0, "event-2") == (first, None)
    other.close()


@pytest.mark.parametrize("threshold", [-0.1, 100.1, math.nan])
def test_a_threshold_that_is_no_score_is_refused(registry: DetectorRegistry, threshold: float) -> None:
    with pytest.raises(ImmuneError) as caught:
        registry.store_detector(FUNCTION, b"p", threshold, "")
    assert code_of(caught) == "immune.setting_invalid"


# Patterns


@settings(max_examples=100)
@given(
    st.binary(max_size=200).map(lambda rest: b"pattern\n" + rest),
    st.binary(max_size=9).map(lambda seed: hashlib.sha256(seed).digest()),
)
def test_only_a_hash_of_a_pattern_is_stored(
    tmp_path_factory: pytest.TempPathFactory, pattern: bytes, key: bytes
) -> None:
    """PIC-P24: Signature storage: only a keyed SHA-256 hash of a pattern is ever in the file."""
    path = tmp_path_factory.mktemp("state") / "immune.db"
    store = StateStore(path)
    registry = DetectorRegistry(store, key, 90, keep_as_it_is)
    made = promoted(registry, pattern)
    registry.reject(made.id, "dana", "for now")
    written = b"".join(one.read_bytes() for one in path.parent.iterdir())
    store.close()
    written += b"".join(one.read_bytes() for one in path.parent.iterdir())
    assert made.signature_hash.encode() in written
    assert len(made.signature_hash) == 64
    for form in (pattern, pattern.hex().encode(), key, key.hex().encode()):
        assert form not in written


def test_a_hash_says_nothing_without_its_key(registry: DetectorRegistry, store: StateStore) -> None:
    other = DetectorRegistry(store, pattern_key(None), 90, keep_as_it_is)
    assert candidate(registry).signature_hash != candidate(other).signature_hash


def test_the_key_is_made_once_beside_the_database_for_its_owner_alone(tmp_path: Path) -> None:
    key = pattern_key(tmp_path)
    assert len(key) == 32
    assert pattern_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "pattern.key").stat().st_mode) == 0o600
    assert pattern_key(None) != pattern_key(None)
    (tmp_path / "pattern.key").write_bytes(b"short")
    with pytest.raises(ImmuneError) as caught:
        pattern_key(tmp_path)
    assert code_of(caught) == "immune.state_damaged"


def test_a_promoted_detector_recognises_its_pattern_and_stronger_ones_of_the_same_feature_only(
    registry: DetectorRegistry,
) -> None:
    found = promoted(registry, pattern_of(FUNCTION, HIGH))

    def match(score: Score, function: str = FUNCTION) -> int | None:
        detector = registry.matching(function, score)
        return None if detector is None else detector.id

    assert match(HIGH) == found.id
    assert match(Score(96.0, 1e-6, "duration", 500.0)) == found.id
    assert match(Score(96.0, 1e-6, "duration", math.inf)) == found.id
    assert match(Score(96.0, 1e-6, "duration", 3.9)) is None
    assert match(Score(80.0, 1e-3, "duration", 5.1)) is None
    assert match(Score(96.0, 1e-6, "size", 5.1)) is None
    assert match(HIGH, "shop.orders:cancel") is None


def test_a_candidate_recognises_nothing_yet(registry: DetectorRegistry) -> None:
    candidate(registry, pattern_of(FUNCTION, HIGH))
    assert registry.matching(FUNCTION, HIGH) is None


# Validation


@settings(max_examples=200)
@given(st.integers(min_value=0, max_value=400), st.integers(min_value=0, max_value=400))
def test_a_false_positive_rate_of_5_percent_or_less_is_eligible(false_positives: int, total: int) -> None:
    """PIC-P11: Promotion eligibility: a false positive rate of 0.05 or less is eligible."""
    expected = total >= 100 and false_positives / max(total, 1) <= 0.05
    assert is_eligible(false_positives, total) == expected


@settings(max_examples=100)
@given(st.integers(min_value=0, max_value=100))
def test_a_candidate_passes_where_5_of_100_ordinary_calls_are_flagged_and_fails_at_6(flagged: int) -> None:
    """PIC-P11: the boundary, through the code that scores."""
    verdict = validate(calls(flagged), scorer, 80.0, START, keep_as_it_is)
    assert (verdict.total, verdict.false_positives, verdict.rate) == (100, flagged, flagged / 100)
    assert verdict.passed == (flagged <= 5)


def test_exactly_the_newest_hundred_are_tried() -> None:
    tried: list[Observed] = []

    def note(observed: Observed) -> Score:
        tried.append(observed)
        return scorer(observed)

    ordinary = [call(at=float(number)) for number in range(250)]
    verdict = validate(ordinary, note, 80.0, START, keep_as_it_is)
    assert verdict.total == 100
    assert tried == ordinary[:100]


def test_fewer_than_a_hundred_ordinary_calls_never_pass() -> None:
    assert not validate(calls(0, 99), scorer, 80.0, START, keep_as_it_is).passed
    empty = validate([], scorer, 80.0, START, keep_as_it_is)
    assert (empty.passed, empty.rate) == (False, 1.0)


def _raise(_: Observed) -> Score:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    "broken",
    [_raise, lambda _: Score(math.nan, 1.0, "x"), lambda _: Score(-1.0, 1.0, "x"), lambda _: None],
)
def test_a_broken_scorer_never_passes(broken: object) -> None:
    verdict = validate(calls(0), broken, 80.0, START, keep_as_it_is)  # type: ignore[arg-type]
    assert (verdict.broken, verdict.false_positives, verdict.passed) == (100, 100, False)


def test_a_verdict_shows_what_was_flagged_without_what_could_identify_anybody() -> None:
    ordinary = [call(3.0, size=12, caller="shop.web:for_anna@example.org", failed=True), *calls(0, 99)]
    verdict = validate(
        ordinary, scorer, 80.0, START, lambda text: text.replace("anna@example.org", "[EMAIL]")
    )
    (trace,) = verdict.traces
    assert (trace.score, trace.feature, trace.duration_ms, trace.size) == (90.0, "duration", 3000.0, 12)
    assert (trace.caller, trace.failed) == ("shop.web:for_[EMAIL]", True)
    assert "anna" not in verdict.to_json()
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert verdict.reason == "1 of 100 ordinary calls flagged"


def test_a_verdict_shows_twenty_traces_at_most() -> None:
    assert len(validate(calls(100), scorer, 80.0, START, keep_as_it_is).traces) == 20


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"traces":[1]}', '{"traces":[],"total":-1}'])
def test_what_is_no_verdict_is_refused(text: str) -> None:
    with pytest.raises(ImmuneError):
        Verdict.from_json(text)


# Promotion


def test_a_candidate_that_passed_is_promoted_by_a_person_for_its_full_time(
    registry: DetectorRegistry, hand: HandClock
) -> None:
    number = candidate(registry).id
    verdict, event = registry.validate(number, calls(5), scorer)
    assert verdict.passed
    assert (event.kind, event.reason) == (
        Happened.DETECTOR_VALIDATED, "5 of 100 ordinary calls flagged: may be promoted",
    )  # fmt: skip
    assert active(registry) == []
    hand.now += 10 * DAY
    event = registry.promote(number, "dana")
    assert (event.kind, event.by, event.detector) == (Happened.DETECTOR_PROMOTED, "dana", number)
    assert active(registry) == [number]
    found = registry.detector(number)
    assert (found.version, found.expires_at) == (3, hand.now + 90 * DAY)
    assert found.reason == "promoted by dana"


@pytest.mark.parametrize("ordinary", [None, calls(6), calls(0, 99), []])
def test_what_didnt_pass_isnt_promoted(
    registry: DetectorRegistry, ordinary: Sequence[Observed] | None
) -> None:
    number = candidate(registry).id
    if ordinary is not None:
        verdict, event = registry.validate(number, ordinary, scorer)
        assert not verdict.passed
        assert event.reason.endswith("not eligible")
    with pytest.raises(ImmuneError) as caught:
        registry.promote(number, "dana")
    assert code_of(caught) == "immune.not_eligible"
    assert registry.promote_passed() == ()
    assert active(registry) == []


def test_only_a_candidate_is_validated_or_promoted(registry: DetectorRegistry, hand: HandClock) -> None:
    number = promoted(registry).id
    for act in (
        lambda: registry.promote(number, "dana"),
        lambda: registry.validate(number, calls(0), scorer),
    ):
        with pytest.raises(ImmuneError) as caught:
            act()
        assert code_of(caught) == "immune.not_eligible"
    registry.reject(number, "dana", "no")
    with pytest.raises(ImmuneError):
        registry.promote(number, "dana")
    late = candidate(registry, b"late").id
    registry.validate(late, calls(0), scorer)
    hand.now += 90 * DAY
    with pytest.raises(ImmuneError):
        registry.promote(late, "dana")
    assert registry.promote_passed() == ()


def test_a_candidate_that_somebody_changed_while_it_was_tried_keeps_no_verdict(
    registry: DetectorRegistry,
) -> None:
    number = candidate(registry).id

    def meddle(observed: Observed) -> Score:
        if registry.detector(number).state is DetectorState.CANDIDATE:
            registry.reject(number, "dana", "no")
        return scorer(observed)

    with pytest.raises(ImmuneError) as caught:
        registry.validate(number, calls(0), meddle)
    assert code_of(caught) == "immune.not_eligible"


def test_the_policy_promotes_all_that_passed(registry: DetectorRegistry) -> None:
    passed, failed = candidate(registry, b"1").id, candidate(registry, b"2").id
    registry.validate(passed, calls(0), scorer)
    registry.validate(failed, calls(50), scorer)
    (event,) = registry.promote_passed()
    assert (event.detector, event.by) == (passed, "policy")
    assert active(registry) == [passed]


def test_a_rejection_has_a_reason_that_is_redacted_and_lasts(store: StateStore) -> None:
    registry = DetectorRegistry(store, pattern_key(None), 90, lambda text: text.replace("anna", "[NAME]"))
    number = promoted(registry).id
    with pytest.raises(ImmuneError):
        registry.reject(number, "dana", "  \n ")
    event = registry.reject(number, "dana", "asked for\nby anna")
    assert (event.kind, event.reason, event.by) == (Happened.DETECTOR_REJECTED, "asked for by [NAME]", "dana")
    assert active(registry) == []
    assert registry.detector(number).reason == "asked for by [NAME]"
    assert registry.detector(number).verdict is None


def test_a_detector_is_read_as_it_was_written_and_nothing_else_is_one(registry: DetectorRegistry) -> None:
    for found in (candidate(registry, b"1"), promoted(registry, b"2")):
        assert Detector.from_json(found.to_json()) == found
        assert json.loads(found.to_json())["is_active"] == (found.state is DetectorState.ACTIVE)
    text = candidate(registry).to_json()
    for wrong in ("", "[]", "null", "{}", text.replace('"threshold": 80', '"threshold": "80"'),
                  text.replace("candidate", "chosen")):  # fmt: skip
        with pytest.raises(ImmuneError):
            Detector.from_json(wrong)


def test_a_number_that_nobody_has_is_unknown(registry: DetectorRegistry) -> None:
    for act in (
        lambda: registry.detector(7),
        lambda: registry.promote(7, "dana"),
        lambda: registry.reject(7, "dana", "no"),
        lambda: registry.validate(7, [], scorer),
    ):
        with pytest.raises(ImmuneError) as caught:
            act()
        assert code_of(caught) == "immune.detector_unknown"


# Time


def test_a_detector_whose_time_is_up_isnt_listed_even_before_anybody_swept(
    registry: DetectorRegistry, hand: HandClock
) -> None:
    number = promoted(registry).id
    hand.now += 90 * DAY - 1
    assert active(registry) == [number]
    hand.now += 1
    assert active(registry) == []


def test_what_ended_is_told_once_each(registry: DetectorRegistry, hand: HandClock) -> None:
    first, second = promoted(registry, b"1").id, candidate(registry, b"2").id
    assert registry.expire_old_detectors() == ()
    hand.now += 90 * DAY
    third = candidate(registry, b"3").id
    told = registry.expire_old_detectors()
    assert [(one.kind, one.detector) for one in told] == [
        (Happened.DETECTOR_EXPIRED, first),
        (Happened.DETECTOR_EXPIRED, second),
    ]
    assert told[0].reason == "its time is up; it was active"
    assert registry.expire_old_detectors() == ()
    assert [one.state for one in registry.detectors()] == [
        DetectorState.EXPIRED, DetectorState.EXPIRED, DetectorState.CANDIDATE,
    ]  # fmt: skip
    assert registry.detectors(FUNCTION)[2].id == third


def test_ended_detectors_and_snapshots_go_after_ninety_days(
    registry: DetectorRegistry, store: StateStore, hand: HandClock
) -> None:
    promoted(registry)
    hand.now += 90 * DAY
    registry.expire_old_detectors()
    hand.now += 90 * DAY + 1
    with store.writing() as connection:
        assert forget_old_detectors(connection, hand.now - 90 * DAY) == 2
    assert registry.detectors() == ()
    assert snapshots_of(store, FUNCTION) == ()


@settings(max_examples=100)
@given(st.lists(st.floats(min_value=-1e9, max_value=4e9), max_size=15))
def test_whatever_the_clock_does_what_is_active_isnt_ended_and_versions_only_rise(times: list[float]) -> None:
    hand = HandClock()
    store = StateStore(None, hand)
    registry = DetectorRegistry(store, b"k" * 32, 90, keep_as_it_is)
    number, last = promoted(registry).id, 0
    for now in times:
        hand.now = now
        registry.expire_old_detectors()
        for one in registry.get_active_detectors(FUNCTION):
            assert now < one.expires_at
        candidate(registry)
        found = registry.detector(number)
        assert found.version >= last
        last = found.version
    store.close()


# Rollback


STEPS = ("find", "validate", "retry", "promote", "reject", "expire")


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 4)),
        max_size=25,
    )
)
def test_after_a_rollback_the_detectors_are_those_of_the_snapshot(steps: list[tuple[str, int]]) -> None:
    """PIC-P15: Rollback consistency: the state after a rollback equals the snapshot, whatever was done."""
    hand = HandClock()
    store = StateStore(None, hand)
    registry = DetectorRegistry(store, b"k" * 32, 90, keep_as_it_is)
    other = promoted(registry, b"other", "shop.orders:cancel")

    def state() -> bytes:
        with store.reading() as connection:
            return detectors_document(connection, FUNCTION)

    number = candidate(registry).id
    registry.validate(number, calls(1), scorer)
    before, listed = state(), registry.detectors(FUNCTION)
    registry.promote(number, "dana")
    (snapshot,) = snapshots_of(store, FUNCTION)
    for step, pick in steps:
        hand.now += DAY
        numbers = [one.id for one in registry.detectors(FUNCTION)]
        chosen = numbers[pick % len(numbers)]
        try:
            if step == "find":
                candidate(registry, b"p%d" % pick)
            elif step == "validate":
                registry.validate(chosen, calls(3 * pick), scorer)
            elif step == "retry":
                registry.retry(chosen, "dana")
            elif step == "promote":
                registry.promote(chosen, "dana")
            elif step == "reject":
                registry.reject(chosen, "dana", "no")
            else:
                hand.now += 40 * DAY
                registry.expire_old_detectors()
        except ImmuneError:
            pass
    after = state()
    event = roll_back(store, FUNCTION, snapshot.id, "dana")
    assert (event.kind, event.by) == (Happened.ROLLED_BACK, "dana")
    assert state() == before
    assert registry.detectors(FUNCTION) == listed
    assert active(registry) == []
    assert registry.detector(other.id).signature_hash == other.signature_hash
    undo = snapshots_of(store, FUNCTION)[0]
    roll_back(store, FUNCTION, undo.id, "dana")
    assert state() == after
    store.close()


def test_a_rolled_back_promotion_is_seen_at_once_by_another_process(
    registry: DetectorRegistry, store: StateStore, path: Path
) -> None:
    number = promoted(registry).id
    assert active(registry) == [number]
    other = StateStore(path, store.clock)
    roll_back(other, FUNCTION, snapshots_of(other, FUNCTION)[0].id, "dana")
    other.close()
    assert active(registry) == []
    assert registry.detector(number).state is DetectorState.CANDIDATE


def test_a_snapshot_that_isnt_what_was_taken_is_refused_and_changes_nothing(
    registry: DetectorRegistry, store: StateStore
) -> None:
    number = promoted(registry).id
    taken = snapshots_of(store, FUNCTION)[0]
    for change in ("document = x'5b5d'", "sha256 = ''", "document = 7"):
        with store.writing() as connection:
            connection.execute(f"UPDATE snapshots SET {change}")
        with pytest.raises(ImmuneError) as caught:
            roll_back(store, FUNCTION, taken.id, "dana")
        assert code_of(caught) == "immune.state_damaged"
        assert active(registry) == [number]
    with pytest.raises(ImmuneError) as caught:
        roll_back(store, FUNCTION, 99, "dana")
    assert code_of(caught) == "immune.detector_unknown"


def test_numbers_are_never_used_twice(registry: DetectorRegistry, store: StateStore) -> None:
    first = promoted(registry).id
    second = candidate(registry, b"2").id
    roll_back(store, FUNCTION, snapshots_of(store, FUNCTION)[0].id, "dana")
    assert candidate(registry, b"3").id > second > first


# Damage


@pytest.mark.parametrize(
    "change",
    ["threshold = 'much'", "expires_at = 'never'", "created_at = x'00'", "verdict_json = '{'",
     "expires_at = 9e999", "version = 'one'"],
)  # fmt: skip
def test_a_row_that_cant_be_read_is_no_detector_and_never_blocks(
    registry: DetectorRegistry, store: StateStore, change: str
) -> None:
    promoted(registry, pattern_of(FUNCTION, HIGH))
    sound = promoted(registry, b"sound", "shop.orders:cancel").id
    assert registry.matching(FUNCTION, HIGH) is not None
    with store.writing() as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute(f"UPDATE detectors SET {change} WHERE function = ?", (FUNCTION,))
    assert registry.matching(FUNCTION, HIGH) is None
    assert [one.id for one in registry.detectors()] == [sound]
    made, event = registry.store_detector(FUNCTION, pattern_of(FUNCTION, HIGH), 80.0, "event-2")
    assert event is not None
    assert made.state is DetectorState.CANDIDATE


def test_what_is_stored_of_a_verdict_can_be_read_by_a_person(
    registry: DetectorRegistry, store: StateStore
) -> None:
    number = candidate(registry).id
    registry.validate(number, calls(2), scorer)
    with store.reading() as connection:
        (text,) = connection.execute("SELECT verdict_json FROM detectors").fetchone()
    stored = json.loads(text)
    assert (stored["total"], stored["false_positives"], len(stored["traces"])) == (100, 2, 2)


# One candidate of each feature


def seen(registry: DetectorRegistry, times: float, feature: str = "duration") -> Detector:
    score = Score(96.0, 1e-6, feature, times)
    made, _ = registry.store_detector(FUNCTION, pattern_of(FUNCTION, score), 80.0, score.reason)
    return made


def waiting(registry: DetectorRegistry) -> list[int]:
    return [one.id for one in registry.detectors() if one.state is DetectorState.CANDIDATE]


def test_of_one_feature_the_weakest_candidate_waits_and_the_stronger_ones_end(
    registry: DetectorRegistry,
) -> None:
    strong, size = seen(registry, 27.7), seen(registry, 60.0, "size")
    assert seen(registry, 40.0).id == strong.id
    weak, event = registry.store_detector(
        FUNCTION, pattern_of(FUNCTION, Score(96.0, 1e-6, "duration", 5.1)), 80.0, "duration 5.1x median"
    )
    assert waiting(registry) == [size.id, weak.id]
    assert event is not None
    assert event.reason == f"scores above 80; in place of {strong.id}, which would recognise less"
    assert registry.detector(strong.id).reason == f"detector {weak.id} recognises what it would"
    with pytest.raises(ImmuneError) as refused:
        registry.promote(strong.id, "dana")
    assert code_of(refused) == "immune.not_eligible"
    assert seen(registry, 27.7).id == weak.id


def test_what_is_promoted_stays_and_makes_stronger_candidates_needless(registry: DetectorRegistry) -> None:
    strong = seen(registry, 27.7)
    registry.validate(strong.id, calls(0), scorer)
    registry.promote(strong.id, "dana")
    weak = seen(registry, 5.1)
    assert registry.detector(strong.id).state is DetectorState.ACTIVE
    assert weak.state is DetectorState.CANDIDATE
    assert seen(registry, 500.0).id == strong.id


def test_a_rejected_candidate_hides_no_stronger_one(registry: DetectorRegistry) -> None:
    """Twice as long is the nightly batch; fifty times as long isn't."""
    weak = seen(registry, 2.5)
    registry.reject(weak.id, "dana", "the nightly batch")
    strong = seen(registry, 50.0)
    assert strong.state is DetectorState.CANDIDATE
    assert strong.id != weak.id
    assert seen(registry, 2.5).state is DetectorState.REJECTED


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from(["duration", "size"]), st.floats(1.0, 1e6)), min_size=1, max_size=12)
)
def test_whatever_comes_in_whatever_order_the_weakest_of_each_feature_waits_and_recognises_all(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, float]]
) -> None:
    folder = tmp_path_factory.mktemp("state")
    folder.chmod(0o700)
    registry = DetectorRegistry(StateStore(folder / "immune.db"), b"k" * 32, 90.0, keep_as_it_is)
    for feature, times in found:
        seen(registry, times, feature)
    assert len(waiting(registry)) == len({feature for feature, _ in found})
    for number in waiting(registry):
        registry.validate(number, calls(0), scorer)
    assert len(registry.promote_passed("dana", FUNCTION)) == len({feature for feature, _ in found})
    for feature, times in found:
        assert registry.matching(FUNCTION, Score(96.0, 1e-6, feature, times)) is not None
