"""CBOR is read in its one form only: whatever is accepted encodes to the same bytes again."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.attestation.strict_cbor import MAX_BYTES, MAX_ITEMS, decode, encode
from cloister.enclave.errors import AttestationError

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64 - 1), st.binary(max_size=40), st.text(max_size=40)
)
KEYS = st.one_of(st.integers(-100, 100), st.text(max_size=8))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=20,
)

REFUSED = {
    "nothing": b"",
    "a byte behind": bytes.fromhex("0000"),
    "a duplicate key": bytes.fromhex("a201000101"),
    "a duplicate text key": bytes.fromhex("a2616101616102"),
    "a number that isn't the shortest": bytes.fromhex("1817"),
    "a length that isn't the shortest": bytes.fromhex("580100"),
    "a zero in eight bytes": bytes.fromhex("1b0000000000000000"),
    "an array of no stated length": bytes.fromhex("9f01ff"),
    "bytes of no stated length": bytes.fromhex("5f4101ff"),
    "a map of no stated length": bytes.fromhex("bf0101ff"),
    "a break": b"\xff",
    "a big number": b"\xc2\x49\x01" + bytes(8),
    "a huge number": b"\xc2\x5a\x00\x0f\x00\x00" + b"\xff" * 0x0F0000,
    "a date": bytes.fromhex("c1") + b"\x1b" + b"\xff" * 8,
    "a regular expression": b"\xd8\x23\x62((",
    "a value that holds itself": bytes.fromhex("d81c81d81d00"),
    "tag 18 inside": bytes.fromhex("81d2820102"),
    "tags in tags": b"\xd2" * 100000,
    "a float": bytes.fromhex("f97e00"),
    "undefined": bytes.fromhex("f7"),
    "a simple value": bytes.fromhex("f820"),
    "a reserved head": bytes.fromhex("1c"),
    "very deep arrays": b"\x81" * 5000,
    "too deep by one": bytes.fromhex("818181818100"),
    "an array of 2^64 items": b"\x9b" + b"\xff" * 8,
    "a map of 2^63 pairs": b"\xbb\x80" + bytes(7),
    "bytes longer than there are": b"\x5b" + b"\xff" * 8,
    "text that isn't UTF-8": bytes.fromhex("61ff"),
    "an array as key": bytes.fromhex("a18000"),
    "a map as key": bytes.fromhex("a1a000"),
    "a cut head": b"\x19\x01",
    "too many items": b"\x99" + (MAX_ITEMS + 1).to_bytes(2, "big") + bytes(MAX_ITEMS + 1),
    "too many bytes": b"\x5a" + MAX_BYTES.to_bytes(4, "big") + bytes(MAX_BYTES),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_everything_but_the_one_form_is_malformed(data: bytes) -> None:
    with pytest.raises(AttestationError) as refused:
        decode(data)
    assert refused.value.code == "attestation.malformed"


@given(VALUES)
def test_plain_values_come_back(value: object) -> None:
    assert decode(encode(value), max_depth=64) == value  # type: ignore[arg-type]


@given(st.one_of(st.binary(max_size=60), VALUES.map(cbor2.dumps)))
def test_what_is_accepted_has_this_encoding_and_no_other(data: bytes) -> None:
    try:
        value = decode(data, max_depth=64)
    except AttestationError:
        return
    assert encode(value) == data
