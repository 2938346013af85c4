"""CBOR in its one form: what encodes to the same bytes again, and nothing else.

A walk over the heads of all items refuses, before anything is decoded, what the library would take: trailing
bytes, numbers and lengths that aren't the shortest, indefinite lengths, tags, floats, simple values other
than null and the booleans, and more items or levels than a caller allows. The library then refuses duplicate
keys and text that isn't UTF-8, and keys other than numbers, text and bytes are refused last. So what is
accepted has exactly one encoding (RFC 8949 section 4.1, but for the order of keys, which stays as it was
received).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import cbor2

from cloister.enclave.errors import AttestationError

CBOR: TypeAlias = "bool | int | bytes | str | Sequence[CBOR] | Mapping[CBOR, CBOR] | None"

MAX_BYTES: Final = 1024 * 1024
MAX_ITEMS: Final = 1024
MAX_DEPTH: Final = 4
_TEXT_OR_BYTES = (2, 3)
_ARRAY, _MAP, _TAG, _SIMPLE = 4, 5, 6, 7
_FALSE_TRUE_NULL = (20, 21, 22)
_SHORTEST = {24: 24, 25: 0x100, 26: 0x10000, 27: 0x100000000}


def decode(data: bytes, max_depth: int = MAX_DEPTH) -> CBOR:
    """Read one item that takes up all of the bytes.

    Args:
        data: at most 1 MiB, at most 1,024 items.
        max_depth: how deep arrays and maps may be nested.

    Returns:
        Integers, bytes, text, lists, dicts, booleans and None.

    Raises:
        AttestationError: attestation.malformed.
    """
    if len(data) > MAX_BYTES:
        raise malformed_cbor()
    _walk(data)
    try:
        value: CBOR = cbor2.loads(
            data, max_depth=max_depth, allow_indefinite=False, allow_duplicate_keys=False
        )
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError):
        raise malformed_cbor() from None
    _require_plain_keys(value)
    return value


def encode(value: CBOR) -> bytes:
    """The encoding that `decode` accepts; the keys of maps stay in their order."""
    return cbor2.dumps(value)


def malformed_cbor() -> AttestationError:
    """The refusal of bytes that aren't CBOR in its one form."""
    return AttestationError("attestation.malformed", "The evidence is not CBOR in its one form.")


def _require_plain_keys(value: CBOR) -> None:
    if isinstance(value, dict):
        if not all(isinstance(key, int | str | bytes) and not isinstance(key, bool) for key in value):
            raise malformed_cbor()
        for one in value.values():
            _require_plain_keys(one)
    elif isinstance(value, list):
        for one in value:
            _require_plain_keys(one)


def _walk(data: bytes) -> None:
    place, open_items, seen = 0, 1, 0
    while open_items:
        if place >= len(data) or seen >= MAX_ITEMS:
            raise malformed_cbor()
        major, short = data[place] >> 5, data[place] & 31
        place += 1
        open_items -= 1
        seen += 1
        argument = short
        if short in _SHORTEST:
            width = 1 << (short - 24)
            argument = int.from_bytes(data[place : place + width], "big")
            place += width
            if place > len(data) or argument < _SHORTEST[short]:
                raise malformed_cbor()
        elif short > 27:
            raise malformed_cbor()
        if major in _TEXT_OR_BYTES:
            place += argument
        elif major == _ARRAY:
            open_items += argument
        elif major == _MAP:
            open_items += 2 * argument
        elif major == _TAG or (major == _SIMPLE and short not in _FALSE_TRUE_NULL):
            raise malformed_cbor()
    if place != len(data):
        raise malformed_cbor()
