"""The launcher's decision: a machine starts only if it proves to itself that it is protected.

Rules kept here:

* PROTECTED means: a way to evidence was found; a fresh self-quote, over 32 random bytes under a domain that
  serves nothing else, verified to a vendor's own root; debugging is off; and every GPU that the driver
  shows is in confidential mode, with developer tools off and its own report verified. Any other outcome is a
  refusal with every reason. Nothing falls back to another protection.
* The trust is ``TrustStore.production()``, whatever the configuration says.
* With the operator's policy, the code has to be among what it allows. Without one, whatever code the hardware
  measured will do: the launcher then says that the machine is genuine, not that the code is right. Who
  releases keys judges the code by a policy of their own.
* No environment variable starts anything; one that asks for simulation without the switch ends the start.
* Why a machine that passes may still be in an attacker's hands: see the threat model. This is a guard against
  mistakes of operators, and no relying party takes the launcher's word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cloister.core.clock import Clock
from cloister.enclave.attestation.binding import NONCE_BYTES, SELF_TEST, Binding
from cloister.enclave.attestation.checks import CheckOutcome
from cloister.enclave.attestation.claims import Claims
from cloister.enclave.attestation.collateral import Collateral
from cloister.enclave.attestation.collect.device import Device
from cloister.enclave.attestation.collect.machine import Machine
from cloister.enclave.attestation.collect.nvml import GpuPort
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.policy import REQUIRED_REGISTERS, AppraisalPolicy, ReferenceValues
from cloister.enclave.attestation.trust import TrustStore
from cloister.enclave.attestation.verdict import Verdict
from cloister.enclave.attestation.verifier import Verifier, authenticate
from cloister.enclave.detect import Detection, Hint
from cloister.enclave.errors import AttestationError, CollectError, LaunchError
from cloister.evidence.hardware_terms import ANY_VERSION, Gpus

NO_POLICY: Final = "none: whatever code the hardware measured"
NVIDIA_DRIVER: Final = "/dev/nvidiactl"
NO_KEY: Final = "sha256:" + hashlib.sha256(b"").hexdigest()
"""A self-quote speaks for no key."""
SIMULATION_VARIABLES: Final = (
    "COREASON_ENCLAVE_SIMULATION",
    "CLOISTER_ENCLAVE_SIMULATION",
    "CLOISTER_SIMULATION",
)
INSECURE_VARIABLES: Final = ("COREASON_ENCLAVE_INSECURE", "CLOISTER_ENCLAVE_INSECURE", "CLOISTER_INSECURE")
_OFF = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class LaunchTerms:
    """What the operator asks of the machine.

    Attributes:
        policy: what is acceptable; None for any code on genuine hardware that isn't in debug mode.
        collateral: the vendors' documents at hand.
        without_revocation: kinds of hardware that need no revocation list, where there is no policy.
    """

    policy: AppraisalPolicy | None = None
    collateral: Collateral = field(default_factory=Collateral)
    without_revocation: tuple[Tee, ...] = ()


@dataclass(frozen=True)
class SelfTest:
    """A passed self-test: what the machine proved about itself.

    Attributes:
        verdict: TRUSTED, under production trust.
        code_checked: whether the code was held against a policy of the operator.
    """

    verdict: Verdict
    code_checked: bool


def require_protection(
    machine: Machine,
    terms: LaunchTerms,
    *,
    clock: Clock,
    random: Callable[[int], bytes],
) -> SelfTest:
    """Have the machine prove that it is protected.

    Args:
        machine: this machine, by the way to evidence that was found.
        terms: what the operator asks.
        clock: the time certificates and collateral must be valid at.
        random: gives that many random bytes.

    Returns:
        The proof.

    Raises:
        LaunchError: launch.unprotected with every reason.
    """
    policy_id = NO_POLICY if terms.policy is None else terms.policy.sha256
    binding = Binding(random(NONCE_BYTES), NO_KEY, "self-test", policy_id, SELF_TEST)
    trust = TrustStore.production()
    try:
        evidence = machine.quote(binding.report_data())
        policy = _policy(evidence, terms, trust, clock)
    except CollectError as error:
        raise _unprotected(
            "This machine gives no evidence of itself", [error.message, *error.details]
        ) from None
    except AttestationError as error:
        raise _unprotected("This machine's evidence of itself is refused", [error.message]) from None
    verdict = Verifier(trust, clock, terms.collateral).verify(evidence, expected=binding, policy=policy)
    failed = [
        f"{check.name}: {check.detail}" for check in verdict.checks if check.outcome is CheckOutcome.FAILED
    ]
    if verdict.code is not None or verdict.simulated:
        raise _unprotected("This machine's evidence of itself is refused", failed or [str(verdict.code)])
    if machine.gpus is not None and evidence.devices:
        _let_gpus_work(machine.gpus)
    return SelfTest(verdict, terms.policy is not None)


def require_hint(detection: Detection) -> Hint:
    """The best way to evidence that a machine offers.

    Raises:
        LaunchError: launch.unprotected where there is none.
    """
    if not detection.hints:
        raise _unprotected("This machine is not a trusted execution environment", detection.reasons)
    return detection.hints[0]


def gpus_of(device: Device, open_gpus: Callable[[], GpuPort]) -> GpuPort | None:
    """The driver of this machine's GPUs.

    Args:
        device: the operating system.
        open_gpus: gives the driver, or raises CollectError where there is none.

    Returns:
        The driver; None where there is none.

    Raises:
        LaunchError: launch.unprotected where a driver is loaded and can't be asked: a GPU that nobody
            looked at could be given the records.
    """
    try:
        return open_gpus()
    except CollectError as error:
        if device.present(NVIDIA_DRIVER):
            raise _unprotected(
                "The GPUs of this machine can't be asked", [error.message, error.hint]
            ) from None
        return None


def _let_gpus_work(gpus: GpuPort) -> None:
    try:
        gpus.accept_work()
    except CollectError as error:
        raise _unprotected("The GPUs take no work", [error.message]) from None


def _policy(evidence: Evidence, terms: LaunchTerms, trust: TrustStore, clock: Clock) -> AppraisalPolicy:
    """The operator's policy, or one that takes the code the evidence names."""
    if terms.policy is not None:
        return terms.policy
    claims = authenticate(evidence, trust, clock(), terms.collateral)
    return AppraisalPolicy(
        references=(_as_it_is(claims),),
        vmpl=int(claims.registers.get("vmpl", "0")),
        amd_lines=tuple(ANY_VERSION),
        minimum_tcb=dict(ANY_VERSION),
        without_revocation=terms.without_revocation,
        gpus=Gpus.REQUIRED if evidence.devices else Gpus.NOT_USED,
    )


def _as_it_is(claims: Claims) -> ReferenceValues:
    names = REQUIRED_REGISTERS.get(claims.tee, frozenset())
    return ReferenceValues(tee=claims.tee, registers={name: claims.registers[name] for name in sorted(names)})


def _unprotected(what: str, reasons: tuple[str, ...] | list[str]) -> LaunchError:
    return LaunchError(
        "launch.unprotected",
        f"{what}, so nothing is started.",
        "Start in a confidential VM or enclave; `cloister enclave detect` tells what this machine is. To "
        "rehearse on a simulated platform: --simulation for a job, --simulated-enclave for an inference. To "
        "run a job without any protection, on records that need none: --insecure.",
        details=list(reasons),
    )


def require_switches_for(environment: Mapping[str, str], *, simulation: bool, insecure: bool) -> None:
    """End a start that only an environment variable asks to be simulated or insecure.

    Args:
        environment: the process's environment.
        simulation: whether the switch for it was given.
        insecure: whether the switch for it was given.

    Raises:
        LaunchError: launch.environment, naming the variable and the switch.
    """
    for names, switch, given in (
        (SIMULATION_VARIABLES, "--simulation", simulation),
        (INSECURE_VARIABLES, "--insecure", insecure),
    ):
        for name in names:
            if not given and environment.get(name, "").strip().lower() not in _OFF:
                raise LaunchError(
                    "launch.environment",
                    f"{name} is set, and {switch} was not given: an environment variable alone changes no "
                    "protection.",
                    f"Give {switch} on the command line if you mean it, or unset {name}.",
                )
