"""Remote attestation: what a machine shows, what a relying party asks, and the verdict.

Implemented: AMD SEV-SNP reports with VCEK or VLEK chains, and a simulated platform of the same shape.
"""

from cloister.enclave.attestation.challenge import NonceBook
from cloister.enclave.attestation.model import (
    AppraisalPolicy,
    AttestationCheck,
    AttestationReport,
    Binding,
    CheckOutcome,
    Evidence,
    Platforms,
    Status,
    Verdict,
)
from cloister.enclave.attestation.record import VerdictFields, verdict_fields
from cloister.enclave.attestation.simulator import GuestSettings, SimulatedPlatform, SimulatedVendor
from cloister.enclave.attestation.snp import SnpReport, Tcb
from cloister.enclave.attestation.trust import TrustStore, certificate_pem
from cloister.enclave.attestation.verifier import Verifier, appraise, authenticate

__all__ = [
    "AppraisalPolicy",
    "AttestationCheck",
    "AttestationReport",
    "Binding",
    "CheckOutcome",
    "Evidence",
    "GuestSettings",
    "NonceBook",
    "Platforms",
    "SimulatedPlatform",
    "SimulatedVendor",
    "SnpReport",
    "Status",
    "Tcb",
    "TrustStore",
    "Verdict",
    "VerdictFields",
    "Verifier",
    "appraise",
    "authenticate",
    "certificate_pem",
    "verdict_fields",
]
