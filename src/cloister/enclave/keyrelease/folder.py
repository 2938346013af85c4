"""A keeper's folder: its book of data keys, the key that signs release policies, and the key-encryption key.

Rules kept here:

* Where the settings name a PKCS#11 token, both keys are made in it; where they name a key in AWS KMS, or who
  makes a data key does, it is wrapped by that. Otherwise they are files below the folder, which only its
  owner may enter. Where settings change, new keys follow, and old ones open where they were wrapped.
* Sealed data never goes below the folder: a stolen copy of it has keys or data, not both.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from cloister.core.errors import KeyStoreError
from cloister.core.files import write_atomic
from cloister.core.keys import (
    KmsWrappingKey,
    PublicKey,
    Signer,
    WrappingKey,
    create_wrapping_key,
    load_wrapping_key,
    open_key_store,
    open_wrapping_key,
    wrapping_kind,
)
from cloister.core.keys.folder import private_folder
from cloister.core.keys.opening import KeySettings
from cloister.core.sealing import seal_file, wipe
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease.book import DataKeyBook
from cloister.enclave.keyrelease.data_keys import DataKey
from cloister.enclave.keyrelease.policy import KeyPurpose, ReleasePolicy, sign_release_policy

BOOK: Final = "keys.db"
PACKAGE_KEY_FILE: Final = "developer.pem"
_POLICY_KEY: Final = "policies"
_PACKAGE_KEY: Final = "packages"
_WRAPPING_KEY: Final = "data-keys"


class KeeperFolder:
    """What a keeper does with its folder; made on first use.

    Args:
        folder: where it is.
        settings: say where keys are kept.
        owner: whose keys they are; keeps apart keepers that share a token.

    Raises:
        KeyStoreError: ``key.permissions`` where others may enter the folder, ``key.settings``.
        StorageError: the folder or the book can't be made or read.
    """

    def __init__(self, folder: Path, settings: KeySettings, *, owner: str = "keeper") -> None:
        self._folder = private_folder(folder)
        self._settings = settings
        self._owner = owner
        path = folder / BOOK
        self._found = path.exists()
        if not self._found and any(self._kek.glob("[!.]*")):
            raise _book_is_lost()
        self._book = DataKeyBook.open(path) if self._found else DataKeyBook.create(path)

    @property
    def book(self) -> DataKeyBook:
        """Its data keys, policies and counts."""
        return self._book

    def signer(self) -> Signer:
        """The key whose signature under release policies counts; made on first use."""
        return self._signer(_POLICY_KEY)

    def package_signer(self) -> Signer:
        """The key with which a developer signs packages; made on first use."""
        return self._signer(_PACKAGE_KEY)

    def public_key_file(self, key: PublicKey) -> Path:
        """The file below the folder with a developer's public key, to be handed out; written anew each time.

        Raises:
            StorageError: it can't be written.
        """
        path = self._folder / PACKAGE_KEY_FILE
        write_atomic(path, key.pem.encode("ascii"), mode=0o644)
        return path

    def wrapping(self, wrapping_id: str) -> WrappingKey:
        """The key-encryption key that a data key was wrapped with.

        Raises:
            KeyStoreError: ``key.missing`` where it isn't at hand, or as its store says.
        """
        return open_wrapping_key(self._settings, self._kek, wrapping_id, _WRAPPING_KEY, owner=self._owner)

    def new_wrapping(self, kms_arn: str | None) -> WrappingKey:
        """The key-encryption key for a new data key.

        Args:
            kms_arn: ARN of a key in AWS KMS; None for what the settings choose.
        """
        if kms_arn is not None:
            return KmsWrappingKey.of_arn(kms_arn)
        kind = wrapping_kind(self._settings)
        used = [one.wrapping_id for one in self._book.all_keys() if one.wrapping_id.startswith(f"{kind}:")]
        if used and kind != "kms":
            return self.wrapping(used[-1])
        try:
            return create_wrapping_key(self._settings, self._kek, _WRAPPING_KEY, owner=self._owner)
        except KeyStoreError as error:
            if error.code != "key.exists":
                raise
            if not self._found:
                raise _book_is_lost() from None
        # The book was there before its key: whoever made both was stopped before the first thing was wrapped.
        return load_wrapping_key(self._settings, self._kek, _WRAPPING_KEY, owner=self._owner)

    def create_key(self, dataset: str, purpose: KeyPurpose, now: datetime, kms_arn: str | None) -> DataKey:
        """Make a data key."""
        return self._book.create_key(dataset, purpose, self.new_wrapping(kms_arn), now)

    def wrap_key(
        self, key: bytearray, dataset: str, purpose: KeyPurpose, now: datetime, kms_arn: str | None
    ) -> DataKey:
        """Take a data key into the book that is in use already; it is wiped."""
        try:
            return self._book.wrap_key(key, dataset, purpose, self.new_wrapping(kms_arn), now)
        finally:
            wipe(key)

    def allow(self, policy: ReleasePolicy, now: datetime) -> ReleasePolicy:
        """Sign a release policy and admit it."""
        signer = self.signer()
        return self._book.admit(sign_release_policy(policy, signer), signer.public_key, now)

    def seal(self, data_key: str, source: Path, target: Path) -> int:
        """Seal a file under a data key, as its dataset.

        Args:
            data_key: the key's id.
            source: the plain file.
            target: a name that is free, outside of the keeper's folder.

        Returns:
            Bytes of the plaintext.

        Raises:
            ReleaseError: ``release.unknown``, ``release.revoked``, or ``release.beside`` for a target below
                the folder.
        """
        found = self._book.key(data_key)
        if found.revoked_at is not None:
            raise ReleaseError("release.revoked", "The key was revoked.")
        self.require_apart(target)
        key = self.unwrap(found)
        try:
            return seal_file(source, target, key, context=found.dataset)
        finally:
            wipe(key)

    def package_key(self, dataset: str, purpose: KeyPurpose, now: datetime, kms_arn: str | None) -> DataKey:
        """Make the data key of a package; each version has one.

        Raises:
            ReleaseError: ``release.exists`` for a version that was sealed before.
        """
        if any(one.dataset == dataset for one in self._book.all_keys()):
            raise ReleaseError(
                "release.exists", "This version was sealed before.", "Give the package another version."
            )
        return self.create_key(dataset, purpose, now, kms_arn)

    def unwrap(self, key: DataKey) -> bytearray:
        """A data key itself, in a buffer that the caller wipes."""
        return self._book.unwrap(key, self.wrapping(key.wrapping_id))

    def require_apart(self, target: Path) -> None:
        """Refuse a place for sealed data that is beside its keys.

        Raises:
            ReleaseError: ``release.beside``.
        """
        if target.resolve().is_relative_to(self._folder.resolve()):
            raise ReleaseError(
                "release.beside", "Sealed data isn't kept beside its keys.", "Name another folder."
            )

    def _signer(self, name: str) -> Signer:
        store = open_key_store(self._settings, self._folder / "keys", owner=self._owner)
        return store.load(name) if name in store.names() else store.generate(name)

    @property
    def _kek(self) -> Path:
        return self._folder / "kek"


def _book_is_lost() -> KeyStoreError:
    return KeyStoreError(
        "key.exists",
        "A key-encryption key is there, and no book of what it wrapped.",
        f"Bring {BOOK} back, or move that key away.",
    )
