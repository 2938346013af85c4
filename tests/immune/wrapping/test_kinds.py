"""Coroutines, generators and async generators behave as before, and are timed while they run."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import time
import types
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

import pytest

from cloister.immune.errors import CallBlocked
from cloister.immune.wrapping import FAULTS, monitor
from tests.immune.wrapping.watching import EVERY, TENTH, KeepingWatcher, watching


def _work(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def _soon(number: int) -> int:
    await asyncio.sleep(0)
    return number


def _counting(number: int) -> Generator[int, str, str]:
    said = []
    try:
        for one in range(number):
            said.append((yield one))
    except KeyError:
        yield -1
    return ",".join(map(str, said))


async def _counting_soon(number: int) -> AsyncGenerator[int, str]:
    try:
        for one in range(number):
            await asyncio.sleep(0)
            yield one
    except KeyError:
        yield -1


@types.coroutine
def _old_style(number: int) -> Generator[None, None, int]:
    yield
    return number


ALL = (_soon, _counting, _counting_soon, _old_style, lambda: None)


@pytest.mark.parametrize("body", ALL)
@pytest.mark.parametrize(
    "asks",
    [
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.isfunction,
        inspect.isroutine,
        asyncio.iscoroutinefunction,
    ],
)
@pytest.mark.filterwarnings("ignore:.*iscoroutinefunction:DeprecationWarning")
def test_inspect_and_asyncio_say_of_the_wrapper_what_they_say_of_the_function(
    body: object, asks: object
) -> None:
    assert asks(monitor(body)) == asks(body)


def test_a_plain_function_around_a_wrapped_coroutine_is_not_taken_for_one() -> None:
    wrapped = monitor(_soon)

    @functools.wraps(wrapped)
    def in_a_loop(number: int) -> int:
        return asyncio.run(wrapped(number))

    assert not inspect.iscoroutinefunction(in_a_loop)
    assert in_a_loop(3) == 3


def test_what_a_call_gives_is_of_the_same_type_straight_and_observed() -> None:
    for sampling in (EVERY, TENTH):
        with watching(sampling):
            for body, asks in (
                (_soon, inspect.iscoroutine),
                (_counting, inspect.isgenerator),
                (_counting_soon, inspect.isasyncgen),
                (_old_style, inspect.isawaitable),
            ):
                made = monitor(body)(1)
                assert asks(made)
                assert (made.__name__, made.__qualname__) == (body.__name__, body.__qualname__)
                if hasattr(made, "close"):
                    made.close()


def test_a_coroutines_duration_is_what_it_ran_itself(watcher: KeepingWatcher) -> None:
    @monitor
    async def body() -> None:
        _work(0.02)
        await asyncio.sleep(0.2)
        _work(0.02)

    asyncio.run(body())
    assert 0.04 <= watcher.sensor("body").left[0].duration < 0.15


def test_a_generators_duration_is_what_it_ran_itself(watcher: KeepingWatcher) -> None:
    @monitor
    def body() -> Iterator[int]:
        for one in range(3):
            _work(0.01)
            yield one

    for _ in body():
        _work(0.05)
    assert 0.03 <= watcher.sensor("body").left[0].duration < 0.1


def test_an_async_generators_duration_is_what_it_ran_itself(watcher: KeepingWatcher) -> None:
    @monitor
    async def body() -> AsyncIterator[int]:
        for one in range(3):
            _work(0.01)
            await asyncio.sleep(0.05)
            yield one

    async def main() -> None:
        async for _ in body():
            _work(0.03)

    asyncio.run(main())
    assert 0.03 <= watcher.sensor("body").left[0].duration < 0.1


def test_a_block_of_a_coroutine_is_raised_where_it_is_awaited(watcher: KeepingWatcher) -> None:
    wrapped = monitor(_soon)
    watcher.sensor("_soon").blocks = True

    async def main() -> None:
        made = wrapped(1)  # not here
        task = asyncio.create_task(wrapped(2))  # nor here
        with pytest.raises(CallBlocked):
            await made
        with pytest.raises(CallBlocked):
            await task
        results = await asyncio.gather(wrapped(3), wrapped(4), return_exceptions=True)
        assert [type(one) for one in results] == [CallBlocked, CallBlocked]

    asyncio.run(main())


def test_a_block_of_a_generator_is_raised_at_its_first_next(watcher: KeepingWatcher) -> None:
    wrapped, old = monitor(_counting), monitor(_old_style)
    watcher.sensor("_counting").blocks = watcher.sensor("_old_style").blocks = True
    made = wrapped(3)
    with pytest.raises(CallBlocked):
        next(made)

    async def main() -> None:
        waiting = old(1)
        with pytest.raises(CallBlocked):
            await waiting

    asyncio.run(main())


def test_a_block_of_an_async_generator_is_raised_at_its_first_step(watcher: KeepingWatcher) -> None:
    wrapped = monitor(_counting_soon)
    watcher.sensor("_counting_soon").blocks = True

    async def main() -> None:
        made = wrapped(3)
        with pytest.raises(CallBlocked):
            await made.__anext__()

    asyncio.run(main())


@pytest.mark.parametrize("sampling", [EVERY, TENTH])
def test_two_hundred_coroutines_gathered_each_give_their_own_result(sampling: object) -> None:
    with watching(sampling) as watcher:
        wrapped = monitor(_soon)

        async def main() -> list[int]:
            return await asyncio.gather(*(wrapped(one) for one in range(200)))

        assert asyncio.run(main()) == list(range(200))
        assert watcher.gate("_soon").calls == 200
        assert len(watcher.sensor("_soon").left) == (200 if sampling is EVERY else 20)


def test_a_cancellation_passes_and_is_not_the_coroutines_failure(watcher: KeepingWatcher) -> None:
    cleaned = []

    @monitor
    async def body() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            cleaned.append(True)

    async def main() -> None:
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert cleaned == [True]
    assert [one.failed for one in watcher.sensor("body").left] == [False]


def test_a_coroutines_own_exception_passes_and_is_its_failure(watcher: KeepingWatcher) -> None:
    error = ValueError("ours")

    @monitor
    async def body() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(ValueError, match="ours") as caught:
        asyncio.run(body())
    assert caught.value is error
    assert watcher.sensor("body").left[0].failed
    assert watcher.gate("body").errors == 1
    with pytest.raises(ValueError, match="ours"):
        asyncio.run(body())
    # The sensor was told of it once: as that call's end, and not with the counts before the next one.
    assert [one.errors for one in watcher.sensor("body").entered] == [0, 0]


def test_a_generator_takes_what_is_sent_and_thrown_and_gives_what_it_returns(watcher: KeepingWatcher) -> None:
    made = monitor(_counting)(3)
    assert next(made) == 0
    assert made.send("a") == 1
    assert made.send("b") == 2
    with pytest.raises(StopIteration) as end:
        made.send("c")
    assert end.value.value == "a,b,c"
    made = monitor(_counting)(3)
    next(made)
    assert made.throw(KeyError()) == -1
    made = monitor(_counting)(3)
    next(made)
    error = ValueError("thrown")
    with pytest.raises(ValueError, match="thrown") as caught:
        made.throw(error)
    assert caught.value is error
    del made
    assert [one.failed for one in watcher.sensor("_counting").left] == [False, False, False]


def test_a_generator_that_is_closed_or_dropped_ends_as_it_would(watcher: KeepingWatcher) -> None:
    closed = []

    @monitor
    def body() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append(True)

    made = body()
    next(made)
    made.close()
    made = body()
    next(made)
    del made
    gc.collect()
    assert closed == [True, True]
    assert [one.failed for one in watcher.sensor("body").left] == [False, False]


def test_delegation_to_a_wrapped_generator_passes_values_both_ways(watcher: KeepingWatcher) -> None:
    def outer() -> Generator[int, str, str]:
        return (yield from monitor(_counting)(2))

    made = outer()
    assert next(made) == 0
    assert made.send("x") == 1
    with pytest.raises(StopIteration) as end:
        made.send("y")
    assert end.value.value == "x,y"


def test_an_async_generator_takes_what_is_sent_thrown_and_closed(watcher: KeepingWatcher) -> None:
    async def main() -> None:
        made = monitor(_counting_soon)(3)
        assert await made.__anext__() == 0
        assert await made.asend("a") == 1
        assert await made.athrow(KeyError()) == -1
        with pytest.raises(StopAsyncIteration):
            await made.__anext__()
        made = monitor(_counting_soon)(3)
        assert await made.__anext__() == 0
        await made.aclose()
        made = monitor(_counting_soon)(3)
        await made.__anext__()
        error = ValueError("thrown")
        with pytest.raises(ValueError, match="thrown") as caught:
            await made.athrow(error)
        assert caught.value is error

    asyncio.run(main())
    assert [one.failed for one in watcher.sensor("_counting_soon").left] == [False, False, False]
    assert FAULTS.count == 0


def test_an_old_style_coroutine_is_awaited_as_before(watcher: KeepingWatcher) -> None:
    async def main() -> int:
        return await monitor(_old_style)(5)

    assert asyncio.run(main()) == 5
    assert len(watcher.sensor("_old_style").left) == 1


def test_a_coroutine_that_nobody_awaits_warns_once_by_its_own_name(watcher: KeepingWatcher) -> None:
    wrapped = monitor(_soon)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        wrapped(1)
        gc.collect()
    assert [str(one.message) for one in heard] == ["coroutine '_soon' was never awaited"]
