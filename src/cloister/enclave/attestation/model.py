"""The words of attestation as typed values: evidence, binding, policy, checks, verdict.

Evidence is what a machine shows; a binding is what the report must have sealed in; a policy is what is
acceptable; a verdict lists every check that was made or skipped. Only a verifier makes a verdict; a machine
never states its own status.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.core.hashes import sha256_hex
from cloister.enclave.attestation.snp import SnpReport, Tcb
from cloister.enclave.errors import AttestationError

TEE = "amd-sev-snp"
POLICY_SCHEMA = "urn:cloister:appraisal-policy:v1"
BINDING_DOMAIN = b"urn:cloister:report-data:v1\x00"
NONCE_BYTES = 32
NO_MEASUREMENT = "0" * 96
MAX_EVIDENCE_BYTES = 64 * 1024
HardwareType: TypeAlias = Literal["AMD_SEV_SNP", "SIMULATED_AMD_SEV_SNP"]
_KEY_ID = re.compile(r"sha256:[0-9a-f]{64}")


class Platforms(StrEnum):
    """Which platforms a policy accepts; simulated ones only where it says so."""

    HARDWARE_ONLY = "hardware-only"
    HARDWARE_OR_SIMULATED = "hardware-or-simulated"


class Status(StrEnum):
    """A verifier's conclusion (seed name: AttestationReport.status)."""

    TRUSTED = "TRUSTED"
    UNTRUSTED = "UNTRUSTED"


class CheckOutcome(StrEnum):
    """How one check of a verdict ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


@dataclass(frozen=True)
class Evidence:
    """What a machine shows: a signed report and the certificates that endorse its key.

    Attributes:
        report: 1,184 bytes as the firmware gave them.
        chain: DER certificates: the endorsement key's (VCEK or VLEK), the intermediate's, the root's.
    """

    report: bytes
    chain: tuple[bytes, ...]

    def as_json(self) -> dict[str, JSON]:
        """``{"report": base64, "chain": [base64...]}``, as statements carry it."""
        return {
            "report": b64encode(self.report),
            "chain": [b64encode(certificate) for certificate in self.chain],
        }

    def encode(self) -> bytes:
        """The RFC 8785 form of ``as_json``; ``decode`` accepts nothing else."""
        return canonicalize(self.as_json())

    @classmethod
    def decode(cls, data: bytes) -> "Evidence":
        """Read what ``encode`` wrote.

        Raises:
            AttestationError: attestation.malformed.
        """
        try:
            value = parse_canonical(data, max_bytes=MAX_EVIDENCE_BYTES, max_depth=4)
            if not isinstance(value, dict) or value.keys() != {"report", "chain"}:
                raise _malformed()
            report, chain = value["report"], value["chain"]
            if not isinstance(report, str) or not isinstance(chain, list):
                raise _malformed()
            texts = [text for text in chain if isinstance(text, str)]
            if len(texts) != len(chain):
                raise _malformed()
            return cls(b64decode(report), tuple(b64decode(text) for text in texts))
        except InputError:
            raise _malformed() from None


@dataclass(frozen=True)
class Binding:
    """What a report must have sealed in: whose answer it is, to which question, for which job and policy.

    Attributes:
        nonce: 32 bytes, issued by the verifier for one answer.
        site_key_id: the site's public key as "sha256:<hex of its SubjectPublicKeyInfo>".
        job_id: the job.
        policy_id: hash of the appraisal policy the site agreed to.
    """

    nonce: bytes
    site_key_id: str
    job_id: str
    policy_id: str

    def report_data(self) -> bytes:
        """The report's 64-byte user data: SHA-512(domain || nonce || SHA-256(public key) || SHA-256(job,
        policy)).

        The public key is hashed as SubjectPublicKeyInfo in DER, which is what ``site_key_id`` names; job and
        policy as the RFC 8785 form of ``[job_id, policy_id]``.

        Raises:
            AttestationError: attestation.malformed for a nonce that isn't 32 bytes, or another key id.
        """
        if len(self.nonce) != NONCE_BYTES or not _KEY_ID.fullmatch(self.site_key_id):
            raise _malformed()
        subject: list[JSON] = [self.job_id, self.policy_id]
        return hashlib.sha512(
            BINDING_DOMAIN
            + self.nonce
            + bytes.fromhex(self.site_key_id.removeprefix("sha256:"))
            + hashlib.sha256(canonicalize(subject)).digest()
        ).digest()

    def as_json(self) -> dict[str, JSON]:
        """The binding as plain JSON values, the nonce in base64."""
        return {
            "nonce": b64encode(self.nonce),
            "site_key_id": self.site_key_id,
            "job_id": self.job_id,
            "policy_id": self.policy_id,
        }


class AttestationTerms(Protocol):
    """What a hospital's manifest says of attestation."""

    @property
    def allowed_measurements(self) -> Sequence[str]:
        """Measurements it allows, 96 hex digits each."""
        ...

    @property
    def allow_simulated(self) -> bool:
        """Whether a simulated platform will do."""
        ...


class AppraisalPolicy(BaseModel):
    """What a relying party accepts. Debug and migration are always refused.

    Attributes:
        measurements: acceptable launch measurements, 96 hex digits each.
        platforms: whether simulated evidence is acceptable.
        vmpl: the privilege level the report must come from.
        minimum_tcb: lowest acceptable version of each platform component, or None for no minimum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    measurements: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{96}$")], ...], Field(min_length=1, max_length=1000)
    ]
    platforms: Platforms = Platforms.HARDWARE_ONLY
    vmpl: Annotated[int, Field(ge=0, le=3, strict=True)] = 0
    minimum_tcb: Tcb | None = None

    @classmethod
    def agreed_by(cls, terms: Iterable[AttestationTerms]) -> "AppraisalPolicy":
        """The policy that satisfies every manifest of a job; hub and receipt verifier both derive it so.

        Args:
            terms: the attestation terms of each hospital's manifest, at least one.

        Returns:
            The measurements that all of them allow; simulated platforms only if all of them do.

        Raises:
            AttestationError: attestation.no_common_policy when no measurement is allowed by all.
        """
        listed = list(terms)
        allowed = [frozenset(one.allowed_measurements) for one in listed]
        common = frozenset.intersection(*allowed) if allowed else frozenset()
        if not common:
            raise AttestationError(
                "attestation.no_common_policy",
                "No measurement is allowed by every manifest of the job.",
                "Let the hospitals agree on a release of the code.",
            )
        simulated = all(one.allow_simulated for one in listed)
        platforms = Platforms.HARDWARE_OR_SIMULATED if simulated else Platforms.HARDWARE_ONLY
        return cls(measurements=tuple(sorted(common)), platforms=platforms)

    def as_json(self) -> dict[str, JSON]:
        """The policy as plain JSON values, measurements sorted and distinct."""
        minimum: JSON = None
        if self.minimum_tcb is not None:
            minimum = dict(self.minimum_tcb.as_dict())
        listed: list[JSON] = [*sorted(set(self.measurements))]
        return {
            "schema": POLICY_SCHEMA,
            "measurements": listed,
            "platforms": self.platforms.value,
            "vmpl": self.vmpl,
            "minimum_tcb": minimum,
        }

    @property
    def sha256(self) -> str:
        """SHA-256 of the policy's RFC 8785 form: its id in bindings."""
        return sha256_hex(canonicalize(self.as_json()))


@dataclass(frozen=True)
class AttestationCheck:
    """One check of a verdict."""

    name: str
    outcome: CheckOutcome
    detail: str


class AttestationReport(BaseModel):
    """The seed's report of one node, filled from a verdict only.

    Attributes:
        node_id: the node that was asked.
        hardware_type: "AMD_SEV_SNP", or "SIMULATED_AMD_SEV_SNP".
        enclave_signature: base64 of the raw evidence.
        measurement_hash: 64 hex digits: SHA-256 over canonical JSON of the TEE type and its identity
            registers.
        status: the verifier's conclusion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_id: Annotated[str, Field(min_length=1, max_length=200)]
    hardware_type: HardwareType
    enclave_signature: str
    measurement_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    status: Status


@dataclass(frozen=True)
class Verdict:
    """What a verifier concluded, and every check it made.

    Attributes:
        status: TRUSTED only if every check passed.
        checks: all checks in order; those after a failure that hides their input are not_run.
        code: code of the first failed check, None when TRUSTED.
        report: the parsed report once its signature is verified, else None.
        simulated: the chain ends at a simulated root.
        evaluated_at: the time certificates were held against.
        evidence: what was judged.
    """

    status: Status
    checks: tuple[AttestationCheck, ...]
    code: str | None
    report: SnpReport | None
    simulated: bool
    evaluated_at: datetime
    evidence: Evidence = field(repr=False)

    @property
    def measurement(self) -> str:
        """The launch measurement, 96 hex digits; all zero where no report was authenticated."""
        return self.report.measurement.hex() if self.report is not None else NO_MEASUREMENT

    @property
    def hardware_type(self) -> HardwareType:
        """The platform's kind, with its simulation named."""
        return "SIMULATED_AMD_SEV_SNP" if self.simulated else "AMD_SEV_SNP"

    def require(self) -> "Verdict":
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
            measurement_hash=identity_hash(self.report),
            status=self.status,
        )


def identity_hash(report: SnpReport | None) -> str:
    """SHA-256 over canonical JSON of the TEE type and every identity register.

    Args:
        report: an authenticated report, or None, which hashes to that of no registers.
    """
    registers: dict[str, JSON] = dict(report.identity()) if report is not None else {}
    return sha256_hex(canonicalize({"tee": TEE, "registers": registers}))


def _malformed() -> AttestationError:
    return AttestationError("attestation.malformed", "The evidence is not of its exact form.")
