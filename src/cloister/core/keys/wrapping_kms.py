"""A key-encryption key inside AWS's key management service, by its Encrypt and Decrypt operations.

Rules this module keeps:

* The service's key never leaves it; what it wraps is bound to the context by the encryption context, which
  the service authenticates and its audit log shows, so that only a hash of the context stands there.
* The key is named when decrypting too: a ciphertext of another key isn't tried.
* No credential is taken or kept here: the client finds its own, as boto3 documents it.

boto3 is loaded when the first key is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol, cast

from cloister.core.errors import KeyStoreError
from cloister.core.hashes import sha256_hex
from cloister.core.keys.wrapping import DOMAIN, MAX_WRAPPED_BYTES, require_data_key, wrong_wrapping
from cloister.core.symmetric import AES_KEY_BYTES

_ARN: Final = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:key/[A-Za-z0-9-]+")
_CONTEXT: Final = "cloister-context-sha256"
_NOT_THIS_ONE: Final = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})


class KmsClient(Protocol):
    """The part of boto3's KMS client that is used."""

    def encrypt(
        self,
        *,
        KeyId: str,  # noqa: N803 - the service's own names
        Plaintext: bytes,  # noqa: N803
        EncryptionContext: Mapping[str, str],  # noqa: N803
    ) -> Mapping[str, object]:
        """Encrypt up to 4096 bytes."""
        ...

    def decrypt(
        self,
        *,
        KeyId: str,  # noqa: N803
        CiphertextBlob: bytes,  # noqa: N803
        EncryptionContext: Mapping[str, str],  # noqa: N803
    ) -> Mapping[str, object]:
        """Decrypt what `encrypt` gave."""
        ...


class KmsWrappingKey:
    """A symmetric key of the service.

    Args:
        client: boto3's KMS client, or one like it.
        key_id: the key's ARN.
    """

    def __init__(self, client: KmsClient, key_id: str) -> None:
        self._client = client
        self._key_id = key_id

    @classmethod
    def of_arn(cls, arn: str) -> KmsWrappingKey:
        """A key by its ARN, which names its region, with the credentials that boto3 finds.

        Raises:
            KeyStoreError: ``key.service`` without boto3, or for what is no key's ARN.
        """
        found = _ARN.fullmatch(arn)
        if found is None:
            raise KeyStoreError(
                "key.service",
                "This is no ARN of a KMS key.",
                "It looks like arn:aws:kms:eu-central-1:111122223333:key/1234abcd-...",
            )
        try:
            import boto3
        except ImportError:
            raise KeyStoreError(
                "key.service", "Keys in AWS KMS need boto3.", "Install cloister[kms]."
            ) from None
        return cls(cast(KmsClient, boto3.client("kms", region_name=found[1])), arn)

    @property
    def wrapping_id(self) -> str:
        """``kms:`` and the key's ARN."""
        return f"kms:{self._key_id}"

    def wrap(self, key: bytes | bytearray, context: bytes) -> bytes:
        """Wrap a key; the form is the service's own."""
        require_data_key(key)
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client.encrypt(
                KeyId=self._key_id, Plaintext=bytes(key), EncryptionContext=_context(context)
            )
        except (ClientError, BotoCoreError) as error:
            raise _refused(error) from None
        return _bytes(answer, "CiphertextBlob")

    def unwrap(self, wrapped: bytes, context: bytes) -> bytearray:
        """Unwrap a key."""
        if not 0 < len(wrapped) <= MAX_WRAPPED_BYTES:
            raise wrong_wrapping()
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client.decrypt(
                KeyId=self._key_id, CiphertextBlob=wrapped, EncryptionContext=_context(context)
            )
        except (ClientError, BotoCoreError) as error:
            raise _refused(error) from None
        key = bytearray(_bytes(answer, "Plaintext"))
        if len(key) != AES_KEY_BYTES:
            raise wrong_wrapping()
        return key


def _context(context: bytes) -> dict[str, str]:
    return {_CONTEXT: sha256_hex(DOMAIN + context)}


def _bytes(answer: Mapping[str, object], name: str) -> bytes:
    value = answer.get(name)
    if not isinstance(value, bytes):
        raise KeyStoreError("key.service", "The key management service answered without what was asked for.")
    return value


def _refused(error: Exception) -> KeyStoreError:
    answer = getattr(error, "response", {})
    code = answer.get("Error", {}).get("Code", "") if isinstance(answer, dict) else ""
    if code in _NOT_THIS_ONE:
        return wrong_wrapping()
    said = code if isinstance(code, str) and code.isalnum() else type(error).__name__
    return KeyStoreError(
        "key.service",
        f"The key management service can't be reached, or refuses ({said}).",
        "Check its key's policy, region and the credentials of this machine.",
    )
