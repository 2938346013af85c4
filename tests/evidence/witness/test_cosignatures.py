"""Signature lines of several kinds: the log's own, Ed25519 or ECDSA, and witnesses' cosignatures."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cloister.core.errors import SignatureInvalid
from cloister.core.keys import ECDSA_P256, ECDSA_P384, EphemeralKeyStore
from cloister.evidence.checkpoint import (
    Checkpoint,
    NoteSignature,
    cosign,
    cosignature_key_hash,
    note_key_hash,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
    verify_cosignature,
)
from cloister.evidence.errors import EvidenceError

ORIGIN = "cloister/site/north"
AT = datetime(2026, 3, 14, 15, 9, 26, 535_000, tzinfo=UTC)
KEYS = EphemeralKeyStore()
LOG, EAST, SOUTH = KEYS.generate("log"), KEYS.generate("east"), KEYS.generate("south")
HEAD = sign_checkpoint(ORIGIN, 7, bytes(range(32)), LOG)


def code_of(caught: pytest.ExceptionInfo[EvidenceError]) -> str:
    return caught.value.code


def test_a_cosignature_survives_the_way_to_text_and_back() -> None:
    signed = parse_checkpoint(cosign(cosign(HEAD, "east", EAST, AT), "south", SOUTH, AT).encode())
    verify_checkpoint(signed, ORIGIN, LOG.public_key)
    assert verify_cosignature(signed, "east", EAST.public_key) == AT.replace(microsecond=0)
    assert verify_cosignature(signed, "south", SOUTH.public_key) == AT.replace(microsecond=0)


def test_a_cosignature_has_the_published_form() -> None:
    # c2sp.org/tlog-cosignature: 8 bytes of time, then Ed25519 over a header, the time and the note's text.
    line = cosign(HEAD, "east", EAST, AT).signatures[-1]
    second = int(AT.timestamp())
    assert line.sig[:8] == second.to_bytes(8, "big")
    EAST.public_key.verify(line.sig[8:], f"cosignature/v1\ntime {second}\n{HEAD.note()}".encode())
    assert line.key_hash == hashlib.sha256(b"east\n\x04" + EAST.public_key.raw).digest()[:4]


def test_a_witness_that_signs_again_replaces_its_line() -> None:
    later = AT + timedelta(hours=1)
    signed = cosign(cosign(HEAD, "east", EAST, AT), "east", EAST, later)
    assert len(signed.signatures) == 2
    assert verify_cosignature(signed, "east", EAST.public_key) == later.replace(microsecond=0)


def test_a_cosignature_by_another_key_or_name_is_none() -> None:
    signed = cosign(HEAD, "east", EAST, AT)
    for name, signer in (("east", SOUTH), ("south", EAST)):
        with pytest.raises(EvidenceError) as caught:
            verify_cosignature(signed, name, signer.public_key)
        assert code_of(caught) == "evidence.cosignature_missing"


def test_the_logs_own_signature_is_no_cosignature() -> None:
    with pytest.raises(EvidenceError) as caught:
        verify_cosignature(HEAD, ORIGIN, LOG.public_key)
    assert code_of(caught) == "evidence.cosignature_missing"


def test_a_cosignature_is_not_the_logs_own_signature() -> None:
    unsigned = replace(HEAD, signatures=())
    with pytest.raises(EvidenceError) as caught:
        verify_checkpoint(cosign(unsigned, ORIGIN, LOG, AT), ORIGIN, LOG.public_key)
    assert code_of(caught) == "evidence.checkpoint_unsigned"


@pytest.mark.parametrize("changed", ["time", "size", "root", "signature"])
def test_a_cosignature_holds_for_its_time_and_its_text_only(changed: str) -> None:
    signed = cosign(HEAD, "east", EAST, AT)
    line = signed.signatures[-1]
    forged: Checkpoint
    if changed == "size":
        forged = replace(signed, size=8)
    elif changed == "root":
        forged = replace(signed, root=bytes(32))
    else:
        place = 7 if changed == "time" else 30
        sig = bytearray(line.sig)
        sig[place] ^= 1
        forged = replace(signed, signatures=(HEAD.signatures[0], replace(line, sig=bytes(sig))))
    with pytest.raises(SignatureInvalid):
        verify_cosignature(forged, "east", EAST.public_key)


@pytest.mark.parametrize("sig", [b"", bytes(71), bytes(73), b"\xff" * 72])
def test_a_cosignature_of_an_improper_form_is_refused(sig: bytes) -> None:
    line = NoteSignature("east", cosignature_key_hash("east", EAST.public_key), sig)
    with pytest.raises(EvidenceError) as caught:
        verify_cosignature(replace(HEAD, signatures=(line,)), "east", EAST.public_key)
    assert code_of(caught) == "evidence.cosignature_missing"


def test_every_line_that_claims_to_be_the_witness_must_hold() -> None:
    good = cosign(HEAD, "east", EAST, AT)
    bad = replace(good.signatures[-1], sig=good.signatures[-1].sig[:8] + bytes(64))
    with pytest.raises(SignatureInvalid):
        verify_cosignature(replace(good, signatures=(*good.signatures, bad)), "east", EAST.public_key)


@pytest.mark.parametrize("name", ["", "with space", "plus+sign"])
def test_a_witness_needs_a_name_that_can_stand_in_a_line(name: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        cosign(HEAD, name, EAST, AT)
    assert code_of(caught) == "evidence.witness_refused"


@pytest.mark.parametrize("algorithm", [ECDSA_P256, ECDSA_P384])
def test_a_log_may_sign_its_head_with_ecdsa(algorithm: str) -> None:
    signer = EphemeralKeyStore().generate("log", algorithm)
    head = parse_checkpoint(sign_checkpoint(ORIGIN, 3, bytes(32), signer).encode())
    verify_checkpoint(head, ORIGIN, signer.public_key)
    assert head.signatures[0].key_hash == hashlib.sha256(signer.public_key.der).digest()[:4]
    assert note_key_hash("any other name", signer.public_key) == head.signatures[0].key_hash
    with pytest.raises(EvidenceError):
        verify_checkpoint(head, ORIGIN, LOG.public_key)
    with pytest.raises(EvidenceError) as caught:
        cosign(head, "east", signer, AT)
    assert code_of(caught) == "evidence.witness_refused"


def test_a_log_whose_owner_changed_its_key_is_known_by_either() -> None:
    verify_checkpoint(HEAD, ORIGIN, SOUTH.public_key, LOG.public_key)
    with pytest.raises(EvidenceError) as caught:
        verify_checkpoint(HEAD, ORIGIN)
    assert code_of(caught) == "evidence.checkpoint_unsigned"
