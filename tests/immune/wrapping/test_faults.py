"""A fault in any step of the instrumentation stays inside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune import core
from cloister.immune.wrapping import FAULTS, Gate, Recorder, Ring, Watch, monitor, observing, use
from cloister.immune.wrapping.sampling import Pace, Sampling, Ticks
from tests.immune.wrapping.watching import EVERY, TENTH, Keeping, KeepingWatcher, watching

STEPS: dict[str, tuple[object, str]] = {
    "sensor.enter": (Keeping, "enter"),
    "sensor.leave": (Keeping, "leave"),
    "tick": (Gate, "tick"),
    "since": (Gate, "since"),
    "learn": (Gate, "learn"),
    "size": (observing, "size_of"),
    "caller": (observing, "caller_of"),
    "entered": (observing, "Entered"),
    "observed": (observing, "Observed"),
    "describe": (Recorder, "describe"),
    "record": (Recorder, "record"),
    "ring": (Ring, "append"),
    "interval": (Sampling, "interval"),
    "ticks": (Ticks, "next"),
    "pace": (Pace, "add"),
}
if core().kind == "compiled":
    # What C calls by its address can't be replaced; what these steps are given can (the tests below).
    for inner in (
        "tick",
        "since",
        "learn",
        "size",
        "caller",
        "entered",
        "observed",
        "interval",
        "ticks",
        "pace",
    ):
        del STEPS[inner]
KINDS = [
    ValueError,
    KeyError,
    RuntimeError,
    MemoryError,
    RecursionError,
    OSError,
    StopIteration,
    AssertionError,
]
KINDS += [TypeError, StopAsyncIteration, TimeoutError, UnicodeError, ZeroDivisionError]


class OwnError(Exception):
    """The application's."""


@monitor
def charge(number: int) -> int:
    if number < 0:
        raise OwnError(number)
    return number


@monitor
async def soon(number: int) -> int:
    await asyncio.sleep(0)
    return charge.__wrapped__(number)


@monitor
def several(number: int) -> Iterator[int]:
    yield charge.__wrapped__(number)


@monitor
async def several_soon(number: int) -> AsyncIterator[int]:
    yield charge.__wrapped__(number)


async def _first(number: int) -> int:
    async for one in several_soon(number):
        return one
    return -1


CALLS: list[Callable[[int], int]] = [
    charge,
    lambda number: asyncio.run(soon(number)),
    lambda number: next(iter(several(number))),
    lambda number: asyncio.run(_first(number)),
]


def _failing(kind: type[Exception]) -> Callable[..., Any]:
    def fail(*_args: object, **_named: object) -> None:
        raise kind("inside")

    return fail


@settings(max_examples=100)
@given(
    broken=st.sets(st.sampled_from(sorted(STEPS)), min_size=1),
    kind=st.sampled_from(KINDS),
    call=st.sampled_from(CALLS),
    number=st.integers(-1, 3),
    sampling=st.sampled_from([EVERY, TENTH, Sampling()]),
)
def test_random_faults_in_every_inner_step_never_reach_the_application(
    broken: set[str], kind: type[Exception], call: Callable[[int], int], number: int, sampling: Sampling
) -> None:
    """PIC-P3: Instrumentation errors raise nothing in the app."""
    with watching(sampling, Recorder(Ring())) as watcher:
        patches = [patch.object(*STEPS[name], _failing(kind)) for name in broken]
        for one in patches:
            one.start()
        try:
            for _ in range(12):
                if number < 0:
                    with pytest.raises(OwnError) as own:
                        call(number)
                    assert own.value.args == (number,)
                else:
                    assert call(number) == number
        finally:
            for one in patches:
                one.stop()
        # And it works again once nothing is broken.
        before = sum(gate.calls for gate in watcher.gates.values())
        assert call(2) == 2
        assert sum(gate.calls for gate in watcher.gates.values()) == before + 1


@settings(max_examples=100)
@given(
    broken=st.sampled_from(["clock", "chance", "clock of another type", "chance of another type"]),
    kind=st.sampled_from(KINDS),
    sampling=st.sampled_from([EVERY, TENTH, Sampling()]),
)
def test_a_clock_a_source_of_chance_or_a_rule_that_fails_never_reaches_the_application(
    broken: str, kind: type[Exception], sampling: Sampling
) -> None:
    with watching(sampling, Recorder(Ring())) as watcher:
        for gate in watcher.gates.values():
            if broken == "clock":
                gate.clock = _failing(kind)
            elif broken == "chance":
                gate._ticks = Ticks(_failing(kind))
            elif broken == "clock of another type":
                gate.clock = lambda: "noon"  # type: ignore[assignment, return-value]
            else:
                gate._ticks = Ticks(lambda: "even")  # type: ignore[arg-type, return-value]
        for number in range(12):
            assert charge(number) == number


def test_a_fault_is_counted_by_step_and_kind_without_its_message(watcher: KeepingWatcher) -> None:
    def fail() -> None:
        raise ValueError("123-45-6789")

    watcher.sensor("charge").on_enter = fail
    assert charge(1) == 1
    assert dict(FAULTS.by_kind) == {("enter", "ValueError"): 1}
    assert FAULTS.count == 1


def test_a_sensor_that_failed_to_let_a_call_in_is_not_told_of_its_end(watcher: KeepingWatcher) -> None:
    watcher.sensor("charge").on_enter = _failing(ValueError)
    charge(1)
    assert watcher.sensor("charge").left == []


def test_what_comes_from_outside_through_a_signal_is_not_swallowed(watcher: KeepingWatcher) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    watcher.sensor("charge").on_enter = interrupt
    with pytest.raises(KeyboardInterrupt):
        charge(1)
    watcher.sensor("charge").on_enter = lambda: None
    assert charge(1) == 1
    assert not observing.INSIDE


def test_a_watcher_that_fails_watches_nothing_and_stops_nobody() -> None:
    class Failing:
        def watch(self, function_name: str, gate: Gate) -> Keeping:
            raise OSError("no state")

    use(Watch(Failing()))
    try:
        assert monitor(lambda: 3)() == 3
        assert FAULTS.by_kind[("watch", "OSError")] >= 1
    finally:
        use(None)


def test_arguments_whose_own_code_fails_or_lies_are_never_asked() -> None:
    class Hostile(list[int]):
        def _fail(self, *_args: object) -> Any:
            raise AssertionError("foreign code was called")

        __len__ = __iter__ = __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __getattribute__ = _fail

    with watching(EVERY, Recorder(Ring())) as watcher:
        assert monitor(lambda _one, **_named: 1)(Hostile(), other=Hostile()) == 1
        (sensor,) = [s for name, s in watcher.sensors.items() if name.endswith("<lambda>") and s.left]
        assert sensor.left[0].entered.size == 2
        assert FAULTS.count == 0
