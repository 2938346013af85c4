"""Keys: what a party is known by, and the stores that keep the private half."""

from __future__ import annotations

from cloister.core.keys.files import FileKeyStore
from cloister.core.keys.opening import open_key_store
from cloister.core.keys.pkcs11 import Pkcs11KeyStore
from cloister.core.keys.public import ALGORITHMS, ECDSA_P256, ECDSA_P384, ED25519, PublicKey
from cloister.core.keys.secrets import Secret, secret_file
from cloister.core.keys.store import EphemeralKeyStore, KeyStore, Signer

__all__ = [
    "ALGORITHMS",
    "ECDSA_P256",
    "ECDSA_P384",
    "ED25519",
    "EphemeralKeyStore",
    "FileKeyStore",
    "KeyStore",
    "Pkcs11KeyStore",
    "PublicKey",
    "Secret",
    "Signer",
    "open_key_store",
    "secret_file",
]
