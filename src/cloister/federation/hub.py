"""The hub's node: whom it admits, what it averages, and what it states about both.

Rules:
- a site is admitted on evidence that answers this hub's own single-use nonce, bound to the site's key, this
  job and the appraisal policy; the raw evidence and the whole verdict are stated, a refusal as well as an
  admission;
- the weight of a site is its public number of records, from what the hospitals signed, never from a message;
- a site's update is used only if the site's log is proven to continue what the hub has seen of it; what the
  hub holds of each log is stated with the round;
- every averaged round is stated with the hashes of what went in, by which share, and of the model before and
  after;
- a site that takes no part in a round is named in that round's statement, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from cloister.core.errors import CloisterError
from cloister.core.hashes import Sha256
from cloister.enclave.attestation import (
    AppraisalPolicy,
    Binding,
    CheckOutcome,
    Evidence,
    NonceBook,
    Status,
    Verdict,
    Verifier,
    verdict_fields,
)
from cloister.enclave.errors import AttestationError
from cloister.enclave.tensors import tensors_sha256
from cloister.evidence.checks import escaped
from cloister.evidence.predicates import AttestationVerdict, RoundAggregated, Violation
from cloister.evidence.statement import Subject
from cloister.evidence.writer import StatementWriter
from cloister.federation.exchange import HubLogs
from cloister.federation.job import FederationJob
from cloister.federation.node import Admission, AggregatedRound, Challenge, SiteFailure, Weights
from cloister.privacy.models import build_model, state_arrays

Evaluate = Callable[[Weights], Mapping[str, float]]
"""Measures global weights on named public data; gives metrics by name."""


def initial_weights(job: FederationJob, features: int, classes: int) -> Weights:
    """The weights a job starts from: they depend on the job's model and public seed alone."""
    parameters = job.model.model_dump(mode="json")["parameters"]
    return state_arrays(build_model(job.model.architecture, features, classes, job.seed, parameters))


class HubRuntime:
    """The `HubNode` of one job.

    Args:
        job: the job.
        start: global weights to start from, see `initial_weights`.
        statements: the writer of the hub's statements in this job.
        verifier: judges the sites' evidence.
        nonces: the hub's book of nonces.
        policy: what evidence is acceptable.
        site_key_ids: key id of each site's pinned public key.
        records: number of records of each site, as the hospitals signed it.
        logs: shows the sites the hub's log, and takes what they show of theirs.
        evaluate: measures the weights after each round.
    """

    def __init__(
        self,
        job: FederationJob,
        start: Weights,
        *,
        statements: StatementWriter,
        verifier: Verifier,
        nonces: NonceBook,
        policy: AppraisalPolicy,
        site_key_ids: Mapping[str, str],
        records: Mapping[str, int],
        logs: HubLogs,
        evaluate: Evaluate,
    ) -> None:
        self._job = job
        self._weights = start
        self._statements = statements
        self._verifier = verifier
        self._nonces = nonces
        self._policy = policy
        self._site_key_ids = dict(site_key_ids)
        self._records = dict(records)
        self._logs = logs
        self._evaluate = evaluate
        self._absent: dict[str, str] = {}
        self.verdicts: dict[str, Verdict] = {}

    @property
    def weights(self) -> Weights:
        """The newest global weights."""
        return self._weights

    def initial_weights(self) -> Weights:
        """The global weights to start from."""
        return self._weights

    def challenge(self, site: str) -> Challenge:
        """A fresh nonce for a site, with the job and the policy its answer must be bound to."""
        return Challenge(self._nonces.issue(site), self._job.job_id, self._policy.sha256)

    def admit(self, site: str, challenge: Challenge, evidence: bytes | None) -> Admission:
        """Judges a site's answer and states the verdict."""
        try:
            self._nonces.redeem(challenge.nonce, site)
            if evidence is None:
                raise _no_evidence()
            answer = Evidence.decode(evidence)
        except AttestationError as error:
            return self._refuse(site, error.code, error.message)
        binding = Binding(challenge.nonce, self._site_key_ids[site], self._job.job_id, self._policy.sha256)
        verdict = self._verifier.verify(answer, expected=binding, policy=self._policy)
        self.verdicts[site] = verdict
        if verdict.claims is None:
            failed = "; ".join(
                check.detail for check in verdict.checks if check.outcome is CheckOutcome.FAILED
            )
            return self._refuse(site, verdict.code or "attestation.malformed", failed)
        self._state_verdict(site, binding, verdict)
        if verdict.status is Status.TRUSTED:
            return Admission(site, admitted=True)
        reason = verdict.code or "attestation.malformed"
        self._absent[site] = reason
        return Admission(site, admitted=False, reason=reason)

    def site_weight(self, site: str) -> float:
        """The site's number of records."""
        return float(self._records[site])

    def site_has_seen(self, site: str, size: int) -> None:
        """Takes note; a site that claims more than there is gets no proof, and refuses by itself."""
        self._logs.site_has_seen(site, size)

    def round_started(self, round_number: int, sites: tuple[str, ...]) -> bytes:
        """What the hub shows of its log; the round itself is stated when it was averaged."""
        return self._logs.show(sites)

    def site_answered(self, site: str, site_log: bytes) -> None:
        """Verifies and keeps what the site shows of its log."""
        self._logs.take(site, site_log)

    def site_failed(self, failure: SiteFailure) -> None:
        """States that a site is out."""
        self._absent[failure.site] = f"{failure.code} in round {failure.round}"
        self._state_violation(failure.code, f"{failure.site} left the job in round {failure.round}")

    def failed(self, error: CloisterError) -> None:
        """States why the job cannot go on."""
        self._state_violation(error.code, error.message)

    def aggregated(self, result: AggregatedRound) -> Mapping[str, float]:
        """States the round, keeps its weights and measures them."""
        self._logs.state(result.round, sorted(result.updates))
        total = math.fsum(result.weights.values())
        after = tensors_sha256(result.after)
        self._statements.write(
            RoundAggregated,
            [Subject(f"weights/{result.round}", Sha256(after))],
            round=result.round,
            strategy=self._job.strategy.value,
            updates={site: result.updates[site].sha256 for site in sorted(result.updates)},
            weights={site: result.weights[site] / total for site in sorted(result.weights)},
            absent={
                site: self._absent.get(site, "no answer")
                for site in sorted(set(self._job.clients) - set(result.updates))
            },
            model_sha256_before=tensors_sha256(result.before),
            model_sha256_after=after,
        )
        self._weights = result.after
        return self._evaluate(result.after)

    def _refuse(self, site: str, code: str, detail: str) -> Admission:
        self._absent[site] = code
        self._state_violation(code, f"{site}: {detail}")
        return Admission(site, admitted=False, reason=code)

    def _state_verdict(self, site: str, binding: Binding, verdict: Verdict) -> None:
        self._statements.write(
            AttestationVerdict,
            [Subject(f"site/{site}", Sha256(self._site_key_ids[site].removeprefix("sha256:")))],
            **verdict_fields(site, verdict, binding, self._policy),
        )

    def _state_violation(self, rule: str, detail: str) -> None:
        self._statements.write(
            Violation,
            [Subject(f"job {self._job.job_id}", Sha256(self._job.sha256))],
            rule=rule,
            detail=escaped(detail)[:500],
            artifact_sha256=None,
        )


def _no_evidence() -> AttestationError:
    return AttestationError("attestation.malformed", "the site gave no evidence")
