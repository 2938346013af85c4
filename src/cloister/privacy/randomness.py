"""Randomness that carries the privacy guarantee: AES-256 in counter mode, keyed by the operating system.

Rules kept here:

1. ``OsRandom`` takes no seed. Its key comes from the operating system's entropy and is bound to labels
   (site, job, purpose) with HKDF, so that no two sources share a stream.
2. A source is never copied or pickled, and a forked child draws a new key: a stream is used once.
3. Normal values are made in float64 by the Box-Muller transform from 53-bit uniforms.
4. Which generator was used is a name that goes into the statement of every spend.

PyTorch's own generator is not used: it keeps 32 bits of its seed, so its noise can be searched through and
removed.

Sources: NIST SP 800-38A (CTR mode); RFC 5869 (HKDF); Box and Muller 1958.
"""

from __future__ import annotations

import os
from typing import ClassVar, Final, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.privacy.errors import PrivacyError

OS_GENERATOR: Final = "aes-256-ctr/os-entropy"

_UNIT: Final = 2.0**-53


class RandomSource(Protocol):
    """A stream of random values that is used once."""

    @property
    def generator(self) -> str:
        """The generator's name, as it stands in statements."""
        ...

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit words."""
        ...

    def normal(self, count: int) -> npt.NDArray[np.float64]:
        """Return ``count`` independent standard normal values in float64."""
        ...


class CounterStream:
    """A one-way stream of words and normals from a 256-bit key (AES-256-CTR, zero first counter block).

    The base of every source: subclasses decide where the key comes from.
    """

    generator: ClassVar[str]

    def __init__(self, key: bytes) -> None:
        self._stream = _keystream(key)

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit words.

        Raises:
            PrivacyError: ``privacy.randomness_invalid`` when count is negative.
        """
        if count < 0:
            raise PrivacyError("privacy.randomness_invalid", "A count of random values can't be negative.")
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8").astype(np.uint64, copy=False)

    def normal(self, count: int) -> npt.NDArray[np.float64]:
        """Return ``count`` independent standard normal values in float64.

        Raises:
            PrivacyError: ``privacy.randomness_invalid`` when count is negative.
        """
        pairs = (count + 1) // 2
        uniform = (self.words(2 * pairs) >> np.uint64(11)).astype(np.float64)
        # The radius needs a value in (0, 1], so that its logarithm is finite.
        radius = np.sqrt(-2.0 * np.log((uniform[:pairs] + 1.0) * _UNIT))
        angle = uniform[pairs:] * (2.0 * np.pi * _UNIT)
        values = np.empty(2 * pairs)
        np.multiply(radius, np.cos(angle), out=values[:pairs])
        np.multiply(radius, np.sin(angle), out=values[pairs:])
        return values[:count]

    def __reduce__(self) -> NoReturn:
        raise PrivacyError("privacy.randomness_invalid", "A source of randomness is never copied or stored.")


class OsRandom(CounterStream):
    """The private path's source: a fresh key from the operating system for every instance.

    Args:
        labels: What the stream is for, e.g. site, job and purpose. They separate streams even where two
            machines were cloned from one snapshot and hand out equal entropy.
    """

    generator: ClassVar[str] = OS_GENERATOR

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._process = os.getpid()
        super().__init__(derive_key(os.urandom(32), labels))

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit words; a forked child continues on a key of its own."""
        if os.getpid() != self._process:
            self._process = os.getpid()
            self._stream = _keystream(derive_key(os.urandom(32), self._labels))
        return super().words(count)


def derive_key(secret: bytes, labels: tuple[str, ...]) -> bytes:
    """Bind a secret to labels (HKDF-SHA-256, RFC 5869); the encoding keeps ("a", "b") and ("ab",) apart."""
    info = b"cloister randomness v1" + b"".join(
        len(part).to_bytes(4, "big") + part for part in (label.encode() for label in labels)
    )
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


def _keystream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
