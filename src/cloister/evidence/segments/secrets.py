"""A segment's secrets, and the keys that open them: never on the side of who writes.

Each segment draws its own secret: the root of its ratchet, from which each line's tag and, where events are
kept encrypted, each event's key follow. It is sealed at once (HPKE, RFC 9180: X25519, HKDF-SHA256,
AES-256-GCM) to a key whose private half an auditor or operator keeps elsewhere, and goes into the segment's
first line. Rules kept here:

1. The writing machine holds a public key and the next line's key only. Who takes the machine over can neither
   compute tags of the past nor read events that were encrypted before, but for what waits in memory for the
   disk and for copies that Python's memory may still hold (`ratchet`).
2. A box opens for the segment it was made for and for no other.
3. Keys are rotated by handing out another public key; the directory keeps the former ones, so that old
   segments stay verifiable. No key is overwritten, and one that others could read is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from cloister.core.canonical import b64decode, b64encode
from cloister.core.errors import InputError, KeyStoreError
from cloister.core.files import open_plain, write_new
from cloister.core.keys.folder import KeyFolder
from cloister.core.keys.secrets import require_private
from cloister.core.keys.store import missing
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments.layout import Header, Sealed, SegmentId
from cloister.evidence.segments.ratchet import KEY_BYTES

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MAX_PEM: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class SegmentSecrets:
    """What tags are computed from, and what events are encrypted with.

    Attributes:
        root: the key of the first line; every later one follows from it.
    """

    root: bytes = field(repr=False)

    @classmethod
    def draw(cls) -> SegmentSecrets:
        """New secrets, from the operating system's randomness."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def from_bytes(cls, data: bytes) -> SegmentSecrets:
        """Read what was sealed.

        Raises:
            SegmentError: ``evidence.segment_secrets`` for another size.
        """
        if len(data) != KEY_BYTES:
            raise SegmentError("evidence.segment_secrets", "The segment's secrets have a wrong size.")
        return cls(data)


@dataclass(frozen=True)
class SealingKey:
    """The public half: whoever has it can seal secrets, and not open them.

    Attributes:
        pem: SubjectPublicKeyInfo in PEM (RFC 8410).
        key_id: ``sha256:`` and the hex SHA-256 of the SubjectPublicKeyInfo in DER.
    """

    pem: str
    key_id: str
    _key: X25519PublicKey = field(repr=False, compare=False)

    @classmethod
    def from_pem(cls, pem: bytes) -> SealingKey:
        """Read an X25519 public key.

        Raises:
            KeyStoreError: ``key.malformed``.
        """
        if len(pem) > _MAX_PEM:
            raise _malformed("public")
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _malformed("public") from None
        if not isinstance(key, X25519PublicKey):
            raise _malformed("public")
        return cls._of(key)

    @classmethod
    def _of(cls, key: X25519PublicKey) -> SealingKey:
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = key.public_bytes(serialization.Encoding.PEM, spki).decode("ascii")
        der = key.public_bytes(serialization.Encoding.DER, spki)
        return cls(pem, "sha256:" + hashlib.sha256(der).hexdigest(), key)

    def seal(self, secrets: SegmentSecrets, segment: SegmentId) -> Sealed:
        """Encrypt a segment's secrets to this key's owner.

        Raises:
            KeyStoreError: ``key.malformed`` for a point that agrees on no secret.
        """
        try:
            box = _SUITE.encrypt(secrets.root, self._key, info=_info(segment))
        except ValueError:
            raise _malformed("public") from None
        return Sealed(key=self.key_id, box=b64encode(box))


class SecretsOpener(Protocol):
    """Whoever can open what was sealed in a segment's header."""

    def open(self, header: Header) -> SegmentSecrets:
        """The segment's secrets; ``evidence.segment_secrets`` where they can't be opened."""
        ...


class OpeningKey:
    """The private half, which belongs on another machine than the one that writes segments."""

    __slots__ = ("_private", "sealing_key")

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.sealing_key = SealingKey._of(private.public_key())

    @classmethod
    def generate(cls) -> OpeningKey:
        """A new key, in memory only."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> OpeningKey:
        """Read a key that `write` wrote.

        Raises:
            InputError: ``input.missing_file`` or ``input.unreadable``.
            KeyStoreError: ``key.permissions`` where others could read it, ``key.malformed``.
        """
        with os.fdopen(open_plain(path), "rb") as stream:
            require_private(os.fstat(stream.fileno()), path)
            pem = stream.read(_MAX_PEM)
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _malformed("private") from None
        if not isinstance(private, X25519PrivateKey):
            raise _malformed("private")
        return cls(private)

    def write(self, path: Path) -> None:
        """Keep the key in a file with mode 0600.

        Raises:
            StorageError: ``storage.exists`` where there is one; nothing is overwritten.
        """
        write_new(path, self._pem(), mode=0o600)

    def _pem(self) -> bytes:
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def open(self, header: Header) -> SegmentSecrets:
        """The secrets in a segment's header.

        Raises:
            SegmentError: ``evidence.segment_secrets`` if they are another key's or another segment's.
        """
        if header.secrets.key != self.sealing_key.key_id:
            raise _closed("they are sealed to another key")
        try:
            data = _SUITE.decrypt(b64decode(header.secrets.box), self._private, info=_info(header.id))
        except (InvalidTag, ValueError, InputError):
            raise _closed("the box doesn't open") from None
        return SegmentSecrets.from_bytes(data)

    def __repr__(self) -> str:
        return f"<opening key {self.sealing_key.key_id}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("an opening key is never copied out of its process")


class OpeningKeys:
    """Today's opening key and all former ones, as files in a folder that only its owner may enter.

    Args:
        directory: the folder; made with mode 0700 where it is missing.

    Raises:
        KeyStoreError: ``key.permissions`` where others may enter the folder.
        StorageError: the folder can't be made.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = KeyFolder(directory)

    def generate(self, name: str) -> OpeningKey:
        """Make a key and keep it; hand its public half to who writes segments from now on.

        Raises:
            KeyStoreError: ``key.exists`` or ``key.name``.
        """
        key = OpeningKey.generate()
        self._folder.keep(name, key._pem())
        return key

    def load(self, name: str) -> OpeningKey:
        """The key of this name.

        Raises:
            KeyStoreError: ``key.missing``, ``key.name``, ``key.permissions`` or ``key.malformed``.
        """
        path = self._folder.path(name)
        if not path.exists():
            raise missing(name)
        return OpeningKey.load(path)

    def names(self) -> tuple[str, ...]:
        """The names of all keys, sorted."""
        return self._folder.names()

    def open(self, header: Header) -> SegmentSecrets:
        """The secrets in a segment's header, with whichever key they are sealed to.

        Raises:
            SegmentError: ``evidence.segment_secrets`` if that key is not here.
        """
        for key in self._all():
            if key.sealing_key.key_id == header.secrets.key:
                return key.open(header)
        raise _closed("they are sealed to a key that is not in the folder")

    def _all(self) -> Sequence[OpeningKey]:
        return [OpeningKey.load(self._folder.path(name)) for name in self.names()]


def _info(segment: SegmentId) -> bytes:
    return f"urn:cloister:segment:v1 secrets {segment}".encode()


def _malformed(half: str) -> KeyStoreError:
    return KeyStoreError("key.malformed", f"This is not a sound X25519 {half} key in PEM.")


def _closed(reason: str) -> SegmentError:
    return SegmentError("evidence.segment_secrets", f"A segment's secrets can't be opened: {reason}.")
