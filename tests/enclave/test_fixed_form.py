"""Messages of one form: anything else is refused, with the protocol's own error and nothing of what came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import b64encode, canonicalize
from cloister.core.errors import CloisterError, InputError
from cloister.enclave.fixed_form import FixedForm

SCHEMA = "urn:cloister:test:v1"


def refusal() -> CloisterError:
    return InputError("input.schema", "Not of its form.")


FORM = FixedForm(refusal)
RIGHT = {"schema": SCHEMA, "a": "1"}


def test_a_message_of_its_form_is_read() -> None:
    assert FORM.fields(canonicalize(RIGHT), SCHEMA, {"a"}, 100) == RIGHT
    assert FORM.data(b64encode(bytes(32)), 32) == bytes(32)
    assert FORM.sha256("0" * 64) == "0" * 64
    assert FORM.name("St. Mary") == "St. Mary"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"x",
        canonicalize({**RIGHT, "b": "2"}),
        canonicalize({"schema": SCHEMA}),
        canonicalize({**RIGHT, "schema": "urn:cloister:other:v1"}),
        canonicalize(RIGHT) + b" ",
        b'{"schema":"' + SCHEMA.encode() + b'","a":"1"}',
        canonicalize({**RIGHT, "a": "1" * 100}),
        canonicalize({**RIGHT, "a": [[[[[[[[[]]]]]]]]]}),
    ],
    ids=["none", "list", "no JSON", "more", "fewer", "schema", "space", "order", "large", "deep"],
)
def test_a_message_of_any_other_form_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^Not of its form\.$"):
        FORM.fields(data, SCHEMA, {"a"}, 100)


@given(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=90), st.lists(st.text(), max_size=2))
)
def test_a_field_of_another_kind_is_refused(value: object) -> None:
    for read in (lambda: FORM.data(value, 99), lambda: FORM.sha256(value)):  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"^Not of its form\.$"):
            read()


@pytest.mark.parametrize("value", ["", "a" * 201, "a\nb", "a\x1b[2J", None, 3, ["a"]])
def test_a_name_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        FORM.name(value)  # type: ignore[arg-type]
