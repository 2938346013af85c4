"""The time that a coroutine or generator runs itself, without the time that it waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self


class _Body(Protocol):
    def send(self, value: Any, /) -> Any: ...
    def throw(self, error: Any, /) -> Any: ...
    def close(self) -> Any: ...


class Stopwatch:
    """Stands between ``await`` or ``yield from`` and a body, and adds up what the body takes.

    It is transparent: what is sent, thrown, yielded, returned and raised passes as it is (PEP 380, PEP 492).

    Args:
        clock: monotonic time, seconds.

    Attributes:
        spent: seconds so far.
    """

    __slots__ = ("_body", "_clock", "_closed", "_thrown", "spent")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._thrown: BaseException | None = None
        self._closed = False
        self.spent = 0.0

    def over(self, body: _Body) -> Self:
        """Run this body from now on."""
        self._body = body
        return self

    def is_from_outside(self, error: BaseException) -> bool:
        """Whether an error that comes out is one that was thrown in, a cancellation for instance."""
        return error is self._thrown or (self._closed and isinstance(error, GeneratorExit))

    def throwing(self, error: BaseException) -> BaseException:
        """Remember an error that is thrown in; returns it."""
        self._thrown = error
        return error

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> object:
        return self.send(None)

    def send(self, value: object) -> object:
        """Resume the body with a value."""
        began = self._clock()
        try:
            return self._body.send(value)
        finally:
            self.spent += self._clock() - began

    def throw(self, kind: Any, value: Any = None, trace: Any = None) -> object:
        """Resume the body with an error, in either form that generators take."""
        if not isinstance(kind, BaseException):
            kind = _instance(kind, value)
        if trace is not None:
            kind = kind.with_traceback(trace)
        began = self._clock()
        try:
            return self._body.throw(self.throwing(kind))
        finally:
            self.spent += self._clock() - began

    def close(self) -> None:
        """Close the body."""
        began = self._clock()
        try:
            self._body.close()
            self._closed = True
        finally:
            self.spent += self._clock() - began


def _instance(kind: type[BaseException], value: object) -> BaseException:
    if isinstance(value, kind):
        return value
    if value is None:
        return kind()
    return kind(*value) if isinstance(value, tuple) else kind(value)
