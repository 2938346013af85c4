"""DSSE envelopes: one spelling, one signature, one key."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.errors import CloisterError, SignatureInvalid
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence.envelope import (
    Envelope,
    Signature,
    decode_envelope,
    envelope_from_json,
    sign_envelope,
    verify_envelope,
)
from cloister.evidence.errors import EvidenceError

KIND = "application/vnd.cloister.test+json"
KEY = EphemeralKeyStore().generate("key")


@given(st.binary(max_size=200), st.text(max_size=40).filter(lambda text: text.isprintable()))
def test_what_was_signed_comes_back(payload: bytes, kind: str) -> None:
    envelope = decode_envelope(sign_envelope(kind, payload, KEY).encode())
    assert verify_envelope(envelope, KEY.public_key) == payload
    assert envelope.payload_type == kind


@given(
    st.binary(max_size=200),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text('ab"\\é\n', max_size=9),
)
def test_an_envelope_is_written_as_canonical_json(payload: bytes, kind: str, name: str) -> None:
    envelope = Envelope(kind, payload, (Signature(name, b"s"), Signature("b", payload)))
    assert envelope.encode() == canonicalize(envelope.as_json())


def test_another_key_is_refused(signer: Signer, other_signer: Signer) -> None:
    envelope = sign_envelope(KIND, b"x", signer)
    with pytest.raises(EvidenceError) as caught:
        verify_envelope(envelope, other_signer.public_key)
    assert caught.value.code == "evidence.envelope_unsigned"


def test_naming_the_expected_key_over_another_ones_signature_is_refused(
    signer: Signer, other_signer: Signer
) -> None:
    forged = sign_envelope(KIND, b"x", other_signer)
    renamed = Envelope(KIND, b"x", (Signature(signer.public_key.key_id, forged.signatures[0].sig),))
    with pytest.raises(SignatureInvalid):
        verify_envelope(renamed, signer.public_key)


def test_a_signature_over_one_kind_of_payload_serves_for_no_other(signer: Signer) -> None:
    envelope = sign_envelope(KIND, b"x", signer)
    with pytest.raises(SignatureInvalid):
        verify_envelope(Envelope("another/kind", b"x", envelope.signatures), signer.public_key)


def test_a_second_signature_nobody_asked_for_is_refused(signer: Signer) -> None:
    envelope = sign_envelope(KIND, b"x", signer)
    twice = Envelope(KIND, b"x", envelope.signatures * 2)
    with pytest.raises(EvidenceError):
        verify_envelope(twice, signer.public_key)


def _bare(value: dict[str, JSON]) -> JSON:
    return {name: part for name, part in value.items() if name != "payloadType"}


def _no_signature(value: dict[str, JSON]) -> JSON:
    return {**value, "signatures": []}


@pytest.mark.parametrize(
    "spoil",
    [
        _bare,
        _no_signature,
        lambda value: {**value, "extra": 1},
        lambda value: {**value, "payload": "eA"},
        lambda value: {**value, "payload": "eB=="},
        lambda value: {**value, "payload": "eA==\n"},
        lambda value: {**value, "payload": 1},
        lambda value: {**value, "signatures": [{"keyid": "k"}]},
        lambda value: {**value, "signatures": [{"keyid": 1, "sig": ""}]},
        lambda value: {**value, "signatures": [{"keyid": "k", "sig": "!"}]},
        lambda value: {**value, "signatures": [{"keyid": "k", "sig": ""}] * 17},
        lambda value: [value],
    ],
)
def test_anything_but_exactly_an_envelope_is_refused(
    signer: Signer, spoil: Callable[[dict[str, JSON]], JSON]
) -> None:
    value = parse(sign_envelope(KIND, b"x", signer).encode())
    assert isinstance(value, dict)
    with pytest.raises(EvidenceError) as caught:
        envelope_from_json(spoil(value))
    assert caught.value.code == "evidence.envelope_malformed"


def test_another_spelling_of_the_same_envelope_is_refused(signer: Signer) -> None:
    data = sign_envelope(KIND, b"x", signer).encode()
    for spelling in (data + b"\n", data.replace(b",", b", "), data.replace(b"{", b'{"payload":"eA==",', 1)):
        with pytest.raises(EvidenceError):
            decode_envelope(spelling)


@given(st.binary(max_size=300))
def test_bytes_from_a_stranger_raise_typed_errors_only(data: bytes) -> None:
    with pytest.raises(CloisterError):
        decode_envelope(data)


@given(st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5), st.lists))
def test_json_from_a_stranger_raises_typed_errors_only(value: JSON) -> None:
    for whole in (value, {"payload": value, "payloadType": value, "signatures": value}):
        with pytest.raises(CloisterError):
            decode_envelope(canonicalize(whole))
