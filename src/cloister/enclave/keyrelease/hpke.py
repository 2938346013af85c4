"""Sealing to an attested key: HPKE (RFC 9180) in base mode, by the cryptography library.

The suite is ML-KEM-768 with X25519 (X-Wing, KEM 0x647a), HKDF-SHA256, AES-256-GCM. Records stay confidential
for a lifetime; who keeps today's traffic until a quantum computer exists still has to break ML-KEM, and who
breaks ML-KEM still X25519.

Rules kept here:

* A public key has one encoding: the 1184 bytes of ML-KEM's, then the 32 of X25519's. Evidence binds its hash.
* What a sealed thing is for is authenticated with it: the ``info`` holds the purpose and the report data of
  the evidence, hence nonce, key, job and policy. A thing sealed for one opens for no other.
* The private half is in this process's memory only, is made for one use and has no encoding. It is drawn from
  the kernel: a library's own generator may have been copied by a fork.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from cloister.core.canonical import JSON, canonicalize
from cloister.enclave.attestation.binding import Binding
from cloister.enclave.errors import ReleaseError

MLKEM_BYTES: Final = 1184
PUBLIC_BYTES: Final = MLKEM_BYTES + 32
ENCAPSULATED_BYTES: Final = 1120
OVERHEAD_BYTES: Final = ENCAPSULATED_BYTES + 16
_MLKEM_SEED_BYTES: Final = 64
_X25519_BYTES: Final = 32
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO: Final = b"urn:cloister:hpke:v1\x00"


class EnclaveKey:
    """A private key that exists inside an enclave only."""

    __slots__ = ("_private", "_public")

    def __init__(self) -> None:
        # From the kernel: where this process was forked, a library's own generator was copied with it.
        mlkem = MLKEM768PrivateKey.from_seed_bytes(os.urandom(_MLKEM_SEED_BYTES))
        x25519 = X25519PrivateKey.from_private_bytes(os.urandom(_X25519_BYTES))
        self._private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self._public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    @property
    def public_bytes(self) -> bytes:
        """The public half, 1216 bytes."""
        return self._public

    @property
    def key_id(self) -> str:
        """What evidence binds: ``sha256:`` and the hex SHA-256 of the public half."""
        return enclave_key_id(self._public)

    def open(self, sealed: bytes, info: bytes) -> bytearray:
        """Open what `seal_to` made for this key.

        Args:
            sealed: encapsulated key and ciphertext.
            info: as it was given when sealing.

        Returns:
            The plaintext, in a buffer to be wiped. The library's own copy is freed, not wiped.

        Raises:
            ReleaseError: ``release.sealed``.
        """
        try:
            return bytearray(_SUITE.decrypt(sealed, self._private, info))
        except (InvalidTag, ValueError):
            raise ReleaseError(
                "release.sealed", "What came sealed doesn't open: it is for another, or was changed."
            ) from None

    def __repr__(self) -> str:
        return f"<enclave key {self.key_id}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("an enclave's key is never copied out of its process")


def seal_to(public: bytes, plaintext: bytes | bytearray, info: bytes) -> bytes:
    """Seal to an enclave's public key.

    Args:
        public: 1216 bytes that evidence has bound.
        plaintext: what only that enclave may read.
        info: what it is for; as `sealing_info` gives it.

    Returns:
        Encapsulated key and ciphertext: 1136 bytes more than the plaintext.

    Raises:
        ReleaseError: ``release.malformed`` for bytes that are no such key.
    """
    try:
        return _SUITE.encrypt(plaintext, _public_key(public), info)
    except ValueError:
        raise _no_key() from None


def enclave_key_id(public: bytes) -> str:
    """The id of a public key: ``sha256:`` and hex."""
    return "sha256:" + hashlib.sha256(public).hexdigest()


def sealing_info(binding: Binding, *subjects: str) -> bytes:
    """What a sealed thing is for: the evidence it answers, and what is sealed.

    Args:
        binding: of the evidence; its domain names the purpose.
        subjects: names of what is sealed.
    """
    named: list[JSON] = list(subjects)
    return _INFO + binding.domain + binding.report_data() + canonicalize(named)


def _public_key(public: bytes) -> MLKEM768X25519PublicKey:
    if len(public) != PUBLIC_BYTES:
        raise _no_key()
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:MLKEM_BYTES]),
        X25519PublicKey.from_public_bytes(public[MLKEM_BYTES:]),
    )


def _no_key() -> ReleaseError:
    return ReleaseError("release.malformed", "These bytes are no enclave's public key.")
