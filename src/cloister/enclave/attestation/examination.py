"""Evidence looked at by a person: what it is, judged as far as anybody asked.

A `Verifier` answers a relying party that asks everything, and counts what it can't answer as refused. Whoever
holds a file and wants to know what it is asks less. The same steps are taken and the same findings made; what
nobody asked is listed as that, and says nothing of whether the evidence will do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cloister.core.clock import fixed_clock
from cloister.enclave.attestation.authenticator import Ground, authenticator
from cloister.enclave.attestation.binding import AskedBytes, device_nonce
from cloister.enclave.attestation.checks import AttestationCheck, CheckOutcome, Steps
from cloister.enclave.attestation.claims import Claims, Revocation
from cloister.enclave.attestation.collateral import CollateralKind
from cloister.enclave.attestation.evidence import Evidence
from cloister.enclave.attestation.policy import AppraisalPolicy
from cloister.enclave.attestation.verdict import Verdict
from cloister.enclave.attestation.verifier import Verifier
from cloister.enclave.errors import AttestationError

_UNBOUND = "whose answer it is, and how fresh: no nonce or report data was given"


class Answer(StrEnum):
    """How one check of an examination ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"
    NOT_ASKED = "not_asked"


_ANSWERS = {
    CheckOutcome.PASSED: Answer.PASSED,
    CheckOutcome.FAILED: Answer.FAILED,
    CheckOutcome.NOT_RUN: Answer.NOT_RUN,
}


@dataclass(frozen=True)
class ExaminedCheck:
    """One check: its name, how it ended and a sentence."""

    name: str
    answer: Answer
    detail: str


@dataclass(frozen=True)
class Examination:
    """What was found out about one machine's evidence.

    Attributes:
        evidence: what was looked at.
        claims: what it says, if it is authentic.
        devices: what those of its devices say that are authentic, in order.
        checks: every check in order, a device's behind ``gpu0/`` and so on.
    """

    evidence: Evidence
    claims: Claims | None
    devices: tuple[Claims, ...]
    checks: tuple[ExaminedCheck, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.answer is Answer.FAILED)

    @property
    def passed(self) -> bool:
        """Whether it is authentic and every check that was asked passed."""
        return not self.failed

    @property
    def simulated(self) -> bool:
        """Whether any chain ends at a simulated root."""
        return any(one is not None and one.simulated for one in (self.claims, *self.devices))


def examine(evidence: Evidence, ground: Ground, asked: bytes | None) -> Examination:
    """Find out whether evidence is authentic, and what it says.

    Args:
        evidence: what a machine shows.
        ground: what it is held against.
        asked: what it must have sealed in; None where nobody knows.

    Returns:
        Everything that was found out; bad evidence makes a failed check, never an exception.
    """
    claims, checks = _look_at(evidence, ground, asked)
    nonce = None if asked is None else device_nonce(asked)
    devices = []
    for number, one in enumerate(evidence.devices):
        said, made = _look_at(one, ground, nonce)
        checks += [ExaminedCheck(f"gpu{number}/{check.name}", check.answer, check.detail) for check in made]
        devices += [] if said is None else [said]
    return Examination(evidence, claims, tuple(devices), tuple(checks))


def examine_against(
    evidence: Evidence, ground: Ground, policy: AppraisalPolicy, asked: bytes | None
) -> tuple[Examination, Verdict]:
    """Find out whether evidence is authentic and acceptable.

    Args:
        evidence: what a machine shows.
        ground: what it is held against.
        policy: what is acceptable.
        asked: what it must have sealed in; None where nobody knows.

    Returns:
        Everything that was found out; and the verdict, which is UNTRUSTED where ``asked`` is None.
    """
    verifier = Verifier(ground.trust, fixed_clock(ground.now), ground.collateral)
    verdict = verifier.verify(
        evidence, expected=AskedBytes(os.urandom(64) if asked is None else asked), policy=policy
    )
    checks = tuple(_as_asked(check, asked) for check in verdict.checks)
    return Examination(evidence, verdict.claims, verdict.devices, checks), verdict


def _as_asked(check: AttestationCheck, asked: bytes | None) -> ExaminedCheck:
    unasked = asked is None and check.name.rpartition("/")[2] == "binding"
    if unasked and check.outcome is not CheckOutcome.NOT_RUN:
        return ExaminedCheck(check.name, Answer.NOT_ASKED, _UNBOUND)
    return ExaminedCheck(check.name, _ANSWERS[check.outcome], check.detail)


def _look_at(
    evidence: Evidence, ground: Ground, asked: bytes | None
) -> tuple[Claims | None, list[ExaminedCheck]]:
    module = authenticator(evidence.tee)
    steps = Steps(module.STEPS)
    try:
        claims = module.authenticate(evidence, ground, steps)
    except AttestationError:
        claims = None
    made = [ExaminedCheck(one.name, _ANSWERS[one.outcome], one.detail) for one in steps.checks]
    return claims, made + ([] if claims is None else list(_unappraised(claims, ground, asked)))


def _unappraised(claims: Claims, ground: Ground, asked: bytes | None) -> Iterator[ExaminedCheck]:
    yield _revocation(claims, ground)
    state = "on" if claims.debug else "off"
    yield ExaminedCheck("debug", Answer.NOT_ASKED, f"debugging by the host is {state}; no policy was given")
    yield ExaminedCheck("appraisal", Answer.NOT_ASKED, "whether it will do: no policy was given")
    if asked is None:
        yield ExaminedCheck("binding", Answer.NOT_ASKED, _UNBOUND)
    else:
        right = claims.answers(asked)
        detail = "what is sealed in is " + ("what was asked for" if right else "something else")
        yield ExaminedCheck("binding", Answer.PASSED if right else Answer.FAILED, detail)


def _revocation(claims: Claims, ground: Ground) -> ExaminedCheck:
    """Who brings what vendors say of revocation asks for it; manifests of software say nothing of that."""
    if claims.revocation is Revocation.CHECKED:
        return ExaminedCheck("revocation", Answer.PASSED, "no certificate is revoked")
    if all(one.kind is CollateralKind.NVIDIA_RIM for one in ground.collateral.documents):
        return ExaminedCheck("revocation", Answer.NOT_ASKED, "whether one is revoked: no list was given")
    detail = "not checked: what was given has no current list or answer of each issuer"
    return ExaminedCheck("revocation", Answer.FAILED, detail)
