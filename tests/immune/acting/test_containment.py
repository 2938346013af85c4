"""The stages of a function: what may follow what, and that no block lasts by itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloister.immune.acting import containment
from cloister.immune.acting.containment import (
    CONTAIN_AT,
    LONGEST,
    PROBES,
    WINDOW,
    Containment,
    ContainmentRules,
    Stage,
    Standing,
)
from cloister.immune.observation import Ground, Score

RULES = ContainmentRules()
READY = Standing(baseline=True, learned=1000, enforcing=True, promoted=True)
ORDINARY = Score(10.0, 0.7, "duration")
UNUSUAL = Score(85.0, 5e-4, "size")
EXTREME = Score(97.0, 1e-7, "size")


def _after(state: Containment, *scores: Score, at: float = 10.0, standing: Standing = READY) -> Containment:
    for score in scores:
        state, _ = containment.enter(state, score, standing, at, RULES)
        at += 0.001
    return state


def _contained() -> Containment:
    state = _after(Containment(), UNUSUAL, UNUSUAL, UNUSUAL)
    assert state.stage is Stage.CONTAIN
    return state


def _half_open() -> Containment:
    state = containment.advance(_contained(), READY, 10.0 + 61.0)
    assert state.stage is Stage.HALF_OPEN
    return state


def test_one_unusual_call_makes_a_suspicion_and_runs() -> None:
    state, ground = containment.enter(Containment(), EXTREME, READY, 1.0, RULES)
    assert (state.stage, ground) == (Stage.SUSPECT, Ground.REVIEW)


def test_the_third_unusual_call_is_stopped_before_it_runs() -> None:
    state = _after(Containment(), UNUSUAL, ORDINARY, UNUSUAL)
    assert state.stage is Stage.SUSPECT
    state, ground = containment.enter(state, UNUSUAL, READY, 11.0, RULES)
    assert (state.stage, ground) == (Stage.CONTAIN, Ground.CONTAINED)


def test_two_very_unusual_calls_are_enough() -> None:
    state = _after(Containment(), EXTREME)
    assert containment.enter(state, EXTREME, READY, 11.0, RULES)[1] is Ground.CONTAINED


def test_an_ordinary_call_of_a_contained_function_is_stopped_as_well() -> None:
    assert containment.enter(_contained(), ORDINARY, READY, 11.0, RULES)[1] is Ground.CONTAINED


def test_unusual_calls_further_apart_than_the_window_contain_nothing() -> None:
    state = Containment()
    for _ in range(50):
        state = _after(state, UNUSUAL, UNUSUAL, *[ORDINARY] * WINDOW)
    assert state.stage in {Stage.SUSPECT, Stage.OBSERVE}


def test_what_a_call_was_before_and_after_it_ran_counts_once() -> None:
    state = _after(Containment(), UNUSUAL, at=10.0)
    for _ in range(10):
        state = containment.leave(state, UNUSUAL, READY, 10.0, 12.0, RULES)
    assert state.stage is Stage.SUSPECT
    for began in (20.0, 21.0):
        state = containment.leave(state, UNUSUAL, READY, began, began + 1, RULES)
    assert state.stage is Stage.CONTAIN


def test_durations_alone_contain_the_calls_that_follow() -> None:
    state = _after(Containment(), ORDINARY)
    for began in (20.0, 21.0, 22.0):
        assert containment.enter(state, ORDINARY, READY, began, RULES)[1] is Ground.ORDINARY
        state = containment.leave(state, UNUSUAL, READY, began, began + 0.5, RULES)
    assert containment.enter(state, ORDINARY, READY, 23.0, RULES)[1] is Ground.CONTAINED


@pytest.mark.parametrize(
    ("standing", "stage"),
    [
        (Standing(baseline=True, learned=199, enforcing=True, promoted=True), Stage.SUSPECT),
        (Standing(baseline=True, learned=200, enforcing=False, promoted=True), Stage.CONTAIN),
        (Standing(baseline=True, learned=200, enforcing=True, promoted=False), Stage.CONTAIN),
        (Standing(baseline=False, learned=200, enforcing=True, promoted=True), Stage.LEARNING),
    ],
    ids=["too few learned calls", "not enabled", "no promoted detector", "no baseline"],
)
def test_without_each_of_the_four_conditions_a_call_is_marked_and_runs(
    standing: Standing, stage: Stage
) -> None:
    state = Containment()
    grounds = set()
    for at in range(10):
        state, ground = containment.enter(state, EXTREME, standing, float(at), RULES)
        grounds.add(ground)
    assert state.stage is stage
    assert Ground.CONTAINED not in grounds
    assert containment.enter(state, EXTREME, READY, 11.0, RULES)[1] is Ground.CONTAINED or (
        stage is Stage.LEARNING
    )


def test_the_first_and_then_one_in_twenty_calls_of_a_half_open_function_is_a_probe() -> None:
    state = _half_open()
    grounds = []
    for _ in range(60):
        state, ground = containment.enter(state, ORDINARY, READY, 80.0, RULES)
        grounds.append(ground)
    assert [at for at, ground in enumerate(grounds) if ground is Ground.PROBE] == [0, 20, 40]
    assert set(grounds) == {Ground.PROBE, Ground.CONTAINED}


def test_ordinary_probes_release_a_function_and_its_calls_run_again() -> None:
    state = _half_open()
    for number in range(PROBES):
        assert state.stage is Stage.HALF_OPEN
        state = containment.leave(state, ORDINARY, READY, 80.0 + number, 81.0 + number, RULES)
    assert state.stage is Stage.RELEASE
    assert containment.enter(state, ORDINARY, READY, 90.0, RULES)[1] is Ground.ORDINARY


def test_an_unusual_probe_contains_again_for_twice_as_long_up_to_a_bound() -> None:
    state, now, seconds = _contained(), 10.0, []
    for _ in range(8):
        now += state.seconds + 1.0
        state, ground = containment.enter(state, ORDINARY, READY, now, RULES)
        assert ground is Ground.PROBE
        state = containment.leave(state, UNUSUAL, READY, now, now + 0.1, RULES)
        assert state.stage is Stage.CONTAIN
        now = state.since
        seconds.append(state.seconds)
    assert seconds == [120.0, 240.0, 480.0, *[LONGEST * 60.0] * 5]


def test_a_probe_that_is_unusual_before_it_runs_does_not_run() -> None:
    state, ground = containment.enter(_half_open(), UNUSUAL, READY, 80.0, RULES)
    assert (state.stage, state.seconds, ground) == (Stage.CONTAIN, 120.0, Ground.CONTAINED)


def test_calls_that_began_before_the_containment_are_no_probes() -> None:
    state = _half_open()
    assert containment.leave(state, UNUSUAL, READY, 9.0, 80.0, RULES) == state


def test_a_half_open_function_without_an_unusual_probe_is_released_after_the_time_once_more() -> None:
    state = containment.advance(_half_open(), READY, 71.0 + 60.0)
    assert state.stage is Stage.RELEASE


def test_a_relapse_soon_after_a_release_lasts_longer_and_one_much_later_does_not() -> None:
    state = containment.advance(_half_open(), READY, 131.0)
    soon = _after(state, UNUSUAL, UNUSUAL, UNUSUAL, at=132.0)
    assert (soon.stage, soon.seconds) == (Stage.CONTAIN, 120.0)
    later = _after(state, UNUSUAL, UNUSUAL, UNUSUAL, at=132.0 + 60.0)
    assert (later.stage, later.seconds) == (Stage.CONTAIN, 60.0)


def test_a_clock_that_goes_back_does_not_make_a_containment_longer_than_its_time() -> None:
    state = _contained()
    state = containment.advance(state, READY, -1e9)
    assert state.stage is Stage.CONTAIN
    assert containment.advance(state, READY, -1e9 + 60.0).stage is Stage.HALF_OPEN


def test_the_end_of_a_call_that_is_told_late_does_not_shorten_a_containment() -> None:
    state = _contained()
    late = containment.leave(state, ORDINARY, READY, -300.0, -299.0, RULES)
    assert late == state
    assert containment.enter(late, ORDINARY, READY, 60.0, RULES)[1] is Ground.CONTAINED


def test_a_function_that_lost_its_baseline_learns_anew() -> None:
    lost = Standing(baseline=False, learned=0, enforcing=True, promoted=True)
    assert containment.advance(_contained(), lost, 11.0).stage is Stage.LEARNING


def test_an_operator_cannot_contain_what_has_too_few_learned_calls() -> None:
    young = Standing(baseline=True, learned=50, enforcing=True, promoted=True)
    assert containment.contain(Containment(), young, 1.0, RULES).stage is Stage.OBSERVE
    assert containment.contain(Containment(), READY, 1.0, RULES).stage is Stage.CONTAIN


def test_three_unusual_of_twenty_one_ordinary_calls_are_as_rare_as_the_module_says() -> None:
    alpha = 0.001
    two_more = sum(
        math.comb(WINDOW, k) * alpha**k * (1 - alpha) ** (WINDOW - k)
        for k in range(CONTAIN_AT - 1, WINDOW + 1)
    )
    assert alpha * two_more == pytest.approx(1.9e-7, rel=0.05)


SCORES = st.builds(
    lambda value, feature: Score(value, 1.0 - value / 101.0, feature),
    st.one_of(st.floats(0, 80), st.floats(80, 100)),
    st.sampled_from(["size", "caller", "rate", "duration"]),
)
STANDINGS = st.builds(
    Standing,
    baseline=st.booleans(),
    learned=st.integers(0, 400),
    enforcing=st.booleans(),
    promoted=st.booleans(),
)


@settings(max_examples=200)
@given(st.lists(st.tuples(SCORES, STANDINGS, st.floats(0, 500)), max_size=60))
def test_from_learning_no_history_of_calls_stops_one_that_may_not_be_stopped(
    calls: list[tuple[Score, Standing, float]],
) -> None:
    state = Containment()
    for score, standing, at in calls:
        state, ground = containment.enter(state, score, standing, at, RULES)
        if ground is Ground.CONTAINED:
            assert standing.baseline
            assert standing.enforcing
            assert standing.promoted
            assert standing.learned >= RULES.block_after
        state = containment.leave(state, score, standing, at, at + 0.1, RULES)


class FunctionUnderWatch(RuleBasedStateMachine):
    """Any history of calls, times, standings and operators' acts."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Containment()
        self.now = 0.0
        self.standing = Standing(baseline=False, learned=0, enforcing=False, promoted=False)
        self.running: list[float] = []

    @initialize(enforcing=st.booleans(), promoted=st.booleans(), rules=st.integers(1, 30))
    def begin(self, enforcing: bool, promoted: bool, rules: int) -> None:
        self.rules = ContainmentRules(probe_one_in=rules)
        self.standing = Standing(baseline=False, learned=0, enforcing=enforcing, promoted=promoted)

    def _moved(self, to: Containment, *, operator: bool = False) -> None:
        legal = {
            Stage.LEARNING: {Stage.OBSERVE, Stage.SUSPECT},
            Stage.OBSERVE: {Stage.SUSPECT, Stage.LEARNING},
            Stage.SUSPECT: {Stage.CONTAIN, Stage.OBSERVE, Stage.RELEASE, Stage.LEARNING},
            Stage.CONTAIN: {Stage.HALF_OPEN, Stage.LEARNING},
            Stage.HALF_OPEN: {Stage.CONTAIN, Stage.RELEASE, Stage.SUSPECT, Stage.LEARNING},
            Stage.RELEASE: {Stage.OBSERVE, Stage.SUSPECT, Stage.LEARNING},
        }
        before = self.state.stage
        assert operator or to.stage is before or to.stage in legal[before], (before, to.stage)
        self.state = to

    @rule(score=SCORES)
    def call(self, score: Score) -> None:
        before = self.state
        state, ground = containment.enter(before, score, self.standing, self.now, self.rules)
        self._moved(state)
        if ground is Ground.CONTAINED:
            assert self.standing.may_block(self.rules)
            assert before.stage is not Stage.LEARNING
            assert state.stage in {Stage.CONTAIN, Stage.HALF_OPEN}
        else:
            self.running.append(self.now)

    @precondition(lambda self: self.running)
    @rule(score=SCORES, which=st.integers(0, 100))
    def end_of_a_call(self, score: Score, which: int) -> None:
        began = self.running.pop(which % len(self.running))
        self._moved(containment.leave(self.state, score, self.standing, began, self.now, self.rules))

    @rule(seconds=st.floats(-100, 2000))
    def time_goes_on_or_back(self, seconds: float) -> None:
        self.now += seconds

    @rule(more=st.integers(1, 150))
    def learn(self, more: int) -> None:
        self.standing = Standing(
            baseline=self.standing.learned + more >= 20,
            learned=self.standing.learned + more,
            enforcing=self.standing.enforcing,
            promoted=self.standing.promoted,
        )

    @rule()
    def forget_everything(self) -> None:
        self.standing = Standing(
            baseline=False, learned=0, enforcing=self.standing.enforcing, promoted=self.standing.promoted
        )

    @rule()
    def an_operator_contains(self) -> None:
        self._moved(containment.contain(self.state, self.standing, self.now, self.rules), operator=True)

    @rule()
    def an_operator_releases(self) -> None:
        self._moved(containment.release(self.state, self.now), operator=True)
        state, ground = containment.enter(self.state, ORDINARY, self.standing, self.now, self.rules)
        assert ground is Ground.ORDINARY
        assert state.stage in {Stage.OBSERVE, Stage.LEARNING}

    @invariant()
    def every_containment_ends(self) -> None:
        if not self.standing.baseline:
            return
        state, now = containment.advance(self.state, self.standing, self.now), self.now
        assert 0.0 <= state.seconds <= LONGEST * RULES.contain_seconds
        if state.stage is Stage.CONTAIN:
            now = state.since + state.seconds
            state = containment.advance(state, self.standing, now)
            assert state.stage is Stage.HALF_OPEN
        if state.stage is Stage.HALF_OPEN:
            state = containment.advance(state, self.standing, state.since + state.seconds)
            assert state.stage is Stage.RELEASE

    @invariant()
    def what_is_remembered_is_bounded(self) -> None:
        assert len(self.state.counted) <= WINDOW


FunctionUnderWatch.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestFunctionUnderWatch = FunctionUnderWatch.TestCase
