"""A key-encryption key inside a PKCS#11 token.

Rules this module keeps:

* The key is AES-256, made inside the token, sensitive and not extractable; one that could leave it, or was
  brought into it, is not used.
* Wrapping is CKM_AES_GCM with the context as associated data (PKCS#11 v2.40 section 2.11.4). The nonce comes
  from this machine's generator and stands before the ciphertext.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.core.errors import KeyStoreError
from cloister.core.keys.pkcs11 import OpenToken, never_left, open_token, unusable
from cloister.core.keys.secrets import Secret
from cloister.core.keys.store import check_name, exists, missing
from cloister.core.keys.wrapping import DOMAIN, require_data_key, wrong_wrapping
from cloister.core.symmetric import AES_KEY_BYTES, AES_NONCE_BYTES

if TYPE_CHECKING:
    from pkcs11 import SecretKey, Session

_TAG_BYTES: Final = 16
_WHOLE: Final = AES_NONCE_BYTES + AES_KEY_BYTES + _TAG_BYTES


class TokenWrappingKey:
    """A key-encryption key in a token, made by `create` and reached by `load`.

    Args:
        token: opened.
        place: the token's label.
        label: the key's own label in it.
        key: the handle of the key.
    """

    def __init__(self, token: OpenToken, place: str, label: str, key: SecretKey) -> None:
        self._token = token
        self._place = place
        self._label = label
        self._key = key

    @classmethod
    def create(
        cls, library: Path, token: str, pin: Secret, name: str, *, owner: str = ""
    ) -> TokenWrappingKey:
        """Make a new key inside the token.

        Args:
            library: the PKCS#11 module.
            token: the token's label.
            pin: answers the user's PIN.
            name: the key's name.
            owner: stands before its label, so that several parties can share a token.

        Raises:
            KeyStoreError: ``key.exists``, ``key.name``, ``key.hardware`` or ``key.pin``.
        """
        check_name(name)
        opened, label = open_token(str(library), token, pin), _label(owner, name)
        from pkcs11 import Attribute, KeyType

        with opened.use() as session:
            if _found(session, label):
                raise exists(name)
            session.generate_key(
                KeyType.AES,
                AES_KEY_BYTES * 8,
                id=hashlib.sha256(label.encode()).digest()[:16],
                label=label,
                store=True,
                template={
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                    Attribute.PRIVATE: True,
                    Attribute.WRAP: False,
                    Attribute.UNWRAP: False,
                },
            )
        return cls.load(library, token, pin, name, owner=owner)

    @classmethod
    def load(cls, library: Path, token: str, pin: Secret, name: str, *, owner: str = "") -> TokenWrappingKey:
        """The key of this name.

        Raises:
            KeyStoreError: ``key.missing``, ``key.name``, ``key.hardware``, ``key.pin``, or ``key.exportable``
                for a key that could leave the token.
        """
        check_name(name)
        opened, label = open_token(str(library), token, pin), _label(owner, name)
        with opened.use() as session:
            keys = _found(session, label)
            if not keys:
                raise missing(name)
            if len(keys) != 1:
                raise unusable(f"it holds more than one key named {name}")
            if not never_left(keys[0]):
                raise KeyStoreError(
                    "key.exportable",
                    f"The key {name} could be, or once was, outside of the token {token}.",
                    "Make a new one here; keys are made inside the token and stay there.",
                )
        return cls(opened, token, label, keys[0])

    @property
    def wrapping_id(self) -> str:
        """``token:``, the token's label and the key's."""
        return f"token:{self._place}:{self._label}"

    def wrap(self, key: bytes | bytearray, context: bytes) -> bytes:
        """Wrap a key: 12-byte nonce, ciphertext, 16-byte tag."""
        require_data_key(key)
        from pkcs11 import GCMParams, Mechanism

        nonce = secrets.token_bytes(AES_NONCE_BYTES)
        with self._token.use():
            sealed = self._key.encrypt(
                bytes(key),
                mechanism=Mechanism.AES_GCM,
                mechanism_param=GCMParams(nonce, DOMAIN + context, _TAG_BYTES * 8),
            )
        return nonce + bytes(sealed)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytearray:
        """Unwrap a key.

        Raises:
            KeyStoreError: ``key.wrapped``, also where the token says no more than that it failed.
        """
        if len(wrapped) != _WHOLE:
            raise wrong_wrapping()
        import pkcs11

        nonce = wrapped[:AES_NONCE_BYTES]
        with self._token.use():
            try:
                key = bytearray(
                    self._key.decrypt(
                        wrapped[AES_NONCE_BYTES:],
                        mechanism=pkcs11.Mechanism.AES_GCM,
                        mechanism_param=pkcs11.GCMParams(nonce, DOMAIN + context, _TAG_BYTES * 8),
                    )
                )
            except (pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange, pkcs11.GeneralError):
                raise wrong_wrapping() from None
        if len(key) != AES_KEY_BYTES:
            raise wrong_wrapping()
        return key

    def __repr__(self) -> str:
        return f"<key-encryption key {self.wrapping_id}>"


def _label(owner: str, name: str) -> str:
    return f"{owner}:kek:{name}" if owner else f"kek:{name}"


def _found(session: Session, label: str) -> list[SecretKey]:
    from pkcs11 import Attribute, ObjectClass

    return list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}))
