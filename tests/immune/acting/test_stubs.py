"""Stubs of the right type, and none where a type doesn't say what is safe."""

from __future__ import annotations

import collections
import enum
import types
from collections import abc
from typing import (
    Annotated,
    Any,
    Literal,
    Never,
    NewType,
    Optional,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.acting.stubs import returning, stub_for
from cloister.immune.errors import ImmuneError

Dose = NewType("Dose", float)
T = TypeVar("T")


class _Own:
    pass


class _Colour(enum.Enum):
    RED = 1


class _Level(enum.IntEnum):
    LOW = 0


class _Shape(Protocol):
    pass


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 0),
        (float, 0.0),
        (bool, False),
        (str, ""),
        (bytes, b""),
        (list, []),
        (dict, {}),
        (tuple, ()),
        (set, set()),
        (frozenset, frozenset()),
        (None, None),
        (list[int], []),
        (dict[str, list[int]], {}),
        (tuple[int, ...], ()),
        (tuple[int, str], (0, "")),
        (tuple[()], ()),
        (Optional[int], None),  # noqa: UP045
        (int | None, None),
        (Annotated[int, "years"], 0),
        (Dose, 0.0),
        (collections.OrderedDict[str, int], collections.OrderedDict()),
        (abc.Sequence[int], ()),
        (abc.Mapping[str, int], {}),
    ],
)
def test_a_stub_is_the_empty_value_of_its_type(annotation: object, value: object) -> None:
    assert stub_for(annotation) == value
    assert type(stub_for(annotation)) is type(value)


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        object,
        Never,
        T,
        _Own,
        pytest.param(_Own(), id="an object of another type"),
        _Colour,
        _Level,
        _Shape,
        Literal["revoked", "valid"],
        int | str,
        Union[int, str],  # noqa: UP007
        "int",
        ...,
        tuple[int, _Own],
        tuple[_Own, int],
        abc.Callable[[], int],
        type[int],
        types.SimpleNamespace,
        [int],
        {"a": 1},
    ],
    ids=repr,
)
def test_a_type_that_does_not_say_what_is_safe_is_refused(annotation: object) -> None:
    with pytest.raises(ImmuneError) as refused:
        stub_for(annotation)
    assert refused.value.code == "immune.setting_invalid"
    with pytest.raises(ImmuneError):
        returning(annotation)


_PLAIN = st.sampled_from([int, float, complex, bool, str, bytes, bytearray, type(None)])
_HASHABLE = st.sampled_from([int, str, bytes])


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda one: list[one]),  # type: ignore[valid-type]
        inner.map(lambda one: tuple[one, ...]),  # type: ignore[valid-type]
        inner.map(lambda one: Optional[one]),  # noqa: UP045
        inner.map(lambda one: Annotated[one, "a note"]),
        inner.map(lambda one: NewType("Named", one)),  # type: ignore[valid-newtype]
        _HASHABLE.map(lambda one: set[one]),  # type: ignore[valid-type]
        st.tuples(_HASHABLE, inner).map(lambda two: dict[two[0], two[1]]),
        st.lists(inner, max_size=3).map(lambda parts: tuple[tuple(parts)]),  # type: ignore[misc]
    )


def _is_of(value: object, annotation: Any) -> bool:
    if isinstance(annotation, NewType):
        return _is_of(value, annotation.__supertype__)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_of(value, parts[0])
    if origin in (Union, types.UnionType):
        return any(_is_of(value, part) for part in parts)
    if origin is tuple and Ellipsis not in parts:
        return (
            isinstance(value, tuple)
            and len(value) == len(parts)
            and all(_is_of(one, part) for one, part in zip(value, parts, strict=True))
        )
    # Empty of its elements, so that any type of them is right.
    return type(value) is (origin or annotation) and (origin is None or not value)


@settings(max_examples=300)
@given(st.recursive(_PLAIN, _deeper, max_leaves=6))
def test_a_stub_is_of_the_return_type(annotation: object) -> None:
    """PIC-P18: the stub has the return type."""
    assert _is_of(stub_for(annotation), annotation)
    assert _is_of(returning(annotation)("any", arguments=True), annotation)


def test_each_blocked_call_gets_a_stub_of_its_own() -> None:
    stub = returning(list[int])
    first = stub()
    assert isinstance(first, list)
    first.append(1)
    assert stub() == []
