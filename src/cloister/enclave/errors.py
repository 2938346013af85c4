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
            "enclave.mock": "A mock enclave is stopped, its function failed, or it took too long.",
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
            "attestation.alg": "A signature uses an algorithm or key that is not allowed.",
            "attestation.untrusted_root": "The certificate chain does not end at a trusted root.",
            "attestation.chain": "A certificate was not issued by the next one of its chain.",
            "attestation.expired": "A certificate's validity has ended.",
            "attestation.not_yet_valid": "A certificate's validity has not begun.",
            "attestation.revoked": "A certificate was revoked by who issued it.",
            "attestation.revocation_unknown": "No revocation list was at hand, and the policy asks for one.",
            "attestation.collateral_missing": "A document of the vendor is missing that the evidence needs.",
            "attestation.collateral_expired": "A document of the vendor is out of date.",
            "attestation.collateral_older": "A newer document of the vendor is already held.",
            "attestation.collateral": "A document of the vendor is not what its issuer signed.",
            "attestation.signature": "The report is not signed by the endorsed key.",
            "attestation.qe_binding": "The quoting enclave did not vouch for the key that signed the quote.",
            "attestation.qe_identity": "The quoting enclave is not the one that Intel names.",
            "attestation.tdx_module": "The TDX module is not the one that Intel names.",
            "attestation.fwid": "The GPU's firmware is not the one its certificate names.",
            "attestation.gpu_missing": "The policy asks for a GPU's evidence, and there is none.",
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
            "attestation.busy": "Too many challenges of one minute are open; no more are issued.",
            "attestation.no_common_policy": "The manifests of a job allow no common code.",
            "attestation.trust_store": "A root certificate cannot serve the trust it is offered for.",
        }
    )


class SealedError(EnclaveError):
    """A sealed worker could not be had, or ended otherwise than it was asked to."""

    exit_code = 5
    CODES = MappingProxyType(
        {
            "sealed.unavailable": "This machine or installation cannot start sealed workers.",
            "sealed.measure_missing": "A measure that the policy asks for does not hold on this machine.",
            "sealed.died": "A sealed worker ended before it had answered.",
            "sealed.timeout": "A sealed worker did not answer in its time and was killed.",
            "sealed.memory_limit": "A sealed worker needed more memory than it was given.",
            "sealed.cpu_limit": "A sealed worker used more processor time than it was given.",
            "sealed.protocol": "A peer across the worker's border sent something else than was agreed.",
            "sealed.task_failed": "The task in a sealed worker failed in a way that it may not tell.",
            "sealed.closed": "A sealed worker or its host is used after it was closed.",
            "sealed.dataset": "An encrypted table is not what it says, or does not open with this key.",
        }
    )


class ReleaseError(EnclaveError):
    """A data key is not released. Who asks hears ``release.refused`` whatever the reason."""

    exit_code = 4
    CODES = MappingProxyType(
        {
            "release.refused": "The keeper of the key refuses; the reason is in its own log.",
            "release.failed": "The keeper failed over a request; its log has the kind of what failed.",
            "release.malformed": "A message of the key release is not of its exact form.",
            "release.policy": "A release policy is not one, or not signed by who owns the key.",
            "release.unknown": "No such key or policy is in the book.",
            "release.exists": "The book has that key or policy already.",
            "release.not_yet": "The release policy doesn't hold yet.",
            "release.expired": "The release policy has expired.",
            "release.revoked": "The key or the policy was revoked.",
            "release.count": "The policy's number of releases is used up.",
            "release.scope": "The key is released for another job or study.",
            "release.tee": "The policy doesn't name this kind of hardware.",
            "release.test_data": "A simulated enclave asks for a key that is not of test data.",
            "release.sealed": "A sealed key doesn't open: it was sealed to another, or changed.",
            "release.wrong_key": "A sealed table's key is not for what the table is to be used for.",
            "release.beside": "Sealed data would lie beside its keys.",
            "release.busy": "The key service has as much to do as it takes on at a time.",
            "release.unreachable": "No key service answers, or it ended or was too slow meanwhile.",
            "release.book": "The book of data keys is not what this program wrote.",
        }
    )


class SealBroken(SealedError):  # noqa: N818 - the state, not a kind of failure
    """What the seal is to keep from happening was tried, or the code under it changed; all was stopped."""

    exit_code = 3
    CODES = MappingProxyType(
        {
            "sealed.violation": "A sealed worker made a call that it may not make, and was killed.",
            "sealed.code_changed": "Measured code, lock file or model changed while workers ran.",
            "sealed.code_unmeasured": "A fork server was loaded from a file that nothing vouches for.",
        }
    )


class InferenceError(EnclaveError):
    """A prediction is not given or not accepted."""

    exit_code = 4
    CODES = MappingProxyType(
        {
            "inference.refused": "The enclave refuses the request.",
            "inference.busy": "The service has as much to do as it takes on at a time.",
            "inference.malformed": "A message of the inference is not of its exact form.",
            "inference.replay": "A request came again, or out of its order.",
            "inference.session": "The session is unknown, or its time has passed.",
            "inference.input": "The input is not of the shape that the model takes.",
            "inference.sealed": "A request or answer doesn't open: it was sealed to another, or changed.",
            "inference.worker": "The worker ended, or answers nothing of use.",
            "inference.other_model": "The enclave serves another model than the one asked for.",
        }
    )


class PackageError(EnclaveError):
    """A developer's package can't be used."""

    exit_code = 4
    CODES = MappingProxyType(
        {
            "package.malformed": "A package is not of its exact form.",
            "package.signature": "A package is not signed by the developer's key.",
            "package.tampered": "A package's content is not what was signed.",
            "package.key": "The key that came is not for this worker and package.",
            "package.too_large": "A package holds more than is accepted.",
        }
    )


class CollectError(EnclaveError):
    """This machine's own attestation device gives no evidence."""

    exit_code = 5
    CODES = MappingProxyType(
        {
            "collect.absent": "The attestation device is not on this machine.",
            "collect.denied": "The operating system denies this user the attestation device.",
            "collect.refused": "The attestation device answered with an error.",
            "collect.malformed": "The attestation device's answer is not of its exact form.",
            "collect.mismatch": "The attestation device answered another question than it was asked.",
            "collect.race": "Another process kept using the same entry of the attestation device.",
            "collect.request": "Evidence was asked for with data of a length the device does not take.",
            "collect.no_quote": "The machine gives only evidence that nobody elsewhere can verify.",
            "collect.certificates": "The certificates that endorse the machine's report are not at hand.",
            "collect.library": "The library that speaks to the device is not installed.",
            "collect.gpu_mode": "A GPU is not in confidential mode, or can be looked into.",
        }
    )


class LaunchError(EnclaveError):
    """The launcher does not start."""

    exit_code = 78
    CODES = MappingProxyType(
        {
            "launch.unprotected": "Nothing proves that this machine is protected.",
            "launch.environment": "An environment variable asks for what only a switch may give.",
            "launch.job_attestation": "The job asks for other attestation than it was started with.",
            "launch.keys_refused": "A run without protection asks for released keys.",
            "launch.real_records": "A run that no hardware protects is to read patients' records.",
        }
    )
