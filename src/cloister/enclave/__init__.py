"""The enclave room: attestation, code measurement, and the airlock through which results leave.

numpy is loaded when a name that needs it is first used.
"""

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use
from cloister.enclave.errors import AirlockViolation, AttestationError, EnclaveError
from cloister.enclave.orchestrator import orchestrate

if TYPE_CHECKING:
    from cloister.enclave.airlock import ScreenedUpdate, screen
    from cloister.enclave.airlock_policy import AirlockPolicy, TensorSpec
    from cloister.enclave.attestation import (
        AppraisalPolicy,
        AttestationReport,
        Binding,
        Evidence,
        NonceBook,
        Platforms,
        SimulatedPlatform,
        SimulatedVendor,
        Status,
        TrustStore,
        Verdict,
        Verifier,
        certificate_pem,
        verdict_fields,
    )
    from cloister.enclave.charges import Charge, charges_of
    from cloister.enclave.measure import code_measurement
    from cloister.enclave.model_file import decode_model, encode_model
    from cloister.enclave.receipt_check import check_attestation, register_attestation_check
    from cloister.enclave.rounding import rounded
    from cloister.enclave.tensors import tensors_sha256, update_sha256

_HOMES = {
    "AirlockPolicy": "airlock_policy",
    "AppraisalPolicy": "attestation",
    "AttestationReport": "attestation",
    "Binding": "attestation",
    "Charge": "charges",
    "Evidence": "attestation",
    "NonceBook": "attestation",
    "Platforms": "attestation",
    "ScreenedUpdate": "airlock",
    "SimulatedPlatform": "attestation",
    "SimulatedVendor": "attestation",
    "Status": "attestation",
    "TensorSpec": "airlock_policy",
    "TrustStore": "attestation",
    "Verdict": "attestation",
    "Verifier": "attestation",
    "certificate_pem": "attestation",
    "charges_of": "charges",
    "check_attestation": "receipt_check",
    "code_measurement": "measure",
    "decode_model": "model_file",
    "encode_model": "model_file",
    "register_attestation_check": "receipt_check",
    "rounded": "rounding",
    "screen": "airlock",
    "tensors_sha256": "tensors",
    "update_sha256": "tensors",
    "verdict_fields": "attestation",
}

__all__ = [
    "AirlockPolicy",
    "AirlockViolation",
    "AppraisalPolicy",
    "AttestationError",
    "AttestationReport",
    "Binding",
    "Charge",
    "EnclaveError",
    "Evidence",
    "NonceBook",
    "Platforms",
    "ScreenedUpdate",
    "SimulatedPlatform",
    "SimulatedVendor",
    "Status",
    "TensorSpec",
    "TrustStore",
    "Verdict",
    "Verifier",
    "certificate_pem",
    "charges_of",
    "check_attestation",
    "code_measurement",
    "decode_model",
    "encode_model",
    "orchestrate",
    "register_attestation_check",
    "rounded",
    "screen",
    "tensors_sha256",
    "update_sha256",
    "verdict_fields",
]

__getattr__ = on_first_use(__name__, _HOMES)
