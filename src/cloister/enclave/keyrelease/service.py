"""The keeper of data keys: a hospital's service that releases them to attested enclaves.

Background-check model (RFC 9334 section 5.2): the keeper verifies the evidence itself.

Rules kept here, in their order:

1. A challenge is 32 random bytes for one policy, answered once, within a minute. Of one policy's, 256 are
   open at most; who asks for more, or under a policy that isn't in the book, gets bytes of which nothing is
   kept. So a flood of asks takes up a bounded place, and hinders nobody but who asks under the same policy,
   for a minute.
2. The policy is verified under its owner's key at every release, and must hold now.
3. The evidence must be genuine, acceptable to the policy, and have sealed in the challenge, the enclave's
   public key, the scope, the policy and what holds the worker, for a key release and nothing else. What
   holds the worker has to be a level of the policy's.
4. A simulated enclave gets keys of test data only, and only if the policy says so too. An insecure worker has
   no evidence, and gets nothing.
5. The key is unwrapped and sealed first: a store of keys that fails costs no release. Then the release is
   stated in the keeper's log and counted, in one transaction, and only then does the answer leave. What fails
   before the statement costs no release; what was stated counts, whether or not the answer left.
6. Who is refused hears one answer, whatever the reason. The precise code is in the keeper's log: as a
   statement where the request names a policy of the book, else as a log line. Of many refusals for the same
   reason the log has few, and their number.
7. Nothing a peer sends raises, nor does what fails here, such as a store of keys or a call that was stopped:
   that is a refusal as ``release.failed``, and of it only the kind is told, in the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cloister.core.clock import Clock, format_time
from cloister.core.errors import CloisterError
from cloister.core.hashes import Sha256, sha256_hex
from cloister.core.keys import PublicKey
from cloister.core.logging import get_logger
from cloister.core.sealing import wipe
from cloister.enclave.attestation.binding import NONCE_BYTES
from cloister.enclave.attestation.challenge import NonceBook
from cloister.enclave.attestation.trimming import evidence_sha256, trimmed
from cloister.enclave.attestation.verdict import Verdict
from cloister.enclave.attestation.verifier import Verifier
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease.book import (
    AdmittedPolicy,
    DataKeyBook,
    Release,
    revoked,
    simulated_for_records,
)
from cloister.enclave.keyrelease.data_keys import DataKey
from cloister.enclave.keyrelease.hpke import enclave_key_id, seal_to, sealing_info
from cloister.enclave.keyrelease.messages import REFUSAL, Ask, Challenge, Reply, Request
from cloister.enclave.keyrelease.policy import KeyPurpose, ReleasePolicy, open_release_policy
from cloister.enclave.keyrelease.refusals import RefusalCounts, is_said
from cloister.enclave.keyrelease.stated import StatedReleases
from cloister.enclave.sealed.claims import SealPolicy
from cloister.evidence.log import LogReader
from cloister.evidence.predicates import KeyRelease
from cloister.evidence.statement import Subject
from cloister.evidence.writer import StatementSink

_FAILED: Final = "release.failed"
Unwrap = Callable[[DataKey], bytearray]
"""Takes a key as the book has it; answers with the key itself, in a buffer that the caller wipes."""


class ReleaseLog(StatementSink, Protocol):
    """Where statements go and are found again; `cloister.evidence.writer.StatementWriter` is one."""

    @property
    def log(self) -> LogReader:
        """The log that they go into."""
        ...


@dataclass
class _Judged:
    """How far a request came; what its statement says."""

    request: Request
    admitted: AdmittedPolicy
    policy: ReleasePolicy
    verdict: Verdict | None = None
    key: DataKey | None = None


class ReleaseService:
    """Answers asks and requests as bytes; safe to share between threads.

    Args:
        verifier: with the roots and the collateral that the keeper trusts.
        book: its wrapped keys, policies and counts.
        unwrap: opens a key of the book by the key-encryption key that it was wrapped with.
        owner: the key whose signature under policies counts.
        log: its own log.
        clock: the time.
    """

    def __init__(
        self,
        *,
        verifier: Verifier,
        book: DataKeyBook,
        unwrap: Unwrap,
        owner: PublicKey,
        log: ReleaseLog,
        clock: Clock,
    ) -> None:
        self._verifier = verifier
        self._book = book
        self._unwrap = unwrap
        self._owner = owner
        self._log = log
        self._clock = clock
        self._nonces = NonceBook(clock)
        self._stated = StatedReleases(log.log)
        self._refusals = RefusalCounts()

    def challenge(self, ask: bytes) -> bytes:
        """Answer an ask with a challenge; whether its policy exists isn't told.

        Args:
            ask: at most 4 KiB.

        Returns:
            A challenge, or the refusal of what is no ask.
        """
        try:
            asked = Ask.decode(ask)
        except Exception as error:
            self._noted(error)
            return REFUSAL
        try:
            admitted, _ = self._policy(asked)
            return Challenge(self._nonces.issue(admitted.policy_id)).encode()
        except Exception as error:
            self._noted(error)
            return Challenge(os.urandom(NONCE_BYTES)).encode()

    def release(self, request: bytes) -> bytes:
        """Answer a request with the sealed key, or the one refusal.

        Args:
            request: at most 1 MiB and a little.
        """
        try:
            asked = Request.decode(request)
            admitted, policy = self._policy(asked.ask)
        except Exception as error:
            self._noted(error)
            return REFUSAL
        judged = _Judged(asked, admitted, policy)
        try:
            return self._released(judged)
        except Exception as error:
            self._state_refusal(judged, self._noted(error))
            return REFUSAL

    def _policy(self, ask: Ask) -> tuple[AdmittedPolicy, ReleasePolicy]:
        """The policy as its owner signed it: the book is believed no more than the peer."""
        admitted = self._book.policy(ask.policy_id)
        policy = open_release_policy(admitted.envelope, self._owner)
        if policy.sha256 != ask.policy_id:
            raise ReleaseError("release.book", "The book has a policy under another's name.")
        return admitted, policy

    def _released(self, judged: _Judged) -> bytes:
        asked, admitted, policy, now = judged.request, judged.admitted, judged.policy, self._clock()
        self._nonces.redeem(asked.nonce, admitted.policy_id)
        policy.require_in_time(now)
        if asked.ask.scope != policy.scope:
            raise ReleaseError("release.scope", "The key is released for another job or study.")
        key = judged.key = self._book.key(policy.data_key)
        if key.revoked_at is not None or admitted.revoked_at is not None:
            raise revoked()
        judged.verdict = self._verifier.verify(
            asked.evidence, expected=asked.binding, policy=policy.appraisal
        )
        judged.verdict.require()
        _require_platform(policy, key, judged.verdict)
        SealPolicy(policy.seal_levels).require(asked.seal)
        reply = self._sealed(asked, policy, key)
        release = Release(policy, asked.nonce, enclave_key_id(asked.public), trimmed(asked.evidence).encode())
        with self._book.counting(release, self._stated.under(admitted.policy_id), now) as number:
            self._state(judged, outcome="released", code=None, number=number, refusals=admitted.refused)
        return reply

    def _sealed(self, asked: Request, policy: ReleasePolicy, key: DataKey) -> bytes:
        data_key = self._unwrap(key)
        try:
            info = sealing_info(asked.binding, policy.data_key, policy.dataset)
            sealed = seal_to(asked.public, data_key, info)
        finally:
            wipe(data_key)
        return Reply(policy.data_key, policy.dataset, sealed).encode()

    def _state(self, judged: _Judged, **judgement: object) -> None:
        asked, policy, verdict = judged.request, judged.policy, judged.verdict
        policy_id = judged.admitted.policy_id
        claims = verdict.claims if verdict is not None else None
        self._log.write(
            KeyRelease,
            (Subject(f"release-policy/{policy.dataset}", Sha256(policy_id)),),
            **judgement,
            policy_sha256=policy_id,
            data_key=policy.data_key,
            purpose=judged.key.purpose.value if judged.key is not None else None,
            dataset=policy.dataset,
            scope=asked.ask.scope,
            limit=policy.releases,
            enclave_key=enclave_key_id(asked.public),
            seal_sha256=asked.seal.sha256,
            nonce_sha256=sha256_hex(asked.nonce),
            evidence_sha256=evidence_sha256(asked.evidence),
            collateral=[one.sha256 for one in claims.collateral] if claims is not None else [],
            attested=_attested(verdict),
            checks=_checks(verdict),
            evaluated_at=format_time(verdict.evaluated_at if verdict is not None else self._clock()),
        )

    def _state_refusal(self, judged: _Judged, code: str) -> None:
        try:
            refusals = self._book.refused(judged.admitted.policy_id, code)
            if is_said(refusals):
                self._state(judged, outcome="refused", code=code, number=0, refusals=refusals)
        except Exception as failure:
            self._noted(failure)

    def _noted(self, error: Exception) -> str:
        """Log a refusal; the code that stands for it."""
        code = error.code if isinstance(error, CloisterError) else _FAILED
        count = self._refusals.add(code)
        if is_said(count):
            get_logger("enclave").warning("key-release.refused", code=code, error=error, refusals=count)
        return code


def _require_platform(policy: ReleasePolicy, key: DataKey, verdict: Verdict) -> None:
    if verdict.evidence.tee not in policy.tees:
        raise ReleaseError("release.tee", "The policy doesn't name this kind of hardware.")
    if verdict.simulated and not (policy.allows_simulated and key.purpose is KeyPurpose.TEST_DATA):
        raise simulated_for_records()


def _attested(verdict: Verdict | None) -> dict[str, object] | None:
    if verdict is None or verdict.claims is None:
        return None
    return {
        "platform": verdict.hardware_type,
        "simulated": verdict.simulated,
        "measurement": verdict.measurement,
        "tcb_status": verdict.tcb_status.value,
        "advisories": [*verdict.advisories],
    }


def _checks(verdict: Verdict | None) -> list[dict[str, str]]:
    made = verdict.checks if verdict is not None else ()
    return [{"name": one.name, "outcome": one.outcome.value, "detail": one.detail} for one in made]
