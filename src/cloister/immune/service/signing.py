"""How a sender proves to the service that a batch is its own, now, and wasn't sent before (PIC-X5).

The secret itself never travels. A batch carries the HMAC-SHA256 of its bytes, a nonce and the time, and is
good for five minutes, once. Reading ``/metrics`` and ``/status`` takes a token derived from the secret, which
opens nothing else: a Prometheus server can send it, and who overhears it can't write.

Rules this module keeps:

1. Tags and tokens are compared in constant time.
2. A nonce is remembered as long as its batch could be accepted. The book of nonces is bounded, and full it
   refuses: to forget one early would let a batch in twice.
3. What was signed before the book was opened, or at a time whose nonces may be forgotten, is refused,
   however the clock is set meanwhile.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

WINDOW_SECONDS: Final = 300
MAX_NONCES: Final = 65_536
SCHEME: Final = "PIC-HMAC-SHA256"
_PURPOSE: Final = b"cloister immune telemetry 1\n"
_READING: Final = b"cloister immune reading 1\n"
_NONCE_BYTES: Final = 16
_SWEEP_SECONDS: Final = 10.0
_HEADER: Final = re.compile(
    SCHEME + r" time=([0-9]{1,15}), nonce=([0-9a-f]{32}), mac=([0-9a-f]{64})", re.ASCII
)


class Freshness(StrEnum):
    """What the book says of a batch whose tag is right."""

    NEW = "new"
    REPLAYED = "replayed"
    STALE = "stale"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Proof:
    """What a batch carries in its ``Authorization`` header.

    Attributes:
        time: Unix time in milliseconds.
        nonce: 16 random bytes in hex.
        mac: the tag in hex.
    """

    time: int
    nonce: str
    mac: str

    def header(self) -> str:
        """The header's value."""
        return f"{SCHEME} time={self.time}, nonce={self.nonce}, mac={self.mac}"


def prove(secret: bytes, body: bytes, now: float, entropy: Callable[[int], bytes]) -> Proof:
    """Sign a batch.

    Args:
        secret: what the token file holds.
        body: the batch as it is sent.
        now: Unix time, seconds.
        entropy: answers so many random bytes (``os.urandom``).
    """
    time, nonce = _milliseconds(now), entropy(_NONCE_BYTES).hex()
    return Proof(time, nonce, _mac(secret, body, time, nonce))


def read_proof(header: str) -> Proof | None:
    """Read the header; None where it is of another form."""
    found = _HEADER.fullmatch(header)
    return Proof(int(found[1]), found[2], found[3]) if found else None


def is_authentic(secret: bytes, body: bytes, proof: Proof) -> bool:
    """Whether the batch was signed with this secret; says nothing about when."""
    return hmac.compare_digest(_mac(secret, body, proof.time, proof.nonce), proof.mac)


def reading_token(secret: bytes) -> str:
    """The bearer token (RFC 6750) for ``/metrics`` and ``/status``, as 64 hex digits."""
    return hmac.digest(secret, _READING, "sha256").hex()


def may_read(secret: bytes, header: str) -> bool:
    """Whether an ``Authorization`` header carries the reading token."""
    scheme, _, token = header.partition(" ")
    given = hashlib.sha256(token.strip().encode("utf-8", "replace")).digest()
    wanted = hashlib.sha256(reading_token(secret).encode("ascii")).digest()
    return hmac.compare_digest(given, wanted) and scheme.lower() == "bearer"


@dataclass(slots=True)
class NonceBook:
    """The nonces of the last minutes. Not safe for threads: the service asks from one.

    Attributes:
        opened_at: Unix time, seconds; what was signed before is refused, as another run may have taken it.
        window: seconds that a batch is good for, and that its time may be ahead.
        capacity: nonces that are remembered.
    """

    opened_at: float
    window: float = WINDOW_SECONDS
    capacity: int = MAX_NONCES
    _known: dict[str, int] = field(default_factory=dict)
    _forgotten: int = field(init=False)
    _swept_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._forgotten, self._swept_at = _milliseconds(self.opened_at), self.opened_at

    def claim(self, proof: Proof, now: float) -> Freshness:
        """Write a nonce down; only `Freshness.NEW` lets its batch in.

        Args:
            proof: of a batch whose tag was found right; others must not get into the book.
            now: Unix time, seconds.
        """
        if proof.nonce in self._known:
            return Freshness.REPLAYED
        if abs(now - proof.time / 1000) > self.window or proof.time <= self._forgotten:
            return Freshness.STALE
        if abs(now - self._swept_at) >= _SWEEP_SECONDS:
            self._sweep(now)
        if len(self._known) >= self.capacity:
            return Freshness.FULL
        self._known[proof.nonce] = proof.time
        return Freshness.NEW

    def release(self, proof: Proof) -> None:
        """Take a nonce back whose batch wasn't taken after all, so that its sender may try again."""
        self._known.pop(proof.nonce, None)

    def __len__(self) -> int:
        return len(self._known)

    def _sweep(self, now: float) -> None:
        old = _milliseconds(now - self.window)
        # By what was really forgotten, and not by the clock: set ahead and back, it shuts nobody out.
        self._forgotten = max([self._forgotten, *(time for time in self._known.values() if time < old)])
        self._known = {nonce: time for nonce, time in self._known.items() if time >= old}
        self._swept_at = now


def _milliseconds(seconds: float) -> int:
    return math.floor(seconds * 1000)


def _mac(secret: bytes, body: bytes, time: int, nonce: str) -> str:
    signed = b"%s%d\n%s\n%s" % (_PURPOSE, time, nonce.encode("ascii"), body)
    return hmac.digest(secret, signed, "sha256").hex()
