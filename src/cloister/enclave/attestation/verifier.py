"""The verifier: evidence in, verdict out; a pure function of its arguments and a clock.

Rules kept here:

* ``authenticate`` says whether evidence is what it claims to be; ``appraise`` whether that is acceptable.
  Nothing is appraised before its signature is verified.
* Order: the steps of the kind of hardware (structure, root, chain, validity, signature, ...); then every
  question of the appraisal, so that a verdict lists all that is unacceptable; then the same for each device.
* Default deny: a verdict is TRUSTED only if every check passed; a check that couldn't run counts against it,
  unless the policy names that it will do without.
* Bad evidence makes a verdict, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from cloister.core.clock import Clock
from cloister.enclave.attestation.authenticator import Ground, authenticator
from cloister.enclave.attestation.binding import AskedBytes, Binding
from cloister.enclave.attestation.checks import AttestationCheck, CheckOutcome, Finding, Steps
from cloister.enclave.attestation.claims import Claims, Revocation
from cloister.enclave.attestation.collateral import Collateral, CollateralDocument
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.policy import AppraisalPolicy, Platforms
from cloister.enclave.attestation.trust import TrustStore
from cloister.enclave.attestation.verdict import Status, Verdict
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError
from cloister.evidence.hardware_terms import Gpus

_NOTHING_AT_HAND: Final = Collateral()


def authenticate(
    evidence: Evidence, trust: TrustStore, now: datetime, collateral: Collateral = _NOTHING_AT_HAND
) -> Claims:
    """Verify that evidence is genuine under the pinned roots.

    Args:
        evidence: what a machine shows.
        trust: pinned roots.
        now: the time certificates and collateral must be valid at.
        collateral: the vendors' documents at hand.

    Returns:
        What it says.

    Raises:
        AttestationError: with the code of the first step that failed.
    """
    module = authenticator(evidence.tee)
    return module.authenticate(evidence, Ground(trust, now, collateral), Steps(module.STEPS))


def appraise(
    claims: Claims, policy: AppraisalPolicy, sealed_in: bytes, ground: Ground
) -> tuple[Finding, ...]:
    """Hold authentic claims against a policy and the bytes that were asked for.

    Args:
        claims: what a machine or device is known to have said.
        policy: what is acceptable.
        sealed_in: the bytes it must have sealed in.
        ground: what the evidence was held against.

    Returns:
        Every finding in a fixed order.
    """
    hardware_only = policy.platforms is Platforms.HARDWARE_ONLY
    found = [
        Finding(
            "platform",
            "attestation.simulated",
            not (claims.simulated and hardware_only),
            "SIMULATED - NOT HARDWARE" if claims.simulated else "hardware",
        ),
        Finding(
            "debug",
            "attestation.debug",
            not claims.debug,
            "debugging by the host is " + ("on" if claims.debug else "off"),
        ),
        *authenticator(claims.tee).appraise(claims, policy, ground),
        _revocation(claims, policy),
    ]
    if claims.tee is not Tee.NVIDIA_GPU:
        found.append(
            Finding(
                "measurement",
                "attestation.measurement",
                policy.allows_code_of(claims),
                f"{claims.measurement[:16]}... against {len(policy.measurements) + len(policy.references)}"
                " allowed",
            )
        )
    found.append(
        Finding(
            "binding",
            "attestation.key_binding",
            claims.answers(sealed_in),
            "what is sealed in against this nonce, key, job and policy",
        )
    )
    return tuple(found)


class Verifier:
    """Verifies evidence under fixed trust; between calls it holds only which signatures it found good.

    Args:
        trust: pinned roots.
        clock: the time certificates and collateral must be valid at.
        collateral: the vendors' documents at hand.
        known_at: the time collateral must hold at, where old evidence is looked at with what is known later.
    """

    def __init__(
        self,
        trust: TrustStore,
        clock: Clock,
        collateral: Collateral = _NOTHING_AT_HAND,
        known_at: datetime | None = None,
    ) -> None:
        self._trust = trust
        self._clock = clock
        self._known_at = known_at
        self._collateral = collateral
        self._facts = VerifiedFacts()

    def verify(
        self, evidence: Evidence, *, expected: Binding | AskedBytes, policy: AppraisalPolicy
    ) -> Verdict:
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
        ground = Ground(self._trust, self._clock(), self._collateral, self._facts, self._known_at)
        machine = _judge(evidence, expected.report_data(), policy, ground)
        devices = tuple(_judge(one, expected.device_nonce(), policy, ground) for one in evidence.devices)
        checks = list(machine.checks)
        codes = [*machine.codes]
        for number, device in enumerate(devices):
            checks.extend(replace(check, name=f"gpu{number}/{check.name}") for check in device.checks)
            codes.extend(device.codes)
        known = tuple(device.claims for device in devices if device.claims is not None)
        composition = _composition(evidence, known, policy)
        checks.append(composition.check)
        if not composition.right:
            codes.append(composition.code)
        return Verdict(
            status=Status.UNTRUSTED if codes else Status.TRUSTED,
            checks=tuple(checks),
            codes=tuple(codes),
            claims=machine.claims,
            devices=known,
            evaluated_at=ground.now,
            collateral=Collateral.joined(machine.documents, *(one.documents for one in devices)).documents,
            evidence=evidence,
        )


@dataclass(frozen=True)
class _Judged:
    checks: tuple[AttestationCheck, ...]
    codes: tuple[str, ...]
    claims: Claims | None
    documents: tuple[CollateralDocument, ...]


def _judge(evidence: Evidence, sealed_in: bytes, policy: AppraisalPolicy, ground: Ground) -> _Judged:
    module = authenticator(evidence.tee)
    steps = Steps(module.STEPS)
    try:
        claims = module.authenticate(evidence, ground, steps)
    except AttestationError as error:
        unasked = "not run: the evidence isn't authentic"
        names = ("platform", "debug", *module.FINDINGS, "revocation", *_last_findings(evidence.tee))
        appraisal = (AttestationCheck(name, CheckOutcome.NOT_RUN, unasked) for name in names)
        return _Judged((*steps.checks, *appraisal), (error.code,), None, steps.documents)
    findings = appraise(claims, policy, sealed_in, ground)
    return _Judged(
        (*steps.checks, *(finding.check for finding in findings)),
        tuple(finding.code for finding in findings if not finding.right),
        claims,
        claims.collateral,
    )


def _last_findings(tee: Tee) -> tuple[str, ...]:
    return ("binding",) if tee is Tee.NVIDIA_GPU else ("measurement", "binding")


def _revocation(claims: Claims, policy: AppraisalPolicy) -> Finding:
    known = claims.revocation is Revocation.CHECKED
    details = {
        Revocation.CHECKED: "no certificate is revoked",
        Revocation.UNKNOWN: "not checked: no current list or answer of each issuer at hand",
    }
    waived = not known and claims.tee in policy.without_revocation
    detail = details[claims.revocation] + ("; the policy does without one" if waived else "")
    return Finding("revocation", "attestation.revocation_unknown", known or waived, detail)


def _composition(evidence: Evidence, devices: tuple[Claims, ...], policy: AppraisalPolicy) -> Finding:
    """A GPU counts once, however often it answers: each device that is shown is another one."""
    shown = sum(one.tee is Tee.NVIDIA_GPU for one in evidence.devices)
    gpus = len({one.device_id for one in devices})
    sound = evidence.tee is not Tee.NVIDIA_GPU and shown == len(evidence.devices)
    each_once = gpus == len(devices)
    missing = policy.gpus is Gpus.REQUIRED and shown == 0
    unasked = policy.gpus is Gpus.NOT_USED and shown > 0
    twice = "" if each_once else f", {gpus} of them different"
    return Finding(
        "composition",
        "attestation.unsupported" if not sound or unasked else "attestation.gpu_missing",
        sound and each_once and not missing and not unasked,
        f"a machine with {shown} GPU(s){twice}; gpus is {policy.gpus.value}",
    )
