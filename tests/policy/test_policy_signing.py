"""Signatures on manifests and requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_documents import DEVELOPER, HOSPITAL, STRANGER, manifest, request

from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey, Signer
from cloister.evidence.envelope import Envelope, Signature, sign_envelope
from cloister.policy import (
    MANIFEST_TYPE,
    PolicyError,
    ProtocolManifest,
    TrainingRequest,
    open_manifest,
    open_request,
    sign_manifest,
    sign_request,
)

MANIFEST = sign_manifest(manifest(), HOSPITAL)
REQUEST = sign_request(request(), DEVELOPER)
Open = Callable[[Envelope, PublicKey], ProtocolManifest | TrainingRequest]
KINDS = [(MANIFEST, HOSPITAL, open_manifest), (REQUEST, DEVELOPER, open_request)]


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(CloisterError) as caught:
        act()
    return caught.value.code


def flip(data: bytes, bit: int) -> bytes:
    index = bit // 8 % len(data)
    return data[:index] + bytes([data[index] ^ (1 << bit % 8)]) + data[index + 1 :]


def test_a_signed_document_opens_with_the_signers_key() -> None:
    assert open_manifest(MANIFEST, HOSPITAL.public_key) == manifest()
    assert open_request(REQUEST, DEVELOPER.public_key) == request()


@pytest.mark.parametrize(("envelope", "signer", "opened"), KINDS)
def test_another_key_does_not_open_it(envelope: Envelope, signer: Signer, opened: Open) -> None:
    assert code_of(lambda: opened(envelope, STRANGER.public_key)) == "policy.wrong_key"


@pytest.mark.parametrize(("envelope", "signer", "opened"), KINDS)
def test_a_flipped_byte_anywhere_in_the_content_breaks_the_signature(
    envelope: Envelope, signer: Signer, opened: Open
) -> None:
    for index in range(len(envelope.payload)):
        broken = replace(envelope, payload=flip(envelope.payload, index * 8 + index % 8))
        assert code_of(lambda broken=broken: opened(broken, signer.public_key)) == "policy.wrong_key"


@pytest.mark.parametrize(("envelope", "signer", "opened"), KINDS)
def test_a_flipped_bit_anywhere_in_the_signature_breaks_it(
    envelope: Envelope, signer: Signer, opened: Open
) -> None:
    (good,) = envelope.signatures
    for bit in range(len(good.sig) * 8):
        broken = replace(envelope, signatures=(Signature(good.key_id, flip(good.sig, bit)),))
        assert code_of(lambda broken=broken: opened(broken, signer.public_key)) == "policy.wrong_key"


@given(st.binary(min_size=64, max_size=64))
def test_a_made_up_signature_is_refused(signature: bytes) -> None:
    broken = replace(MANIFEST, signatures=(Signature(HOSPITAL.public_key.key_id, signature),))
    assert code_of(lambda: open_manifest(broken, HOSPITAL.public_key)) == "policy.wrong_key"


def test_nobody_signs_a_manifest_that_names_another_hospital() -> None:
    assert code_of(lambda: sign_manifest(manifest(), STRANGER)) == "policy.wrong_key"
    assert code_of(lambda: sign_request(request(), HOSPITAL)) == "policy.wrong_key"


def test_a_manifest_resigned_by_a_trusted_key_that_it_does_not_name_is_refused() -> None:
    resigned = sign_envelope(MANIFEST_TYPE, MANIFEST.payload, STRANGER)
    assert code_of(lambda: open_manifest(resigned, STRANGER.public_key)) == "policy.wrong_key"


def test_a_signature_on_one_kind_of_document_does_not_serve_for_the_other() -> None:
    assert code_of(lambda: open_request(MANIFEST, HOSPITAL.public_key)) == "policy.wrong_type"
    renamed = replace(REQUEST, payload_type=MANIFEST_TYPE)
    assert code_of(lambda: open_manifest(renamed, DEVELOPER.public_key)) == "policy.wrong_key"


def test_a_second_signature_is_refused() -> None:
    extra = replace(MANIFEST, signatures=MANIFEST.signatures * 2)
    assert code_of(lambda: open_manifest(extra, HOSPITAL.public_key)) == "policy.wrong_key"


def test_signed_content_that_is_no_manifest_is_refused() -> None:
    for payload in (b"", b"{}", b"[1]", b"\xff", b'{"a":1,"a":2}', b"null"):
        signed = sign_envelope(MANIFEST_TYPE, payload, HOSPITAL)
        assert code_of(lambda signed=signed: open_manifest(signed, HOSPITAL.public_key)).startswith("input.")


def test_the_hash_names_the_content_and_not_the_signature() -> None:
    assert MANIFEST.payload_sha256 == manifest().sha256
    assert manifest({"version": "1.2.1"}).sha256 != manifest().sha256


def test_a_wrong_key_is_refused_by_policy() -> None:
    with pytest.raises(PolicyError) as caught:
        open_manifest(MANIFEST, STRANGER.public_key)
    assert caught.value.exit_code == 3
    assert caught.value.hint
