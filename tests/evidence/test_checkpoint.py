"""Checkpoints: the C2SP signed-note form, one spelling, the log's own key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import CloisterError, SignatureInvalid
from cloister.core.keys import EphemeralKeyStore, PublicKey, Signer
from cloister.evidence.checkpoint import (
    Checkpoint,
    note_key_hash,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
)
from cloister.evidence.errors import EvidenceError

ORIGIN = "cloister/site/north"
ROOT = bytes(range(32))
KEY = EphemeralKeyStore().generate("key")


@given(st.integers(0, 2**62), st.binary(min_size=32, max_size=32))
def test_a_signed_head_comes_back_as_it_was(size: int, root: bytes) -> None:
    checkpoint = sign_checkpoint(ORIGIN, size, root, KEY)
    parsed = parse_checkpoint(checkpoint.encode())
    assert parsed == checkpoint
    verify_checkpoint(parsed, ORIGIN, KEY.public_key)


def test_the_text_is_origin_size_root_empty_line_signature(signer: Signer) -> None:
    lines = sign_checkpoint(ORIGIN, 7, ROOT, signer).encode().split("\n")
    assert lines[:4] == [ORIGIN, "7", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", ""]
    assert lines[4].startswith(f"\u2014 {ORIGIN} ")
    assert lines[5:] == [""]


def test_the_key_hash_is_the_published_one_of_the_go_checksum_database() -> None:
    # sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8 (golang.org/x/mod/sumdb/note)
    import base64

    blob = base64.b64decode("Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    assert blob[0] == 1
    assert note_key_hash("sum.golang.org", PublicKey.from_raw(blob[1:])).hex() == "033de0ae"


def test_a_head_signed_by_another_key_is_refused(signer: Signer, other_signer: Signer) -> None:
    checkpoint = sign_checkpoint(ORIGIN, 7, ROOT, other_signer)
    with pytest.raises(EvidenceError) as caught:
        verify_checkpoint(checkpoint, ORIGIN, signer.public_key)
    assert caught.value.code == "evidence.checkpoint_unsigned"


def test_a_head_of_another_log_is_refused(signer: Signer) -> None:
    with pytest.raises(EvidenceError):
        verify_checkpoint(sign_checkpoint("cloister/site/south", 7, ROOT, signer), ORIGIN, signer.public_key)


def test_a_line_that_claims_to_be_the_logs_and_does_not_hold_is_refused(signer: Signer) -> None:
    good = sign_checkpoint(ORIGIN, 7, ROOT, signer)
    grown = Checkpoint(ORIGIN, 8, ROOT, (), good.signatures)
    with pytest.raises(SignatureInvalid):
        verify_checkpoint(grown, ORIGIN, signer.public_key)
    both = Checkpoint(
        ORIGIN, 7, ROOT, (), (*good.signatures, *sign_checkpoint(ORIGIN, 8, ROOT, signer).signatures)
    )
    with pytest.raises(SignatureInvalid):
        verify_checkpoint(both, ORIGIN, signer.public_key)


def test_signatures_of_others_beside_the_logs_own_do_not_disturb(
    signer: Signer, other_signer: Signer
) -> None:
    good = sign_checkpoint(ORIGIN, 7, ROOT, signer)
    witness = sign_checkpoint("witness", 7, ROOT, other_signer)
    both = Checkpoint(ORIGIN, 7, ROOT, (), (*good.signatures, *witness.signatures))
    verify_checkpoint(parse_checkpoint(both.encode()), ORIGIN, signer.public_key)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nbreak", "x" * 300])
def test_an_origin_that_cannot_be_written_is_refused(signer: Signer, origin: str) -> None:
    with pytest.raises(EvidenceError):
        sign_checkpoint(origin, 1, ROOT, signer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n7\n", "\n07\n"),
        ("\n7\n", "\n+7\n"),
        ("\n7\n", "\n-7\n"),
        ("\n7\n", "\n7 \n"),
        ("\n7\n", "\n\u0667\n"),
        ("\n7\n", "\n" + "9" * 19 + "\n"),
        ("Hh8=\n", "Hh9=\n"),
        ("Hh8=\n", "Hh8\n"),
        ("Hh8=\n", "Hh8=\r\n"),
        ("Hh8=\n", "Hh8=\n\n"),
        ("\u2014 ", "- "),
        ("\u2014 ", "\u2014  "),
        (ORIGIN + "\n", "\n"),
    ],
)
def test_another_spelling_is_refused(signer: Signer, old: str, new: str) -> None:
    text = sign_checkpoint(ORIGIN, 7, ROOT, signer).encode()
    assert old in text
    with pytest.raises(EvidenceError) as caught:
        parse_checkpoint(text.replace(old, new, 1))
    assert caught.value.code == "evidence.checkpoint_malformed"


@given(st.text(max_size=200))
def test_text_from_a_stranger_raises_typed_errors_only(text: str) -> None:
    with pytest.raises(CloisterError):
        parse_checkpoint(text)


@given(st.data())
def test_one_changed_character_never_passes(data: st.DataObject) -> None:
    text = sign_checkpoint(ORIGIN, 7, ROOT, KEY).encode()
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda char: char != text[place]))
    with pytest.raises(CloisterError):
        verify_checkpoint(parse_checkpoint(text[:place] + other + text[place + 1 :]), ORIGIN, KEY.public_key)
