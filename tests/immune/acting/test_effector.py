"""What is decided about a call before its body runs, and that a broken effector stops nothing."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.acting import containment
from cloister.immune.acting.containment import ContainmentRules, Stage, Standing
from cloister.immune.acting.effector import Effector, StageChange
from cloister.immune.event_ids import EventIds
from cloister.immune.observation import Action, Decision, Ground, Score
from tests.immune.acting.locks import held_by_another_thread
from tests.racing import race

NAME = "shop:export"
READY = Standing(baseline=True, learned=1000, enforcing=True, promoted=True)
ORDINARY = Score(10.0, 0.7, "duration")
UNUSUAL = Score(85.0, 5e-4, "size", 7.5)
EXTREME = Score(97.0, 1e-7, "size")


def _effector(**more: object) -> Effector:
    return Effector(ContainmentRules(), **more)  # type: ignore[arg-type]


def _contain(effector: Effector, at: float = 1.0) -> None:
    for _ in range(3):
        effector.decide(NAME, UNUSUAL, READY, at)
    assert effector.state(NAME).stage is Stage.CONTAIN


ANY_SCORE = st.builds(
    Score,
    value=st.floats(),
    p=st.floats(),
    feature=st.text(max_size=10),
    times=st.floats(),
)
ANY_STANDING = st.builds(
    Standing,
    baseline=st.booleans(),
    learned=st.integers(-10, 500),
    enforcing=st.booleans(),
    promoted=st.booleans(),
)


SOME_SCORE = st.builds(
    Score,
    value=st.one_of(st.floats(0, 100), st.sampled_from([80.0, 85.0, 97.0, float("nan"), -1.0, 101.0])),
    p=st.one_of(st.floats(0, 1), st.sampled_from([1.5, float("nan")])),
    feature=st.just("size"),
)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(SOME_SCORE, st.booleans(), st.floats(0, 300), st.booleans()), min_size=1, max_size=40),
    st.booleans(),
)
def test_a_call_that_passes_would_have_been_let_through_without_a_word_and_changed_no_stage(
    calls: list[tuple[Score, bool, float, bool]], switched: bool
) -> None:
    """The short way and the long one agree, whatever came before."""
    thrown = [False]
    effector, twin = (_effector(switched_off=lambda: thrown[0]) for _ in range(2))
    for score, judging, at, unusual in calls:
        standing = Standing(baseline=judging, learned=1000, enforcing=True, promoted=True)
        told = UNUSUAL if unusual else score
        thrown[0] = switched and at > 200
        passed = effector.passes(NAME, told, judging=judging, now=at)
        found = twin.consider(NAME, told, standing, at)
        if passed:
            assert found is None
        else:
            effector.consider(NAME, told, standing, at)
        assert effector.state(NAME).stage is twin.state(NAME).stage
        unmoved = effector.unmoved(NAME, told, judging=judging)
        before = twin.state(NAME).stage
        twin.ended(NAME, told, standing, at, at + 1)
        if unmoved:
            assert twin.state(NAME).stage is before
        else:
            effector.ended(NAME, told, standing, at, at + 1)
        assert effector.state(NAME).stage is twin.state(NAME).stage
    assert effector.failures == twin.failures


def test_what_cant_be_told_is_not_passed() -> None:
    def broken() -> bool:
        raise OSError

    for effector, score, now in (
        (_effector(switched_off=broken), ORDINARY, 1.0),
        (_effector(), SimpleNamespace(value="much", p=0.5), 1.0),
        (_effector(), ORDINARY, float("nan")),
        (_effector(), ORDINARY, float("inf")),
    ):
        effector.decide(NAME, ORDINARY, READY, 0.0)
        failures = effector.failures
        assert not effector.passes(NAME, score, judging=True, now=now)  # type: ignore[arg-type]
        assert effector.failures == failures


@settings(max_examples=200)
@given(st.lists(st.tuples(ANY_SCORE, ANY_STANDING, st.floats()), min_size=1, max_size=30))
def test_every_decision_is_exactly_one_legal_action(calls: list[tuple[Score, Standing, float]]) -> None:
    """PIC-P16: exactly one action from the allowed set."""
    effector = _effector()
    ids = set()
    for score, standing, now in calls:
        decision = effector.decide(NAME, score, standing, now)
        assert type(decision) is Decision
        assert [decision.action is action for action in Action].count(True) == 1
        assert decision.reason
        ids.add(decision.event_id)
    assert len(ids) == len(calls)


@settings(max_examples=150)
@given(
    st.floats(95.0, 100.0, exclude_min=True),
    st.lists(st.floats(0, 100), max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_a_call_above_the_quarantine_score_proceeds_and_asks_for_a_review(
    value: float, before: list[float], enforcing: bool, promoted: bool
) -> None:
    """PIC-P17: quarantine lets the operation proceed, with enhanced audit."""
    effector = _effector()
    standing = Standing(baseline=True, learned=199, enforcing=enforcing, promoted=promoted)
    for score in before:
        effector.decide(NAME, Score(score, 0.5, "size"), standing, 1.0)
    decision = effector.decide(NAME, Score(value, 1e-7, "size"), standing, 2.0)
    assert (decision.action, decision.ground) == (Action.QUARANTINE, Ground.REVIEW)
    assert effector.consider(NAME, Score(value, 1e-7, "size"), standing, 2.0) is not None


class _FaultError(Exception):
    pass


@settings(max_examples=150)
@given(
    st.sampled_from([_FaultError, ValueError, MemoryError, RecursionError, OSError, AttributeError]),
    st.sampled_from(["switch", "rules", "ids", "score", "time", "listener"]),
)
def test_whatever_fails_in_the_effector_lets_the_call_through_and_says_so(
    fault: type[Exception], where: str
) -> None:
    """PIC-P19: effector error gives allow plus log."""
    lines: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = lines.append  # type: ignore[method-assign]
    logger = logging.getLogger("cloister.immune")
    effector = _effector()
    _contain(effector)

    def broken(*_: object) -> bool:
        raise fault("Jane Doe, 1970-01-01")

    score, now = ORDINARY, 2.0
    match where:
        case "switch":
            effector._switched_off = broken
        case "rules":
            effector._rules = None  # type: ignore[assignment]
        case "ids":
            effector._event_ids.next = broken  # type: ignore[assignment,method-assign]
        case "score":
            score = Score(float("nan"), 0.5, "size")
        case "time":
            now = float("nan")
        case "listener":
            # A listener is told after the decision: it changes none, and is counted.
            effector._changed = broken  # type: ignore[assignment]
            now = 100.0
    logger.addHandler(handler)
    try:
        decision = effector.decide(NAME, score, READY, now)
    finally:
        logger.removeHandler(handler)
    assert decision.action is Action.ALLOW
    assert decision.ground is (Ground.PROBE if where == "listener" else Ground.EFFECTOR_FAILED)
    assert effector.failures >= 1
    assert NAME in lines[0].getMessage()
    assert "Jane" not in lines[0].getMessage()
    assert lines[0].exc_info is None


@pytest.mark.parametrize("value", [float("inf"), -1.0, 100.5, 1e9])
def test_a_score_that_can_not_be_one_blocks_nothing(value: float) -> None:
    effector = _effector()
    for _ in range(10):
        assert effector.decide(NAME, Score(value, 1e-9, "size"), READY, 1.0).action is Action.ALLOW
    assert effector.failures == 10
    effector.ended(NAME, Score(value, 1e-9, "size"), READY, 1.0, 2.0)
    assert effector.failures == 11
    assert effector.state(NAME).stage is Stage.LEARNING


def test_failures_are_counted_one_by_one_and_told_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    effector = _effector()
    for _ in range(100):
        effector.decide(NAME, Score(float("nan"), 0.5, "size"), READY, 1.0)
    assert effector.failures == 100
    assert len(caplog.records) == 7


def test_a_broken_log_handler_is_not_the_applications_concern() -> None:
    handler = logging.Handler()

    def broken(_: logging.LogRecord) -> None:
        raise OSError("disk full")

    handler.emit = broken  # type: ignore[method-assign]
    logger = logging.getLogger("cloister.immune")
    logger.addHandler(handler)
    try:
        assert _effector().decide(NAME, Score(-1.0, 0.5, "size"), READY, 1.0).action is Action.ALLOW
    finally:
        logger.removeHandler(handler)


def test_what_interrupts_a_program_is_not_swallowed() -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _effector(switched_off=interrupted).decide(NAME, ORDINARY, READY, 1.0)


def test_a_contained_function_is_blocked_and_the_reason_says_why_and_for_how_long() -> None:
    effector = _effector()
    _contain(effector)
    decision = effector.decide(NAME, UNUSUAL, READY, 11.0)
    assert decision.action is Action.BLOCK
    assert decision.reason == "contained for 50 s more; size 7.5x median, p=0.0005"


def test_a_function_that_is_not_enabled_is_marked_where_it_would_have_been_blocked() -> None:
    effector = _effector()
    observed = Standing(baseline=True, learned=1000, enforcing=False, promoted=True)
    for _ in range(3):
        decision = effector.decide(NAME, UNUSUAL, observed, 1.0)
    assert (decision.action, decision.ground) == (Action.ALLOW, Ground.WOULD_BLOCK)


def test_an_ordinary_call_leaves_no_record() -> None:
    effector = _effector()
    assert effector.consider(NAME, ORDINARY, READY, 1.0) is None
    assert effector.decide(NAME, ORDINARY, READY, 1.0).ground is Ground.ORDINARY


def test_the_kill_switch_lets_through_what_is_contained_and_changes_no_stage() -> None:
    thrown = [False]
    effector = _effector(switched_off=lambda: thrown[0])
    _contain(effector)
    thrown[0] = True
    for at in range(1, 200):
        decision = effector.decide(NAME, EXTREME, READY, float(at))
        assert (decision.action, decision.ground) == (Action.ALLOW, Ground.SWITCHED_OFF)
        effector.ended(NAME, EXTREME, READY, float(at), at + 0.5)
    assert effector.state(NAME).stage is Stage.CONTAIN
    thrown[0] = False
    assert effector.decide(NAME, ORDINARY, READY, 2.0).action is Action.BLOCK


def test_each_change_of_stage_is_told_once_with_who_made_it() -> None:
    told: list[StageChange] = []
    effector = _effector(changed=told.append)
    effector.decide(NAME, ORDINARY, READY, 0.0)
    _contain(effector)
    effector.decide(NAME, ORDINARY, READY, 62.0)
    effector.ended(NAME, UNUSUAL, READY, 62.0, 63.0)
    effector.release(NAME, 64.0)
    assert [(one.before.value, one.after.value, one.seconds, one.by_operator) for one in told] == [
        ("learning", "observe", 0.0, False),
        ("observe", "suspect", 0.0, False),
        ("suspect", "contain", 60.0, False),
        ("contain", "half-open", 0.0, False),
        ("half-open", "contain", 120.0, False),
        ("contain", "observe", 0.0, True),
    ]


def test_an_operators_release_works_at_once() -> None:
    effector = _effector()
    _contain(effector)
    effector.release(NAME, 2.0)
    assert effector.decide(NAME, ORDINARY, READY, 2.0).action is Action.ALLOW
    assert effector.contain(NAME, READY, 3.0)
    assert effector.decide(NAME, ORDINARY, READY, 3.0).action is Action.BLOCK


def test_ends_that_are_told_late_contain_from_now_on_and_not_from_when_the_calls_ended() -> None:
    effector = _effector()
    effector.decide(NAME, ORDINARY, READY, 1000.0)
    for began in (1.0, 2.0, 3.0):
        effector.ended(NAME, UNUSUAL, READY, began, began + 5.0)
    assert effector.decide(NAME, ORDINARY, READY, 1059.0).action is Action.BLOCK
    assert effector.decide(NAME, ORDINARY, READY, 1061.0).ground is Ground.PROBE


def test_only_what_is_under_suspicion_or_contained_wants_every_call() -> None:
    effector = _effector()
    assert not effector.wants_every_call(NAME)
    effector.decide(NAME, ORDINARY, READY, 1.0)
    assert not effector.wants_every_call(NAME)
    effector.decide(NAME, UNUSUAL, READY, 1.0)
    assert effector.wants_every_call(NAME)


def test_threads_that_probe_together_get_one_probe_in_twenty() -> None:
    effector = _effector()
    _contain(effector)
    grounds: list[Ground] = []

    def calls() -> None:
        for _ in range(1500):
            grounds.append(effector.decide(NAME, ORDINARY, READY, 70.0).ground)

    race([calls] * 4)
    assert grounds.count(Ground.PROBE) == 300
    assert grounds.count(Ground.CONTAINED) == 5700


@pytest.fixture
def _alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_alarm")
def test_a_signal_handler_that_calls_a_watched_function_does_not_hang() -> None:
    effector = _effector()
    handled = [0]

    def handle(*_: object) -> None:
        handled[0] += 1
        effector.decide(NAME, ORDINARY, READY, 1.0)

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    while handled[0] < 50:
        effector.decide(NAME, ORDINARY, READY, 1.0)
    assert effector.failures == 0


def test_a_child_of_a_fork_decides_while_its_parent_holds_the_lock() -> None:
    effector = _effector()
    _contain(effector)
    with held_by_another_thread(effector._lock):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            blocked = effector.decide(NAME, ORDINARY, READY, 2.0).action is Action.BLOCK
            os._exit(0 if blocked else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_ids_of_a_child_are_not_its_parents() -> None:
    ids = EventIds()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, ids.next().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    theirs = os.read(reader, 100).decode()
    os.close(reader)
    ours = ids.next()
    assert len(theirs) == len(ours) == 32
    assert theirs not in {ours, *(ids.next() for _ in range(1000))}


def test_ids_are_given_by_the_randomness_that_was_given() -> None:
    ids = EventIds(lambda size: bytes(one // 16 for one in range(size)))
    given = {ids.next() for _ in range(64)}
    assert given == {f"{number:02x}" * 16 for number in range(64)}


def test_ids_drawn_in_many_threads_are_all_different() -> None:
    ids = EventIds()
    with ThreadPoolExecutor(8) as pool:
        drawn = set[str]().union(*pool.map(lambda _: [ids.next() for _ in range(500)], range(16)))
    assert len(drawn) == 8000


def test_the_states_that_are_shown_are_a_copy() -> None:
    effector = _effector()
    _contain(effector)
    shown = effector.states()
    effector.release(NAME, 5.0)
    assert shown[NAME].stage is Stage.CONTAIN
    assert containment.wants_every_call(shown[NAME])
