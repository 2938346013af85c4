"""Observed coroutines, generators and async generators, and which way in each kind of function has.

A coroutine is blocked when it is awaited, a generator at its first ``next``: not when it is made. Everything
else is as for plain functions (`cloister.immune.wrapping.observing`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Generator, Iterable
from sys import _getframe
from types import CoroutineType, FrameType, FunctionType, coroutine
from typing import Any, Final, cast

from cloister.immune.wrapping.calls import Kind
from cloister.immune.wrapping.faults import FAULTS
from cloister.immune.wrapping.gate import Gate
from cloister.immune.wrapping.observing import (
    BLOCKED,
    Named,
    Running,
    Seen,
    begin,
    call,
    end,
    instead,
    look,
)
from cloister.immune.wrapping.running import Stopwatch


def open_coroutine(gate: Gate, positional: tuple[object, ...], named: Named) -> object:
    """Call a coroutine function."""
    seen = look(gate, positional, named, _caller())
    if seen is None:
        return gate.function(*positional, **named)
    return _named(gate, _coroutine(gate, seen, positional, named))


def open_generator(gate: Gate, positional: tuple[object, ...], named: Named) -> object:
    """Call a generator function."""
    seen = look(gate, positional, named, _caller())
    if seen is None:
        return gate.function(*positional, **named)
    make = _awaitable_generator if gate.kind is Kind.ITERABLE_COROUTINE else _generator
    return _named(gate, make(gate, seen, positional, named))


def open_async_generator(gate: Gate, positional: tuple[object, ...], named: Named) -> object:
    """Call an async generator function."""
    seen = look(gate, positional, named, _caller())
    if seen is None:
        return gate.function(*positional, **named)
    return _named(gate, _async_generator(gate, seen, positional, named))


def _caller() -> FrameType | None:
    """The frame that called the wrapper: of this function, the opener and the wrapper the next one."""
    try:
        return _getframe(3)
    except ValueError:
        return None


def _named(gate: Gate, made: Any) -> object:
    """Give a coroutine or generator the names of its function, for tracebacks and warnings."""
    try:
        made.__name__, made.__qualname__ = gate.function.__name__, gate.function.__qualname__
    except Exception as fault:
        FAULTS.note("name", fault)
    return made


async def _coroutine(gate: Gate, seen: Seen, positional: tuple[object, ...], named: Named) -> object:
    running = begin(gate, seen)
    if running is BLOCKED:
        found = instead(gate, positional, named)
        return await found if isinstance(found, Awaitable) else found
    watch = Stopwatch(gate.clock)
    body = gate.function(*positional, **named)
    if type(body) is not CoroutineType:
        body = _awaiting(cast("Awaitable[object]", body))
    try:
        result = await watch.over(cast("Any", body))
    except BaseException as error:
        _ended(gate, running, watch, error)
        raise
    _ended(gate, running, watch, None)
    return result


async def _awaiting(one: Awaitable[object]) -> object:
    return await one


def _generator(
    gate: Gate, seen: Seen, positional: tuple[object, ...], named: Named
) -> Generator[object, object, object]:
    running = begin(gate, seen)
    if running is BLOCKED:
        return (yield from cast("Generator[object, object, object]", instead(gate, positional, named)))
    watch = Stopwatch(gate.clock)
    try:
        result = yield from watch.over(cast("Any", gate.function(*positional, **named)))
    except BaseException as error:
        _ended(gate, running, watch, error)
        raise
    _ended(gate, running, watch, None)
    return result


# A copy, for `types.coroutine` changes the function that it is given.
_awaitable_generator = coroutine(FunctionType(_generator.__code__, globals()))


async def _async_generator(
    gate: Gate, seen: Seen, positional: tuple[object, ...], named: Named
) -> AsyncGenerator[object, object]:
    running = begin(gate, seen)
    if running is BLOCKED:
        found = instead(gate, positional, named)
        if isinstance(found, AsyncIterable):
            async for value in found:
                yield value
        else:
            for value in cast("Iterable[object]", found):
                yield value
        return
    watch = Stopwatch(gate.clock)
    body = cast("AsyncGenerator[object, object]", gate.function(*positional, **named))
    step: Any = body.__anext__()
    try:
        while True:
            try:
                value = await watch.over(step)
            except StopAsyncIteration:
                break
            try:
                sent = yield value
            except GeneratorExit as stop:
                watch.throwing(stop)
                await watch.over(cast("Any", body.aclose()))
                raise
            except BaseException as error:
                step = body.athrow(watch.throwing(error))
            else:
                step = body.asend(sent)
    except BaseException as error:
        _ended(gate, running, watch, error)
        raise
    _ended(gate, running, watch, None)


def _ended(gate: Gate, running: Running | None, watch: Stopwatch, error: BaseException | None) -> None:
    failed = error is not None and not watch.is_from_outside(error)
    if failed:
        gate.failed(told=running is not None)
    if running is not None:
        end(gate, running, watch.spent, failed=failed)


OPENERS: Final = {
    Kind.SYNC: call,
    Kind.COROUTINE: open_coroutine,
    Kind.GENERATOR: open_generator,
    Kind.ITERABLE_COROUTINE: open_generator,
    Kind.ASYNC_GENERATOR: open_async_generator,
}
