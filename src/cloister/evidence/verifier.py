"""The verifier: it decides, from a receipt, pinned keys and a model file's hash, whether to accept.

Rules kept here:

1. Pure: no file, no network, no clock, no database. What isn't in the receipt or pinned isn't looked up.
2. It always answers. A receipt that can't be read gets a verdict with the check that failed; the checks
   behind it are not run, and that counts as failed. A check that breaks counts as not run.
3. Every check is made, so that a verdict names all that is wrong and not only the first thing. But what
   takes long is computed only from what its parties signed: nobody without a key can keep a verifier busy.
4. A verdict is recomputed from statements; nothing the issuer concludes is taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from cloister.core.errors import CloisterError
from cloister.evidence.checks import (
    DEMANDED_CHECKS,
    PLUGGED_CHECKS,
    Check,
    Checked,
    CheckRegistry,
    Outcome,
    failed,
    judged,
    not_run,
    passed,
)
from cloister.evidence.context import ModelArtifact, ReceiptContext, model_artifact
from cloister.evidence.errors import TrustError
from cloister.evidence.pki.chains import read_chain
from cloister.evidence.predicates import MOCK, SEEDED_TEST, AttestationVerdict, BudgetSpend
from cloister.evidence.receipt import (
    RECEIPT_SCHEMA,
    ReceiptBody,
    parse_receipt,
    receipt_from_json,
    record_of,
    signed_part,
)
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.evidence.trust import Trust
from cloister.evidence.verification.acceptance import TestRandomness, TimestampRule, VerificationPolicy
from cloister.evidence.verification.airlock import check_airlock
from cloister.evidence.verification.destruction import check_destruction
from cloister.evidence.verification.documents import check_manifests, check_request
from cloister.evidence.verification.exchange import check_log_consistency, check_witnesses
from cloister.evidence.verification.logs import (
    check_checkpoint_signatures,
    check_log_inclusion,
    check_receipt_signature,
    check_statement_chain,
    check_statement_order,
    check_statement_signatures,
    check_statements_complete,
    check_trust,
)
from cloister.evidence.verification.outcome import (
    check_compliance,
    check_evaluation,
    check_model_hash,
    check_summary,
)
from cloister.evidence.verification.timestamps import check_timestamp
from cloister.evidence.verification.training import (
    check_aggregation,
    check_budget_ledger,
    check_data,
    check_epsilon,
)

__all__ = [
    "CHECK_IDS",
    "ModelArtifact",
    "TestRandomness",
    "TimestampRule",
    "Verdict",
    "VerificationPolicy",
    "Verifier",
    "model_artifact",
]

ReceiptCheck: TypeAlias = Callable[[ReceiptContext], Check]

CHECK_IDS: Final = (
    "canonical-form",
    "schema",
    "receipt-signature",
    "trust",
    "checkpoint-signature",
    "log-inclusion",
    "log-consistency",
    "witnesses",
    "statement-signature",
    "statement-order",
    "statement-chain",
    "statements-complete",
    "manifest",
    "request",
    "policy",
    "attestation",
    "data",
    "budget-ledger",
    "epsilon",
    "randomness",
    "airlock",
    "aggregation",
    "evaluation",
    "destruction",
    "model-hash",
    "summary",
    "compliance",
    "timestamp",
)
"""Every check of a verdict, in the order in which it lists them."""

SIGNATURES: Final = ("receipt-signature", "checkpoint-signature", "statement-signature")
COSTLY: Final = ("policy", "attestation", "epsilon")
"""Checks that are made only where all of ``SIGNATURES`` passed, which come before them."""

_CHECKS: Final[Mapping[str, ReceiptCheck]] = MappingProxyType(
    {
        "receipt-signature": check_receipt_signature,
        "trust": check_trust,
        "checkpoint-signature": check_checkpoint_signatures,
        "log-inclusion": check_log_inclusion,
        "log-consistency": check_log_consistency,
        "witnesses": lambda context: check_witnesses(context, context.policy.witnesses),
        "statement-signature": check_statement_signatures,
        "statement-order": check_statement_order,
        "statement-chain": check_statement_chain,
        "statements-complete": check_statements_complete,
        "manifest": check_manifests,
        "request": check_request,
        "data": check_data,
        "budget-ledger": check_budget_ledger,
        "epsilon": check_epsilon,
        "airlock": check_airlock,
        "aggregation": check_aggregation,
        "evaluation": check_evaluation,
        "destruction": check_destruction,
        "model-hash": check_model_hash,
        "summary": check_summary,
        "compliance": check_compliance,
        "timestamp": check_timestamp,
    }
)


@dataclass(frozen=True, slots=True)
class Verdict(Checked):
    """What the verifier found.

    Attributes:
        checks: every check, in the order of ``CHECK_IDS``, and those that were asked for besides.
        simulated: whether any attestation in the receipt was of a simulated platform.
        test_randomness: whether any noise came from a seeded test generator.
    """

    checks: tuple[Check, ...]
    simulated: bool
    test_randomness: bool


_DEFAULT_POLICY: Final = VerificationPolicy()


class Verifier:
    """Verifies receipts against pinned keys.

    Args:
        trust: the pinned keys.
        registry: the checks that rooms above plugged in.
        policy: what is asked beyond that the receipt is true.
    """

    def __init__(
        self, trust: Trust, registry: CheckRegistry, policy: VerificationPolicy = _DEFAULT_POLICY
    ) -> None:
        self._trust = trust
        self._registry = registry
        self._policy = policy

    def verify(self, receipt: bytes, model: ModelArtifact) -> Verdict:
        """Judge a receipt.

        Args:
            receipt: the receipt file's bytes.
            model: hash and size of the model file that came with it.

        Returns:
            The verdict; this never raises for a bad receipt.
        """
        done: dict[str, Check] = {}
        context = self._read(receipt, model, done)
        if context is None:
            return Verdict(tuple(self._completed(done)), simulated=False, test_randomness=False)
        for check_id in (*CHECK_IDS, *self._registry.demanded):
            if check_id not in done:
                done[check_id] = self._run(check_id, context, done)
        record = context.record
        return Verdict(
            tuple(self._completed(done)),
            simulated=any(one.simulated for one in record.of(AttestationVerdict)),
            test_randomness=any(one.noise_generator == SEEDED_TEST for one in record.of(BudgetSpend)),
        )

    def _read(self, receipt: bytes, model: ModelArtifact, done: dict[str, Check]) -> ReceiptContext | None:
        try:
            value = parse_receipt(receipt)
        except CloisterError as error:
            done["canonical-form"] = failed("canonical-form", error.message)
            return None
        done["canonical-form"] = passed("canonical-form", f"{len(receipt)} bytes, the only spelling")
        try:
            parsed = receipt_from_json(value, receipt)
            signed = signed_part(parsed, receipt)
            record = record_of(parsed.body)
        except CloisterError as error:
            done["schema"] = failed("schema", error.message)
            return None
        except Exception as error:
            done["schema"] = failed("schema", f"reading it broke: {type(error).__name__}")
            return None
        done["schema"] = passed("schema", RECEIPT_SCHEMA)
        trust = self._trust
        try:
            trust = _with_credentials(trust, parsed.body)
        except CloisterError as error:
            done["trust"] = failed("trust", error.message)
        return ReceiptContext(parsed, signed, record, trust, model, self._policy)

    def _completed(self, done: Mapping[str, Check]) -> Iterator[Check]:
        for check_id in (*CHECK_IDS, *self._registry.demanded):
            yield done.get(check_id) or not_run(check_id, "the receipt can't be read this far")

    def _run(self, check_id: str, context: ReceiptContext, done: Mapping[str, Check]) -> Check:
        costly = check_id in (*COSTLY, *DEMANDED_CHECKS)
        if costly and any(done[one].outcome is not Outcome.PASSED for one in SIGNATURES):
            return not_run(check_id, "it isn't computed from what isn't signed; see the signatures")
        if check_id in (*PLUGGED_CHECKS, *DEMANDED_CHECKS):
            return self._registry.run(check_id, context)
        if check_id == "randomness":
            return self._check_randomness(context)
        try:
            return _CHECKS[check_id](context)
        except CloisterError as error:
            return failed(check_id, error.message)
        except Exception as error:  # whatever a receipt brings about, there is a verdict, and it refuses
            return not_run(check_id, f"the check broke: {type(error).__name__}")

    def _check_randomness(self, context: ReceiptContext) -> Check:
        """Noise and sampling came from the operating system's entropy, or tests are explicitly accepted."""
        spends = context.record.of(BudgetSpend)
        generators = sorted({one.noise_generator for one in spends})
        if MOCK in generators or context.record.job.privacy.mechanism == MOCK_MECHANISM:
            return failed("randomness", "the job was a MOCK: it trained without noise and protects nobody")
        if self._policy.test_randomness is TestRandomness.ACCEPT or SEEDED_TEST not in generators:
            return judged(
                "randomness", [] if generators else ["no noise generator is stated"], ", ".join(generators)
            )
        return failed("randomness", "noise came from a seeded test generator and protects nobody")


def _with_credentials(trust: Trust, body: ReceiptBody) -> Trust:
    """The pinned trust with the chains that the receipt carries, each for the party it stands under."""
    for place, chains in body.credentials.items():
        for pem in chains:
            chain = read_chain(pem)
            if f"{chain.role.value}/{chain.party}" != place:
                raise TrustError("evidence.trust_malformed", f"A certificate of {place} is another party's.")
    return trust.with_credentials(pem for chains in body.credentials.values() for pem in chains)
