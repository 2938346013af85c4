"""A wrapped function takes, gives and says what it did before it was wrapped."""

from __future__ import annotations

import functools
import inspect
import typing
from types import CodeType, FunctionType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.wrapping import monitor
from cloister.immune.wrapping.build import build
from cloister.immune.wrapping.signature import ANYTHING, signature_of
from tests.immune.wrapping.watching import KeepingWatcher

_MISSING = object()


class Local:
    """A class that only annotations name."""


def _every_kind_of_parameter(
    first: int,
    second: str = "2",
    /,
    third: object = _MISSING,
    *rest: int,
    only: int,
    other: int = 6,
    **more: int,
) -> tuple[Any, ...]:
    return first, second, third, rest, only, other, more


def test_every_kind_of_parameter_arrives_as_it_was_given(watcher: KeepingWatcher) -> None:
    wrapped = monitor(_every_kind_of_parameter)
    for arguments, named in (
        ((1,), {"only": 5}),
        ((1, "b", 3, 4, 5), {"only": 5, "other": 7, "extra": 8}),
        ((1,), {"third": 3, "only": 5, "first": 9, "second": 10}),
    ):
        assert wrapped(*arguments, **named) == _every_kind_of_parameter(*arguments, **named)
        assert _every_kind_of_parameter(*arguments, **named)[2] is wrapped(*arguments, **named)[2]


def test_a_wrong_call_is_refused_as_it_was_and_the_body_does_not_run() -> None:
    ran = []

    def body(one: int, *, two: int) -> None:
        ran.append(one)

    wrapped = monitor(body)
    for arguments, named in (((), {}), ((1,), {}), ((1, 2), {"two": 2}), ((1,), {"two": 2, "three": 3})):
        with pytest.raises(TypeError) as without:
            body(*arguments, **named)
        with pytest.raises(TypeError) as with_it:
            wrapped(*arguments, **named)
        assert str(with_it.value).split("()")[-1] == str(without.value).split("()")[-1]
    assert ran == []


def test_defaults_and_annotations_are_the_same_objects() -> None:
    shared: list[int] = []

    def body(one: list[int] = shared, *, two: object = _MISSING) -> list[int]:
        one.append(1)
        return one

    wrapped = monitor(body)
    assert wrapped() is shared
    assert wrapped.__defaults__ is body.__defaults__
    assert wrapped.__kwdefaults__ is body.__kwdefaults__
    assert wrapped.__annotations__ is body.__annotations__


def test_signature_and_string_annotations_resolve_as_a_web_framework_resolves_them() -> None:
    def body(item: Local, number: int = 3) -> Local:
        return item

    wrapped = monitor(body)
    assert inspect.signature(wrapped) == inspect.signature(body)
    assert typing.get_type_hints(wrapped) == {"item": Local, "number": int, "return": Local}
    # FastAPI takes the signature, and evaluates annotations that are strings in the function's globals.
    globals_of = getattr(wrapped, "__globals__", {})
    hints = {
        name: eval(one.annotation, globals_of) for name, one in inspect.signature(wrapped).parameters.items()
    }
    assert hints == {"item": Local, "number": int}
    own = inspect.signature(wrapped, follow_wrapped=False)
    assert [(p.name, p.kind, p.default) for p in own.parameters.values()] == [
        (p.name, p.kind, p.default) for p in inspect.signature(body).parameters.values()
    ]


def test_a_fastapi_endpoint_and_its_dependency_work_wrapped(watcher: KeepingWatcher) -> None:
    fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed")
    testclient = pytest.importorskip("fastapi.testclient", reason="fastapi's test client is not installed")
    app = fastapi.FastAPI()

    @monitor
    def tenant(header: str = "ward") -> str:
        return header

    async def item(number: int, who: str = fastapi.Depends(tenant)) -> dict[str, object]:
        return {"number": number, "who": who}

    item.__annotations__ = {"number": int, "who": str, "return": dict[str, object]}
    app.get("/items/{number}")(monitor(item))
    answer = testclient.TestClient(app).get("/items/7")
    assert answer.json() == {"number": 7, "who": "ward"}
    assert testclient.TestClient(app).get("/items/x").status_code == 422


def test_names_docstring_module_and_source_are_the_functions_own() -> None:
    wrapped = monitor(_every_kind_of_parameter)
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__dict__"):
        ours, theirs = getattr(wrapped, name), getattr(_every_kind_of_parameter, name)
        assert ours == theirs or set(ours) - set(theirs) == {"__wrapped__", "__immune_gate__"}
    assert inspect.unwrap(wrapped) is _every_kind_of_parameter
    assert inspect.getsource(wrapped) == inspect.getsource(_every_kind_of_parameter)


def test_parameters_named_like_the_wrappers_own_variables_are_told_apart() -> None:
    def body(
        _function: int,
        _gate: int,
        _slow: int,
        _left: int,
        _left_: int,
        _errors: int,
        _every_error: int,
        left: int,
    ) -> tuple[int, ...]:
        return _function, _gate, _slow, _left, _left_, _errors, _every_error, left

    assert monitor(body)(1, 2, 3, 4, 5, 6, 7, 8) == (1, 2, 3, 4, 5, 6, 7, 8)


def test_a_functions_globals_may_shadow_every_builtin() -> None:
    space: dict[str, Any] = {"BaseException": None, "inspect": None, "__name__": "shadowed"}
    exec("def body(one):\n    raise KeyError(one)", space)
    with pytest.raises(KeyError):
        monitor(space["body"])(1)


def test_a_name_that_is_no_identifier_never_reaches_the_source() -> None:
    def body(first: int, second: int) -> int:
        return first + second

    for evil in ("first): import os; (", "class", "\N{FULLWIDTH LATIN SMALL LETTER A}", "", ".0"):
        code: CodeType = body.__code__.replace(co_varnames=(evil, "second"))
        assert signature_of(code) is ANYTHING
        assert monitor(FunctionType(code, globals()))(1, 2) == 3


_names = st.lists(
    st.from_regex(r"[_a-z]{1,9}", fullmatch=True).filter(
        lambda name: name.isidentifier() and not __import__("keyword").iskeyword(name)
    ),
    unique=True,
    max_size=7,
)


@settings(max_examples=100)
@given(names=_names, data=st.data())
def test_any_signature_is_kept(names: list[str], data: st.DataObject) -> None:
    plain = data.draw(st.integers(0, len(names)))
    only = data.draw(st.integers(0, plain))
    rest, named = data.draw(st.booleans()), data.draw(st.booleans())
    parts = names[:plain]
    if only:
        parts.insert(only, "/")
    if rest:
        parts.append("*_rest_of")
    elif names[plain:]:
        parts.append("*")
    parts += names[plain:] + (["**_named_of"] if named else [])
    space: dict[str, Any] = {}
    exec(f"def body({', '.join(parts)}):\n    return locals()", space)
    body = space["body"]
    wrapper, gate = build(body)
    arguments = [object() for _ in range(plain + (2 if rest else 0))]
    given_by_name = {name: object() for name in names[plain:] + (["extra_one"] if named else [])}
    for slow in (False, True):
        if slow:
            gate._left.cell_contents = 0
        assert wrapper(*arguments, **given_by_name) == body(*arguments, **given_by_name)
    assert inspect.signature(wrapper, follow_wrapped=False) == inspect.signature(body)


def test_what_has_no_code_of_its_own_is_called_with_anything(watcher: KeepingWatcher) -> None:
    class Adding:
        def __call__(self, one: int, *, two: int) -> int:
            return one + two

    assert monitor(Adding())(1, two=2) == 3
    assert monitor(len)([1, 2]) == 2
    assert monitor(functools.partial(int, base=2))("101") == 5
    assert watcher.sensor("len").left[0].entered.size == 2
