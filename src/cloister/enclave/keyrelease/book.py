"""The book of a keeper: its data keys, the signed policies, and what was released and refused under them.

Rules kept here:

* A release is counted in one transaction with its statement in the keeper's log: what fails before it is
  stated counts nothing, and what is stated counts, whether or not the book got to know.
* Count, revocations and nonce are looked at in that same transaction. An older copy of the book, put back,
  counts what the log states.
* Refusals are counted, so that not each of them needs a statement.
* Nothing in the book is deleted or overwritten; a revocation is a time that is set once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cloister.core.clock import format_time
from cloister.core.hashes import Sha256, sha256_hex
from cloister.core.interrupts import interruptible
from cloister.core.keys import PublicKey
from cloister.core.logging import get_logger
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease.book_file import unknown
from cloister.enclave.keyrelease.data_keys import KeyShelf
from cloister.enclave.keyrelease.policy import KeyPurpose, ReleasePolicy, open_release_policy
from cloister.evidence.envelope import Envelope, decode_envelope

_POLICIES: Final = (
    "SELECT policy_id, data_key, envelope, admitted_at, revoked_at,"
    " (SELECT coalesce(max(number), 0) FROM releases WHERE releases.policy_id = policies.policy_id),"
    " (SELECT coalesce(sum(made), 0) FROM refusals WHERE refusals.policy_id = policies.policy_id)"
    " FROM policies WHERE ? IS NULL OR policy_id = ? ORDER BY admitted_at, rowid"
)
_REVOKE_POLICY: Final = "UPDATE policies SET revoked_at = coalesce(revoked_at, ?) WHERE policy_id = ?"
_LIVE: Final = (
    "SELECT policies.revoked_at IS NULL AND keys.revoked_at IS NULL FROM policies"
    " JOIN keys USING (data_key) WHERE policy_id = ?"
)
_REFUSED: Final = (
    "INSERT INTO refusals VALUES (?, ?, 1) ON CONFLICT (policy_id, code) DO UPDATE SET made = made + 1"
    " RETURNING made"
)


@dataclass(frozen=True)
class Release:
    """A release that is about to be made.

    Attributes:
        policy: as its owner signed it.
        nonce: the challenge that was answered; counts once, whatever happens to who issued it.
        enclave_key: id of the key that the answer is sealed to.
        evidence: the raw evidence, kept beside the count.
    """

    policy: ReleasePolicy
    nonce: bytes
    enclave_key: str
    evidence: bytes


@dataclass(frozen=True)
class AdmittedPolicy:
    """A policy as the book has it.

    Attributes:
        policy_id: SHA-256 of what was signed.
        data_key: the key it is for.
        envelope: as the owner signed it.
        admitted_at: when it came into the book.
        revoked_at: when it was revoked; None where it wasn't.
        released: how many releases the book knows of; the keeper's log may know of more.
        refused: how many requests were refused.
    """

    policy_id: str
    data_key: str
    envelope: Envelope
    admitted_at: str
    revoked_at: str | None
    released: int
    refused: int


class DataKeyBook(KeyShelf):
    """A keeper's book."""

    def admit(self, envelope: Envelope, owner: PublicKey, now: datetime) -> ReleasePolicy:
        """Take a policy into the book; from now on it may be asked under.

        Args:
            envelope: as its owner signed it.
            owner: the key whose word counts for this book.
            now: the time.

        Raises:
            ReleaseError: ``release.policy``, ``release.unknown`` where its key isn't in the book,
                ``release.test_data`` where it lets a simulated enclave have a key that isn't of test data,
                ``release.exists``.
            StorageError: it isn't in the book.
        """
        policy = open_release_policy(envelope, owner)
        key = self.key(policy.data_key)
        if key.dataset != policy.dataset:
            raise ReleaseError("release.policy", "The policy names another dataset than its key opens.")
        if policy.allows_simulated and key.purpose is not KeyPurpose.TEST_DATA:
            raise simulated_for_records()
        with self._writing() as connection:
            taken = connection.exec_driver_sql(
                "INSERT OR IGNORE INTO policies VALUES (?, ?, ?, ?, NULL)",
                (policy.sha256, policy.data_key, envelope.encode(), format_time(now)),
            ).rowcount
        if not taken:
            raise ReleaseError("release.exists", "This very policy is in the book already.")
        return policy

    def policy(self, policy_id: str) -> AdmittedPolicy:
        """A policy by its id.

        Raises:
            ReleaseError: ``release.unknown``.
        """
        return next(iter(self._policies(policy_id)), None) or unknown("policy")

    def all_policies(self) -> tuple[AdmittedPolicy, ...]:
        """All policies, oldest first."""
        return self._policies(None)

    @interruptible
    def counting(self, release: Release, stated: Collection[Sha256], now: datetime) -> Iterator[int]:
        """Count one release, if the block ends well, in which it has to be stated; on disk after that.

        Nothing is counted where the block raises. Where the process ends after the statement and before the
        count is on disk, the log has it, and the next count begins there.

        Args:
            release: what is released to whom.
            stated: SHA-256 of the challenges of the releases under this policy that the keeper's log states.
            now: the time.

        Yields:
            Which release it is, from 1.

        Raises:
            ReleaseError: ``release.count``, ``release.revoked`` or ``release.unknown``; nothing was counted.
            StorageError: nothing was counted, or nobody knows (``storage.uncertain``): release nothing.
        """
        policy, policy_id = release.policy, release.policy.sha256
        with self._writing() as connection:
            live = connection.exec_driver_sql(_LIVE, (policy_id,)).scalar_one_or_none()
            if live is None:
                unknown("policy")
            if not live:
                raise revoked()
            counted = connection.exec_driver_sql(
                "SELECT coalesce(max(number), 0) FROM releases WHERE policy_id = ?", (policy_id,)
            ).scalar_one()
            if len(stated) > counted:
                get_logger("enclave").warning("key-release.book-is-older", missing=len(stated) - counted)
            number = max(int(counted), len(stated)) + 1
            if number > policy.releases:
                raise ReleaseError("release.count", f"All {policy.releases} releases were made.")
            taken = connection.exec_driver_sql(
                "INSERT OR IGNORE INTO releases VALUES (?, ?, ?, ?, ?, ?)",
                (
                    policy_id,
                    number,
                    release.nonce,
                    release.enclave_key,
                    release.evidence,
                    format_time(now),
                ),
            ).rowcount
            if not taken or sha256_hex(release.nonce) in stated:
                raise ReleaseError("release.count", "This challenge was counted before.")
            yield number

    def refused(self, policy_id: str, code: str) -> int:
        """Count one refusal; on disk when this returns.

        Args:
            policy_id: the policy that was asked under.
            code: why.

        Returns:
            How many refusals with this code there were under the policy, with this one.

        Raises:
            StorageError: it isn't counted.
        """
        with self._writing() as connection:
            made = connection.exec_driver_sql(_REFUSED, (policy_id, code)).scalar_one()
        return int(made)

    def evidence(self, policy_id: str, number: int) -> bytes:
        """The raw evidence that a release was counted with.

        Raises:
            ReleaseError: ``release.unknown``.
        """
        with self._reading() as connection:
            found = connection.exec_driver_sql(
                "SELECT evidence FROM releases WHERE policy_id = ? AND number = ?", (policy_id, number)
            ).scalar_one_or_none()
        return bytes(found) if found is not None else unknown("release")

    def revoke_policy(self, policy_id: str, now: datetime) -> None:
        """No further release under this policy; a second time changes nothing.

        Raises:
            ReleaseError: ``release.unknown``.
        """
        self._revoke(_REVOKE_POLICY, format_time(now), policy_id)

    def _policies(self, policy_id: str | None) -> tuple[AdmittedPolicy, ...]:
        with self._reading() as connection:
            rows = connection.exec_driver_sql(_POLICIES, (policy_id, policy_id)).all()
        return tuple(AdmittedPolicy(row[0], row[1], decode_envelope(row[2]), *row[3:]) for row in rows)


def simulated_for_records() -> ReleaseError:
    """The refusal to give a simulated enclave what isn't test data."""
    return ReleaseError(
        "release.test_data",
        "Simulated enclaves get keys of test data only.",
        "Run on hardware that attests itself, or make a key of purpose test-data for made-up records.",
    )


def revoked() -> ReleaseError:
    """The refusal of a key or policy that was revoked."""
    return ReleaseError("release.revoked", "The key or the policy was revoked.")
