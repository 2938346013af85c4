"""What a manifest says of attestation: which code may touch the records, and on which hardware.

The verifier of receipts reads it as it stands here; `cloister.policy.attestation_terms` is the same with
what whoever writes one is told. A field that isn't known here is refused: one that is left unread could only
have asked for more.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from cloister.evidence.hardware_terms import MAX_TERMS, HardwareTerms

FULL_SEAL: Final = ("namespaces",)
"""What a manifest accepts that says nothing of sealing."""
MAX_REGISTERS: Final = 40

RegisterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
RegisterValue = Annotated[str, Field(pattern=r"^(0x)?[0-9a-f]{1,128}$")]
REQUIRED_REGISTERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "amd-sev-snp": frozenset({"measurement"}),
        "intel-sgx": frozenset({"mrenclave"}),
        "intel-tdx": frozenset({"mrtd", "rtmr0", "rtmr1", "rtmr2"}),
        "aws-nitro": frozenset({"pcr0", "pcr1", "pcr2"}),
    }
)
"""Kinds of hardware that run code, and the registers which together say what runs on each."""


class ManifestReference(BaseModel):
    """One state of one kind of hardware that a manifest allows: the registers named must be equal.

    Attributes:
        tee: The kind of hardware.
        registers: Values by register, lower-case hex or decimal, as ``cloister enclave verify`` shows them;
            each that is named must be equal, and the ones that say what code runs must be named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tee: Annotated[str, Field(max_length=40)]
    registers: Annotated[dict[RegisterName, RegisterValue], Field(max_length=MAX_REGISTERS)]


class ManifestAttestation(HardwareTerms):
    """Which code may touch the records, on which hardware, in which process.

    Attributes:
        allow_simulated: Whether a simulated platform will do.
        allowed_measurements: Measurements of the code; on SEV-SNP also those of the machine.
        reference_values: States of other hardware that will do, such as a TDX guest's. None unless written.
        seal_levels: Levels of sealing of the worker that will do. Unless written, ``namespaces`` alone.
    """

    allow_simulated: bool
    allowed_measurements: Annotated[tuple[str, ...], Field(max_length=MAX_TERMS)]
    reference_values: Annotated[tuple[ManifestReference, ...], Field(max_length=MAX_TERMS)] = ()
    seal_levels: Annotated[tuple[str, ...], Field(max_length=MAX_TERMS)] = ()

    @property
    def accepted_seal_levels(self) -> tuple[str, ...]:
        """The levels of sealing that will do: those named, or the full one."""
        return self.seal_levels or FULL_SEAL
