"""The verifier: evidence in, verdict out; a pure function of its arguments and a clock.

Rules kept here:

* ``authenticate`` says whether evidence is what it claims to be; ``appraise`` whether that is acceptable.
  Nothing of a report is appraised before its signature is verified.
* Order: structure, root, chain, validity, signature, endorsement; then every appraisal check, so that a
  verdict lists all that is unacceptable.
* Default deny: a verdict is TRUSTED only if every check passed; a check that couldn't run counts against it.
* Bad evidence makes a verdict, never an exception.
"""

from dataclasses import dataclass
from datetime import datetime

from cloister.core.clock import Clock
from cloister.enclave.attestation.chain import (
    parse_chain,
    reported_tcb,
    verify_chain,
    verify_endorsed_chip,
    verify_endorsed_version,
    verify_report_signature,
    verify_validity,
)
from cloister.enclave.attestation.model import (
    AppraisalPolicy,
    AttestationCheck,
    Binding,
    CheckOutcome,
    Evidence,
    Platforms,
    Status,
    Verdict,
)
from cloister.enclave.attestation.snp import ECDSA_P384_SHA384, SIGNED_BYTES, SnpReport, Tcb
from cloister.enclave.attestation.trust import TrustStore
from cloister.enclave.errors import AttestationError

_STEPS = {
    "structure": ("attestation.malformed", "attestation.unsupported"),
    "root": ("attestation.untrusted_root",),
    "chain": ("attestation.algorithm", "attestation.chain"),
    "validity": ("attestation.expired", "attestation.not_yet_valid"),
    "signature": ("attestation.signature",),
    "endorsed-version": ("attestation.tcb_mismatch",),
    "endorsed-chip": ("attestation.chip_id",),
}
_APPRAISALS = {
    "platform": "attestation.simulated",
    "debug": "attestation.debug",
    "migration": "attestation.policy_bits",
    "privilege-level": "attestation.vmpl",
    "minimum-version": "attestation.tcb_unacceptable",
    "measurement": "attestation.measurement",
    "binding": "attestation.key_binding",
}


@dataclass(frozen=True)
class Authenticated:
    """A report that a pinned root vouches for."""

    report: SnpReport
    tcb: Tcb
    simulated: bool


def authenticate(evidence: Evidence, trust: TrustStore, now: datetime) -> Authenticated:
    """Verify that evidence is genuine under the pinned roots.

    Args:
        evidence: the report and its chain.
        trust: pinned roots.
        now: the time certificates must be valid at.

    Returns:
        The authenticated report.

    Raises:
        AttestationError: with the code of the first step that failed.
    """
    report = SnpReport.parse(evidence.report)
    if report.signature_algorithm != ECDSA_P384_SHA384:
        raise AttestationError("attestation.unsupported", "The report's signature algorithm is unknown.")
    chain = parse_chain(evidence.chain)
    root = verify_chain(chain, trust)
    verify_validity(chain, now)
    verify_report_signature(report, evidence.report[:SIGNED_BYTES], chain)
    verify_endorsed_version(report, chain, root.line)
    verify_endorsed_chip(report, chain)
    return Authenticated(report, reported_tcb(report, root.line), root.simulated)


def appraise(
    claims: Authenticated, policy: AppraisalPolicy, expected: Binding
) -> tuple[AttestationCheck, ...]:
    """Hold an authenticated report against a policy and the binding that was asked for.

    Args:
        claims: the authenticated report.
        policy: what is acceptable.
        expected: what the report must have sealed in.

    Returns:
        Every check in a fixed order, passed or failed.
    """
    report = claims.report
    hardware_only = policy.platforms is Platforms.HARDWARE_ONLY
    minimum = policy.minimum_tcb
    findings = {
        "platform": (
            not (claims.simulated and hardware_only),
            "SIMULATED - NOT HARDWARE" if claims.simulated else "hardware",
        ),
        "debug": (not report.debug, "debugging by the host is " + ("on" if report.debug else "off")),
        "migration": (not report.migratable, "migration is " + ("allowed" if report.migratable else "off")),
        "privilege-level": (report.vmpl == policy.vmpl, f"VMPL {report.vmpl}, expected {policy.vmpl}"),
        "minimum-version": (
            minimum is None or claims.tcb.at_least(minimum),
            "no minimum asked for" if minimum is None else "platform version against the policy's minimum",
        ),
        "measurement": (
            report.measurement.hex() in policy.measurements,
            f"SHA-384 {report.measurement.hex()[:16]}... against {len(policy.measurements)} allowed",
        ),
        "binding": (
            report.report_data == expected.report_data(),
            "report data against this nonce, key, job and policy",
        ),
    }
    return tuple(
        AttestationCheck(name, CheckOutcome.PASSED if right else CheckOutcome.FAILED, detail)
        for name, (right, detail) in findings.items()
    )


class Verifier:
    """Verifies evidence under fixed trust; holds no state between calls.

    Args:
        trust: pinned roots.
        clock: the time certificates must be valid at.
    """

    def __init__(self, trust: TrustStore, clock: Clock) -> None:
        self._trust = trust
        self._clock = clock

    def verify(self, evidence: Evidence, *, expected: Binding, policy: AppraisalPolicy) -> Verdict:
        """Judge evidence; bad evidence gives an UNTRUSTED verdict that names the failed checks.

        Args:
            evidence: what the machine answered.
            expected: the binding it was asked for; its nonce must have been redeemed by the caller.
            policy: what is acceptable.

        Returns:
            The verdict.

        Raises:
            AttestationError: attestation.malformed if ``expected`` itself isn't sound.
        """
        now = self._clock()
        expected.report_data()
        try:
            claims = authenticate(evidence, self._trust, now)
        except AttestationError as error:
            return Verdict(Status.UNTRUSTED, _stopped_at(error), error.code, None, False, now, evidence)
        authentication = tuple(
            AttestationCheck(name, CheckOutcome.PASSED, "as it must be") for name in _STEPS
        )
        appraisal = appraise(claims, policy, expected)
        refused = [check.name for check in appraisal if check.outcome is not CheckOutcome.PASSED]
        return Verdict(
            status=Status.UNTRUSTED if refused else Status.TRUSTED,
            checks=authentication + appraisal,
            code=_APPRAISALS[refused[0]] if refused else None,
            report=claims.report,
            simulated=claims.simulated,
            evaluated_at=now,
            evidence=evidence,
        )


def _stopped_at(error: AttestationError) -> tuple[AttestationCheck, ...]:
    checks: list[AttestationCheck] = []
    outcome = CheckOutcome.PASSED
    for name in (*_STEPS, *_APPRAISALS):
        if error.code in _STEPS.get(name, ()):
            checks.append(AttestationCheck(name, CheckOutcome.FAILED, error.message))
            outcome = CheckOutcome.NOT_RUN
        else:
            detail = "as it must be" if outcome is CheckOutcome.PASSED else "not run: an earlier check failed"
            checks.append(AttestationCheck(name, outcome, detail))
    return tuple(checks)
