"""What may be asked of hardware: the words that manifests, appraisal policies and release policies share.

Rules kept here:

* A term is named and described once, here. Every document that asks something of hardware has these fields.
* What isn't written isn't agreed: no generation of AMD's processors, no state of a platform but the best, no
  advisory, no privilege level but the guest's own, no GPU, no evidence without a revocation list. Debugging
  and migration can't be agreed to at all.
* Three terms only narrow what vendors' own documents allow: unless one is written, collateral will do for as
  long as its issuer says, any evaluation that still holds counts, and so does any driver that has a manifest.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

MAX_TERMS: Final = 1000


class Tee(StrEnum):
    """Kinds of hardware whose evidence is verified."""

    AMD_SEV_SNP = "amd-sev-snp"
    INTEL_TDX = "intel-tdx"
    INTEL_SGX = "intel-sgx"
    AWS_NITRO = "aws-nitro"
    NVIDIA_GPU = "nvidia-gpu"


class ProductLine(StrEnum):
    """AMD EPYC generations with roots of their own; Bergamo and Siena use Genoa's."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


class Gpus(StrEnum):
    """Whether GPUs may, or must, be part of a machine; each that is shows evidence of its own."""

    NOT_USED = "not-used"
    """None may: a machine that shows one is refused."""
    ALLOWED = "allowed"
    """It may have some, or none."""
    REQUIRED = "required"
    """It must have one at least."""


class GpuMode(StrEnum):
    """How GPUs are given to a confidential machine."""

    SINGLE = "single"
    """One GPU by itself, its bus encrypted."""
    MULTI = "multi"
    """Several, with encrypted links between them."""
    PROTECTED_PCIE = "protected-pcie"
    """Several, with plain links over switches, which aren't verified here."""


ExcusedStatus = Literal["SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"]
"""States of a platform, as Intel calls them, that software or settings can mend. No other is ever excused."""

Component = Annotated[int, Field(ge=0, le=255, strict=True)]


class LowestVersions(BaseModel):
    """The lowest acceptable version of each component of an AMD platform, as its security firmware counts.

    Attributes:
        boot_loader: of the security processor's boot loader.
        tee: of its operating system.
        snp: of the SNP firmware.
        microcode: of the cores' microcode.
        fmc: of the first mutable code, which Turin has and must be named there, and no other generation has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    boot_loader: Component
    tee: Component
    snp: Component
    microcode: Component
    fmc: Component | None = None

    def shortfalls(self, stated: Mapping[str, int]) -> tuple[str, ...]:
        """The components that are older, each with its version and the lowest that will do.

        Args:
            stated: versions by component.
        """
        return tuple(
            f"{name} {stated.get(name, 0)} is below {lowest}"
            for name, lowest in self.as_dict().items()
            if stated.get(name, 0) < lowest
        )

    def as_dict(self) -> dict[str, int]:
        """The components that this generation has, by name."""
        fmc = {} if self.fmc is None else {"fmc": self.fmc}
        return {
            "boot_loader": self.boot_loader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
            **fmc,
        }

    @model_serializer(mode="wrap")
    def _without_what_it_has_not(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields: dict[str, object] = write(self)
        return {name: value for name, value in fields.items() if value is not None}


ItemT = TypeVar("ItemT", bound=Hashable)


def _once(items: tuple[ItemT, ...]) -> tuple[ItemT, ...]:
    if len(set(items)) != len(items):
        raise ValueError("names something twice")
    return items


def _as_laid_out(minimum: dict[ProductLine, LowestVersions]) -> dict[ProductLine, LowestVersions]:
    for line, versions in minimum.items():
        if (line is ProductLine.TURIN) != (versions.fmc is not None):
            raise ValueError("fmc must be named for Turin, and for no other generation")
    return minimum


Kinds = Annotated[
    tuple[Annotated[Tee, Field(strict=False)], ...],
    Field(max_length=len(Tee), strict=False),
    AfterValidator(_once),
]
Lines = Annotated[
    tuple[Annotated[ProductLine, Field(strict=False)], ...],
    Field(max_length=len(ProductLine), strict=False),
    AfterValidator(_once),
]
LowestByLine = Annotated[
    dict[Annotated[ProductLine, Field(strict=False)], LowestVersions], AfterValidator(_as_laid_out)
]
Statuses = Annotated[
    tuple[ExcusedStatus, ...], Field(max_length=MAX_TERMS, strict=False), AfterValidator(_once)
]
Advisories = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9-]{2,39}$")], ...],
    Field(max_length=MAX_TERMS, strict=False),
    AfterValidator(_once),
]
GpuModes = Annotated[
    tuple[Annotated[GpuMode, Field(strict=False)], ...],
    Field(min_length=1, max_length=len(GpuMode), strict=False),
    AfterValidator(_once),
]


class HardwareTerms(BaseModel):
    """What is asked of the hardware that may touch records.

    Attributes:
        without_revocation: Kinds of hardware whose evidence will do where nobody has the vendor's revocation
            list. None unless written.
        vmpl: The privilege level that an SNP report must come from; 0, the guest's own, unless written.
        amd_lines: Generations of AMD's processors that will do, since keys of some are known to leak. None
            unless written.
        minimum_tcb: The lowest version of each component of an AMD platform, by generation: they number their
            components differently. Each generation that will do has one. A simulated platform is of none of
            them; it is laid out as Milan's are, and held against Milan's where one is named.
        accepted_tcb_statuses: What Intel may say of a platform beside UpToDate, where at least one advisory
            applies and each that does is accepted. Nothing else unless written.
        accepted_advisories: Intel's advisories that may apply to a platform of such a status.
        minimum_tcb_evaluation: The lowest tcbEvaluationDataNumber that Intel's collateral may have.
        maximum_collateral_age_days: How long ago collateral may have been issued. Unless written, for as long
            as its issuer says.
        gpus: Whether GPUs may, or must, be part of the machine. They may not unless written.
        gpu_modes: How GPUs may be given to the machine; one by itself unless written.
        minimum_gpu_driver: The lowest version of a GPU's driver, such as "570.124".
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    without_revocation: Kinds = ()
    vmpl: Annotated[int, Field(ge=0, le=3, strict=True)] = 0
    amd_lines: Lines = ()
    minimum_tcb: LowestByLine = Field(default_factory=dict)
    accepted_tcb_statuses: Statuses = ()
    accepted_advisories: Advisories = ()
    minimum_tcb_evaluation: Annotated[int, Field(ge=0, le=2**31, strict=True)] | None = None
    maximum_collateral_age_days: Annotated[int, Field(ge=1, le=3650, strict=True)] | None = None
    gpus: Annotated[Gpus, Field(strict=False)] = Gpus.NOT_USED
    gpu_modes: GpuModes = (GpuMode.SINGLE,)
    minimum_gpu_driver: Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,4}){0,3}$")] | None = None

    @model_validator(mode="after")
    def _versions_of_each_line_are_named(self) -> Self:
        unnamed = [line for line in self.amd_lines if line not in self.minimum_tcb]
        if unnamed:
            raise ValueError(f"minimum_tcb must name the lowest versions of {', '.join(unnamed)}")
        return self


ANY_VERSION: Final[Mapping[ProductLine, LowestVersions]] = MappingProxyType(
    {
        line: LowestVersions(
            boot_loader=0, tee=0, snp=0, microcode=0, fmc=0 if line is ProductLine.TURIN else None
        )
        for line in ProductLine
    }
)
"""Every generation of AMD's processors, whatever firmware it runs; for who asks nothing of versions."""


def driver_order(version: str) -> tuple[int, ...]:
    """What two versions of a GPU's driver are compared by."""
    return tuple(int(part) for part in version.split(".") if part)
