"""What a manifest says of attestation, as a hospital writes it.

Rules kept here:

- The terms of hardware are those of `cloister.evidence.hardware_terms`, by the same names as in every policy.
- What may be left out stands for the strict word, or for the bounds that vendors set themselves; a document
  that leaves it out is encoded without it, and so is one that writes what leaving it out stands for.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from cloister.evidence.attestation_terms import REQUIRED_REGISTERS, ManifestAttestation, ManifestReference
from cloister.evidence.hardware_terms import HardwareTerms
from cloister.policy.fields import LONGEST_LIST, Measurements, Section, unique

Machine = Literal["amd-sev-snp", "intel-tdx", "intel-sgx", "aws-nitro"]


class ReferenceState(Section, ManifestReference):
    """One state of one kind of hardware that will do.

    Attributes:
        tee: The kind of hardware.
        registers: Values by register, lower-case hex or decimal, as ``cloister enclave verify`` shows them;
            each that is named must be equal, and the ones that say what code runs must be named.
    """

    tee: Machine

    @model_validator(mode="after")
    def _says_what_runs(self) -> Self:
        missing = sorted(REQUIRED_REGISTERS[self.tee] - self.registers.keys())
        if missing:
            raise ValueError(f"doesn't say what runs without {', '.join(missing)}")
        return self


def _distinct_states(states: tuple[ReferenceState, ...]) -> tuple[ReferenceState, ...]:
    if any(one in states[:place] for place, one in enumerate(states)):
        raise ValueError("names something twice")
    return states


References = Annotated[
    tuple[ReferenceState, ...],
    Field(max_length=LONGEST_LIST, strict=False),
    AfterValidator(_distinct_states),
]
SealLevelName = Literal["namespaces", "no-namespaces", "namespaces-unreported", "no-namespaces-unreported"]
SealLevels = Annotated[
    tuple[SealLevelName, ...], Field(max_length=LONGEST_LIST, strict=False), AfterValidator(unique)
]


class AttestationTerms(Section, ManifestAttestation):
    """Which code may touch the data, and on which hardware.

    Attributes:
        allow_simulated: Whether a simulated platform will do. For test data only.
        allowed_measurements: SHA-384 measurements of the code; on SEV-SNP also those of the machine.
        reference_values: States of other hardware that will do, such as a TDX guest's. None unless written.
        seal_levels: Levels of sealing of the worker that will do. Unless written, ``namespaces`` alone.
    """

    allowed_measurements: Measurements
    reference_values: References = ()
    seal_levels: SealLevels = ()

    @model_serializer(mode="wrap")
    def _unwritten_stays_unwritten(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields: dict[str, object] = write(self)
        usual = {
            name: field.get_default(call_default_factory=True)
            for name, field in type(self).model_fields.items()
            if not field.is_required()
        }
        return {
            name: value
            for name, value in fields.items()
            if name not in usual or getattr(self, name) != usual[name]
        }


class DraftAttestation(Section, HardwareTerms):
    """The attestation terms before the installed code's measurement is filled in."""

    allow_simulated: bool
    allowed_measurements: Literal["installed-release"] | Measurements
    reference_values: References = ()
    seal_levels: SealLevels = ()

    def complete(self, installed_measurement: str) -> AttestationTerms:
        """The terms with the installed code's measurement where the draft asks for it.

        Args:
            installed_measurement: SHA-384 measurement of the installed code, 96 hex digits.
        """
        written = {name: getattr(self, name) for name in type(self).model_fields}
        if isinstance(self.allowed_measurements, str):
            written["allowed_measurements"] = (installed_measurement,)
        return AttestationTerms(**written)
