"""Canonical JSON (RFC 8785) and the strict reading of it.

Whatever is signed or hashed is bytes made by `canonicalize`; whatever comes back is read by
`parse_canonical`, which accepts only the one encoding those bytes can have. Rules this module keeps:

* Object keys are sorted by their UTF-16 code units, no white space, strings with the fewest escapes (3.2.2).
* Numbers are printed as ECMAScript prints them (3.2.2.3); NaN and the infinities are refused.
* Integers are exact: an ``int`` past 2**53-1 is refused (I-JSON, RFC 7493 2.2). A whole number past that
  bound that is exactly the canonical text of one double is a ``float``, so that all output can be read again.
* Reading is UTF-8 only, without byte-order mark; duplicate keys, lone surrogates, and documents past their
  size or depth are refused. No error shows any of the text.
* A canonical document with far more values than documents of its size have is refused before it is read.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Never, TypeAlias, cast

from pydantic_core import from_json

from cloister.core.errors import InputError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

MAX_SAFE_INTEGER = 2**53 - 1
MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
MAX_MEMBERS = 4_000_000
FREE_MEMBERS = 65_536
BYTES_A_MEMBER = 12
"""What is signed here is mostly base64. A document of more values than that for its size isn't one of ours,
and would take fifty times its size to read."""

_quote: Callable[[str], str] = encode_basestring
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def canonicalize(value: JSON) -> bytes:
    """The one canonical encoding of a JSON value (RFC 8785).

    Args:
        value: null, booleans, integers within +-(2**53-1), finite floats, strings, lists and dictionaries
            with string keys, and nothing else: no tuples, no subclasses.

    Returns:
        UTF-8 bytes, equal for equal values whatever their order of insertion.

    Raises:
        InputError: ``input.not_json`` where JSON cannot carry the value exactly.
    """
    try:
        return _text(value).encode("utf-8")
    except UnicodeEncodeError:
        raise _not_json("a string has a lone surrogate") from None
    except RecursionError:
        raise InputError("input.too_large", "The value is nested too deeply to be encoded.") from None


def _text(value: JSON) -> str:
    kind = type(value)
    if kind is str:
        return _quote(cast(str, value))
    if kind is int:
        return _integer(cast(int, value))
    if kind is dict:
        return _object(cast("dict[str, JSON]", value))
    if kind is list:
        items = cast("list[JSON]", value)
        return "[" + ",".join([_quote(one) if type(one) is str else _text(one) for one in items]) + "]"
    if kind is float:
        return _number(cast(float, value))
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    raise _not_json(f"the type {kind.__name__} is none of JSON's")


def _object(members: dict[str, JSON]) -> str:
    try:
        plain = "".join(members).isascii()
    except TypeError:
        raise _not_json("an object has a key that is no string") from None
    names = sorted(members) if plain else sorted(members, key=_utf16)
    parts = []
    for name in names:
        value = members[name]
        # Most values are strings: without a call for each, documents are written in half the time.
        parts.append(f"{_quote(name)}:{_quote(value) if type(value) is str else _text(value)}")
    return "{" + ",".join(parts) + "}"


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _integer(value: int) -> str:
    if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        return str(value)
    raise _not_json("an integer lies past 2**53-1")


def _number(value: float) -> str:
    """ECMA-262 Number::toString, from the same shortest digits that Python's repr finds."""
    if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN is unequal to itself
        raise _not_json("a number is NaN or infinite")
    if value == 0:
        return "0"
    text = repr(value)
    if text.endswith(".0"):
        return text[:-2]
    mantissa, mark, power = text.partition("e")
    if not mark:
        return text
    sign, digits = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
    whole, _, fraction = digits.partition(".")
    digits = whole + fraction
    exponent = int(power)
    if exponent >= 0 and exponent < 21:
        return sign + digits.ljust(exponent + 1, "0")
    if -7 < exponent < 0:
        return sign + "0." + "0" * (-exponent - 1) + digits
    point = "." + fraction if fraction else ""
    return f"{sign}{whole}{point}e{exponent:+d}"


def parse(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> JSON:
    """Read one JSON document strictly.

    Args:
        data: the document, UTF-8.
        max_bytes: the largest size in bytes that is read.
        max_depth: how deep lists and objects may nest.

    Returns:
        The value; integers as ``int``, every other number as ``float``.

    Raises:
        InputError: ``input.too_large``, ``input.syntax``, ``input.duplicate_key`` or ``input.not_json``.
    """
    if len(data) > max_bytes:
        raise InputError(
            "input.too_large", f"The document has {len(data)} bytes; at most {max_bytes} are read."
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("input.syntax", f"Byte {error.start} of the document is not UTF-8.") from None
    try:
        value = cast(JSON, _DECODER.decode(text))
    except json.JSONDecodeError as error:
        raise InputError(
            "input.syntax", f"The document is not JSON (line {error.lineno}, column {error.colno})."
        ) from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    _refuse_depth(value, max_depth)
    if _SURROGATE_ESCAPE.search(text):
        _refuse_lone_surrogates(value)
    return value


def parse_canonical(
    data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH, max_members: int = MAX_MEMBERS
) -> JSON:
    """Read a JSON document that has to be its own canonical encoding, byte for byte.

    Args:
        data: the document, UTF-8.
        max_bytes: the largest size in bytes that is read.
        max_depth: how deep lists and objects may nest.
        max_members: how many values are read at most; of a small document, fewer.

    Raises:
        InputError: as `parse` does, and ``input.not_canonical`` where the bytes could be written otherwise.
    """
    _refuse_crowds(data, max_members)
    fast = _read_fast(data, max_bytes, max_depth)
    if fast is not None:
        return fast
    value = parse(data, max_bytes=max_bytes, max_depth=max_depth)
    if canonicalize(value) != data:
        raise InputError(
            "input.not_canonical",
            "The document is not in canonical form (RFC 8785).",
            "Pass on the bytes exactly as they were written; an editor may have re-indented them.",
        )
    return value


def _read_fast(data: bytes, max_bytes: int, max_depth: int) -> JSON:
    """The value of canonical bytes; None for null, and for whatever `parse` has to name the fault of.

    The fast reader is laxer than `parse` (it keeps the last of two equal keys); but what it read counts only
    if it encodes to the same bytes.
    """
    if len(data) > max_bytes:
        return None
    try:
        value = cast(JSON, from_json(data, allow_inf_nan=False))
        if canonicalize(value) != data:
            return None
    except (ValueError, InputError):
        return None
    _refuse_depth(value, max_depth)
    return value


def b64encode(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def b64decode(text: str) -> bytes:
    """Read standard base64 that is exactly what `b64encode` writes.

    Raises:
        InputError: ``input.syntax`` for other alphabets, white space, missing padding or stray trailing bits.
    """
    try:
        written = text.encode("ascii")
        data = binascii.a2b_base64(written)
    except ValueError:
        raise InputError("input.syntax", "A field is not base64.") from None
    # The lax reader skips what it doesn't know, and is the fast one; no such text is written again.
    if binascii.b2a_base64(data, newline=False) != written:
        raise InputError("input.syntax", "A base64 field is not in its one canonical form.")
    return data


def _read_integer(text: str) -> int | float:
    if len(text) < 16 or (len(text) <= 17 and abs(int(text)) <= MAX_SAFE_INTEGER):
        return int(text)
    # A double is printed without an exponent below 1e21: at most 21 digits and a sign.
    if len(text) <= 22 and _number(float(text)) == text:
        return float(text)
    raise _not_json("an integer lies past 2**53-1")


def _read_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _not_json("a number is too large for a double")
    return value


def _refuse_constant(_: str) -> Never:
    raise InputError("input.syntax", "The document holds NaN or Infinity, which JSON does not have.")


def _read_object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InputError("input.duplicate_key", "An object in the document names the same key twice.")
    return members


_DECODER = json.JSONDecoder(
    object_pairs_hook=_read_object,
    parse_int=_read_integer,
    parse_float=_read_float,
    parse_constant=_refuse_constant,
)


def _refuse_depth(value: JSON, max_depth: int) -> None:
    level: list[JSON] = [value] if isinstance(value, dict | list) else []
    depth = 0
    while level:
        depth += 1
        if depth > max_depth:
            raise _too_deep(max_depth)
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else cast("list[JSON]", node))
            if type(child) is dict or type(child) is list
        ]


def _refuse_crowds(data: bytes, max_members: int) -> None:
    members = data.count(b",") + data.count(b"[") + data.count(b"{")
    if members > min(max_members, FREE_MEMBERS + len(data) // BYTES_A_MEMBER):
        raise InputError("input.too_large", "The document holds more values than are read at its size.")


def _refuse_lone_surrogates(value: JSON) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _not_json("a string has a lone surrogate") from None


def _too_deep(max_depth: int) -> InputError:
    return InputError("input.too_large", f"The document is nested deeper than {max_depth} levels.")


def _not_json(reason: str) -> InputError:
    return InputError("input.not_json", f"JSON cannot carry this value exactly: {reason}.")
