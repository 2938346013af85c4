"""Typed safe stubs: what an operator may choose that a blocked function returns in place of `CallBlocked`.

They are never taken by themselves. ``is_revoked() -> False`` and ``balance() -> 0`` are stubs of the right
type and the wrong answer: a stub chosen by an annotation alone would open what the block was to close. So a
stub is named for one function, by somebody who knows what its callers do with it:
``on_block=returning(list[str])``.

A type without an empty value that is certainly one of it is refused: own classes, enumerations, ``Any``, type
variables, literals, a union without None, protocols, an annotation given as text.
"""

from __future__ import annotations

import collections
from collections import abc
from collections.abc import Callable, Mapping
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Final, NewType, Union, get_args, get_origin

from cloister.immune.errors import ImmuneError

_EMPTY: Final[Mapping[object, Callable[[], object]]] = MappingProxyType(
    {
        kind: kind
        for kind in (
            *(int, float, complex, bool, str, bytes, bytearray),
            *(list, dict, set, frozenset, collections.deque, collections.OrderedDict, collections.Counter),
        )
    }
    | {
        None: lambda: None,
        NoneType: lambda: None,
        abc.Iterable: tuple,
        abc.Collection: tuple,
        abc.Sequence: tuple,
        abc.MutableSequence: list,
        abc.Set: frozenset,
        abc.MutableSet: set,
        abc.Mapping: dict,
        abc.MutableMapping: dict,
        abc.Iterator: lambda: iter(()),
    }
)


def stub_for(annotation: object) -> object:
    """An empty value of a type: 0, 0.0, False, "", b"", [], {}, (), set(), None.

    Args:
        annotation: the type as it is written behind ``->``, evaluated: ``list[int]``, ``int | None``,
            ``tuple[int, str]`` (a zero and an empty text), ``Annotated`` and ``NewType`` of such.

    Returns:
        A value of its own for each call, so that nobody shares a list.

    Raises:
        ImmuneError: ``immune.setting_invalid`` where no value is certainly of the type.
    """
    if isinstance(annotation, NewType):
        return stub_for(annotation.__supertype__)
    origin = get_origin(annotation)
    if origin is Annotated:
        return stub_for(get_args(annotation)[0])
    if origin in (Union, UnionType):
        if NoneType in get_args(annotation):
            return None
        raise _refused(annotation)
    if annotation is tuple or origin is tuple:
        return _tuple(get_args(annotation))
    kind = annotation if origin is None else origin
    # Only what can be a key is one: an annotation may be any object.
    make = _EMPTY.get(kind) if kind is None or isinstance(kind, type) else None
    if make is None:
        raise _refused(annotation)
    return make()


def returning(annotation: object) -> Callable[..., object]:
    """What to name as ``on_block`` of a function: takes whatever the call had, and returns a new stub.

    Args:
        annotation: as for `stub_for`; judged now, not at the first block.

    Raises:
        ImmuneError: ``immune.setting_invalid`` where no value is certainly of the type.
    """
    stub_for(annotation)

    def stub(*_: object, **__: object) -> object:
        return stub_for(annotation)

    return stub


def _tuple(parts: tuple[object, ...]) -> tuple[object, ...]:
    return () if Ellipsis in parts else tuple(stub_for(part) for part in parts)


def _refused(annotation: object) -> ImmuneError:
    name = annotation.__qualname__ if isinstance(annotation, type) else type(annotation).__qualname__
    return ImmuneError(
        "immune.setting_invalid",
        f"There is no safe stub for a return type ({name}).",
        "Name a value or a function of your own as on_block, or let blocked calls raise CallBlocked.",
    )
