"""A secret key that only goes forward: each line has its own, and it is overwritten when it was used.

The construction is Schneier and Kelsey's (Secure Audit Logs to Support Computer Forensics, 1999, section 3):
the next key is a hash of this one, the tag is a MAC under this one. Who takes the key out of a running
process can tag what comes next, and can't compute the tag of any line before. Rules kept here:

1. One key, one line: its tag, and another key derived from it that encrypts the line's event where events are
   kept encrypted. So who takes the machine over reads as little of the past as it can tag of it.
2. The key is overwritten in place. Copies that Python's memory may still hold are not ours to erase: whoever
   reads a process's whole memory may find a few of the last ones.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cloister.core.symmetric import hmac_sha256

KEY_BYTES: Final = 32
_STEP: Final = b"urn:cloister:segment:v1 next key"
_EVENT: Final = b"urn:cloister:segment:v1 event key"


def next_key(key: bytes | bytearray) -> bytes:
    """The key of the line after the one that this key tags."""
    return hashlib.sha256(key + _STEP).digest()


def event_key(key: bytes | bytearray) -> bytes:
    """What the event of the line that this key tags is encrypted with."""
    return hashlib.sha256(key + _EVENT).digest()


class Ratchet:
    """A segment's tagging key.

    Args:
        root: the 32 bytes that the first line is tagged with; the ratchet takes a copy.
    """

    __slots__ = ("_key",)

    def __init__(self, root: bytes | bytearray) -> None:
        if len(root) != KEY_BYTES:
            raise ValueError("a ratchet begins with 32 bytes")
        self._key = bytearray(root)

    def event_key(self) -> bytes:
        """What the event of the next line is encrypted with; to be asked before its tag."""
        return event_key(self._key)

    def tag(self, message: bytes) -> bytes:
        """The tag of the next line; the key it was made with is gone afterwards."""
        key = self._key
        tag = hmac_sha256(key, message)
        key[:] = next_key(key)
        return tag

    def erase(self) -> None:
        """Make the key useless."""
        self._key[:] = bytes(KEY_BYTES)

    def __repr__(self) -> str:
        return "<ratchet>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a ratchet is never copied out of its process")
