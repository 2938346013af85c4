"""Large data at rest: a stream of AES-256-GCM chunks, each bound to its place, with constant memory.

The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance", 2015): a counter and a flag of the last chunk in the nonce.

Layout: magic 8 bytes, chunk size u32, length of the plaintext u64, salt 32 bytes, all big endian; then the
chunks, each ``chunk size`` bytes of ciphertext (the last one what is left) and a 16-byte tag.

Rules kept here:

* Every file has a key of its own: HKDF-SHA256 of the data key, with the file's random salt, over its header
  and the context it was sealed for. So nonces can't collide between files, and a changed header or a file
  used for something else opens nothing.
* Each chunk's nonce holds its index and whether it is the last; its associated data its index and the number
  of chunks. Chunks can't be swapped, left out, repeated or cut off.
* What is given out is authentic, and in a buffer that is wiped when the next chunk comes.
"""

from __future__ import annotations

import io
import os
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.core.errors import InputError, KeyStoreError, SignatureInvalid
from cloister.core.files import open_plain, storage_error, sync_directory
from cloister.core.symmetric import AES_KEY_BYTES

MAGIC: Final = b"CLSEAL1\n"
CHUNK_BYTES: Final = 1024 * 1024
MAX_CHUNK_BYTES: Final = 16 * 1024 * 1024
MAX_LENGTH: Final = 2**48
TAG_BYTES: Final = 16
SALT_BYTES: Final = 32
_HEADER: Final = struct.Struct(">8sIQ32s")
_PLACE: Final = struct.Struct(">QQ")
_NONCE: Final = struct.Struct(">3xQB")
_INFO: Final = b"urn:cloister:sealed:v1\x00"


class ByteSource(Protocol):
    """Where bytes are read from: a file, a pipe, `io.BytesIO`."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


class ByteTarget(Protocol):
    """Where bytes are written to."""

    def write(self, data: bytes, /) -> int:
        """Write all of it."""
        ...


@dataclass(frozen=True)
class _Header:
    chunk_bytes: int
    length: int
    salt: bytes

    def encode(self) -> bytes:
        return _HEADER.pack(MAGIC, self.chunk_bytes, self.length, self.salt)

    @property
    def chunks(self) -> int:
        """Nothing at all is one empty chunk, so that its absence shows."""
        return max(1, -(-self.length // self.chunk_bytes))

    def size_of(self, index: int) -> int:
        return min(self.chunk_bytes, self.length - index * self.chunk_bytes)


def sealed_size(length: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """How many bytes a plaintext of ``length`` bytes takes when it is sealed."""
    return _HEADER.size + length + TAG_BYTES * max(1, -(-length // chunk_bytes))


def seal_stream(
    source: ByteSource,
    target: ByteTarget,
    key: bytes | bytearray,
    *,
    length: int,
    context: str,
    chunk_bytes: int = CHUNK_BYTES,
) -> None:
    """Seal a stream of known length.

    Args:
        source: the plaintext.
        target: where the sealed form goes; worthless if this raises.
        key: 32 bytes.
        length: bytes of the plaintext, up to 2**48.
        context: what it is, such as a dataset's name; the same has to be named to open it.
        chunk_bytes: plaintext of a chunk, 1 byte to 16 MiB.

    Raises:
        KeyStoreError: ``key.malformed`` for another size of key.
        InputError: ``input.sealed`` where the source holds more or less than ``length`` bytes, or the sizes
            are out of bounds.
    """
    header = _Header(chunk_bytes, length, os.urandom(SALT_BYTES))
    _require_bounds(header)
    cipher = _cipher(key, header, context)
    target.write(header.encode())
    for index in range(header.chunks):
        chunk = _read_exactly(source, header.size_of(index))
        target.write(cipher.encrypt(_nonce(index, header.chunks), chunk, _PLACE.pack(index, header.chunks)))
    _require_end(source)


def open_stream(source: ByteSource, key: bytes | bytearray, *, context: str) -> Iterator[memoryview]:
    """Open what `seal_stream` wrote, chunk by chunk.

    Args:
        source: the sealed form.
        key: 32 bytes.
        context: what it was sealed as.

    Yields:
        The plaintext of each chunk, authentic, in a buffer that the next one overwrites.
        Who can't wait for the last one has not yet seen that nothing was cut off.

    Raises:
        KeyStoreError: ``key.malformed`` for another size of key.
        InputError: ``input.sealed`` for what isn't of this form.
        SignatureInvalid: ``signature.tag`` for another key, another context, or any change.
    """
    header = _read_header(source)
    cipher = _cipher(key, header, context)
    buffer = bytearray(min(header.chunk_bytes, header.length))
    try:
        for index in range(header.chunks):
            size = header.size_of(index)
            sealed = _read_exactly(source, size + TAG_BYTES)
            plain = memoryview(buffer)[:size]
            try:
                cipher.decrypt_into(
                    _nonce(index, header.chunks), sealed, _PLACE.pack(index, header.chunks), plain
                )
            except InvalidTag:
                raise SignatureInvalid("signature.tag", "A sealed chunk does not verify.") from None
            if index == header.chunks - 1:
                _require_end(source)
            yield plain
    finally:
        wipe(buffer)


def seal(plaintext: bytes | bytearray, key: bytes | bytearray, *, context: str) -> bytes:
    """Seal what fits into memory; as `seal_stream`."""
    target = io.BytesIO()
    seal_stream(io.BytesIO(plaintext), target, key, length=len(plaintext), context=context)
    return target.getvalue()


def unseal(sealed: bytes, key: bytes | bytearray, *, context: str) -> bytearray:
    """Open what fits into memory, into a buffer that can be wiped; as `open_stream`."""
    length = _read_header(io.BytesIO(sealed)).length
    if length > len(sealed):
        raise _malformed("it is shorter than it says")
    opened, at = bytearray(length), 0
    try:
        for chunk in open_stream(io.BytesIO(sealed), key, context=context):
            opened[at : at + len(chunk)] = chunk
            at += len(chunk)
    except BaseException:
        wipe(opened)
        raise
    return opened


def seal_file(source: Path, target: Path, key: bytes | bytearray, *, context: str) -> int:
    """Seal a plain file into a new one of mode 0600, in constant memory; whole on disk when this returns.

    Args:
        source: the plaintext.
        target: a name that is free; its folder has to exist.
        key: 32 bytes.
        context: what it is.

    Returns:
        Bytes of the plaintext.

    Raises:
        InputError: ``input.missing_file``, ``input.unreadable``, or ``input.sealed`` where the file changed
            its length meanwhile.
        StorageError: ``storage.exists``, or as the operating system says; nothing is left behind.
    """
    temporary = target.parent / f".{target.name[:64]}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(open_plain(source), "rb") as plain:
        length = os.fstat(plain.fileno()).st_size
        try:
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as sealed:
                seal_stream(plain, sealed, key, length=length, context=context)
                sealed.flush()
                os.fsync(sealed.fileno())
            os.link(temporary, target, follow_symlinks=False)
            sync_directory(target.parent)
        except OSError as error:
            raise storage_error(error, target) from None
        finally:
            temporary.unlink(missing_ok=True)
    return length


def wipe(buffer: bytearray) -> None:
    """Overwrite a buffer with zeros, in place. Copies that others made of it stay."""
    view = memoryview(buffer)
    view[:] = bytes(len(buffer))


def _cipher(key: bytes | bytearray, header: _Header, context: str) -> AESGCM:
    if len(key) != AES_KEY_BYTES:
        raise KeyStoreError("key.malformed", "A data key has 32 bytes.")
    info = _INFO + header.encode() + context.encode("utf-8")
    derived = bytearray(AES_KEY_BYTES)
    try:
        HKDF(SHA256(), AES_KEY_BYTES, header.salt, info).derive_into(key, derived)
        return AESGCM(derived)
    finally:
        wipe(derived)


def _nonce(index: int, chunks: int) -> bytes:
    return _NONCE.pack(index, int(index == chunks - 1))


def _read_header(source: ByteSource) -> _Header:
    raw = _read_exactly(source, _HEADER.size)
    magic, chunk_bytes, length, salt = _HEADER.unpack(raw)
    if magic != MAGIC:
        raise _malformed("it doesn't begin as one does")
    header = _Header(chunk_bytes, length, salt)
    _require_bounds(header)
    return header


def _require_bounds(header: _Header) -> None:
    if not 1 <= header.chunk_bytes <= MAX_CHUNK_BYTES or not 0 <= header.length <= MAX_LENGTH:
        raise _malformed("its sizes are out of bounds")


def _read_exactly(source: ByteSource, size: int) -> bytes:
    parts, missing = [], size
    while missing:
        part = source.read(missing)
        if not part:
            raise _malformed("it ends too early")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _require_end(source: ByteSource) -> None:
    if source.read(1):
        raise _malformed("more follows than it says")


def _malformed(reason: str) -> InputError:
    return InputError("input.sealed", f"This is no sealed data: {reason}.", "Use the file as it was sealed.")
