"""The lines of one segment, as they are made: in memory, one after the other.

Rules kept here:

1. A line's tag covers the tip of the line before and every byte of this line before the tag: its time, its
   number, its event. Its own tip covers all that and the tag.
2. Line 1 is the header and line 2 signs it; a mark signs all lines before it.
3. An encrypted event has a key of its own, which the ratchet forgets with the line, and a random nonce that
   stands before the ciphertext: two continuations of one process's memory, as of a virtual machine put back
   to a snapshot, reuse keys and never a nonce. Segment and line are authenticated with it.
4. After the closing mark there is nothing.
"""

from __future__ import annotations

import hashlib
import os
from binascii import b2a_base64

from cloister.core.canonical import JSON, b64encode, canonicalize
from cloister.core.keys import Signer
from cloister.core.symmetric import AES_NONCE_BYTES, decrypt_aes_256_gcm, encrypt_aes_256_gcm
from cloister.evidence.segments.checkpoint import SegmentCheckpoint, State, sign_segment
from cloister.evidence.segments.layout import (
    BEFORE_THE_FIRST,
    Cipher,
    Header,
    Kind,
    SegmentId,
    opening,
    tag_member,
    tip_member,
)
from cloister.evidence.segments.ratchet import Ratchet
from cloister.evidence.segments.secrets import SegmentSecrets


class SegmentChain:
    """Makes a segment's lines; each ends with a line feed.

    Args:
        header: what the segment says of itself.
        secrets: what it is tagged and encrypted with; the root is not kept.
        signer: the key that the header names.
    """

    def __init__(self, header: Header, secrets: SegmentSecrets, signer: Signer) -> None:
        self._header = header
        self._name = str(header.id)
        self._signer = signer
        self._ratchet = Ratchet(secrets.root)
        self._encrypted = header.cipher is not Cipher.NONE
        self._head = BEFORE_THE_FIRST
        self._lines = 0
        self._unsigned = 0

    @property
    def id(self) -> SegmentId:
        """The segment's name."""
        return self._header.id

    @property
    def lines(self) -> int:
        """How many lines were made."""
        return self._lines

    @property
    def head(self) -> bytes:
        """The hash of the last of them."""
        return self._head

    @property
    def unsigned(self) -> int:
        """How many lines no mark covers yet."""
        return self._unsigned

    def open(self, at: str) -> bytes:
        """The first line.

        Args:
            at: the time, as `format_time` writes it.
        """
        return self._line(opening(at, self._header))

    def entry(self, at: str, event: bytes) -> bytes:
        """A line with an event.

        Args:
            at: the time.
            event: a canonical JSON object.
        """
        number = self._lines + 1
        if self._encrypted:
            sealed = encrypt_event(self._ratchet.event_key(), self._name, number, event)
            event = b'"' + b2a_base64(sealed, newline=False) + b'"'
        return self._line(
            b'{"at":"' + at.encode() + b'","event":' + event + b',"kind":"entry","n":%d' % number
        )

    def mark(self, at: str, uptime: int, state: State) -> tuple[bytes, SegmentCheckpoint]:
        """A line that signs all before it, and the same as a checkpoint to be kept elsewhere.

        Args:
            at: the time.
            uptime: microseconds since the boot.
            state: CLOSED makes it the segment's last line.
        """
        made = sign_segment(self._name, self._lines, self._head, state, at, uptime, self._signer)
        body: JSON = {
            "at": at,
            "kind": Kind.MARK.value,
            "mark": {
                "head": made.head.hex(),
                "sig": b64encode(made.signature),
                "state": state.value,
                "uptime": uptime,
            },
            "n": self._lines + 1,
        }
        line = self._line(canonicalize(body)[:-1])
        self._unsigned = 0
        if state is State.CLOSED:
            self.erase()
        return line, made

    def erase(self) -> None:
        """Forget the secrets: no further line can be made that verifies."""
        self._ratchet.erase()

    def _line(self, content: bytes) -> bytes:
        body = content + tag_member(self._ratchet.tag(self._head + content))
        self._head = hashlib.sha256(self._head + body).digest()
        self._lines += 1
        self._unsigned += 1
        return body + tip_member(self._head) + b"\n"


def encrypt_event(key: bytes, segment: str, number: int, event: bytes) -> bytes:
    """An event as it is kept in an encrypted segment: a random nonce, and what it was encrypted to."""
    nonce = os.urandom(AES_NONCE_BYTES)
    return nonce + encrypt_aes_256_gcm(key, nonce, event, _place(segment, number))


def decrypt_event(key: bytes, segment: str, number: int, sealed: bytes) -> bytes:
    """Undo `encrypt_event`.

    Raises:
        KeyStoreError: ``key.malformed`` for less than a nonce.
        SignatureInvalid: ``signature.tag``.
    """
    nonce, ciphertext = sealed[:AES_NONCE_BYTES], sealed[AES_NONCE_BYTES:]
    return decrypt_aes_256_gcm(key, nonce, ciphertext, _place(segment, number))


def _place(segment: str, number: int) -> bytes:
    return f"{segment} {number}".encode()
