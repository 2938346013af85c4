"""The keys that open segments: kept apart, rotated, never overwritten, and good for their segment only."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from cloister.core.errors import KeyStoreError
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments import (
    Cipher,
    OpeningKey,
    OpeningKeys,
    SealingKey,
    SegmentId,
    read_entries,
    verify_segment,
)
from cloister.evidence.segments.layout import Header, parse_opening
from tests.evidence.segments.conftest import Stream


def header_of(data: bytes) -> Header:
    return parse_opening(data.split(b"\n")[0])[1]


def test_a_folder_keeps_former_keys_so_that_old_segments_stay_verifiable(
    stream: Stream, tmp_path: Path
) -> None:
    keys = OpeningKeys(tmp_path / "opening")
    made = {}
    for name in ("2026-11", "2026-12"):
        stream.opening = keys.generate(name)
        made[name] = stream.made([{"month": name}], Cipher.AES_256_GCM)
    again = OpeningKeys(tmp_path / "opening")
    assert again.names() == ("2026-11", "2026-12")
    for name, data in made.items():
        verdict = verify_segment(data, keys=[stream.signer.public_key], held=None, secrets=again)
        assert verdict.broken_at is None
        assert "not_run" not in [
            check.outcome.value for check in verdict.checks if check.id == "segment-tags"
        ]
        found = list(read_entries(data, keys=[stream.signer.public_key], held=None, secrets=again))
        assert [entry.event for entry in found] == [{"month": name}]


def test_keys_are_their_owners_alone_and_are_never_overwritten(tmp_path: Path) -> None:
    keys = OpeningKeys(tmp_path / "opening")
    first = keys.generate("one")
    path = tmp_path / "opening" / "one.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "opening").stat().st_mode & 0o777 == 0o700
    with pytest.raises(KeyStoreError) as refused:
        keys.generate("one")
    assert refused.value.code == "key.exists"
    assert keys.load("one").sealing_key == first.sealing_key
    path.chmod(0o640)
    with pytest.raises(KeyStoreError) as refused:
        keys.load("one")
    assert refused.value.code == "key.permissions"
    (tmp_path / "opening").chmod(0o750)
    with pytest.raises(KeyStoreError) as refused:
        OpeningKeys(tmp_path / "opening")
    assert refused.value.code == "key.permissions"


@pytest.mark.parametrize("name", ["", "../x", "a b", ".hidden", "x" * 200])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyStoreError) as refused:
        OpeningKeys(tmp_path / "opening").generate(name)
    assert refused.value.code == "key.name"


def test_a_key_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError) as refused:
        OpeningKeys(tmp_path / "opening").load("none")
    assert refused.value.code == "key.missing"


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    private = generate_private_key(SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for pem in (public, secret, b"", b"x" * 20_000, b"-----BEGIN PUBLIC KEY-----\n"):
        with pytest.raises(KeyStoreError) as refused:
            SealingKey.from_pem(pem)
        assert refused.value.code == "key.malformed"
        path = tmp_path / "key.pem"
        path.write_bytes(pem)
        path.chmod(0o600)
        with pytest.raises(KeyStoreError) as refused:
            OpeningKey.load(path)
        assert refused.value.code == "key.malformed"


def test_a_key_agreed_with_a_point_of_small_order_is_refused() -> None:
    zero = SealingKey.from_pem(
        b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
        b"-----END PUBLIC KEY-----\n"
    )
    from cloister.evidence.segments.secrets import SegmentSecrets

    with pytest.raises(KeyStoreError):
        zero.seal(SegmentSecrets.draw(), SegmentId("0", 1, "0", 1))


def test_a_box_opens_for_its_own_segment_and_whole_only(stream: Stream) -> None:
    header = header_of(stream.made([]))
    other = header.model_copy(update={"number": 2})
    cut = header.model_copy(update={"secrets": header.secrets.model_copy(update={"box": "AAAA"})})
    bent = header.model_copy(update={"secrets": header.secrets.model_copy(update={"box": "A"})})
    for one in (other, cut, bent):
        with pytest.raises(SegmentError) as refused:
            stream.opening.open(one)
        assert refused.value.code == "evidence.segment_secrets"


def test_secrets_are_never_shown_or_copied_out(stream: Stream) -> None:
    secrets = stream.opening.open(header_of(stream.made([], Cipher.AES_256_GCM)))
    assert repr(secrets) == "SegmentSecrets()"
    assert "PRIVATE" not in repr(stream.opening)
    with pytest.raises(TypeError):
        pickle.dumps(stream.opening)
