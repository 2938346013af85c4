"""Another trial of a candidate that failed: who may ask for it, and what the candidate is meanwhile."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from pathlib import Path

import pytest

from cloister.core.canonical import canonicalize
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import (
    Detector,
    DetectorRegistry,
    DetectorState,
    Happened,
    StateStore,
    pattern_of,
    roll_back,
    snapshots_of,
)
from cloister.immune.keeping.schema import VERSION
from cloister.immune.observation import Observed, Score
from tests.immune.keeping.conftest import FUNCTION, START, HandClock, keep_as_it_is
from tests.immune.keeping.test_detectors import DAY, HIGH, calls, candidate, code_of, promoted, scorer

KEY = b"k" * 32


@pytest.fixture
def registry(store: StateStore) -> DetectorRegistry:
    return DetectorRegistry(store, KEY, 90, keep_as_it_is)


def failed(registry: DetectorRegistry, pattern: bytes = b"p") -> int:
    number = candidate(registry, pattern).id
    verdict, _ = registry.validate(number, calls(6), scorer)
    assert not verdict.passed
    return number


def asked(registry: DetectorRegistry, pattern: bytes = b"p") -> int:
    number = failed(registry, pattern)
    registry.retry(number, "dana")
    return number


def refusal(registry: DetectorRegistry, number: int) -> ImmuneError:
    before = registry.detectors()
    with pytest.raises(ImmuneError) as caught:
        registry.retry(number, "dana")
    assert registry.detectors() == before
    return caught.value


# What is asked


def test_a_candidate_that_failed_is_tried_again_for_who_asks_and_may_be_promoted_then(
    registry: DetectorRegistry, hand: HandClock
) -> None:
    number = failed(registry)
    hand.now += DAY
    event = registry.retry(number, "dana")
    assert (event.kind, event.function, event.detector, event.by, event.reason) == (
        Happened.RETRY_ASKED, FUNCTION, number, "dana",
        "6 of 100 ordinary calls flagged: it is tried again on 100 from now on",
    )  # fmt: skip
    hand.now += 60
    assert registry.to_try(FUNCTION) == ((number, 60.0),)
    assert registry.to_try("shop.orders:cancel") == ()
    verdict, tried = registry.validate(number, calls(5), scorer)
    assert (verdict.passed, tried.kind) == (True, Happened.DETECTOR_VALIDATED)
    assert registry.to_try(FUNCTION) == ()
    registry.promote(number, "dana")
    assert [one.id for one in registry.get_active_detectors(FUNCTION)] == [number]


def test_until_it_was_tried_again_it_is_a_candidate_that_failed_and_isnt_promoted(
    registry: DetectorRegistry,
) -> None:
    number = asked(registry, pattern_of(FUNCTION, HIGH))
    found = registry.detector(number)
    assert (found.state, found.retry_at, found.waits) == (DetectorState.CANDIDATE, START, True)
    assert found.reason == "another trial was asked for by dana"
    assert found.verdict is not None
    assert found.verdict.reason == "6 of 100 ordinary calls flagged"
    assert Detector.from_json(found.to_json()) == found
    with pytest.raises(ImmuneError) as caught:
        registry.promote(number, "dana")
    assert code_of(caught) == "immune.not_eligible"
    assert registry.promote_passed() == ()
    assert registry.matching(FUNCTION, HIGH) is None


def test_one_that_fails_again_may_be_asked_for_once_more(registry: DetectorRegistry) -> None:
    number = asked(registry)
    registry.validate(number, calls(7), scorer)
    assert not registry.detector(number).waits
    registry.retry(number, "dana")
    verdict, _ = registry.validate(number, calls(0), scorer)
    assert verdict.passed


def test_one_request_is_one_trial_whichever_process_makes_it(
    registry: DetectorRegistry, path: Path, hand: HandClock
) -> None:
    number = asked(registry)
    other = StateStore(path, hand)
    neighbour = DetectorRegistry(other, KEY, 90, keep_as_it_is)
    assert neighbour.to_try(FUNCTION) == registry.to_try(FUNCTION) == ((number, 0.0),)
    neighbour.validate(number, calls(6), scorer)
    with pytest.raises(ImmuneError) as caught:
        registry.validate(number, calls(0), scorer)
    assert code_of(caught) == "immune.not_eligible"
    found = registry.detector(number)
    assert found.verdict is not None
    assert not found.verdict.passed
    other.close()


def test_what_one_process_found_isnt_replaced_by_another_ones_first_trial(registry: DetectorRegistry) -> None:
    number = failed(registry)
    with pytest.raises(ImmuneError) as caught:
        registry.validate(number, calls(0), scorer)
    assert code_of(caught) == "immune.not_eligible"
    assert not registry.detector(number).waits


def test_of_two_who_ask_at_once_one_is_told_that_it_was_asked_already(
    registry: DetectorRegistry, path: Path, hand: HandClock
) -> None:
    number = asked(registry)
    hand.now += 1
    other = StateStore(path, hand)
    refused = refusal(DetectorRegistry(other, KEY, 90, keep_as_it_is), number)
    other.close()
    assert (refused.code, "asked for already" in refused.message) == ("immune.not_failed", True)
    assert registry.detector(number).retry_at == START


def test_a_trial_during_which_the_request_was_rolled_back_leaves_no_verdict(
    registry: DetectorRegistry, store: StateStore
) -> None:
    number = failed(registry)
    before = registry.detector(number)
    promoted(registry, b"other")
    registry.retry(number, "dana")

    def roll_it_back(observed: Observed) -> Score:
        if registry.detector(number).waits:
            roll_back(store, FUNCTION, snapshots_of(store, FUNCTION)[0].id, "dana")
        return scorer(observed)

    with pytest.raises(ImmuneError) as caught:
        registry.validate(number, calls(0), roll_it_back)
    assert code_of(caught) == "immune.not_eligible"
    assert registry.detector(number) == before


def test_a_trial_of_an_earlier_request_is_no_answer_to_a_later_one(
    registry: DetectorRegistry, store: StateStore, hand: HandClock
) -> None:
    """Rolled back and asked for again while it runs, it has the same version as before."""
    number = failed(registry)
    promoted(registry, b"other")
    registry.retry(number, "dana")

    def ask_anew(observed: Observed) -> Score:
        if registry.detector(number).retry_at == START:
            roll_back(store, FUNCTION, snapshots_of(store, FUNCTION)[0].id, "dana")
            hand.now += 1
            registry.retry(number, "dana")
        return scorer(observed)

    with pytest.raises(ImmuneError) as caught:
        registry.validate(number, calls(0), ask_anew)
    assert code_of(caught) == "immune.not_eligible"
    assert (registry.detector(number).version, registry.detector(number).retry_at) == (3, START + 1)


# What is refused


def test_only_what_failed_is_tried_again_and_a_refusal_names_the_other_way(
    registry: DetectorRegistry, hand: HandClock
) -> None:
    untried = candidate(registry, b"untried").id
    passed = candidate(registry, b"passed").id
    registry.validate(passed, calls(0), scorer)
    active = promoted(registry, b"active").id
    rejected = failed(registry, b"rejected")
    registry.reject(rejected, "dana", "the nightly batch")
    late = failed(registry, b"late")
    ways = {
        untried: ("it wasn't tried yet", "100 ordinary calls"),
        passed: ("its trial was passed", f"pic detectors promote {passed}"),
        active: ("it is promoted", f"pic detectors reject {active}"),
        rejected: ("it was rejected", f"pic detectors rollback {FUNCTION}"),
    }
    for number, (why, way) in ways.items():
        refused = refusal(registry, number)
        assert (refused.code, why in refused.message, way in refused.hint) == (
            "immune.not_failed",
            True,
            True,
        )
    hand.now += 90 * DAY
    for _ in range(2):
        refused = refusal(registry, late)
        assert (refused.code, "its time is up" in refused.message) == ("immune.not_failed", True)
        assert "seen again" in refused.hint
        registry.expire_old_detectors()


def test_a_number_that_nobody_has_or_that_a_rollback_took_away_is_unknown(
    registry: DetectorRegistry, store: StateStore
) -> None:
    assert refusal(registry, 99).message == "There is no detector 99."
    for wrong in (0, -1, 2**70):
        assert refusal(registry, wrong).message == f"There is no detector {wrong}."
    promoted(registry)
    later = failed(registry, b"later")
    roll_back(store, FUNCTION, snapshots_of(store, FUNCTION)[0].id, "dana")
    refused = refusal(registry, later)
    assert (refused.code, "rollback" in refused.message) == ("immune.detector_unknown", True)
    assert refused.hint == "See: pic detectors list"


def test_a_promotion_that_was_rolled_back_leaves_a_candidate_that_passed(
    registry: DetectorRegistry, store: StateStore
) -> None:
    number = promoted(registry).id
    roll_back(store, FUNCTION, snapshots_of(store, FUNCTION)[0].id, "dana")
    refused = refusal(registry, number)
    assert (refused.code, "its trial was passed" in refused.message) == ("immune.not_failed", True)


# What becomes of a request


def test_a_request_ends_with_its_candidates_time_which_it_doesnt_prolong(
    registry: DetectorRegistry, hand: HandClock
) -> None:
    number = asked(registry)
    assert registry.detector(number).expires_at == START + 90 * DAY
    hand.now += 90 * DAY
    assert registry.to_try(FUNCTION) == ()
    registry.expire_old_detectors()
    assert registry.detector(number).retry_at is None


def test_a_pattern_that_is_found_anew_has_no_request_of_before(
    registry: DetectorRegistry, hand: HandClock
) -> None:
    number = asked(registry)
    hand.now += 90 * DAY
    again, _ = registry.store_detector(FUNCTION, b"p", 80.0, "seen again")
    assert (again.id, again.retry_at, again.verdict) == (number, None, None)


def test_what_is_rejected_or_replaced_by_a_weaker_one_isnt_tried_again(registry: DetectorRegistry) -> None:
    rejected, replaced = asked(registry), asked(registry, pattern_of(FUNCTION, HIGH))
    registry.reject(rejected, "dana", "the nightly batch")
    weaker = pattern_of(FUNCTION, Score(96.0, 1e-6, "duration", 2.1))
    made, _ = registry.store_detector(FUNCTION, weaker, 80.0, "duration 2.1x median")
    assert registry.detector(replaced).state is DetectorState.EXPIRED
    assert registry.to_try(FUNCTION) == ((made.id, math.inf),)
    assert [registry.detector(one).retry_at for one in (rejected, replaced)] == [None, None]


def test_a_pattern_that_is_seen_while_it_waits_makes_no_second_candidate(registry: DetectorRegistry) -> None:
    number = asked(registry)
    again, event = registry.store_detector(FUNCTION, b"p", 80.0, "seen again")
    assert (again, event) == (registry.detector(number), None)


def test_a_rollback_takes_a_request_back_or_brings_it_back(
    registry: DetectorRegistry, store: StateStore, hand: HandClock
) -> None:
    number, other = failed(registry), candidate(registry, b"other").id
    registry.validate(other, calls(0), scorer)
    registry.promote(other, "dana")
    registry.retry(number, "dana")
    waiting = registry.detector(number)
    roll_back(store, FUNCTION, snapshots_of(store, FUNCTION)[0].id, "dana")
    assert registry.detector(number).retry_at is None
    assert registry.to_try(FUNCTION) == ()
    hand.now += 5
    roll_back(store, FUNCTION, snapshots_of(store, FUNCTION)[0].id, "dana")
    assert registry.detector(number) == waiting
    assert registry.to_try(FUNCTION) == ((number, 5.0),)


def test_a_request_outlives_the_processes(registry: DetectorRegistry, store: StateStore, path: Path) -> None:
    number = asked(registry)
    store.close()
    store = StateStore(path, HandClock(START + 30))
    assert DetectorRegistry(store, KEY, 90, keep_as_it_is).to_try(FUNCTION) == ((number, 30.0),)
    store.close()


def test_a_clock_that_went_back_makes_a_request_no_older_than_now(
    registry: DetectorRegistry, hand: HandClock
) -> None:
    number = asked(registry)
    hand.now -= 500
    assert registry.to_try(FUNCTION) == ((number, 0.0),)


def test_who_asks_is_redacted_before_it_is_kept(store: StateStore) -> None:
    registry = DetectorRegistry(store, KEY, 90, lambda text: text.replace("anna", "[NAME]"))
    number = failed(registry)
    assert registry.retry(number, "anna").by == "[NAME]"
    assert registry.detector(number).reason == "another trial was asked for by [NAME]"


@pytest.mark.parametrize("wrong", ["'soon'", "9e999", "x'00'"])
def test_a_row_with_a_request_that_cant_be_read_is_no_detector(
    registry: DetectorRegistry, store: StateStore, wrong: str
) -> None:
    asked(registry)
    with store.writing() as connection:
        connection.execute(f"UPDATE detectors SET retry_at = {wrong}")
    assert registry.detectors() == registry.to_try(FUNCTION) == ()


# What was kept before there were requests


def test_a_state_of_the_version_before_gets_the_column_and_its_snapshots_can_be_gone_back_to(
    registry: DetectorRegistry, store: StateStore, path: Path, hand: HandClock
) -> None:
    kept = promoted(registry)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE detectors DROP COLUMN retry_at")
        (document,) = connection.execute("SELECT document FROM snapshots").fetchone()
        older = canonicalize([row[:-1] for row in json.loads(document)])
        digest = hashlib.sha256(older).hexdigest()
        connection.execute("UPDATE snapshots SET document = ?, sha256 = ?", (older, digest))
        connection.execute("PRAGMA user_version=2")
    store = StateStore(path, hand)
    opened = DetectorRegistry(store, KEY, 90, keep_as_it_is)
    with store.reading() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert opened.detector(kept.id) == kept
    roll_back(store, FUNCTION, snapshots_of(store, FUNCTION)[0].id, "dana")
    assert (opened.detector(kept.id).state, opened.detector(kept.id).retry_at) == ("candidate", None)
    assert not store.alarms
    store.close()
