"""The wrapper of one function: same signature, same kind, same names, one integer counted down.

The wrapper is a function of its own with the wrapped one's globals, defaults (by reference), annotations and
attributes, so that `inspect`, `typing`, `asyncio`, `pickle` and web frameworks see what they saw before.
A coroutine or generator function is wrapped by a plain function that hands the object through and carries
the flag of its kind on its code: the flag is what `inspect` reads, on 3.11 to 3.13. A mark
(`inspect.markcoroutinefunction`) is set only where the wrapped function carries one itself: it lies among
the attributes, and a plain function that copies them would pass for a coroutine function.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import Any, Final, cast

from cloister.immune.compiled_core import shortcut
from cloister.immune.errors import ImmuneError
from cloister.immune.wrapping.calls import Kind
from cloister.immune.wrapping.gate import Gate
from cloister.immune.wrapping.locked import LockedGate, is_locked
from cloister.immune.wrapping.signature import ANYTHING, compared_code, signature_of, wrapper_code
from cloister.immune.wrapping.slow import OPENERS

MARK: Final = "__immune_gate__"
"""The attribute of a wrapper that holds its gate. Other wraps copy it outwards, where it is found."""

_FLAGS: Final = {
    Kind.SYNC: 0,
    Kind.COROUTINE: inspect.CO_COROUTINE,
    Kind.GENERATOR: inspect.CO_GENERATOR,
    Kind.ITERABLE_COROUTINE: inspect.CO_GENERATOR | inspect.CO_ITERABLE_COROUTINE,
    Kind.ASYNC_GENERATOR: inspect.CO_ASYNC_GENERATOR,
}


def gate_of(function: object) -> Gate | None:
    """The gate that a function already has, through other wraps as well; None without one."""
    try:
        attributes = object.__getattribute__(function, "__dict__")
    except AttributeError:
        return None
    found = attributes.get(MARK)
    return found if isinstance(found, Gate) else None


def kind_of(function: Callable[..., object]) -> Kind:
    """What calling a function gives."""
    called = function if inspect.isroutine(function) else vars(type(function)).get("__call__")
    code = getattr(called, "__code__", None)
    if code is not None and code.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return Kind.ITERABLE_COROUTINE
    for kind, is_kind in (
        (Kind.COROUTINE, inspect.iscoroutinefunction),
        (Kind.ASYNC_GENERATOR, inspect.isasyncgenfunction),
        (Kind.GENERATOR, inspect.isgeneratorfunction),
    ):
        if is_kind(function) or is_kind(called):
            return kind
    return Kind.SYNC


def name_of(function: object) -> str:
    """A function's ``module:qualname``; of an object that has none, its type's."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(named, '__module__', None) or ''}:{getattr(named, '__qualname__', '')}"


def build(
    function: Callable[..., object],
    *,
    name: str | None = None,
    substitute: Callable[..., object] | None = None,
    locked: bool | None = None,
) -> tuple[Callable[..., object], Gate]:
    """Wrap a function.

    Args:
        function: a Python function; any other callable gets a wrapper that takes anything.
        name: ``module:qualname``; the function's own without it.
        substitute: see `Gate`.
        locked: whether the wrapper has a flag of its own; by default where Python has no global lock.

    Returns:
        The wrapper, and its gate.

    Raises:
        ImmuneError: it can't be called.
    """
    if not callable(function) or isinstance(function, type):
        raise ImmuneError(
            "immune.target_unknown",
            f"{name or name_of(function)} is no function.",
            "Name a function; of a class its methods, as module:Class.*",
        )
    locked = not is_locked() if locked is None else locked
    kind = kind_of(function)
    short = None if locked else shortcut()
    counter, entry = (CellType, None) if short is None else (short.Counter, short.Entry())
    gate = (LockedGate if locked else Gate)(
        name or name_of(function), kind, function, substitute, counter, entry
    )
    signature = signature_of(function.__code__) if isinstance(function, FunctionType) else ANYTHING
    checked = kind is Kind.SYNC
    code, roles = wrapper_code(signature, counts_errors=checked, locked=locked, shortened=short is not None)
    own_name = str(getattr(function, "__name__", type(function).__name__))
    code = code.replace(co_flags=code.co_flags | _FLAGS[kind], co_name=own_name, co_qualname=own_name)
    parts: dict[str, object] = {
        **gate.counters,
        "holding": gate.holding,
        "function": function,
        "gate": gate,
        "slow": OPENERS[kind],
        "every_error": BaseException,
    }
    exact = isinstance(function, FunctionType) and signature is not ANYTHING

    def made(code: CodeType, roles: tuple[str, ...]) -> FunctionType:
        found = [parts[role] for role in roles]
        closure = tuple(one if type(one) is CellType else CellType(one) for one in found)
        space = function.__globals__ if isinstance(function, FunctionType) else {"__builtins__": {}}
        one = FunctionType(code, space, own_name, None, closure)
        if isinstance(function, FunctionType) and exact:
            one.__defaults__ = function.__defaults__
            one.__kwdefaults__ = cast("dict[str, Any]", function.__kwdefaults__)
        return one

    wrapper = made(code, roles)
    if short is not None:
        long_way, roles = compared_code(signature)
        compared = made(long_way.replace(co_name=own_name, co_qualname=own_name), roles)
        compared.__qualname__ = getattr(function, "__qualname__", own_name)
        wrapper = short.shorten(wrapper, compared, function, *gate.counters.values(), entry, checked, exact)
    functools.update_wrapper(wrapper, function)
    setattr(wrapper, MARK, gate)
    return wrapper, gate
