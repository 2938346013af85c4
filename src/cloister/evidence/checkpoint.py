"""Checkpoints: a log's signed size and root, in the text form witnesses and other logs understand.

The form is a C2SP signed note (c2sp.org/signed-note, c2sp.org/tlog-checkpoint): origin, size and root on
a line each, an empty line, then signature lines of the log and of witnesses (c2sp.org/tlog-cosignature).
Rules kept here:

1. A checkpoint has one spelling: no leading zeros, canonical base64, no trailing bytes.
2. A signature line counts only with its signer's name and the four-byte hash of the signer's key. The log's
   name is its origin; keys are Ed25519 (type 0x01) or ECDSA (type 0x02, as Rekor signs).
3. Every line that claims to be such a key's signature must hold.
4. A cosignature (type 0x04, Ed25519) signs the time with the text; it says that the witness has seen no
   other past of this log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from cloister.core.canonical import b64decode, b64encode
from cloister.core.errors import InputError
from cloister.core.keys import ED25519, PublicKey, Signer
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import HASH_SIZE, MAX_TREE_SIZE

ED25519_NOTE: Final = 0x01
COSIGNATURE_NOTE: Final = 0x04
MAX_CHECKPOINT_CHARS: Final = 64 * 1024
_KEY_HASH_SIZE: Final = 4
_TIME_SIZE: Final = 8
_ED25519_SIGNATURE_SIZE: Final = 64
_LATEST_SECOND: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
_NAME = re.compile(r"[^\s+]{1,200}")
_ORIGIN = re.compile(r"[^\s](?:[^\n]{0,198}[^\s])?")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE_LINE = re.compile(r"\u2014 ([^\s+]{1,200}) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: the signer's name, the first four bytes of its key's hash, the raw signature."""

    name: str
    key_hash: bytes
    sig: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's head.

    Attributes:
        origin: the log's unique name.
        size: how many entries it has.
        root: 32-byte Merkle root over them.
        extensions: further signed lines, none in logs of our own.
        signatures: the log's own, and witnesses'.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...]
    signatures: tuple[NoteSignature, ...]

    def note(self) -> str:
        """The signed text."""
        lines = (self.origin, str(self.size), b64encode(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    def encode(self) -> str:
        """The checkpoint's only spelling: the signed text, an empty line, the signature lines."""
        signatures = (f"\u2014 {one.name} {b64encode(one.key_hash + one.sig)}\n" for one in self.signatures)
        return self.note() + "\n" + "".join(signatures)


def note_key_hash(name: str, key: PublicKey) -> bytes:
    """The four bytes a signature line names a key by.

    Args:
        name: the signer's name; for a log's own signature its origin.
        key: the signer's key.

    Returns:
        For Ed25519, the hash of name, type and key (c2sp.org/signed-note, "Signatures"); for ECDSA, that of
        the key's SubjectPublicKeyInfo alone, as Rekor writes it.
    """
    if key.algorithm == ED25519:
        return _key_hash(name, ED25519_NOTE, key)
    return hashlib.sha256(key.der).digest()[:_KEY_HASH_SIZE]


def cosignature_key_hash(name: str, key: PublicKey) -> bytes:
    """The four bytes a cosignature's line names a witness's Ed25519 key by (c2sp.org/tlog-cosignature)."""
    return _key_hash(name, COSIGNATURE_NOTE, key)


def _key_hash(name: str, kind: int, key: PublicKey) -> bytes:
    named = name.encode("utf-8") + b"\n" + bytes([kind]) + key.raw
    return hashlib.sha256(named).digest()[:_KEY_HASH_SIZE]


def sign_checkpoint(origin: str, size: int, root: bytes, signer: Signer) -> Checkpoint:
    """Sign a log's head.

    Args:
        origin: the log's name, without spaces or plus signs.
        size: number of entries.
        root: 32-byte Merkle root.
        signer: the log's key.

    Returns:
        A checkpoint with one signature.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed`` if the parts can't be written as a checkpoint.
    """
    if not _NAME.fullmatch(origin) or not 0 <= size <= MAX_TREE_SIZE or len(root) != HASH_SIZE:
        raise _malformed("its origin, size or root can't be written")
    unsigned = Checkpoint(origin, size, root, (), ())
    signature = signer.sign(unsigned.note().encode("utf-8"))
    line = NoteSignature(origin, note_key_hash(origin, signer.public_key), signature)
    return Checkpoint(origin, size, root, (), (line,))


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint, without judging its signatures.

    Args:
        text: the note.

    Returns:
        The checkpoint.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed`` for any other spelling.
    """
    if len(text) > MAX_CHECKPOINT_CHARS or _CONTROL.search(text):
        raise _malformed("it is too long or has control characters")
    body, separator, tail = text.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise _malformed("it has no signature lines")
    lines = body.split("\n")
    if len(lines) < 3 or "" in lines or not _ORIGIN.fullmatch(lines[0]) or not _SIZE.fullmatch(lines[1]):
        raise _malformed("its first lines are not origin, size and root")
    root = _decode(lines[2])
    size = int(lines[1])
    if len(root) != HASH_SIZE or size > MAX_TREE_SIZE:
        raise _malformed("its size or root is out of range")
    signatures = tuple(_signature_line(line) for line in tail[:-1].split("\n"))
    checkpoint = Checkpoint(lines[0], size, root, tuple(lines[3:]), signatures)
    if checkpoint.encode() != text:
        raise _malformed("it is not in canonical form")
    return checkpoint


def verify_checkpoint(checkpoint: Checkpoint, origin: str, *keys: PublicKey, name: str | None = None) -> None:
    """Check that a checkpoint is of this log and signed by its key.

    Args:
        checkpoint: a parsed checkpoint.
        origin: the log expected.
        keys: the log's pinned key; several where the log's owner changed its key.
        name: the name the log signs with, where that isn't its origin (as Rekor's).

    Raises:
        EvidenceError: ``evidence.checkpoint_unsigned`` if it is another log's or lacks the key's signature.
        SignatureInvalid: if a signature that claims to be such a key's doesn't hold.
    """
    if checkpoint.origin != origin:
        raise EvidenceError("evidence.checkpoint_unsigned", "The checkpoint is another log's.")
    message, signer = checkpoint.note().encode("utf-8"), name or origin
    signed = False
    for key in keys:
        for one in _lines_of(checkpoint, signer, note_key_hash(signer, key)):
            key.verify(one.sig, message)
            signed = True
    if not signed:
        raise EvidenceError("evidence.checkpoint_unsigned", "The checkpoint is not signed by the log's key.")


def cosign(checkpoint: Checkpoint, name: str, signer: Signer, at: datetime) -> Checkpoint:
    """Add a witness's cosignature, in place of an earlier one of the same key.

    Args:
        checkpoint: what the witness found consistent with all it has seen of the log.
        name: the witness's name, without spaces or plus signs.
        signer: the witness's Ed25519 key.
        at: when; whole seconds are signed.

    Returns:
        The checkpoint with one more line (c2sp.org/tlog-cosignature, cosignature/v1).

    Raises:
        EvidenceError: ``evidence.witness_refused`` for another kind of key, an improper name or time.
    """
    key = signer.public_key
    second = int(at.timestamp())
    if key.algorithm != ED25519 or not _NAME.fullmatch(name) or not 0 <= second <= _LATEST_SECOND:
        raise EvidenceError(
            "evidence.witness_refused",
            "A witness signs with an Ed25519 key, under a name without spaces, at a time since 1970.",
        )
    sig = second.to_bytes(_TIME_SIZE, "big") + signer.sign(_cosigned(checkpoint, second))
    line = NoteSignature(name, cosignature_key_hash(name, key), sig)
    others = (one for one in checkpoint.signatures if (one.name, one.key_hash) != (line.name, line.key_hash))
    return replace(checkpoint, signatures=(*others, line))


def verify_cosignature(checkpoint: Checkpoint, name: str, key: PublicKey) -> datetime:
    """Check that a witness cosigned a checkpoint.

    Args:
        checkpoint: a parsed checkpoint.
        name: the witness's name.
        key: its pinned Ed25519 key.

    Returns:
        When it last did, as the cosignature says.

    Raises:
        EvidenceError: ``evidence.cosignature_missing`` if there is no such line, or it has no proper form.
        SignatureInvalid: if a line that claims to be the witness's doesn't hold.
    """
    if key.algorithm != ED25519:
        raise EvidenceError("evidence.cosignature_missing", f"{name} has no key that can cosign.")
    newest = -1
    for one in _lines_of(checkpoint, name, cosignature_key_hash(name, key)):
        second = int.from_bytes(one.sig[:_TIME_SIZE], "big")
        if len(one.sig) != _TIME_SIZE + _ED25519_SIGNATURE_SIZE or second > _LATEST_SECOND:
            raise EvidenceError(
                "evidence.cosignature_missing", f"The cosignature of {name} has no proper form."
            )
        key.verify(one.sig[_TIME_SIZE:], _cosigned(checkpoint, second))
        newest = max(newest, second)
    if newest < 0:
        raise EvidenceError("evidence.cosignature_missing", f"The checkpoint is not cosigned by {name}.")
    return datetime.fromtimestamp(newest, UTC)


def _cosigned(checkpoint: Checkpoint, second: int) -> bytes:
    return f"cosignature/v1\ntime {second}\n{checkpoint.note()}".encode()


def _lines_of(checkpoint: Checkpoint, name: str, key_hash: bytes) -> Iterable[NoteSignature]:
    return (one for one in checkpoint.signatures if one.name == name and one.key_hash == key_hash)


def _signature_line(line: str) -> NoteSignature:
    match = _SIGNATURE_LINE.fullmatch(line)
    if match is None:
        raise _malformed("a signature line is wrong")
    blob = _decode(match[2])
    if len(blob) <= _KEY_HASH_SIZE:
        raise _malformed("a signature line is too short")
    return NoteSignature(match[1], blob[:_KEY_HASH_SIZE], blob[_KEY_HASH_SIZE:])


def _decode(text: str) -> bytes:
    try:
        return b64decode(text)
    except InputError:
        raise _malformed("a field is not canonical base64") from None


def _malformed(reason: str) -> EvidenceError:
    return EvidenceError("evidence.checkpoint_malformed", f"This is not a checkpoint: {reason.rstrip('.')}.")
