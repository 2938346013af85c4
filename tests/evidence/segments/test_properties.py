"""Rules that hold for any events and tampering: an audit entry can't be changed, and its tag covers it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.canonical import JSON
from cloister.core.errors import CloisterError, SignatureInvalid
from cloister.core.symmetric import verify_hmac_sha256
from cloister.evidence.segments import Cipher, parse_held, read_entries, verify_segment
from cloister.evidence.segments.layout import BEFORE_THE_FIRST, TAG_BYTES, TIP_BYTES, parse_opening
from cloister.evidence.segments.ratchet import Ratchet
from tests.evidence.segments.conftest import Stream
from tests.nightly import spread

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
event = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), values, max_size=5)


def written(events: list[dict[str, JSON]], cipher: Cipher) -> tuple[Stream, bytes]:
    stream = Stream(Path())
    return stream, stream.made(events, cipher)


def equal(left: object, right: object) -> bool:
    """Equality that tells true from 1; whole floats are the integers that JSON makes of them."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right


@settings(max_examples=200)
@given(events=st.lists(event, min_size=1, max_size=4), cipher=st.sampled_from(Cipher))
def test_any_events_are_read_as_they_were_written(events: list[dict[str, JSON]], cipher: Cipher) -> None:
    stream, data = written(events, cipher)
    assert stream.verify(data).accepted
    assert stream.verify_as_third_party(data).accepted
    found = list(
        read_entries(data, keys=[stream.signer.public_key], held=stream.held, secrets=stream.opening)
    )
    assert all(map(equal, [one.event for one in found], events))
    assert len(found) == len(events)


@settings(max_examples=200)
@given(events=st.lists(event, min_size=2, max_size=5), data=st.data())
def test_any_edit_deletion_reordering_doubling_or_cut_is_found_at_its_line(
    events: list[dict[str, JSON]], data: st.DataObject
) -> None:
    stream, original = written(events, Cipher.NONE)
    lines = original.split(b"\n")[:-1]
    place = data.draw(st.integers(0, len(lines) - 1))
    match data.draw(st.sampled_from(["edit", "delete", "swap", "double", "cut", "byte"])):
        case "edit":
            end = len(lines[place]) - 151
            at = data.draw(st.integers(0, end))
            lines[place] = lines[place][:at] + bytes([lines[place][at] ^ 1]) + lines[place][at + 1 :]
            first = place
        case "delete":
            del lines[place]
            first = place
        case "swap":
            other = data.draw(st.integers(0, len(lines) - 1).filter(lambda index: index != place))
            lines[place], lines[other] = lines[other], lines[place]
            first = min(place, other)
        case "double":
            lines.insert(place, lines[place])
            first = place + 1
        case "cut":
            lines = lines[:place]
            first = place
        case _:
            at = data.draw(st.integers(0, len(lines[place]) - 1))
            lines[place] = lines[place][:at] + lines[place][at + 1 :]
            first = place
    tampered = b"".join(line + b"\n" for line in lines)
    for verdict in (stream.verify(tampered), stream.verify_as_third_party(tampered)):
        assert not verdict.accepted
        assert verdict.broken_at == first + 1


@settings(max_examples=200)
@given(events=st.lists(event, min_size=1, max_size=3), data=st.data())
def test_each_entrys_tag_covers_its_content_its_time_and_all_before(
    events: list[dict[str, JSON]], data: st.DataObject
) -> None:
    stream, original = written(events, Cipher.NONE)
    lines = original.split(b"\n")[:-1]
    ratchet = Ratchet(stream.opening.open(parse_opening(lines[0])[1]).root)
    tip = BEFORE_THE_FIRST
    chosen = data.draw(st.integers(0, len(lines) - 1))
    for number, line in enumerate(lines):
        key, content = bytes(ratchet._key), line[: -TIP_BYTES - TAG_BYTES]
        tag = ratchet.tag(tip + content)
        assert line[-TIP_BYTES - 64 : -TIP_BYTES] == tag.hex().encode()
        if number == chosen:
            message = tip + content
            verify_hmac_sha256(key, message, tag)
            at = data.draw(st.integers(0, len(message) - 1))
            with pytest.raises(SignatureInvalid):
                verify_hmac_sha256(key, message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :], tag)
            with pytest.raises(SignatureInvalid):
                verify_hmac_sha256(bytes(ratchet._key), message, tag)
        tip = bytes.fromhex(line[-66:-2].decode())


def flips(data: bytes) -> list[tuple[int, int]]:
    return [(place, bit) for place in range(len(data)) for bit in (1, 32, 128)]


@pytest.mark.parametrize("cipher", list(Cipher))
def test_a_flipped_bit_anywhere_is_found(stream: Stream, cipher: Cipher) -> None:
    data = stream.written(3, cipher=cipher).read_bytes()
    assert_found(stream, data, random.Random(7).sample(flips(data), 400))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cipher", list(Cipher))
def test_every_flipped_bit_is_found(
    stream: Stream, cipher: Cipher, record_property: Callable[[str, object], None]
) -> None:
    data = stream.written(3, cipher=cipher).read_bytes()
    for one in spread(flips(data), record_property):
        assert_found(stream, data, [one])


def assert_found(stream: Stream, data: bytes, places: list[tuple[int, int]]) -> None:
    for place, bit in places:
        tampered = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
        for held in (stream.held, None):
            verdict = verify_segment(tampered, keys=[stream.signer.public_key], held=held)
            assert not verdict.accepted, (place, bit)
            if place < len(data) - 1:
                assert verdict.broken_at is not None, (place, bit)
                assert verdict.broken_at <= data[:place].count(b"\n") + 1


@settings(max_examples=200)
@given(
    st.binary(max_size=300)
    | st.lists(
        st.sampled_from([b'{"at":"', b'"', b"{", b"}", b"\n", b"1" * 400, b"[" * 400, b'"kind":"open"'])
    ).map(b"".join)
)
def test_any_bytes_get_a_verdict_or_a_typed_error(data: bytes) -> None:
    verdict = verify_segment(data, keys=[], held=None)
    assert not verdict.accepted
    with pytest.raises(CloisterError):
        read_entries(data, keys=[], held=None)
    with contextlib.suppress(CloisterError):
        parse_held(data)


@settings(max_examples=200)
@given(data=st.data())
def test_a_segment_with_anything_put_somewhere_gets_a_verdict(data: st.DataObject) -> None:
    stream, original = written([{"number": 1}], Cipher.AES_256_GCM)
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, min(len(original), start + 60)))
    put = data.draw(st.binary(max_size=60))
    tampered = original[:start] + put + original[end:]
    verdict = stream.verify(tampered)
    assert verdict.accepted == (tampered == original)
