"""What a gate tells a sensor of one call, and what a sensor may ask of it."""

from __future__ import annotations

import _thread
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.wrapping import Bounds, Gate, Kind, Mode, Sampling, gates, monitor
from cloister.immune.wrapping.build import build, gate_of
from cloister.immune.wrapping.calls import Choice
from cloister.immune.wrapping.entering import caller_of, size_of
from cloister.immune.wrapping.sampling import WARM_UP, Pace, Ticks
from tests.immune.wrapping.watching import TENTH, Keeping, KeepingWatcher, watching


def test_calls_and_errors_between_two_observations_are_exact() -> None:
    with watching(TENTH) as watcher:

        @monitor
        def body(number: int) -> None:
            if number % 3 == 0:
                raise ValueError

        for one in range(1000):
            with suppress(ValueError):
                body(one)
        sensor, gate = watcher.sensor("body"), watcher.gate("body")
        assert (gate.calls, gate.errors) == (1000, 334)
        seen = 0
        for entered in sensor.entered:
            first, seen = seen, seen + entered.calls
            # Those between the last observed one and this: of these two the sensor is told when they end.
            assert entered.errors == sum(number % 3 == 0 for number in range(first, seen - 1))
        told = sum(one.entered.errors + one.failed for one in sensor.left)
        assert told == sum(number % 3 == 0 for number in range(seen))


@settings(max_examples=100)
@given(
    acts=st.lists(st.sampled_from(["call", "call", "call", "arm", "disarm", "once", "detach", "attach"])),
    rate=st.sampled_from([1.0, 0.5, 0.1]),
)
def test_whatever_is_asked_of_a_gate_no_call_is_lost_and_an_armed_one_is_judged(
    acts: list[str], rate: float
) -> None:
    calls = 0
    wrapped = monitor(lambda: None)
    gate = gate_of(wrapped)
    assert gate is not None
    sensor, sampling = Keeping(), Sampling(Mode.FIXED, rate=rate)

    def attach() -> None:
        gate.attach(sensor, sampling, Pace(1.0), Ticks(lambda: 0.3), lambda: 0.0)

    attach()
    for act in acts:
        if act == "call":
            before = len(sensor.entered)
            wrapped()
            calls += 1
            if gate.armed and gate.sensor is not None:
                assert len(sensor.entered) == before + 1
        elif act == "attach":
            attach()
        else:
            getattr(gate, act)()
        assert gate.calls == calls
    attach()
    gate.disarm()
    for _ in range(200):
        wrapped()
    assert gate.calls == calls + 200
    teaching = sum(one.teaches for one in sensor.entered)
    assert teaching >= 200 * rate - 1


def test_one_call_can_be_asked_for_and_teaches_nothing() -> None:
    with watching(Sampling(Mode.FIXED, rate=0.001)) as watcher:
        body = monitor(_named)
        gate, sensor = watcher.gate("_named"), watcher.sensor("_named")
        gate.once()
        body()
        body()
        assert [one.teaches for one in sensor.entered] == [False]
        for _ in range(1998):
            body()
        assert sum(one.teaches for one in sensor.entered) == 2


def _named(*_args: object) -> None: ...


@pytest.mark.parametrize(("choice", "slower"), [(Choice.CHANCE, True), (Choice.GATED, False)])
def test_what_a_suspicion_costs_leaves_the_share_that_chance_chooses_as_it_is(
    choice: Choice, *, slower: bool
) -> None:
    gate, pace = Gate("a:b", Kind.SYNC, len), Pace(0.02)
    gate.attach(Keeping(), Sampling(), pace, Ticks(lambda: 0.3), lambda: 0.0)
    gate.observed = WARM_UP + 1
    for second in range(1, 60):
        gate.learn(0.05, 1e-3, choice, float(second))
    assert (pace.factor < 1.0) is slower


def test_where_it_is_cheap_enough_every_call_is_compared_with_what_is_known() -> None:
    now = [0.0]
    with watching(Sampling(Mode.FIXED, rate=0.1)) as watcher:

        @monitor
        def body(_text: str) -> None:
            now[0] += 0.001

        gate, sensor = watcher.gate("body"), watcher.sensor("body")
        gate.clock = lambda: now[0]
        for _ in range(200):
            body("a")
        here = sensor.entered[0].caller
        gate.expect(Bounds(size=10, callers=frozenset({here})))
        assert gate.checking
        before = len(sensor.entered)
        for _ in range(1000):
            body("a")
        assert len(sensor.entered) - before in {99, 100, 101}
        body("a" * 11)
        assert sensor.entered[-1].size == 11
        _from_elsewhere(body)
        assert sensor.entered[-1].caller.endswith("_from_elsewhere")
        assert gate.calls == 1202
        gate.expect(None)
        assert not gate.checking


def test_a_look_that_had_to_wait_ends_the_comparing_for_a_while_and_not_for_good() -> None:
    gate = Gate("a:b", Kind.SYNC, len)
    gate.attach(Keeping(), Sampling(), Pace(0.02), Ticks(lambda: 0.3), lambda: 0.0)
    gate.expect(Bounds(size=10, callers=frozenset()))
    for second in range(40):
        gate.learn(1e-5, 3e-4, Choice.CHANCE, float(second))
    assert gate.checking
    gate.looked(0.05)
    assert not gate.checking
    for second in range(300):
        gate.learn(1e-5, 3e-4, Choice.CHANCE, 40.0 + second)
    assert gate.checking


def test_of_a_function_that_may_be_blocked_every_call_is_compared_whatever_that_costs() -> None:
    gate = Gate("a:b", Kind.SYNC, len)
    gate.attach(Keeping(), Sampling(), Pace(0.02), Ticks(lambda: 0.3), lambda: 0.0)
    for second in range(40):
        gate.learn(1e-5, 1e-6, Choice.CHANCE, float(second))
    known = Bounds(size=10, callers=frozenset())
    gate.expect(known)
    assert not gate.checking
    gate.expect(known, sparing=False)
    assert gate.checking
    gate.looked(0.05)
    assert gate.checking
    gate.expect(None, sparing=False)
    assert not gate.checking


@pytest.mark.parametrize("locked", [False, True])
def test_a_child_of_a_fork_compares_its_first_call_as_its_parent_did(*, locked: bool) -> None:
    sensor = Keeping()
    body, gate = build(lambda text: text, locked=locked)
    gate.attach(sensor, Sampling(Mode.FIXED, rate=0.01), Pace(1.0), Ticks(lambda: 0.9), lambda: 0.0)
    gate.expect(Bounds(size=3, callers=frozenset({f"{__name__}:<lambda>"})), sparing=False)
    gate.forget()
    assert gate.checking
    for _ in range(10):
        body("larger")
    assert len(sensor.entered) == 10


def _from_elsewhere(body: object) -> None:
    body("a")  # type: ignore[operator]


def test_sizes_are_those_of_exact_builtin_types_and_one_for_anything_else(watcher: KeepingWatcher) -> None:
    class Sub(str):
        __slots__ = ()

    assert size_of(("abc", b"12", bytearray(4), [1, 2], (1,), {1: 2}, {1}, frozenset())) == 3 + 2 + 4 + 2 + 3
    assert size_of((1, None, 2.5, Sub("long text"), object(), range(100))) == 6
    body = monitor(lambda one, *rest, two=None, **more: None)
    body("abc", [1, 2], "x", two="yy", three=b"zzz")
    (sensor,) = [s for s in watcher.sensors.values() if s.left]
    assert sensor.left[0].entered.size == 3 + 2 + 1 + 2 + 3


def test_the_caller_is_named_by_module_and_qualname(watcher: KeepingWatcher) -> None:
    class Desk:
        def ask(self) -> None:
            body()

    @monitor
    def body() -> None: ...

    Desk().ask()
    here = "test_the_caller_is_named_by_module_and_qualname"
    assert watcher.sensor("body").left[0].entered.caller == f"{__name__}:{here}.<locals>.Desk.ask"


def test_the_caller_of_a_coroutine_is_who_called_it_and_not_the_loop(watcher: KeepingWatcher) -> None:
    import asyncio

    @monitor
    async def body() -> None: ...

    async def main() -> None:
        await asyncio.create_task(body())

    asyncio.run(main())
    assert watcher.sensor("body").left[0].entered.caller.endswith("main")


def _letters(text: str) -> Iterator[str]:
    yield from text


@pytest.mark.parametrize("function", [lambda text: text, _letters])
def test_a_call_without_a_frame_beneath_it_goes_on_and_is_of_nobody_known(
    watcher: KeepingWatcher, function: Callable[[str], object]
) -> None:
    watched = monitor(name="tests:frameless")(function)
    # What is raised on such a thread pytest makes an error of.
    _thread.start_new_thread(watched, ("abc",))
    until = time.monotonic() + 10
    while not watcher.gates["tests:frameless"].calls and time.monotonic() < until:
        time.sleep(0.01)
    assert watcher.gates["tests:frameless"].calls == 1
    assert {one.caller for one in watcher.sensors["tests:frameless"].entered} <= {""}


def test_two_callers_of_equal_code_are_told_apart() -> None:
    source = "import sys\ndef who(): return sys._getframe()"
    first: dict[str, object] = {"__name__": "first"}
    second: dict[str, object] = {"__name__": "second"}
    exec(source, first)
    exec(source, second)
    assert [caller_of(space["who"]()) for space in (first, second)] == ["first:who", "second:who"]  # type: ignore[operator]


def test_a_dropped_function_leaves_no_gate_behind() -> None:
    import gc

    name = monitor(
        lambda: None,
    ).__qualname__
    gc.collect()
    assert not [gate for gate in gates() if gate.name.endswith(f":{name}")]


def test_a_function_may_be_watched_under_a_name_of_its_own(watcher: KeepingWatcher) -> None:
    assert monitor(name="payments:pay")(lambda: 1)() == 1
    assert len(watcher.sensors["payments:pay"].left) == 1
    assert watcher.gates["payments:pay"].kind is Kind.SYNC


def test_the_errors_of_a_new_gate_are_none() -> None:
    gate = Gate("m:f", Kind.SYNC, len)
    assert (gate.calls, gate.errors, gate.armed, gate.checking) == (0, 0, False, False)
    gate.arm()
    assert gate.calls == 0


@pytest.mark.skipif(sys.version_info < (3, 13), reason="free-threaded builds start with Python 3.13")
def test_this_build_says_whether_it_has_a_global_lock() -> None:
    from cloister.immune.wrapping.locked import is_locked

    assert is_locked() is sys._is_gil_enabled()
