"""What a decision does to a call, and what it never does."""

from __future__ import annotations

import asyncio
import pickle
import threading
import traceback
from collections.abc import AsyncIterator, Iterator

import pytest

from cloister.immune.errors import CallBlocked, EgressBlocked, ImmuneError
from cloister.immune.observation import Action, Decision
from cloister.immune.wrapping import FAULTS, Gate, Watch, monitor, use
from tests.immune.wrapping.watching import TENTH, Keeping, KeepingWatcher, watching


def test_a_block_raises_before_the_body_runs_and_says_function_reason_and_event(
    watcher: KeepingWatcher,
) -> None:
    ran = []

    @monitor
    def body(secret: str) -> None:
        ran.append(secret)

    watcher.sensor("body").blocks = True
    with pytest.raises(CallBlocked) as blocked:
        body("123-45-6789")
    assert ran == []
    assert blocked.value.function.endswith(":" + body.__qualname__)
    assert (blocked.value.reason, blocked.value.event_id) == ("size 9.0x median, p=1e-06", "event-1")
    assert "123-45-6789" not in str(blocked.value) + repr(blocked.value.args)
    assert watcher.sensor("body").left == []
    assert (watcher.gate("body").calls, watcher.gate("body").blocked) == (1, 1)


def test_a_block_is_a_runtime_error_that_crosses_processes() -> None:
    for kind in (CallBlocked, EgressBlocked):
        again = pickle.loads(pickle.dumps(kind("m:f", "why", "id")))
        assert (type(again), again.function, again.reason, again.event_id) == (kind, "m:f", "why", "id")
        assert issubclass(kind, RuntimeError)


@pytest.mark.parametrize("action", [Action.ALLOW, Action.QUARANTINE, None])
def test_every_other_decision_lets_the_call_run(action: Action | None) -> None:
    class Deciding(Keeping):
        def enter(self, entered: object) -> Decision | None:
            return None if action is None else Decision(action, "why", 99.9, "id")

    class All:
        def watch(self, function_name: str, gate: Gate) -> Deciding:
            return Deciding()

    use(Watch(All()))
    try:
        assert monitor(lambda: 5)() == 5
    finally:
        use(None)


def test_a_substitute_is_given_only_where_it_was_chosen(watcher: KeepingWatcher) -> None:
    @monitor(on_block=None)
    def with_value() -> int:
        return 1

    @monitor(on_block=lambda one, *, two: (one, two))
    def with_function(one: int, *, two: int) -> object:
        return None

    @monitor
    def without() -> bool:
        return True

    for name in ("with_value", "with_function", "without"):
        watcher.sensor(name).blocks = True
    assert with_value() is None
    assert with_function(1, two=2) == (1, 2)
    with pytest.raises(CallBlocked):
        without()


def test_a_substitute_of_a_coroutine_or_generator_has_its_kind(watcher: KeepingWatcher) -> None:
    async def instead() -> str:
        return "instead"

    @monitor(on_block=instead)
    async def awaited() -> str:
        return "own"

    @monitor(on_block="value")
    async def valued() -> str:
        return "own"

    @monitor(on_block=())
    def yielding() -> Iterator[int]:
        yield 1

    @monitor(on_block=[7])
    async def yielding_soon() -> AsyncIterator[int]:
        yield 1

    for name in ("awaited", "valued", "yielding", "yielding_soon"):
        watcher.sensor(name).blocks = True

    async def main() -> list[int]:
        assert await awaited() == "instead"
        assert await valued() == "value"
        return [one async for one in yielding_soon()]

    assert asyncio.run(main()) == [7]
    assert list(yielding()) == []


def test_a_generators_substitute_that_cannot_be_iterated_is_refused_when_it_is_chosen() -> None:
    def body() -> Iterator[int]:
        yield 1

    with pytest.raises(ImmuneError):
        monitor(on_block=3)(body)


def test_the_applications_exception_passes_as_it_is_with_its_traceback() -> None:
    error = KeyError("ours")

    @monitor
    def body() -> None:
        raise error from OSError("cause")

    for sampling in (TENTH, None):
        with watching(sampling) if sampling else watching():
            for _ in range(3):
                with pytest.raises(KeyError) as caught:
                    body()
                assert caught.value is error
                assert caught.value.__context__ is None
                assert type(caught.value.__cause__) is OSError
                frames = traceback.extract_tb(caught.value.__traceback__)
                assert frames[-1].line == 'raise error from OSError("cause")'
                error.__traceback__ = None


def test_a_block_inside_a_watched_function_passes_through_it(watcher: KeepingWatcher) -> None:
    @monitor
    def inner() -> None: ...

    @monitor
    def outer() -> None:
        inner()

    watcher.sensor("inner").blocks = True
    with pytest.raises(CallBlocked, match="inner"):
        outer()
    assert [one.failed for one in watcher.sensor("outer").left] == [True]


def test_what_a_sensor_calls_is_not_observed_and_never_recurs(watcher: KeepingWatcher) -> None:
    @monitor
    def body() -> int:
        return 1

    sensor = watcher.sensor("body")
    sensor.on_enter = sensor.on_leave = body
    assert body() == 1
    assert len(sensor.left) == 1
    assert watcher.gate("body").calls == 3


def test_recursion_is_observed_at_every_depth(watcher: KeepingWatcher) -> None:
    @monitor
    def factorial(number: int) -> int:
        return 1 if number == 0 else number * factorial(number - 1)

    assert factorial(20) == 2432902008176640000
    assert len(watcher.sensor("factorial").left) == 21


def test_arming_reaches_every_thread_with_its_next_call() -> None:
    with watching(TENTH) as watcher:
        ran = []

        @monitor
        def body() -> None:
            ran.append(threading.get_ident())

        stop, blocked = threading.Event(), []

        def calling() -> None:
            while not stop.is_set():
                try:
                    body()
                except CallBlocked:
                    blocked.append(threading.get_ident())
                    return

        threads = [threading.Thread(target=calling) for _ in range(4)]
        for thread in threads:
            thread.start()
        watcher.sensor("body").blocks = False
        while len(ran) < 1000:
            pass
        watcher.sensor("body").blocks = True
        watcher.gate("body").arm()
        before = len(ran)
        for thread in threads:
            thread.join(30)
        stop.set()
        # A call that was past the gate when it closed may end; one for each thread.
        assert len(ran) - before <= 4
        assert len(blocked) == 4


def test_a_disarmed_gate_lets_calls_pass_straight_again() -> None:
    with watching(TENTH) as watcher:
        body = monitor(lambda: 1)
        gate = next(gate for name, gate in watcher.gates.items() if name.endswith("<lambda>"))
        sensor = watcher.sensors[gate.name]
        gate.arm()
        for _ in range(30):
            body()
        assert len(sensor.entered) == 30
        assert 2 <= sum(one.teaches for one in sensor.entered) <= 4
        gate.disarm()
        for _ in range(1000):
            body()
        assert len(sensor.entered) - 30 in {99, 100, 101}
        assert gate.calls == 1030
        assert all(one.teaches for one in sensor.entered[30:])


def test_a_sensor_that_blocks_after_the_call_blocks_nothing(watcher: KeepingWatcher) -> None:
    def late() -> None:
        raise CallBlocked("m:f", "late", "id")

    @monitor
    def body() -> int:
        return 1

    watcher.sensor("body").on_leave = late
    assert body() == 1
    assert FAULTS.by_kind[("leave", "CallBlocked")] == 1


def test_a_sensor_may_raise_the_block_itself(watcher: KeepingWatcher) -> None:
    def refuse() -> None:
        raise EgressBlocked("m:f", "first connect", "id")

    @monitor
    def body() -> int:
        return 1

    watcher.sensor("body").on_enter = refuse
    with pytest.raises(EgressBlocked):
        body()
    assert FAULTS.count == 0
