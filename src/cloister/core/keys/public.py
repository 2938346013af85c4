"""Public keys: what a party is known by.

Rules this module keeps:

* Ed25519 (RFC 8032), ECDSA on P-256 with SHA-256 and on P-384 with SHA-384 (FIPS 186-5), and nothing else.
  The key fixes the hash: no signature says how it wants to be verified.
* A key is known by the hash of its SubjectPublicKeyInfo, not by a name somebody gave it; it has one encoding,
  with a named curve and an uncompressed point (RFC 5480). Any other is refused, so that one key has one id.
* Ed25519 keys of small order and non-canonical encodings are refused: under such a key one signature fits
  many messages. Points off their curve are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from cloister.core.errors import KeyStoreError, SignatureInvalid

ED25519: Final = "ed25519"
ECDSA_P256: Final = "ecdsa-p256-sha256"
ECDSA_P384: Final = "ecdsa-p384-sha384"
ALGORITHMS: Final = (ED25519, ECDSA_P256, ECDSA_P384)
"""Every signature algorithm that this program makes and accepts."""

MAX_PEM: Final = 16 * 1024
_ECDSA: Final = {
    ECDSA_P256: ec.ECDSA(hashes.SHA256()),
    ECDSA_P384: ec.ECDSA(hashes.SHA384()),
}
_CURVES: Final[dict[str, str]] = {"secp256r1": ECDSA_P256, "secp384r1": ECDSA_P384}
_P: Final = 2**255 - 19
_ORDER_EIGHT: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
# The y coordinates of the eight points whose order divides the cofactor.
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _ORDER_EIGHT, _P - _ORDER_EIGHT})

_Key: TypeAlias = Ed25519PublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True)
class PublicKey:
    """A public key: what a party is known by.

    Attributes:
        pem: SubjectPublicKeyInfo in PEM (RFC 8410, RFC 5480), in the one form this program writes.
        key_id: ``sha256:`` and the hex SHA-256 of the SubjectPublicKeyInfo in DER.
        algorithm: the signature algorithm's name, one of `ALGORITHMS`.
        der: the SubjectPublicKeyInfo in DER.
    """

    pem: str
    key_id: str
    algorithm: str
    der: bytes = field(repr=False, compare=False)
    _key: _Key = field(repr=False, compare=False)

    @classmethod
    def from_pem(cls, pem: bytes | str) -> PublicKey:
        """Read a public key in PEM.

        Raises:
            KeyStoreError: ``key.malformed`` for anything but a sound key of a known algorithm.
        """
        data = pem.encode("utf-8", "replace") if isinstance(pem, str) else pem
        if len(data) > MAX_PEM:
            raise malformed("public")
        try:
            loaded = serialization.load_pem_public_key(data)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise malformed("public") from None
        key = cls.of(loaded)
        if _der_in(data) != key.der:
            raise malformed("public")
        return key

    @classmethod
    def from_der(cls, der: bytes) -> PublicKey:
        """Read a public key as SubjectPublicKeyInfo in DER.

        Raises:
            KeyStoreError: ``key.malformed``.
        """
        if len(der) > MAX_PEM:
            raise malformed("public")
        try:
            loaded = serialization.load_der_public_key(der)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise malformed("public") from None
        key = cls.of(loaded)
        if key.der != der:
            raise malformed("public")
        return key

    @classmethod
    def from_raw(cls, raw: bytes) -> PublicKey:
        """Read an Ed25519 public key as its 32 bytes (RFC 8032 section 5.1.5).

        Raises:
            KeyStoreError: ``key.malformed``.
        """
        try:
            return cls.of(Ed25519PublicKey.from_public_bytes(raw))
        except ValueError:
            raise malformed("public") from None

    @classmethod
    def of(cls, key: PublicKeyTypes) -> PublicKey:
        """Take over a key that the cryptography library has read.

        Raises:
            KeyStoreError: ``key.malformed`` for a key that this program doesn't use.
        """
        if isinstance(key, Ed25519PublicKey):
            y = int.from_bytes(key.public_bytes_raw(), "little") & (2**255 - 1)
            if y >= _P or y in _SMALL_ORDER_Y:
                raise malformed("public")
            algorithm: str | None = ED25519
        elif isinstance(key, ec.EllipticCurvePublicKey):
            algorithm = _CURVES.get(key.curve.name)
        else:
            algorithm = None
        if algorithm is None or not isinstance(key, Ed25519PublicKey | ec.EllipticCurvePublicKey):
            raise malformed("public")
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = key.public_bytes(serialization.Encoding.PEM, spki).decode("ascii")
        der = key.public_bytes(serialization.Encoding.DER, spki)
        return cls(pem, "sha256:" + hashlib.sha256(der).hexdigest(), algorithm, der, key)

    @property
    def raw(self) -> bytes:
        """An Ed25519 key's 32 bytes.

        Raises:
            KeyStoreError: ``key.malformed`` for a key of another algorithm, which has no such form.
        """
        if not isinstance(self._key, Ed25519PublicKey):
            raise malformed("public")
        return self._key.public_bytes_raw()

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature over a message; silence means it is good.

        Args:
            signature: 64 bytes for Ed25519, DER (RFC 3279 section 2.2.3) for ECDSA.
            message: what was signed, not its hash.

        Raises:
            SignatureInvalid: ``signature.invalid``.
        """
        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, message)
            else:
                self._key.verify(signature, message, _ECDSA[self.algorithm])
        except InvalidSignature:
            raise SignatureInvalid(
                "signature.invalid", f"The signature does not verify under key {self.key_id}."
            ) from None

    def library_key(self) -> _Key:
        """The key as the cryptography library holds it, for building certificates."""
        return self._key

    def __reduce__(self) -> tuple[object, ...]:
        return PublicKey.from_der, (self.der,)


def malformed(half: str) -> KeyStoreError:
    """The refusal of bytes that are no key used here."""
    return KeyStoreError(
        "key.malformed",
        f"This is not a sound {half} key in PEM: Ed25519, ECDSA P-256 or ECDSA P-384.",
        "Use the file as it was written.",
    )


def _der_in(pem: bytes) -> bytes:
    """The bytes that a PEM block carries, or none where there isn't exactly one block."""
    lines = pem.strip().splitlines()
    if lines[0] != b"-----BEGIN PUBLIC KEY-----" or lines[-1] != b"-----END PUBLIC KEY-----":
        return b""
    try:
        return base64.b64decode(b"".join(line.strip() for line in lines[1:-1]), validate=True)
    except binascii.Error:
        return b""
