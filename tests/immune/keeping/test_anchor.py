"""Anchors: what is approved is signed, and nothing else is taken for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.keys import Signer
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import AnchorKeeper, Band, Happened, Standing, StateStore, drift_of
from cloister.immune.keeping.anchor import APPROVE, Anchor, Mark, open_anchor, open_mark
from cloister.immune.keeping.approval import LASTING, forget_old_marks
from cloister.immune.keeping.drift import YARDSTICK, DriftAlarm, distance, limits_of, within
from tests.immune.keeping.conftest import FUNCTION, START, HandClock

RATIO = 1.5
levels = st.floats(min_value=1e-6, max_value=1e6)


@pytest.fixture
def keeper(store: StateStore, signer: Signer) -> AnchorKeeper:
    return AnchorKeeper(store, signer, RATIO)


def anchor(**changes: object) -> Anchor:
    members: dict[str, object] = {
        "function": FUNCTION, "sequence": 1, "bands": MappingProxyType({"duration": Band(0.5, 2.0)}),
        "calls": 100, "span": 3600.0, "taken_at": START, "mark": "0" * 64, "approved_by": "dana",
    }  # fmt: skip
    return Anchor(**{**members, **changes})  # type: ignore[arg-type]


def settle(keeper: AnchorKeeper, level: float = 1.0, calls: int = 200, function: str = FUNCTION) -> None:
    keeper.approve(function, "dana")
    feed(keeper, [level] * calls, function=function)


def feed(
    keeper: AnchorKeeper, series: list[float], *, at: float = 0.0, function: str = FUNCTION
) -> list[Happened]:
    events = [keeper.check(function, {"duration": level}, at + step) for step, level in enumerate(series)]
    return [event.kind for event in events if event is not None]


def test_an_anchor_and_a_decision_are_read_as_they_were_signed(signer: Signer) -> None:
    signed = anchor().document()
    assert open_anchor(signed, signer.sign(signed), FUNCTION, signer.public_key) == anchor()
    mark = Mark(FUNCTION, APPROVE, "", "dana", START, 200, 86_400.0)
    signed = mark.document()
    assert open_mark(signed, signer.sign(signed), FUNCTION, signer.public_key) == mark


@settings(max_examples=100)
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_an_anchor_that_was_changed_in_any_byte_isnt_one(place: int, change: int) -> None:
    from cloister.core.keys import EphemeralKeyStore

    signer = EphemeralKeyStore().generate("brain")
    document = anchor().document()
    both = bytearray(document + signer.sign(document))
    both[place % len(both)] ^= change
    with pytest.raises(ImmuneError) as caught:
        open_anchor(bytes(both[: len(document)]), bytes(both[len(document) :]), FUNCTION, signer.public_key)
    assert caught.value.code == "immune.anchor_invalid"


@pytest.mark.parametrize(
    "document",
    [
        anchor(function="other:one").document(),
        Mark(FUNCTION, APPROVE, "", "dana", START).document(),
        anchor(bands=MappingProxyType({"duration": Band(2.0, 1.0)})).document(),
        anchor(bands=MappingProxyType({"duration": Band(-1.0, 1.0)})).document(),
        anchor().document().replace(b'"calls":100', b'"calls":"a"'),
        anchor().document().replace(b'"calls":100', b'"calls":true'),
        anchor().document().replace(b'"calls":100', b'"calls":100,"extra":1'),
        anchor().document().replace(b'"span":3600,', b""),
        b"", b"null", b"[]", b"{}",
    ],
)  # fmt: skip
def test_a_good_signature_over_anything_else_isnt_an_anchor(signer: Signer, document: bytes) -> None:
    with pytest.raises(ImmuneError) as caught:
        open_anchor(document, signer.sign(document), FUNCTION, signer.public_key)
    assert caught.value.code == "immune.anchor_invalid"


def test_an_anchor_of_another_key_isnt_trusted(signer: Signer, other_signer: Signer) -> None:
    document = anchor().document()
    with pytest.raises(ImmuneError):
        open_anchor(document, other_signer.sign(document), FUNCTION, signer.public_key)


def test_an_anchor_isnt_a_decision(signer: Signer) -> None:
    document = anchor().document()
    with pytest.raises(ImmuneError):
        open_mark(document, signer.sign(document), FUNCTION, signer.public_key)


@settings(max_examples=100)
@given(levels, levels, levels, st.floats(min_value=1, max_value=100))
def test_the_distance_of_a_level_is_one_within_the_band_and_grows_with_it_beyond(
    one: float, other: float, level: float, times: float
) -> None:
    band = Band(min(one, other), max(one, other))
    if band.low <= level <= band.high:
        assert distance(level, band) == 1.0
    assert distance(band.high * times, band) == pytest.approx(times)
    assert distance(band.low / times, band) == pytest.approx(times)
    assert distance(band.high * times * 2, band) >= distance(band.high * times, band)


def test_drift_names_the_feature_that_is_furthest_and_is_told_in_both_directions() -> None:
    bands = {"duration": Band(1.0, 1.0), "size": Band(10.0, 20.0)}
    assert drift_of(FUNCTION, {"duration": 1.5, "size": 30.0}, bands, RATIO) is None
    above = drift_of(FUNCTION, {"duration": 1.6, "size": 60.0, "unknown": 1e9}, bands, RATIO)
    assert above is not None
    assert (above.feature, above.ratio) == ("size", 3.0)
    assert above.reason == "size 60, 3.00x beyond the approved 10 to 20"
    below = drift_of(FUNCTION, {"duration": 0.5}, bands, RATIO)
    assert below is not None
    assert below.ratio == 2.0


@settings(max_examples=200)
@given(
    st.sampled_from(["duration", "size", "errors", "other"]),
    st.one_of(levels, st.just(0.0)),
    st.one_of(levels, st.just(0.0)),
    st.one_of(levels, st.sampled_from([0.0, math.nan, math.inf, -1.0])),
    st.floats(min_value=1.01, max_value=10),
)
def test_the_quick_look_lets_no_drift_pass(
    feature: str, one: float, other: float, level: float, ratio: float
) -> None:
    bands = {feature: Band(min(one, other), max(one, other))}
    for near in (level, bands[feature].high * ratio, bands[feature].low / ratio):
        drifts = drift_of(FUNCTION, {feature: near}, bands, ratio) is not None
        assert not (drifts and within({feature: near}, limits_of(bands, ratio)))
    assert within({feature: math.nan}, limits_of(bands, ratio))
    assert within({}, limits_of(bands, ratio))
    if one > 0.1:
        assert within({feature: max(one, other)}, limits_of(bands, ratio))


def test_a_level_that_isnt_known_isnt_judged() -> None:
    assert drift_of(FUNCTION, {"duration": math.nan}, {"duration": Band(1.0, 1.0)}, RATIO) is None


def slowed(duration: float, scoring: float, size: float = 10.0) -> DriftAlarm | None:
    """The drift of a function that was approved at 20 us, where our own work took 5 us."""
    bands = {
        "duration": Band(2e-5, 2e-5),
        "size": Band(10.0, 10.0),
        YARDSTICK: Band(5e-6, 5e-6),
    }
    return drift_of(FUNCTION, {"duration": duration, "size": size, YARDSTICK: scoring}, bands, RATIO)


def test_a_machine_that_is_slower_or_quicker_than_at_the_approval_is_no_drift() -> None:
    assert slowed(4.4e-5, 1.1e-5) is None
    assert slowed(9e-6, 2.2e-6) is None


def test_a_function_that_is_slower_than_its_machine_drifts_and_the_alarm_says_how_much_was_left_out() -> None:
    found = slowed(8e-5, 1e-5)
    assert found is not None
    assert (found.ratio, found.slowed) == (pytest.approx(2.0), pytest.approx(2.0))
    assert found.reason.endswith(
        "2.00x beyond the approved 2e-05 to 2e-05, without 2.00x of the machine's own"
    )


def test_a_slow_machine_excuses_no_duration_that_is_shorter_and_no_other_feature() -> None:
    assert slowed(1e-5, 1e-5) is not None
    assert slowed(2e-5, 1e-5, size=20.0) is not None


@settings(max_examples=100)
@given(st.floats(min_value=1e-9, max_value=1e3))
def test_who_slows_the_machine_down_hides_three_times_at_most(scoring: float) -> None:
    assert slowed(2e-5 * 3.0 * RATIO * 1.01, scoring) is not None
    assert slowed(2e-5 / (3.0 * RATIO * 1.01), scoring) is not None


@pytest.mark.parametrize("scoring", [math.nan, 0.0, -1.0])
def test_without_a_yardstick_a_duration_is_judged_as_it_is(scoring: float) -> None:
    assert slowed(3.1e-5, scoring) is not None
    assert drift_of(FUNCTION, {"duration": 3.1}, {"duration": Band(2.0, 2.0)}, RATIO) is not None


def test_the_yardstick_itself_never_drifts() -> None:
    assert slowed(2e-5, 1.0) is None
    assert limits_of({YARDSTICK: Band(1.0, 1.0)}, RATIO) == ()


@pytest.mark.parametrize(("feature", "small"), [("duration", 1e-6), ("size", 1.0), ("errors", 0.05)])
def test_levels_too_small_to_mean_anything_are_all_the_same(feature: str, small: float) -> None:
    bands = {feature: Band(0.0, 0.0)}
    assert drift_of(FUNCTION, {feature: small}, bands, RATIO) is None
    assert drift_of(FUNCTION, {feature: small * 1.4}, bands, RATIO) is None
    assert drift_of(FUNCTION, {feature: small * 1.6}, bands, RATIO) is not None


@pytest.mark.parametrize("level", [0.0, -1.0, math.inf])
def test_a_level_that_is_none_is_a_drift_and_no_error(level: float) -> None:
    assert drift_of(FUNCTION, {"duration": level}, {"duration": Band(1.0, 1.0)}, RATIO) is not None


def test_until_somebody_approves_a_function_is_only_observed_and_learns(keeper: AnchorKeeper) -> None:
    assert keeper.standing(FUNCTION) is Standing.UNAPPROVED
    assert feed(keeper, [1.0, 100.0]) == []
    assert not keeper.may_block(FUNCTION)
    assert keeper.may_learn(FUNCTION, blocks=True)


def test_approval_takes_the_anchor_over_the_calls_that_follow_once_the_level_has_settled(
    keeper: AnchorKeeper,
) -> None:
    event = keeper.approve(FUNCTION, "dana")
    assert (event.kind, event.by) == (Happened.ANCHOR_APPROVED, "dana")
    assert keeper.standing(FUNCTION) is Standing.RELEARNING
    assert not keeper.may_block(FUNCTION)
    assert feed(keeper, [50.0] * 100 + [1.0] * 50 + [1.2] * 49) == []
    assert feed(keeper, [1.1]) == [Happened.ANCHOR_SIGNED]
    assert keeper.standing(FUNCTION) is Standing.APPROVED
    assert keeper.may_block(FUNCTION)
    taken = keeper.anchor(FUNCTION)
    assert taken is not None
    assert (taken.sequence, taken.calls, taken.approved_by) == (1, 100, "dana")
    assert taken.bands["duration"] == Band(1.0, 1.2)


def test_where_a_period_is_known_the_anchor_is_taken_over_all_of_it(keeper: AnchorKeeper) -> None:
    day = 86_400
    keeper.approve(FUNCTION, "dana", calls=200, span=day)

    def daily(second: int) -> float:
        return 1.0 + 0.4 * math.sin(2 * math.pi * second / day)

    told: list[Happened] = []
    for second in range(0, 2 * day, 60):
        event = keeper.check(FUNCTION, {"duration": daily(second)}, float(second))
        if event is not None:
            told.append(event.kind)
        if second < day:
            assert keeper.standing(FUNCTION) is Standing.RELEARNING
    assert told == [Happened.ANCHOR_SIGNED]
    taken = keeper.anchor(FUNCTION)
    assert taken is not None
    assert taken.span >= day
    assert taken.bands["duration"].low == pytest.approx(0.6, abs=0.01)
    assert taken.bands["duration"].high == pytest.approx(1.4, abs=0.01)


def test_an_anchor_of_one_phase_alone_takes_the_daily_rhythm_for_drift(keeper: AnchorKeeper) -> None:
    settle(keeper, 0.6)
    assert feed(keeper, [1.0] * LASTING) == [Happened.DRIFT_BEGAN]


@pytest.mark.parametrize(
    ("calls", "span"), [(1, 0.0), (0, 0.0), (200, -1.0), (200, math.inf), (200, math.nan)]
)
def test_an_approval_of_nothing_is_refused(keeper: AnchorKeeper, calls: int, span: float) -> None:
    with pytest.raises(ImmuneError) as caught:
        keeper.approve(FUNCTION, "dana", calls=calls, span=span)
    assert caught.value.code == "immune.setting_invalid"


def test_a_drift_is_told_once_when_it_begins_and_once_when_it_ends(keeper: AnchorKeeper) -> None:
    settle(keeper)
    assert feed(keeper, [1.4] + [1.51, 1.6] * (LASTING // 2) + [1.49, 1.51, 1.3]) == [Happened.DRIFT_BEGAN]
    alarm = keeper.alarm(FUNCTION)
    assert alarm is not None
    assert keeper.standing(FUNCTION) is Standing.DRIFTED
    assert feed(keeper, [1.2, 1.1, 1.4]) == [Happened.DRIFT_ENDED]
    assert keeper.alarm(FUNCTION) is None


def test_a_level_that_comes_back_sooner_than_a_burst_of_load_does_is_no_drift(keeper: AnchorKeeper) -> None:
    settle(keeper)
    assert feed(keeper, ([1.6] * (LASTING - 1) + [1.4]) * 20) == []
    assert keeper.standing(FUNCTION) is Standing.APPROVED
    assert keeper.alarm(FUNCTION) is None


def test_in_a_drift_a_function_that_may_block_learns_no_more_and_one_that_cant_learns_on(
    keeper: AnchorKeeper,
) -> None:
    settle(keeper)
    assert keeper.may_learn(FUNCTION, blocks=True)
    feed(keeper, [2.0])
    assert keeper.standing(FUNCTION) is Standing.APPROVED
    assert not keeper.may_learn(FUNCTION, blocks=True)
    feed(keeper, [2.0] * LASTING)
    assert keeper.standing(FUNCTION) is Standing.DRIFTED
    assert not keeper.may_learn(FUNCTION, blocks=True)
    assert keeper.may_learn(FUNCTION, blocks=False)
    assert keeper.may_block(FUNCTION)
    keeper.approve(FUNCTION, "dana")
    assert keeper.may_learn(FUNCTION, blocks=True)


def test_after_a_deploy_a_function_is_only_observed_until_it_is_approved_anew(keeper: AnchorKeeper) -> None:
    settle(keeper)
    event = keeper.deploy(FUNCTION, "ci")
    assert (event.kind, event.by) == (Happened.DEPLOYED, "ci")
    assert keeper.standing(FUNCTION) is Standing.UNAPPROVED
    assert not keeper.may_block(FUNCTION)
    assert feed(keeper, [3.0] * 500) == []
    settle(keeper, 3.0)
    assert keeper.may_block(FUNCTION)
    taken = keeper.anchor(FUNCTION)
    assert taken is not None
    assert taken.sequence == 2


def test_the_standing_survives_a_restart(keeper: AnchorKeeper, store: StateStore, signer: Signer) -> None:
    def restarted() -> AnchorKeeper:
        again = AnchorKeeper(store, signer, RATIO)
        assert again.refresh(FUNCTION) is None
        return again

    assert restarted().standing(FUNCTION) is Standing.UNAPPROVED
    keeper.approve(FUNCTION, "dana")
    assert restarted().standing(FUNCTION) is Standing.RELEARNING
    feed(keeper, [1.0] * 200)
    assert restarted().standing(FUNCTION) is Standing.APPROVED
    assert feed(restarted(), [2.0] * LASTING) == [Happened.DRIFT_BEGAN]
    keeper.deploy(FUNCTION, "ci")
    assert restarted().standing(FUNCTION) is Standing.UNAPPROVED


def test_what_another_process_decided_is_taken_over_and_two_that_relearn_sign_one_anchor(
    keeper: AnchorKeeper, store: StateStore, signer: Signer
) -> None:
    other = AnchorKeeper(store, signer, RATIO)
    other.refresh(FUNCTION)
    keeper.approve(FUNCTION, "dana")
    other.refresh(FUNCTION)
    assert feed(keeper, [1.0] * 199) == []
    assert feed(other, [1.0] * 199) == []
    assert feed(keeper, [1.0]) == [Happened.ANCHOR_SIGNED]
    assert feed(other, [1.0]) == []
    assert other.standing(FUNCTION) is Standing.APPROVED
    assert other.anchor(FUNCTION) == keeper.anchor(FUNCTION)
    with store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM anchors").fetchone() == (1,)


def tamper(store: StateStore, statement: str, *values: object) -> None:
    with store.writing() as connection:
        connection.execute(statement, values)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE anchors SET signature = x'00'",
        "UPDATE anchors SET document = x'7b7d'",
        "UPDATE anchors SET document = 'text', signature = 1",
        "UPDATE anchors SET document = (SELECT document FROM anchors WHERE function = 'other:one'),"
        " signature = (SELECT signature FROM anchors WHERE function = 'other:one')",
    ],
)
def test_a_function_whose_anchor_doesnt_verify_is_only_observed_until_it_is_approved_anew(
    keeper: AnchorKeeper, store: StateStore, statement: str
) -> None:
    settle(keeper, function="other:one")
    settle(keeper)
    tamper(store, statement + " WHERE function = ?", FUNCTION)
    event = keeper.refresh(FUNCTION)
    assert event is not None
    assert event.kind is Happened.ANCHOR_INVALID
    assert keeper.refresh(FUNCTION) is None
    assert keeper.standing(FUNCTION) is Standing.INVALID
    assert keeper.anchor(FUNCTION) is None
    assert not keeper.may_block(FUNCTION)
    assert feed(keeper, [9.0]) == []
    settle(keeper)
    assert keeper.standing(FUNCTION) is Standing.APPROVED


def test_a_decision_that_nobody_signed_changes_nothing(
    keeper: AnchorKeeper, store: StateStore, other_signer: Signer
) -> None:
    settle(keeper)
    forger = AnchorKeeper(store, other_signer, RATIO)
    forger.approve(FUNCTION, "mallory")
    assert keeper.refresh(FUNCTION) is None
    assert keeper.standing(FUNCTION) is Standing.APPROVED


def test_a_decision_that_was_carried_out_cant_be_used_again(keeper: AnchorKeeper, store: StateStore) -> None:
    settle(keeper)
    keeper.deploy(FUNCTION, "ci")
    settle(keeper, 3.0)
    tamper(
        store,
        "INSERT INTO marks (function, document, signature, kept_at)"
        " SELECT function, document, signature, kept_at FROM marks ORDER BY id",
    )
    assert keeper.refresh(FUNCTION) is None
    assert keeper.standing(FUNCTION) is Standing.APPROVED


def test_a_damaged_store_takes_every_approval_with_it_at_once(
    keeper: AnchorKeeper, store: StateStore
) -> None:
    from cloister.immune.keeping import Alarm

    settle(keeper)
    assert keeper.may_block(FUNCTION)
    store.raise_alarm(Alarm("state_damaged", "x", START))
    assert keeper.standing(FUNCTION) is Standing.UNAPPROVED
    assert not keeper.may_block(FUNCTION)


def test_while_another_writes_the_anchor_is_taken_later(
    keeper: AnchorKeeper, store: StateStore, signer: Signer
) -> None:
    keeper.approve(FUNCTION, "dana")
    feed(keeper, [1.0] * 199)
    assert store.path is not None
    other = StateStore(store.path)
    with other.writing(), pytest.raises(ImmuneError):
        feed(keeper, [1.0])
    other.close()
    assert keeper.standing(FUNCTION) is Standing.RELEARNING
    assert feed(keeper, [1.0] * 20) == [Happened.ANCHOR_SIGNED]


def test_old_decisions_go_and_a_functions_last_stays(
    keeper: AnchorKeeper, store: StateStore, hand: HandClock
) -> None:
    keeper.approve(FUNCTION, "dana")
    keeper.deploy(FUNCTION, "ci")
    hand.now += 1e7
    with store.writing() as connection:
        assert forget_old_marks(connection, hand.now) == 1
    keeper.refresh(FUNCTION)
    assert keeper.standing(FUNCTION) is Standing.UNAPPROVED


@settings(max_examples=100)
@given(st.lists(st.floats(min_value=-1e9, max_value=4e9), max_size=6), st.lists(st.floats(), max_size=30))
def test_a_clock_that_jumps_and_levels_that_are_none_are_harmless(
    times: list[float], series: list[float]
) -> None:
    from cloister.core.keys import EphemeralKeyStore

    hand = HandClock()
    store = StateStore(None, hand)
    keeper = AnchorKeeper(store, EphemeralKeyStore().generate("brain"), RATIO)
    for now in times:
        hand.now = now
        keeper.approve(FUNCTION, "dana", calls=4)
        feed(keeper, series, at=now)
        assert keeper.standing(FUNCTION) in set(Standing)
    store.close()


def test_checks_of_many_threads_sign_one_anchor(
    keeper: AnchorKeeper, new_signer: Callable[[str], Signer]
) -> None:
    import threading

    keeper.approve(FUNCTION, "dana", calls=1000)
    told: list[Happened] = []
    threads = [threading.Thread(target=lambda: told.extend(feed(keeper, [1.0] * 300))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [Happened.ANCHOR_SIGNED]
