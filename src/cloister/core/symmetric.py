"""Secret-key cryptography as the house uses it: HMAC-SHA256 and AES-256-GCM, and nothing else.

Rules this module keeps:

* The primitives are the standard library's and `cryptography`'s.
* Tags are whole (32 and 16 bytes), nonces have 96 bits, AES keys 256: no truncation, no other size.
* Tags are compared in constant time, and a wrong one is one error that says nothing more.
* A nonce is never used twice under one key: who encrypts counts, or draws a new key.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.core.errors import KeyStoreError, SignatureInvalid

AES_KEY_BYTES: Final = 32
AES_NONCE_BYTES: Final = 12
LEAST_PSEUDONYM_KEY_BYTES: Final = 32


def hmac_sha256(key: bytes | bytearray, message: bytes) -> bytes:
    """The 32-byte tag of a message (RFC 2104, FIPS 198-1).

    Args:
        key: the secret, of any length.
        message: what is authenticated.
    """
    return hmac.digest(key, message, "sha256")


def verify_hmac_sha256(key: bytes | bytearray, message: bytes, tag: bytes) -> None:
    """Check a whole tag over a message; silence means it is good.

    Raises:
        SignatureInvalid: ``signature.tag``.
    """
    if not hmac.compare_digest(hmac_sha256(key, message), tag):
        raise _wrong_tag()


def pseudonym(key: bytes, identifier: str) -> str:
    """A person's pseudonym: the HMAC-SHA256 of what identifies them, in hex.

    A plain hash of a name, a date of birth or a number of ten digits is found by trying them all. Without the
    key there is nothing to try; whoever has it finds the person again, so it stays where the records are.

    Args:
        key: the secret, at least 32 random bytes, one for each purpose: under two keys nothing links the two.
        identifier: what identifies the person, in one agreed spelling; two spellings are two persons here.

    Raises:
        KeyStoreError: ``key.malformed`` for a shorter key, which could be guessed instead.
    """
    if len(key) < LEAST_PSEUDONYM_KEY_BYTES:
        raise KeyStoreError("key.malformed", "Pseudonyms take a key of at least 32 bytes.")
    return hmac_sha256(key, identifier.encode("utf-8")).hex()


def encrypt_aes_256_gcm(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt and authenticate (NIST SP 800-38D).

    Args:
        key: 32 bytes.
        nonce: 12 bytes, never used before under this key.
        plaintext: what is kept secret.
        associated: what is authenticated with it, and not kept secret.

    Returns:
        The ciphertext with its 16-byte tag behind it.

    Raises:
        KeyStoreError: ``key.malformed`` for a key or nonce of another size.
    """
    return _cipher(key, nonce).encrypt(nonce, plaintext, associated)


def decrypt_aes_256_gcm(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """Undo `encrypt_aes_256_gcm`, or say that nothing here can be believed.

    Raises:
        KeyStoreError: ``key.malformed`` for a key or nonce of another size.
        SignatureInvalid: ``signature.tag``; no part of the plaintext is given out.
    """
    try:
        return _cipher(key, nonce).decrypt(nonce, ciphertext, associated)
    except InvalidTag:
        raise _wrong_tag() from None


def _cipher(key: bytes, nonce: bytes) -> AESGCM:
    if len(key) != AES_KEY_BYTES or len(nonce) != AES_NONCE_BYTES:
        raise KeyStoreError("key.malformed", "AES-256-GCM takes a key of 32 bytes and a nonce of 12.")
    return AESGCM(key)


def _wrong_tag() -> SignatureInvalid:
    return SignatureInvalid("signature.tag", "An authentication tag does not verify.")
