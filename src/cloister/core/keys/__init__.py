"""Keys: what a party is known by, and the stores that keep the private half."""

from __future__ import annotations

from cloister.core.keys.files import FileKeyStore
from cloister.core.keys.opening import (
    create_wrapping_key,
    load_wrapping_key,
    open_key_store,
    open_wrapping_key,
    wrapping_kind,
)
from cloister.core.keys.pkcs11 import Pkcs11KeyStore
from cloister.core.keys.public import ALGORITHMS, ECDSA_P256, ECDSA_P384, ED25519, PublicKey
from cloister.core.keys.secrets import Secret, secret_file
from cloister.core.keys.store import EphemeralKeyStore, KeyStore, Signer
from cloister.core.keys.wrapping import FileWrappingKey, WrappingKey
from cloister.core.keys.wrapping_kms import KmsWrappingKey
from cloister.core.keys.wrapping_token import TokenWrappingKey

__all__ = [
    "ALGORITHMS",
    "ECDSA_P256",
    "ECDSA_P384",
    "ED25519",
    "EphemeralKeyStore",
    "FileKeyStore",
    "FileWrappingKey",
    "KeyStore",
    "KmsWrappingKey",
    "Pkcs11KeyStore",
    "PublicKey",
    "Secret",
    "Signer",
    "TokenWrappingKey",
    "WrappingKey",
    "create_wrapping_key",
    "load_wrapping_key",
    "open_key_store",
    "open_wrapping_key",
    "secret_file",
    "wrapping_kind",
]
