"""The port behind which private keys are kept, and a store in memory.

Rules this module keeps:

* Private keys leave a store only as a `Signer`, which signs and shows its public key, and nothing else.
* A name is given once: no store overwrites a key.
"""

from __future__ import annotations

import re
from typing import Final, Protocol, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from cloister.core.errors import KeyStoreError
from cloister.core.keys.public import ECDSA_P256, ECDSA_P384, ED25519, PublicKey, malformed

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PrivateKey: TypeAlias = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


class Signer(Protocol):
    """A private key that can sign and cannot be looked at."""

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Sign a message: 64 bytes for Ed25519, DER for ECDSA, as `PublicKey.verify` takes them."""
        ...


class KeyStore(Protocol):
    """Where private keys live: a folder, memory, a hardware module."""

    def generate(self, name: str, algorithm: str = ED25519) -> Signer:
        """Make a new key; a taken name is refused with ``key.exists``, an unknown algorithm with
        ``key.algorithm``."""
        ...

    def load(self, name: str) -> Signer:
        """The key of this name; ``key.missing`` where there is none."""
        ...

    def names(self) -> tuple[str, ...]:
        """The names of all keys, sorted."""
        ...


class MemorySigner:
    """A private key held in this process's memory."""

    __slots__ = ("_private", "_public")

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self._public = PublicKey.of(private.public_key())

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Sign a message."""
        if isinstance(self._private, Ed25519PrivateKey):
            return self._private.sign(message)
        digest = hashes.SHA256() if self._public.algorithm == ECDSA_P256 else hashes.SHA384()
        return self._private.sign(message, ec.ECDSA(digest))

    def __repr__(self) -> str:
        return f"<signer {self._public.key_id}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signer is never copied out of its process")


class EphemeralKeyStore:
    """Keys in memory only, gone with the process: for simulations and tests."""

    def __init__(self) -> None:
        self._signers: dict[str, Signer] = {}

    def generate(self, name: str, algorithm: str = ED25519) -> Signer:
        """Make a new key.

        Raises:
            KeyStoreError: ``key.exists``, ``key.name`` or ``key.algorithm``.
        """
        check_name(name)
        if name in self._signers:
            raise exists(name)
        signer = MemorySigner(new_private_key(algorithm))
        self._signers[name] = signer
        return signer

    def load(self, name: str) -> Signer:
        """The key of this name.

        Raises:
            KeyStoreError: ``key.missing`` or ``key.name``.
        """
        check_name(name)
        try:
            return self._signers[name]
        except KeyError:
            raise missing(name) from None

    def names(self) -> tuple[str, ...]:
        """The names of all keys, sorted."""
        return tuple(sorted(self._signers))


def new_private_key(algorithm: str) -> PrivateKey:
    """Make a private key from the operating system's entropy.

    Raises:
        KeyStoreError: ``key.algorithm``.
    """
    if algorithm == ED25519:
        return Ed25519PrivateKey.generate()
    if algorithm == ECDSA_P256:
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == ECDSA_P384:
        return ec.generate_private_key(ec.SECP384R1())
    raise unknown_algorithm()


def private_key_of(loaded: PrivateKeyTypes) -> PrivateKey:
    """Take over a private key that the cryptography library has read.

    Raises:
        KeyStoreError: ``key.malformed`` for a key that this program doesn't use.
    """
    if not isinstance(loaded, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise malformed("private")
    PublicKey.of(loaded.public_key())
    return loaded


def check_name(name: str) -> None:
    """Refuse a name that could be a path, or that no store could keep.

    Raises:
        KeyStoreError: ``key.name``.
    """
    if not NAME.fullmatch(name):
        raise KeyStoreError(
            "key.name",
            "A key's name has characters that are not allowed.",
            "Use up to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
        )


def missing(name: str) -> KeyStoreError:
    """The refusal of a name that nothing has."""
    return KeyStoreError("key.missing", f"There is no key named {name}.", "Generate it first.")


def exists(name: str) -> KeyStoreError:
    """The refusal of a name that is taken."""
    return KeyStoreError("key.exists", f"A key named {name} exists already and is kept.", "Use another name.")


def unknown_algorithm() -> KeyStoreError:
    """The refusal of an algorithm that this store doesn't make keys for."""
    return KeyStoreError(
        "key.algorithm",
        "This store makes no keys for that algorithm.",
        f"Use {ED25519}, {ECDSA_P256} or, outside hardware, {ECDSA_P384}.",
    )
