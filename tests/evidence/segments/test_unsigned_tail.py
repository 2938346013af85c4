"""What somebody without any key can do behind the last mark of a segment: nothing that is believed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cloister.core.canonical import canonicalize
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments import Cipher, OpeningKey, SegmentLimits, read_entries, verify_segment
from cloister.evidence.segments.chain import SegmentChain
from cloister.evidence.segments.checkpoint import State
from cloister.evidence.segments.layout import TAG_BYTES, TIP_BYTES, parse_opening, tag_member, tip_member
from cloister.evidence.segments.secrets import SegmentSecrets
from tests.evidence.segments.conftest import Stream, failing

AT = b"2026-11-21T14:00:00.000000Z"
LIE = b'{"admin":"Dr Roy","what":"disabled the airlock"}'


def forged(data: bytes, *events: bytes, at: bytes | None = None) -> bytes:
    """A segment with lines behind it that carry on its chain, which takes no key."""
    *_, last = lines = data.split(b"\n")[:-1]
    tip, number = bytes.fromhex(last[-66:-2].decode()), len(lines)
    for number, event in enumerate(events, number + 1):  # noqa: B020 - goes on where the segment ends
        body = b'{"at":"%s","event":%s,"kind":"entry","n":%d' % (at or last[7:34], event, number)
        body += tag_member(os.urandom(32))
        tip = hashlib.sha256(tip + body).digest()
        data += body + tip_member(tip) + b"\n"
    return data


def stopped(stream: Stream, cipher: Cipher = Cipher.NONE) -> tuple[Path, bytes]:
    """A segment as a kill leaves it: three events, each acknowledged, and no closing mark."""
    writer = stream.writer(cipher=cipher)
    for number in range(3):
        writer.append_durable({"call": number})
    path = stream.files()[-1]
    data = path.read_bytes()
    held = list(stream.held)
    writer.close()
    stream.held = held
    path.write_bytes(data)
    return path, data


def test_lines_forged_behind_the_last_mark_count_for_nothing(stream: Stream) -> None:
    path, data = stopped(stream)
    tampered = forged(data, LIE, LIE)
    verdict = stream.verify_as_third_party(tampered)
    assert (verdict.entries, verdict.lines - verdict.proven, verdict.unverified) == (3, 2, 2)
    (end,) = [check.detail for check in verdict.checks if check.id == "segment-end"]
    assert "unverified, 2 lines" in end
    path.write_bytes(tampered)
    for held in (stream.held, None):
        found = [entry.event for entry in read_entries(path, keys=[stream.signer.public_key], held=held)]
        assert found == [{"call": number} for number in range(3)]


@pytest.mark.parametrize("cipher", list(Cipher))
def test_who_computes_the_tags_again_sees_that_they_are_forged(stream: Stream, cipher: Cipher) -> None:
    _, data = stopped(stream, cipher)
    event = LIE if cipher is Cipher.NONE else b'"%s"' % (b"A" * 80)
    assert stream.verify_as_third_party(forged(data, event)).accepted
    verdict = stream.verify(forged(data, event))
    assert failing(verdict) == ["segment-tags"]
    assert verdict.entries == 3


def test_an_honest_unsigned_tail_is_read_by_who_computes_its_tags_and_by_nobody_else(stream: Stream) -> None:
    with stream.writer(limits=SegmentLimits(mark_seconds=60.0)) as writer:
        writer.append_durable({"call": 0})
        held = list(stream.held)
        writer.append({"call": 1})
    data = b"\n".join(stream.files()[-1].read_bytes().split(b"\n")[:5]) + b"\n"
    keys = [stream.signer.public_key]
    assert len(list(read_entries(data, keys=keys, held=held))) == 1
    assert len(list(read_entries(data, keys=keys, held=held, secrets=stream.opening))) == 2


def test_tags_under_secrets_that_anybody_sealed_prove_nothing(stream: Stream) -> None:
    """The sealing key is public: without a signed header, who wrote the tags isn't known."""
    header = parse_opening(stream.written(1).read_bytes().split(b"\n")[0])[1]
    secrets = SegmentSecrets.draw()
    anew = header.model_copy(update={"secrets": stream.opening.sealing_key.seal(secrets, header.id)})
    chain = SegmentChain(anew, secrets, stream.signer)
    data = chain.open(AT.decode()) + chain.entry(AT.decode(), LIE)
    verdict = verify_segment(data, keys=[stream.signer.public_key], held=None, secrets=stream.opening)
    assert (verdict.entries, verdict.proven) == (0, 0)


@pytest.mark.parametrize(
    "event",
    [
        b'{"x":NOT JSON AT ALL \x1b]0;pwned\x07}',
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":-0}',
        b'{"a":1e3}',
        b'{"a":0.0000001}',
        b'{"a":12345678901234567}',
        b'{"a":"\\u0041"}',
        b'{"a":"\xff"}',
        b'{"a":"\x01"}',
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a":"' + b"x" * 66_000 + b'"}',
        b'{},"event":{}',
        b"{}}",
    ],
)
def test_an_event_that_is_not_canonical_does_not_hold_even_if_its_writer_signed_it(
    stream: Stream, event: bytes
) -> None:
    header = parse_opening(stream.written(1).read_bytes().split(b"\n")[0])[1]
    chain = SegmentChain(header, SegmentSecrets.draw(), stream.signer)
    at = AT.decode()
    data = chain.open(at) + chain.mark(at, header.uptime, State.RUNNING)[0]
    for number in range(4):
        data += chain.entry(at, canonicalize({"a": number}))
    for text in (b'{"a":"x"}', b'{"a":0.5}', b'{"a":null}', event):
        data += chain.entry(at, text)
    data += chain.mark(at, header.uptime, State.CLOSED)[0]
    verdict = verify_segment(data, keys=[stream.signer.public_key], held=None)
    assert (verdict.broken_at, failing(verdict)) == (10, ["segment-chain"])
    with pytest.raises(SegmentError):
        read_entries(data, keys=[stream.signer.public_key], held=None)


@pytest.mark.parametrize(
    "at",
    [
        b"2026-02-30T14:00:00.000000Z",
        b"2026-11-21T24:00:00.000000Z",
        b"2026-11-21T14:00:00,000000Z",
        b"2026-11-21T14:00:60.000000Z",
        b"2026-11-21 14:00:00.000000Z",
    ],
)
def test_an_event_at_no_time_does_not_hold(stream: Stream, at: bytes) -> None:
    _, data = stopped(stream)
    assert failing(stream.verify_as_third_party(forged(data, b"{}", at=at)))[0] == "segment-chain"


def test_a_line_without_a_tag_does_not_hold_for_third_parties_either(stream: Stream) -> None:
    _, data = stopped(stream)
    lines = forged(data, LIE).split(b"\n")[:-1]
    body = lines[-1][: -TIP_BYTES - TAG_BYTES] + b',"tag":"' + b"\x1b" * 64
    tip = hashlib.sha256(bytes.fromhex(lines[-2][-66:-2].decode()) + body).digest()
    tampered = b"\n".join([*lines[:-1], body + tip_member(tip)]) + b"\n"
    assert failing(stream.verify_as_third_party(tampered)) == ["segment-chain"]


def test_what_an_encrypted_segment_shows_as_an_event_is_base64_of_a_box(stream: Stream) -> None:
    _, data = stopped(stream, Cipher.AES_256_GCM)
    for event in (LIE, b'""', b'"AAAA"', b'"AB=="', b'"' + b"A" * 79 + b'"', b'"'):
        assert failing(stream.verify_as_third_party(forged(data, event))) == ["segment-chain"], event


def test_other_secrets_than_the_segments_prove_no_more_than_none(stream: Stream) -> None:
    path, data = stopped(stream)
    path.write_bytes(forged(data, LIE))
    verdict = verify_segment(
        path, keys=[stream.signer.public_key], held=stream.held, secrets=OpeningKey.generate()
    )
    assert (verdict.entries, verdict.unverified) == (3, 1)
