"""A verdict as a statement carries it: raw evidence and everything needed to judge it again.

``verdict_fields`` writes what ``receipt_check`` reads; they change together.
"""

from collections.abc import Iterable
from typing import TypedDict

from cloister.core.canonical import JSON, b64decode, b64encode
from cloister.core.clock import format_time
from cloister.enclave.attestation.binding import Binding
from cloister.enclave.attestation.collateral import Collateral, CollateralDocument, CollateralKind
from cloister.enclave.attestation.policy import AppraisalPolicy
from cloister.enclave.attestation.verdict import Verdict


class VerdictFields(TypedDict):
    """The fields of the statement ``AttestationVerdict`` that a verdict fills."""

    site: str
    site_key_id: str
    nonce: str
    evidence: dict[str, JSON]
    policy_id: str
    policy: dict[str, JSON]
    status: str
    simulated: bool
    platform: str
    tcb_status: str
    advisories: list[str]
    registers: dict[str, str]
    collateral: list[dict[str, str]]
    checks: list[dict[str, str]]
    evaluated_at: str
    measurement: str


def verdict_fields(site: str, verdict: Verdict, binding: Binding, policy: AppraisalPolicy) -> VerdictFields:
    """The fields of a statement on a verdict.

    Args:
        site: who was challenged.
        verdict: what was concluded.
        binding: what was asked for.
        policy: what was acceptable.

    Returns:
        Fields for ``StatementWriter.write(AttestationVerdict, subjects, **fields)``.
    """
    return VerdictFields(
        site=site,
        site_key_id=binding.key_id,
        nonce=b64encode(binding.nonce),
        evidence=verdict.evidence.as_json(),
        policy_id=policy.sha256,
        policy=policy.as_json(),
        status=verdict.status.value,
        simulated=verdict.simulated,
        platform=verdict.hardware_type,
        tcb_status=verdict.tcb_status.value,
        advisories=[*verdict.advisories],
        registers=dict(verdict.claims.registers) if verdict.claims is not None else {},
        collateral=[{"kind": one.kind.value, "data": b64encode(one.data)} for one in verdict.collateral],
        checks=[
            {"name": check.name, "outcome": check.outcome.value, "detail": check.detail}
            for check in verdict.checks
        ],
        evaluated_at=format_time(verdict.evaluated_at),
        measurement=verdict.measurement,
    )


def collateral_of(documents: Iterable[tuple[str, str]]) -> Collateral:
    """The collateral that a statement carries.

    Args:
        documents: kind and base64 of each.

    Raises:
        ValueError: a kind is unknown.
        InputError: something isn't base64.
    """
    return Collateral.joined(
        CollateralDocument(CollateralKind(kind), b64decode(data)) for kind, data in documents
    )
