"""What a relying party accepts, and what the manifests of a job agree on.

Rules kept here:

* Default deny: what no field allows isn't acceptable. Debug, migration and a revoked certificate never are.
* Policies name registers, never the digest over them. One register says all of the code in an SNP report and
  an SGX quote; a TDX quote and a Nitro document need several, so those are allowed as a set.
* A missing input, such as a revocation list, is a failure unless the policy names that it will do without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cloister.core.canonical import JSON, canonicalize
from cloister.core.errors import InputError
from cloister.core.hashes import sha256_hex
from cloister.core.parsing import parse_model
from cloister.enclave.attestation.agreement import common, no_common, strictest_of
from cloister.enclave.attestation.claims import Claims
from cloister.enclave.errors import AttestationError
from cloister.evidence import attestation_terms as terms
from cloister.evidence.attestation_terms import ManifestAttestation, ManifestReference
from cloister.evidence.hardware_terms import (
    GpuMode,
    HardwareTerms,
    LowestVersions,
    ProductLine,
    Tee,
)

POLICY_SCHEMA = "urn:cloister:appraisal-policy:v3"
REQUIRED_REGISTERS: Mapping[Tee, frozenset[str]] = {
    Tee(name): registers for name, registers in terms.REQUIRED_REGISTERS.items()
}
_MEASUREMENT_TEES = {96: Tee.AMD_SEV_SNP, 64: Tee.INTEL_SGX}
SortedT = TypeVar("SortedT", Tee, str, GpuMode)


class Platforms(StrEnum):
    """Which platforms a policy accepts; simulated ones only where it says so."""

    HARDWARE_ONLY = "hardware-only"
    HARDWARE_OR_SIMULATED = "hardware-or-simulated"


class ReferenceValues(BaseModel):
    """One acceptable state of one kind of hardware: every register named must be equal.

    Attributes:
        tee: the kind of hardware.
        registers: values in lower-case hex or decimal, by the names that ``Claims.registers`` has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tee: Tee
    registers: dict[terms.RegisterName, terms.RegisterValue] = Field(max_length=terms.MAX_REGISTERS)

    @model_validator(mode="after")
    def _says_what_runs(self) -> ReferenceValues:
        required = REQUIRED_REGISTERS.get(self.tee)
        if required is None or not required <= self.registers.keys():
            raise ValueError("names too few registers to say what runs")
        return self

    def met_by(self, claims: Claims) -> bool:
        """Whether the claims are of this kind, every named register is equal, and all that must be are."""
        named = claims.must_be_named <= self.registers.keys()
        return (
            named
            and claims.tee is self.tee
            and all(claims.registers.get(name) == value for name, value in self.registers.items())
        )

    def as_json(self) -> dict[str, JSON]:
        """The values as plain JSON, registers sorted by name."""
        return {
            "tee": self.tee.value,
            "registers": {name: self.registers[name] for name in sorted(self.registers)},
        }


class AppraisalPolicy(HardwareTerms):
    """What a relying party accepts. Debug and migration are always refused.

    Beside these it has the fields of `HardwareTerms`, by the names that manifests have.

    Attributes:
        measurements: acceptable launch measurements where one register says all: 96 hex digits for SEV-SNP,
            64 for SGX's MRENCLAVE.
        references: acceptable sets of registers, for any kind of hardware.
        platforms: whether simulated evidence is acceptable.
    """

    measurements: Annotated[
        tuple[Annotated[str, Field(pattern=r"^([0-9a-f]{96}|[0-9a-f]{64})$")], ...], Field(max_length=1000)
    ] = ()
    references: Annotated[tuple[ReferenceValues, ...], Field(max_length=1000)] = ()
    platforms: Platforms = Platforms.HARDWARE_ONLY

    @field_validator("measurements")
    @classmethod
    def _sorted_and_distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(values)))

    @field_validator("without_revocation", "accepted_tcb_statuses", "accepted_advisories", "gpu_modes")
    @classmethod
    def _sorted(cls, values: tuple[SortedT, ...]) -> tuple[SortedT, ...]:
        return tuple(sorted(values))

    @field_validator("amd_lines")
    @classmethod
    def _in_their_order(cls, lines: tuple[ProductLine, ...]) -> tuple[ProductLine, ...]:
        return tuple(line for line in ProductLine if line in lines)

    @field_validator("minimum_tcb")
    @classmethod
    def _lines_in_their_order(
        cls, minimum: dict[ProductLine, LowestVersions]
    ) -> dict[ProductLine, LowestVersions]:
        return {line: minimum[line] for line in ProductLine if line in minimum}

    @model_validator(mode="after")
    def _allows_something(self) -> AppraisalPolicy:
        if not self.measurements and not self.references:
            raise ValueError("allows no code")
        return self

    @classmethod
    def agreed_by(cls, manifests: Iterable[ManifestAttestation]) -> AppraisalPolicy:
        """The policy that satisfies every manifest of a job: hub, keepers and receipt verifiers derive it so.

        Args:
            manifests: the attestation terms of each hospital's manifest, at least one.

        Returns:
            The measurements and sets of registers that all of them allow; simulated platforms only if all of
            them do; of every term of hardware the strictest (`strictest_of`).

        Raises:
            AttestationError: attestation.no_common_policy when no machine could satisfy all of them.
            ValueError: a set of registers isn't sound.
        """
        listed = list(manifests)
        measurements = common(one.allowed_measurements for one in listed)
        references = common(map(_references, (one.reference_values for one in listed)))
        if not measurements and not references:
            raise AttestationError(
                "attestation.no_common_policy",
                "No measurement is allowed by every manifest of the job.",
                "Let the hospitals agree on a release of the code.",
            )
        simulated = all(one.allow_simulated for one in listed)
        policy = cls(
            measurements=tuple(measurements),
            references=tuple(
                ReferenceValues(tee=Tee(tee), registers=dict(registers))
                for tee, registers in sorted(references)
            ),
            platforms=Platforms.HARDWARE_OR_SIMULATED if simulated else Platforms.HARDWARE_ONLY,
            **dict(strictest_of(listed)),
        )
        if policy.allows_no_machine:
            raise no_common(
                "amd_lines",
                "names no generation of processors that all of them name",
                "Name under it those that will do, and under minimum_tcb the lowest versions of each.",
            )
        return policy

    @property
    def kinds(self) -> frozenset[Tee]:
        """The kinds of hardware whose code it names."""
        measured = {_MEASUREMENT_TEES[len(one)] for one in self.measurements}
        return frozenset(measured | {one.tee for one in self.references})

    @property
    def allows_no_machine(self) -> bool:
        """Whether it names code for AMD's hardware alone, and none of that hardware."""
        hardware_only = self.platforms is Platforms.HARDWARE_ONLY
        return hardware_only and self.kinds == {Tee.AMD_SEV_SNP} and not self.amd_lines

    def for_some_machine(self) -> Self:
        """This policy, unless it is one that no machine can meet.

        Raises:
            InputError: input.schema.
        """
        if self.allows_no_machine:
            raise InputError(
                "input.schema",
                "This allows no machine: it names code for AMD's hardware, and no generation of it.",
                "Name the generations that will do under amd_lines, and the lowest versions of each under "
                "minimum_tcb; on a command line, in the file of --policy.",
            )
        return self

    @classmethod
    def from_json(cls, value: JSON) -> AppraisalPolicy:
        """Read what ``as_json`` gave, or what a person wrote: fields left out have their defaults.

        Raises:
            InputError: ``input.schema``, with a line for each wrong field.
        """
        if isinstance(value, dict) and value.get("schema") == POLICY_SCHEMA:
            value = {name: field for name, field in value.items() if name != "schema"}
        return parse_model(cls, value, "the appraisal policy")

    def allows_code_of(self, claims: Claims) -> bool:
        """Whether the registers are among those it allows."""
        tee = _MEASUREMENT_TEES.get(len(claims.measurement))
        says_all = tee is claims.tee and not claims.must_be_named
        if says_all and claims.measurement in self.measurements:
            return True
        return any(one.met_by(claims) for one in self.references)

    def as_json(self) -> dict[str, JSON]:
        """The policy as plain JSON values, lists sorted and distinct."""
        references = sorted((one.as_json() for one in self.references), key=canonicalize)
        hardware: dict[str, JSON] = self.model_dump(mode="json", include=set(HardwareTerms.model_fields))
        return {
            "schema": POLICY_SCHEMA,
            "measurements": [*self.measurements],
            "references": [*references],
            "platforms": self.platforms.value,
            **hardware,
        }

    @property
    def sha256(self) -> str:
        """SHA-256 of the policy's RFC 8785 form: its id in bindings."""
        return sha256_hex(canonicalize(self.as_json()))


def _references(listed: Iterable[ManifestReference]) -> Iterable[tuple[str, tuple[tuple[str, str], ...]]]:
    return ((one.tee, tuple(sorted(one.registers.items()))) for one in listed)
