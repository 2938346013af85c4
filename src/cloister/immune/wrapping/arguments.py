"""What telemetry says of arguments: how many, of which types, how large, and a keyed hash; never a value.

Rules kept here:

* Only exact builtin types are measured and hashed. Of anything else the type's name is told: its ``__len__``,
  ``__repr__`` or ``__hash__`` is the application's code and isn't called.
* A hash is BLAKE2b under a random key of this process, so that equal arguments of one process can be told
  and nobody can try all social security numbers. The key is replaced after a day or a million hashes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from cloister.immune.wrapping.entering import MEASURED

_DAY: Final = 86_400.0
_MOST_HASHES: Final = 1_000_000
_MOST_ARGUMENTS: Final = 64
_MOST_BYTES: Final = 65_536
_MOST_NAME: Final = 128
_INTEGER_BITS: Final = 4096


@dataclass(frozen=True, slots=True)
class ArgumentMetadata:
    """What is told of a call's arguments; of the first 64 where there are more.

    Attributes:
        count: how many there were.
        types: name of each one's type.
        sizes: size of each one, as in `size_of`.
        hashes: keyed hash of each one, 16 hexadecimal digits; empty where none is made.
        key_id: tells hashes under one key from those under another.
    """

    count: int
    types: tuple[str, ...]
    sizes: tuple[int, ...]
    hashes: tuple[str, ...]
    key_id: str

    def as_json(self) -> dict[str, object]:
        """The metadata as plain JSON."""
        return {
            "count": self.count,
            "types": list(self.types),
            "sizes": list(self.sizes),
            "hashes": list(self.hashes),
            "key_id": self.key_id,
        }


class ArgumentHasher:
    """Describes arguments under a key that rotates.

    Args:
        clock: monotonic time, seconds.
        new_key: makes a key of 32 random bytes.
    """

    def __init__(
        self, clock: Callable[[], float], new_key: Callable[[], bytes] = lambda: os.urandom(32)
    ) -> None:
        self._clock, self._new_key = clock, new_key
        self.rotate()

    def rotate(self) -> None:
        """Take a new key; in the child of a fork as well, which is another process."""
        key = self._new_key()
        self._keyed = key, blake2b(b"key id", key=key, digest_size=4).hexdigest()
        self._until = self._clock() + _DAY
        self._left = _MOST_HASHES

    def describe(self, arguments: Sequence[object]) -> ArgumentMetadata:
        """What may be told of arguments."""
        told = arguments[:_MOST_ARGUMENTS]
        self._left -= len(told)
        if self._left <= 0 or self._clock() > self._until:
            self.rotate()
        key, key_id = self._keyed
        return ArgumentMetadata(
            count=len(arguments),
            types=tuple(_type_name(one) for one in told),
            sizes=tuple(len(one) if type(one) in MEASURED else 1 for one in told),  # type: ignore[arg-type]
            hashes=tuple(_hash(one, key) for one in told),
            key_id=key_id,
        )


def _type_name(value: object) -> str:
    # Not `type(value).__name__`: a metaclass may answer that with code of its own.
    return str(type.__dict__["__name__"].__get__(type(value)))[:_MOST_NAME]


def _hash(value: object, key: bytes) -> str:
    content = _content(value)
    if content is None:
        return ""
    mark = _type_name(value).encode()
    return blake2b(mark + b"\0" + content, key=key, digest_size=8).hexdigest()


def _content(value: object) -> bytes | None:
    kind = type(value)
    if kind is str:
        assert isinstance(value, str)
        return f"{len(value)}:".encode() + value[:_MOST_BYTES].encode("utf-8", "surrogatepass")
    if kind is bytes or kind is bytearray:
        assert isinstance(value, bytes | bytearray)
        return b"%d:" % len(value) + bytes(value[:_MOST_BYTES])
    if kind is int:
        assert isinstance(value, int)
        if value.bit_length() > _INTEGER_BITS:
            return None
        return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    if kind is float:
        return struct.pack(">d", value)
    if value is None or kind is bool:
        return b"%d" % (value is True)
    return None
