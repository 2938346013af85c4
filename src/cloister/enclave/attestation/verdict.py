"""What a verifier concluded. Only a verifier makes a verdict; a machine never states its own status."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cloister.core.canonical import b64encode, canonicalize
from cloister.core.hashes import sha256_hex
from cloister.enclave.attestation.checks import AttestationCheck, CheckOutcome
from cloister.enclave.attestation.claims import Claims, TcbStatus
from cloister.enclave.attestation.collateral import CollateralDocument
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.errors import AttestationError

SIMULATED_PREFIX = "SIMULATED_"
_HARDWARE_TYPES = {
    Tee.AMD_SEV_SNP: "AMD_SEV_SNP",
    Tee.INTEL_TDX: "INTEL_TDX",
    Tee.INTEL_SGX: "INTEL_SGX",
    Tee.AWS_NITRO: "AWS_NITRO",
    Tee.NVIDIA_GPU: "NVIDIA_GPU",
}


class Status(StrEnum):
    """A verifier's conclusion (seed name: AttestationReport.status)."""

    TRUSTED = "TRUSTED"
    UNTRUSTED = "UNTRUSTED"


class AttestationReport(BaseModel):
    """The seed's report of one node, filled from a verdict only.

    Attributes:
        node_id: the node that was asked.
        hardware_type: "AMD_SEV_SNP", "INTEL_TDX", "INTEL_SGX", "AWS_NITRO" or "NVIDIA_GPU", behind
            "SIMULATED_" where it is.
        enclave_signature: base64 of the raw evidence.
        measurement_hash: 64 hex digits: SHA-256 over canonical JSON of the TEE type and every identity
            register.
        status: the verifier's conclusion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: Annotated[str, Field(min_length=1, max_length=200)]
    hardware_type: Annotated[str, Field(pattern=r"^(SIMULATED_)?[A-Z][A-Z0-9_]{2,39}$")]
    enclave_signature: str
    measurement_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    status: Status


@dataclass(frozen=True)
class Verdict:
    """What a verifier concluded, and every check it made.

    Attributes:
        status: TRUSTED only if every check passed.
        checks: all checks in order; those after a failure that hides their input are not_run.
        codes: of each failed check, in their order; empty when TRUSTED.
        claims: what the evidence says once it is authentic, else None.
        devices: the claims of each device of the machine, in the order of its evidence.
        evaluated_at: the time certificates and collateral were held against.
        collateral: the documents that were used, those of a refusal too.
        evidence: what was judged.
    """

    status: Status
    checks: tuple[AttestationCheck, ...]
    codes: tuple[str, ...]
    claims: Claims | None
    devices: tuple[Claims, ...]
    evaluated_at: datetime
    evidence: Evidence = field(repr=False)
    collateral: tuple[CollateralDocument, ...] = field(default=(), repr=False)

    @property
    def code(self) -> str | None:
        """Code of the first failed check; None when TRUSTED."""
        return self.codes[0] if self.codes else None

    @property
    def simulated(self) -> bool:
        """Whether any chain ends at a simulated root."""
        known = () if self.claims is None else (self.claims, *self.devices)
        return any(claims.simulated for claims in known)

    @property
    def tcb_status(self) -> TcbStatus:
        """How current the platform is."""
        return self.claims.tcb_status if self.claims is not None else TcbStatus.UNKNOWN

    @property
    def advisories(self) -> tuple[str, ...]:
        """The vendor's advisories that apply."""
        return self.claims.advisories if self.claims is not None else ()

    @property
    def measurement(self) -> str:
        """The register that stands for the code, in hex; "" where nothing was authenticated."""
        return self.claims.measurement if self.claims is not None else ""

    @property
    def hardware_type(self) -> str:
        """The platform's kind, with its simulation named."""
        return (SIMULATED_PREFIX if self.simulated else "") + _HARDWARE_TYPES[self.evidence.tee]

    def require(self) -> Verdict:
        """This verdict if it is TRUSTED.

        Raises:
            AttestationError: with the code of the first failed check and a detail for each failed one.
        """
        if self.status is Status.TRUSTED:
            return self
        failed = [check for check in self.checks if check.outcome is CheckOutcome.FAILED]
        raise AttestationError(
            self.code or "attestation.malformed",
            "The evidence was refused: " + "; ".join(check.detail for check in failed) + ".",
            "Run the released code on an acceptable platform, and answer a fresh nonce.",
            details=[f"{check.name}: {check.detail}" for check in failed],
        )

    def attestation_report(self, node_id: str) -> AttestationReport:
        """The seed's report of this verdict.

        Args:
            node_id: the node that was asked.
        """
        return AttestationReport(
            node_id=node_id,
            hardware_type=self.hardware_type,
            enclave_signature=b64encode(self.evidence.encode()),
            measurement_hash=identity_hash(self),
            status=self.status,
        )


def identity_hash(verdict: Verdict) -> str:
    """SHA-256 over canonical JSON of the TEE type and every identity register.

    Args:
        verdict: where nothing was authenticated, the hash is that of no registers.
    """
    if verdict.claims is not None:
        return verdict.claims.identity_sha256
    return sha256_hex(canonicalize({"tee": verdict.evidence.tee.value, "registers": {}}))
