"""Wraps what stands where a function stands: static, class and generic methods, properties, partials, caches.

Each gives back an object of its own kind whose functions are wrapped, so that decorators may stand in any
order.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, cast

Wrap = Callable[[Callable[..., object]], Callable[..., object]]


def reshape(one: object, wrap: Wrap) -> object:
    """Wrap the functions of an object, or the object itself.

    Args:
        one: function, descriptor, partial or other callable.
        wrap: wraps a function that isn't wrapped yet, and returns one that is as it is.

    Returns:
        An object of the same kind; the same object where there was nothing to wrap.
    """
    if isinstance(one, classmethod | staticmethod):
        return _around(one, one.__func__, wrap)
    if isinstance(one, property):
        return _property(one, wrap)
    if isinstance(one, functools.cached_property):
        return _cached_property(one, wrap)
    if isinstance(one, functools.partial | functools.partialmethod) and not isinstance(one.func, type):
        return _partial(one, wrap)
    if isinstance(one, MethodType):
        inner = wrap(one.__func__)
        return one if inner is one.__func__ else MethodType(inner, one.__self__)
    if isinstance(one, functools.singledispatchmethod):
        return _generic_method(one, wrap)
    if type(one) is functools._lru_cache_wrapper:
        return _cache(one, wrap)
    return wrap(cast("Callable[..., object]", one))


def _around(one: classmethod[Any, Any, Any] | staticmethod[Any, Any], inner: Any, wrap: Wrap) -> object:
    wrapped = reshape(inner, wrap)
    if wrapped is inner:
        return one
    made = type(one)(cast("Any", wrapped))
    for key, value in vars(one).items():
        if not key.startswith("__"):
            setattr(made, key, value)
    return made


def _property(one: property, wrap: Wrap) -> property:
    made = one
    for function, change in ((one.fget, "getter"), (one.fset, "setter"), (one.fdel, "deleter")):
        if function is not None:
            wrapped = wrap(function)
            if wrapped is not function:
                made = getattr(made, change)(wrapped)
    return made


def _cached_property(one: functools.cached_property[Any], wrap: Wrap) -> object:
    wrapped = wrap(one.func)
    if wrapped is one.func:
        return one
    made = type(one)(wrapped)
    # Set by the class's making, which is over where a property of a finished class is wrapped.
    made.attrname, made.__doc__ = one.attrname, one.__doc__
    return made


def _partial(one: functools.partial[Any] | functools.partialmethod[Any], wrap: Wrap) -> object:
    wrapped = reshape(one.func, wrap)
    if wrapped is one.func:
        return one
    made = type(one)(cast("Any", wrapped), *one.args, **one.keywords)
    vars(made).update({key: value for key, value in vars(one).items() if key not in vars(made)})
    return made


def _generic_method(one: functools.singledispatchmethod[Any], wrap: Wrap) -> object:
    """Wrap every implementation; those that are registered later too: their decorators stand further down."""
    wrapped = reshape(one.func, wrap)
    if wrapped is one.func:
        return one
    made: Any = copy.copy(one)
    made.func, made.dispatcher = wrapped, functools.singledispatch(cast("Callable[..., object]", wrapped))
    for kind, implementation in one.dispatcher.registry.items():
        if kind is not object:
            made.dispatcher.register(kind, reshape(implementation, wrap))
    register = made.dispatcher.register

    def register_wrapped(kind: Any, method: object = None) -> object:
        if method is not None:
            return register(kind, reshape(method, wrap))
        if isinstance(kind, FunctionType | staticmethod | classmethod):
            return register(reshape(kind, wrap))
        return lambda method: register(kind, reshape(method, wrap))

    made.register = register_wrapped
    return cast("object", made)


def _cache(one: Any, wrap: Wrap) -> object:
    wrapped = wrap(one)
    if wrapped is not one:
        for method in ("cache_info", "cache_clear"):
            setattr(wrapped, method, getattr(one, method))
    return wrapped
