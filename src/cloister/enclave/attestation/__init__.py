"""Remote attestation: what a machine shows, what a relying party asks, and the verdict.

One verifier for every kind of hardware (:class:`Tee`), each in a folder of its vendor, and a simulated
platform whose evidence goes the same way.
"""

from cloister.enclave.attestation.amd.report import SnpReport, Tcb
from cloister.enclave.attestation.authenticator import Authenticator, Ground
from cloister.enclave.attestation.binding import Binding
from cloister.enclave.attestation.challenge import NonceBook
from cloister.enclave.attestation.checks import AttestationCheck, CheckOutcome, Finding, Steps
from cloister.enclave.attestation.claims import Claims, PlatformDetail, Revocation, TcbStatus
from cloister.enclave.attestation.collateral import (
    Collateral,
    CollateralDates,
    CollateralDocument,
    CollateralKind,
)
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.policy import AppraisalPolicy, Platforms, ReferenceValues
from cloister.enclave.attestation.record import VerdictFields, verdict_fields
from cloister.enclave.attestation.simulator import GuestSettings, SimulatedPlatform, SimulatedVendor
from cloister.enclave.attestation.trust import TrustStore, certificate_pem
from cloister.enclave.attestation.verdict import AttestationReport, Status, Verdict
from cloister.enclave.attestation.verifier import Verifier, appraise, authenticate
from cloister.evidence.hardware_terms import GpuMode, Gpus, LowestVersions

__all__ = [
    "AppraisalPolicy",
    "AttestationCheck",
    "AttestationReport",
    "Authenticator",
    "Binding",
    "CheckOutcome",
    "Claims",
    "Collateral",
    "CollateralDates",
    "CollateralDocument",
    "CollateralKind",
    "Evidence",
    "Finding",
    "GpuMode",
    "Gpus",
    "Ground",
    "GuestSettings",
    "LowestVersions",
    "NonceBook",
    "PlatformDetail",
    "Platforms",
    "ReferenceValues",
    "Revocation",
    "SimulatedPlatform",
    "SimulatedVendor",
    "SnpReport",
    "Status",
    "Steps",
    "Tcb",
    "TcbStatus",
    "Tee",
    "TrustStore",
    "Verdict",
    "VerdictFields",
    "Verifier",
    "appraise",
    "authenticate",
    "certificate_pem",
    "verdict_fields",
]
