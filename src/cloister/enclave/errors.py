"""What the enclave room refuses, and why.

An attestation error carries a precise code for the party that verified; what it tells the party that
failed is up to the caller, and should be less. No message repeats bytes of unauthenticated evidence.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from cloister.core.errors import CloisterError


class EnclaveError(CloisterError):
    """The room is asked for something it cannot do here."""

    exit_code: ClassVar[int] = 2
    CODES: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "enclave.no_orchestrator": "No installed distribution offers an orchestrator.",
            "enclave.model_file": "A model file is not the one encoding of named float tensors.",
            "enclave.airlock_policy": "An airlock policy contradicts itself.",
        }
    )


class AirlockViolation(EnclaveError):  # noqa: N818 - the field's own word
    """Something other than what the policy lists was about to leave; nothing left."""

    exit_code = 3
    CODES = MappingProxyType(
        {"airlock.refused": "An update holds something that may not leave, or lacks something that must."}
    )


class AttestationError(EnclaveError):
    """Evidence does not prove what it must."""

    exit_code = 4
    CODES = MappingProxyType(
        {
            "attestation.malformed": "Evidence is not of its exact form.",
            "attestation.unsupported": "Evidence is of a version or kind that is not verified here.",
            "attestation.algorithm": "A signature uses an algorithm or key that is not allowed.",
            "attestation.untrusted_root": "The certificate chain does not end at a trusted root.",
            "attestation.chain": "A certificate was not issued by the next one of its chain.",
            "attestation.expired": "A certificate's validity has ended.",
            "attestation.not_yet_valid": "A certificate's validity has not begun.",
            "attestation.signature": "The report is not signed by the endorsed key.",
            "attestation.tcb_mismatch": "The report and the endorsement disagree on the platform's version.",
            "attestation.tcb_unacceptable": "The platform's version is older than the policy allows.",
            "attestation.chip_id": "The report and the endorsement name different chips.",
            "attestation.simulated": "The evidence is simulated and the policy asks for hardware.",
            "attestation.debug": "The guest can be inspected by its host (debug policy).",
            "attestation.policy_bits": "The guest policy permits something the verifier does not.",
            "attestation.vmpl": "The report was made at another privilege level than expected.",
            "attestation.measurement": "Other code runs than the policy allows.",
            "attestation.key_binding": "The report does not bind this nonce, key, job and policy.",
            "attestation.nonce": "The nonce was never issued, was issued to another, or its time has passed.",
            "attestation.replay": "The nonce was answered before.",
            "attestation.no_common_policy": "The manifests of a job allow no common code.",
            "attestation.trust_store": "A root certificate cannot serve the trust it is offered for.",
        }
    )
