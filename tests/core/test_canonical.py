"""Canonical JSON: one value, one encoding, and a reader that accepts nothing else."""

from __future__ import annotations

import json
import math
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse, parse_canonical
from cloister.core.errors import InputError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=25,
)


def same(left: JSON, right: JSON) -> bool:
    """Equal as JSON values, where 1 and 1.0 are one number and true is none."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right and isinstance(left, bool) == isinstance(right, bool)


@given(VALUES)
def test_what_is_written_can_be_read_and_is_its_own_encoding(value: JSON) -> None:
    data = canonicalize(value)
    assert same(parse_canonical(data), value)
    assert same(json.loads(data, parse_int=float), value)


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_in_which_keys_were_added_does_not_show(value: JSON, random: object) -> None:
    def shuffled(part: JSON) -> JSON:
        if isinstance(part, dict):
            names = list(part)
            random.shuffle(names)  # type: ignore[attr-defined]
            return {name: shuffled(part[name]) for name in names}
        return [shuffled(item) for item in part] if isinstance(part, list) else part

    assert canonicalize(shuffled(value)) == canonicalize(value)


@given(VALUES)
def test_any_other_spelling_of_the_same_value_is_not_canonical(value: JSON) -> None:
    canonical = canonicalize(value)
    for data in (
        json.dumps(value, indent=1).encode(),
        b" " + canonical,
        canonical + b"\n",
        json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode(),
    ):
        if data == canonical:
            continue
        with pytest.raises(InputError) as refused:
            parse_canonical(data)
        assert refused.value.code in ("input.not_canonical", "input.not_json")


@given(VALUES, st.data())
def test_one_changed_byte_is_refused_or_is_another_value(value: JSON, data: st.DataObject) -> None:
    canonical = bytearray(canonicalize(value))
    position = data.draw(st.integers(0, len(canonical) - 1))
    canonical[position] ^= data.draw(st.integers(1, 255))
    try:
        read = parse_canonical(bytes(canonical))
    except InputError:
        return
    assert canonicalize(read) != canonicalize(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_reads_back_to_the_same_bits(number: float) -> None:
    read = parse_canonical(canonicalize(number))
    assert isinstance(read, int | float)
    assert float(read) == number


@given(st.floats(min_value=2.0**53, max_value=1e21, exclude_max=True))
def test_whole_numbers_past_the_safe_range_are_floats(number: float) -> None:
    read = parse_canonical(canonicalize(number))
    assert type(read) is float
    assert read == number


class Kind(StrEnum):
    ONE = "one"


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        2**53,
        -(2**53),
        10**400,
        "\ud800",
        {"\udfff": 1},
        {1: "a"},
        {None: "a"},
        {"a": (1, 2)},
        {1, 2},
        b"bytes",
        object,
        Kind.ONE,
    ],
    ids=repr,
)
def test_what_json_cannot_carry_exactly_is_refused(value: JSON) -> None:
    with pytest.raises(InputError) as refused:
        canonicalize([value])
    assert refused.value.code == "input.not_json"


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[JSON] = []
    loop.append(loop)
    with pytest.raises(InputError) as refused:
        canonicalize(loop)
    assert refused.value.code == "input.too_large"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "input.syntax"),
        (b"{", "input.syntax"),
        (b"[1,]", "input.syntax"),
        (b"[1] x", "input.syntax"),
        (b"'a'", "input.syntax"),
        (b'"a\nb"', "input.syntax"),
        (b"01", "input.syntax"),
        (b"NaN", "input.syntax"),
        (b"[Infinity]", "input.syntax"),
        (b"-Infinity", "input.syntax"),
        (b"\xef\xbb\xbf1", "input.syntax"),
        (b'"\xff"', "input.syntax"),
        (b'"\xed\xa0\x80"', "input.syntax"),
        ('"a"'.encode("utf-16"), "input.syntax"),
        (b'{"a":1,"a":1}', "input.duplicate_key"),
        (b'{"a":1,"\\u0061":2}', "input.duplicate_key"),
        (b'{"b":{"a":1,"a":2}}', "input.duplicate_key"),
        (b'"\\ud800"', "input.not_json"),
        (b'{"\\uDC00":1}', "input.not_json"),
        (b"9007199254740993", "input.not_json"),
        (b"-9007199254740993", "input.not_json"),
        (b"1" * 5000, "input.not_json"),
        (b"1e400", "input.not_json"),
        (b"[" * 65 + b"]" * 65, "input.too_large"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "input.too_large"),
        (b"[" * 100_000, "input.too_large"),
    ],
    ids=lambda part: repr(part)[:24],
)
def test_documents_that_could_be_read_two_ways_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(InputError) as refused:
        parse(data)
    assert refused.value.code == code


def test_depth_and_size_are_bounded_exactly() -> None:
    assert parse(b"[" * 64 + b"]" * 64)
    assert parse(b"[1]", max_bytes=3, max_depth=1) == [1]
    for bounds in ({"max_bytes": 2}, {"max_depth": 0}):
        with pytest.raises(InputError) as refused:
            parse(b"[1]", **bounds)
        assert refused.value.code == "input.too_large"


def test_a_surrogate_pair_written_as_escapes_is_one_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_no_error_shows_the_text_that_was_read() -> None:
    for data in (b'{"secret":secret}', b'{"secret":1,"secret":1}', b'["secret\xff"]', b'["secret", 1e999]'):
        with pytest.raises(InputError) as refused:
            parse(data)
        assert "secret" not in str(refused.value.as_json())


@given(st.binary())
def test_base64_reads_back_what_was_written(data: bytes) -> None:
    assert b64decode(b64encode(data)) == data


@given(st.text(alphabet="AB+/=-_ \n\u00e9", max_size=9))
def test_base64_has_one_spelling(text: str) -> None:
    try:
        data = b64decode(text)
    except InputError:
        return
    assert b64encode(data) == text


@pytest.mark.parametrize("text", ["AB", "AB=", "AB===", "AR==", "A B=", "AA==\n", "__8=", "QQ==QQ=="])
def test_base64_with_stray_bits_padding_or_characters_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        b64decode(text)


def test_the_bytes_are_these() -> None:
    assert canonicalize({"b": 1, "a": [True, None, 1.0, -0.0, 1e21]}) == b'{"a":[true,null,1,0,1e+21],"b":1}'
