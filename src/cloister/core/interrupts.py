"""Context managers that an interrupt (Ctrl-C) leaves either not entered or left, wherever it lands.

Python runs a signal's handler between two instructions of its own. In one of `contextlib.contextmanager` it
may land once the generator stands at its ``yield`` and before the block, or after the block and before the
generator goes on. Nobody ends the generator then until the interrupt's traceback is gone: its locks and
transactions stay, and whoever needs them because of the interrupt waits. Rules kept here:

1. An interrupt on the way into the block is raised in the generator, as if the block had raised it.
2. On the way out, the generator belongs to the ``with`` alone and to no frame that a traceback keeps: where
   an interrupt passes it over, it is closed as soon as the ``with`` is left.
3. That is as safe as the generator's own code. It has what it takes in a ``try`` or a ``with`` before it
   yields, and a lock's own ``with``, which has no instruction of Python in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from types import TracebackType
from typing import ParamSpec, TypeVar, cast
from weakref import ReferenceType, ref

P = ParamSpec("P")
T = TypeVar("T")


def interruptible(make: Callable[P, Iterator[T]]) -> Callable[P, AbstractContextManager[T]]:
    """As `contextlib.contextmanager`, for what holds a lock or a transaction; not as a decorator.

    Args:
        make: a generator that yields once.

    Returns:
        What makes a context manager, to be entered once.
    """
    made = contextmanager(make)

    @wraps(make)
    def manager(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[T]:
        return cast("AbstractContextManager[T]", _Interruptible(made(*args, **kwargs)))

    return manager


def _leave(
    held: ReferenceType[AbstractContextManager[object]],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> bool | None:
    inner = held()
    assert inner is not None  # who calls this holds it
    try:
        return inner.__exit__(kind, error, trace)
    except BaseException as other:
        # An interrupt that landed before the generator went on; where it has ended, this does nothing.
        if other is not error:
            inner.__exit__(type(other), other, other.__traceback__)
        raise


class _Leaving:
    """The ``__exit__`` of one who is entered: it holds the generator, and its frame doesn't."""

    def __get__(self, one: _Interruptible | None, owner: type[_Interruptible]) -> Callable[..., bool | None]:
        if one is None:
            return _leave_one
        leaving = partial(_leave, ref(one.inner))
        vars(leaving)["holds"] = one.inner
        return leaving


class _Interruptible:
    def __init__(self, inner: AbstractContextManager[object]) -> None:
        self.inner = inner

    def __enter__(self) -> object:
        try:
            return self.inner.__enter__()
        except BaseException as error:
            # It may stand at its yield; where it doesn't, this does nothing.
            self.inner.__exit__(type(error), error, error.__traceback__)
            raise

    __exit__ = _Leaving()


def _leave_one(
    one: _Interruptible,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> bool | None:
    """``__exit__`` as a class has it, for `contextlib.ExitStack`."""
    return _leave(ref(one.inner), kind, error, trace)
