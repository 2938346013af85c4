"""What authentic evidence says, in words that hold for every kind of hardware."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from cloister.core.canonical import JSON, canonicalize
from cloister.core.hashes import sha256_hex
from cloister.enclave.attestation.collateral import CollateralDates, CollateralDocument
from cloister.enclave.attestation.evidence import Tee

PRINCIPAL_REGISTERS: Mapping[Tee, str] = MappingProxyType(
    {
        Tee.AMD_SEV_SNP: "measurement",
        Tee.INTEL_TDX: "mrtd",
        Tee.INTEL_SGX: "mrenclave",
        Tee.AWS_NITRO: "pcr0",
    }
)


class Revocation(StrEnum):
    """What is known of the revocation of the certificates."""

    CHECKED = "checked"
    UNKNOWN = "unknown"


class Sealing(StrEnum):
    """How what was asked for stands in the evidence: as it is, or as its SHA-256 where it has no room."""

    WHOLE = "whole"
    SHA256 = "sha256"


class TcbStatus(StrEnum):
    """How current the platform is. Intel's own words; other vendors rate nothing, and a minimum does."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"
    NOT_RATED = "NotRated"
    UNKNOWN = "Unknown"


class PlatformDetail:
    """What only one kind of hardware says; its own module subclasses this with a frozen dataclass."""


@dataclass(frozen=True)
class Claims:
    """What a pinned root vouches for.

    Attributes:
        tee: the kind of hardware.
        registers: every register that says what runs, by the vendor's name in lower case, hex or decimal.
        sealed_in: the bytes the relying party had sealed in (64; 32 for a device), as found.
        debug: whether the host may look into the guest.
        simulated: whether the chain ends at a simulated root.
        revocation: what is known of revocation.
        tcb_status: how current the platform is.
        advisories: the vendor's advisories that apply, sorted.
        detail: what only this kind of hardware says.
        collateral: the documents that were used.
        collateral_dates: from when they are.
        sealing: how the evidence holds what was asked for.
        device_id: what tells this device from every other of its kind, in hex; "" for a machine.
        must_be_named: registers, beside those its kind always has, without which the rest doesn't say what
            runs; a policy that doesn't name them allows nothing here.
    """

    tee: Tee
    registers: Mapping[str, str]
    sealed_in: bytes
    debug: bool
    simulated: bool
    revocation: Revocation
    detail: PlatformDetail
    tcb_status: TcbStatus = TcbStatus.NOT_RATED
    advisories: tuple[str, ...] = ()
    collateral: tuple[CollateralDocument, ...] = ()
    collateral_dates: tuple[CollateralDates, ...] = field(default=())
    sealing: Sealing = Sealing.WHOLE
    device_id: str = ""
    must_be_named: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "registers", MappingProxyType(dict(self.registers)))

    def answers(self, asked: bytes) -> bool:
        """Whether it has sealed in what was asked for.

        Args:
            asked: the bytes, before any hashing that the evidence's form needs.
        """
        wanted = hashlib.sha256(asked).digest() if self.sealing is Sealing.SHA256 else asked
        return hmac.compare_digest(self.sealed_in, wanted)

    @property
    def measurement(self) -> str:
        """The register that stands for the code (measurement, MRTD, MRENCLAVE, PCR0); "" for a device."""
        return self.registers.get(PRINCIPAL_REGISTERS.get(self.tee, ""), "")

    @property
    def identity_sha256(self) -> str:
        """SHA-256 over canonical JSON of the TEE type and every identity register."""
        registers: dict[str, JSON] = dict(self.registers)
        return sha256_hex(canonicalize({"tee": self.tee.value, "registers": registers}))
