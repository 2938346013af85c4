"""Large data at rest: what was sealed comes back whole and unchanged, or not at all."""

from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import CloisterError, InputError, KeyStoreError, SignatureInvalid, StorageError
from cloister.core.sealing import open_stream, seal, seal_file, seal_stream, sealed_size, unseal, wipe

KEY = bytes(range(32))
HEADER = 52


def sealed_in_chunks(plaintext: bytes, chunk: int = 16, context: str = "site/heart") -> bytes:
    target = io.BytesIO()
    seal_stream(io.BytesIO(plaintext), target, KEY, length=len(plaintext), context=context, chunk_bytes=chunk)
    return target.getvalue()


def opened(sealed: bytes, key: bytes = KEY, context: str = "site/heart") -> bytes:
    return b"".join(bytes(chunk) for chunk in open_stream(io.BytesIO(sealed), key, context=context))


@given(plaintext=st.binary(max_size=200), chunk=st.integers(1, 64))
def test_what_was_sealed_comes_back(plaintext: bytes, chunk: int) -> None:
    sealed = sealed_in_chunks(plaintext, chunk)
    assert opened(sealed) == plaintext
    assert len(sealed) == sealed_size(len(plaintext), chunk)
    assert bytes(unseal(sealed, KEY, context="site/heart")) == plaintext


@given(plaintext=st.binary(min_size=1, max_size=80), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_changed_bit_anywhere_is_accepted(plaintext: bytes, place: int, bit: int) -> None:
    sealed = bytearray(sealed_in_chunks(plaintext))
    sealed[place % len(sealed)] ^= 1 << bit
    with pytest.raises((SignatureInvalid, InputError)):
        opened(bytes(sealed))


def test_a_file_that_was_cut_off_at_any_byte_or_made_longer_is_refused() -> None:
    sealed = sealed_in_chunks(bytes(48))
    for size in range(len(sealed)):
        with pytest.raises((SignatureInvalid, InputError)):
            opened(sealed[:size])
    with pytest.raises(InputError):
        opened(sealed + b"\x00")


def test_chunks_cannot_be_swapped_repeated_or_left_out() -> None:
    sealed = sealed_in_chunks(b"a" * 16 + b"b" * 16 + b"c" * 16)
    head = sealed[:HEADER]
    chunks = [sealed[HEADER + 32 * index : HEADER + 32 * (index + 1)] for index in range(3)]
    for order in itertools.product(chunks, repeat=3):
        if list(order) != chunks:
            with pytest.raises(SignatureInvalid):
                opened(head + b"".join(order))
    shorter = struct.pack(">8sIQ", b"CLSEAL1\n", 16, 32) + head[20:]
    with pytest.raises(SignatureInvalid):
        opened(shorter + chunks[0] + chunks[1])


def test_the_form_is_the_one_that_is_described_computed_apart() -> None:
    sealed = sealed_in_chunks(b"a" * 16 + b"b" * 4)
    header, salt = sealed[:HEADER], sealed[20:HEADER]
    info = b"urn:cloister:sealed:v1\x00" + header + b"site/heart"
    cipher = AESGCM(HKDF(SHA256(), 32, salt, info).derive(KEY))
    assert header[:20] == b"CLSEAL1\n" + struct.pack(">IQ", 16, 20)
    for index, (chunk, plain) in enumerate([(sealed[52:84], b"a" * 16), (sealed[84:], b"b" * 4)]):
        nonce = bytes(3) + struct.pack(">Q", index) + bytes([index])
        assert cipher.decrypt(nonce, chunk, struct.pack(">QQ", index, 2)) == plain


def test_chunks_of_two_files_under_one_key_cannot_be_mixed() -> None:
    first, second = sealed_in_chunks(bytes(32)), sealed_in_chunks(bytes(32))
    assert first[HEADER:] != second[HEADER:]
    with pytest.raises(SignatureInvalid):
        opened(first[: HEADER + 32] + second[HEADER + 32 :])


def test_another_key_or_another_context_opens_nothing() -> None:
    sealed = sealed_in_chunks(b"records")
    for key, context in ((bytes(32), "site/heart"), (KEY, "site/lung")):
        with pytest.raises(SignatureInvalid):
            opened(sealed, key, context)
    with pytest.raises(KeyStoreError, match="32 bytes"):
        opened(sealed, bytes(16))


@pytest.mark.parametrize("length", [5, 7])
def test_a_source_of_another_length_than_named_is_refused(length: int) -> None:
    with pytest.raises(InputError):
        seal_stream(io.BytesIO(b"123456"), io.BytesIO(), KEY, length=length, context="x")


@given(st.binary(max_size=120))
def test_garbage_is_refused_without_any_other_error(data: bytes) -> None:
    for sealed in (data, b"CLSEAL1\n" + data):
        with pytest.raises(CloisterError):
            opened(sealed)
        with pytest.raises(CloisterError):
            unseal(sealed, KEY, context="x")


def test_a_header_that_promises_more_than_follows_reserves_no_memory_for_it() -> None:
    promising = struct.pack(">8sIQ32s", b"CLSEAL1\n", 1024, 2**47, bytes(32)) + bytes(4096)
    tracemalloc.start()
    with pytest.raises(CloisterError):
        unseal(promising, KEY, context="x")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_memory_stays_the_same_whatever_the_length() -> None:
    class Zeros:
        def __init__(self, length: int) -> None:
            self.left = length

        def read(self, size: int, /) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    class Sink:
        def write(self, data: bytes, /) -> int:
            return len(data)

    tracemalloc.start()
    length = 32 * 1024 * 1024
    seal_stream(Zeros(length), Sink(), KEY, length=length, context="x")
    assert tracemalloc.get_traced_memory()[1] < 6 * 1024 * 1024
    tracemalloc.stop()


def test_the_buffer_of_the_plaintext_is_wiped_when_reading_ends() -> None:
    chunks = open_stream(io.BytesIO(seal(b"a patient's record", KEY, context="x")), KEY, context="x")
    view = next(chunks)
    assert bytes(view) == b"a patient's record"
    with pytest.raises(StopIteration):
        next(chunks)
    assert bytes(view) == bytes(len(view))


def test_a_file_is_sealed_whole_for_its_owner_alone_and_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"63,1,145\n" * 9)
    assert seal_file(tmp_path / "plain", tmp_path / "sealed", KEY, context="x") == 81
    assert (tmp_path / "sealed").stat().st_mode & 0o777 == 0o600
    assert unseal((tmp_path / "sealed").read_bytes(), KEY, context="x") == b"63,1,145\n" * 9
    with pytest.raises(StorageError):
        seal_file(tmp_path / "plain", tmp_path / "sealed", KEY, context="x")
    with pytest.raises(InputError):
        seal_file(tmp_path / "absent", tmp_path / "other", KEY, context="x")
    with pytest.raises(InputError):
        seal_file(tmp_path, tmp_path / "other", KEY, context="x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "sealed"]


def test_wiping_is_in_place() -> None:
    buffer = bytearray(b"secret")
    also = memoryview(buffer)
    wipe(buffer)
    assert bytes(also) == bytes(6)
