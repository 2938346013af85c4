"""How current a platform is: Intel's TCB info and QE identity, and what they say of a quote.

Forms: Intel PCS API version 4, "Get TCB Info V4" and "Get Quoting Enclave Identity V4" (TCB info version 3,
QE identity version 2). Rules of appraisal: Intel SGX/TDX DCAP, "TCB level selection" and "convergence":

* Levels are tried in the order in which Intel lists them. A platform is of the first level of which none of
  its components is below.
* The TDX module's own versions, the first two of ``tee_tcb_svn``, are left out of that where the second says
  that the module has an identity of its own; the identity's levels rate it.
* What comes out is the worst of platform, quoting enclave and module: out of date outweighs what software
  hardening or configuration mends, and what has to be configured stays in the name.
* No level fits: no status. Nothing is guessed from the nearest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from cloister.enclave.attestation.claims import TcbStatus
from cloister.enclave.attestation.intel.certificates import Platform
from cloister.enclave.attestation.intel.reports import EnclaveReport, TdReport
from cloister.enclave.errors import AttestationError

_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
_FROM_MODULE_IDENTITY = 2

_OUT_OF_DATE = {TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED}
_CONFIGURATION = {
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
}
_HARDENING = {TcbStatus.SW_HARDENING_NEEDED, TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED}
_RATED = {*_OUT_OF_DATE, *_CONFIGURATION, *_HARDENING, TcbStatus.UP_TO_DATE, TcbStatus.REVOKED}


def _hex(digits: int) -> object:
    return Field(pattern=rf"^[0-9a-fA-F]{{{digits}}}$")


class _Signed(BaseModel):
    """Part of a document that Intel signs; what it says beyond this isn't needed here."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Component(_Signed):
    """The version of one component."""

    svn: Annotated[int, Field(ge=0, le=255, strict=True)]


_Components = Annotated[tuple[Component, ...], Field(min_length=16, max_length=16)]


class PlatformVersions(_Signed):
    """The versions that a platform needs for a level."""

    sgx: Annotated[_Components, Field(alias="sgxtcbcomponents")]
    pcesvn: Annotated[int, Field(ge=0, le=0xFFFF, strict=True)]
    tdx: Annotated[_Components | None, Field(alias="tdxtcbcomponents")] = None


class _Level(_Signed):
    status: Annotated[TcbStatus, Field(alias="tcbStatus")]
    advisories: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9-]{2,39}$")], ...],
        Field(alias="advisoryIDs", max_length=500),
    ] = ()

    @field_validator("status")
    @classmethod
    def _one_of_intels(cls, status: TcbStatus) -> TcbStatus:
        if status not in _RATED:
            raise ValueError("a status that Intel doesn't give")
        return status


class PlatformLevel(_Level):
    """One level of a platform."""

    tcb: PlatformVersions


class EnclaveVersion(_Signed):
    """The version that an enclave or module needs for a level."""

    isvsvn: Annotated[int, Field(ge=0, le=0xFFFF, strict=True)]


class EnclaveLevel(_Level):
    """One level of a quoting enclave or TDX module."""

    tcb: EnclaveVersion


class TdxModule(_Signed):
    """The TDX module that a quote must come from."""

    mrsigner: Annotated[str, _hex(96)]
    attributes: Annotated[str, _hex(16)]
    mask: Annotated[str, _hex(16), Field(alias="attributesMask")]


class TdxModuleIdentity(TdxModule):
    """A TDX module of one major version, with levels of its own."""

    id: Annotated[str, Field(pattern=r"^TDX_[0-9A-Fa-f]{2}$")]
    levels: Annotated[tuple[EnclaveLevel, ...], Field(alias="tcbLevels", max_length=200)]


class _Dated(_Signed):
    issued_at: Annotated[AwareDatetime, Field(alias="issueDate")]
    next_update: Annotated[AwareDatetime, Field(alias="nextUpdate")]
    evaluation: Annotated[int, Field(alias="tcbEvaluationDataNumber", ge=0, le=2**31, strict=True)]

    @field_validator("issued_at", "next_update", mode="before")
    @classmethod
    def _in_intels_form(cls, value: object) -> datetime:
        import re

        if not isinstance(value, str) or not re.fullmatch(_TIME, value):
            raise ValueError("not a time as Intel writes it")
        return datetime.fromisoformat(value)


class TcbInfo(_Dated):
    """How current the platforms of one kind are."""

    id: Literal["SGX", "TDX"]
    version: Literal[3]
    fmspc: Annotated[str, _hex(12)]
    pceid: Annotated[str, _hex(4), Field(alias="pceId")]
    kind: Annotated[Literal[0], Field(alias="tcbType")]
    levels: Annotated[tuple[PlatformLevel, ...], Field(alias="tcbLevels", max_length=200)]
    module: Annotated[TdxModule | None, Field(alias="tdxModule")] = None
    modules: Annotated[tuple[TdxModuleIdentity, ...], Field(alias="tdxModuleIdentities", max_length=256)] = ()

    @field_validator("fmspc", "pceid")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


class QeIdentity(_Dated):
    """Which quoting enclave is Intel's, and how current its versions are."""

    id: Literal["QE", "TD_QE"]
    version: Literal[2]
    miscselect: Annotated[str, _hex(8)]
    miscselect_mask: Annotated[str, _hex(8), Field(alias="miscselectMask")]
    attributes: Annotated[str, _hex(32)]
    attributes_mask: Annotated[str, _hex(32), Field(alias="attributesMask")]
    mrsigner: Annotated[str, _hex(64)]
    isvprodid: Annotated[int, Field(ge=0, le=0xFFFF, strict=True)]
    levels: Annotated[tuple[EnclaveLevel, ...], Field(alias="tcbLevels", max_length=200)]


class Rating(BaseModel):
    """A status and what Intel published about it."""

    model_config = ConfigDict(frozen=True)

    status: TcbStatus
    advisories: tuple[str, ...] = ()


def rate_quoting_enclave(identity: QeIdentity, report: EnclaveReport) -> Rating:
    """Hold a quoting enclave against Intel's.

    Raises:
        AttestationError: attestation.qe_identity where it is another, or older than any that Intel rates.
    """
    same = (
        report.mrsigner == bytes.fromhex(identity.mrsigner)
        and report.isvprodid == identity.isvprodid
        and _masked(report.miscselect, identity.miscselect_mask) == bytes.fromhex(identity.miscselect)
        and _masked(report.attributes, identity.attributes_mask) == bytes.fromhex(identity.attributes)
    )
    rating = _enclave_rating(identity.levels, report.isvsvn) if same else None
    if rating is None:
        raise AttestationError(
            "attestation.qe_identity", "The quoting enclave is not the one that Intel names."
        )
    return rating


def rate_tdx_module(info: TcbInfo, report: TdReport) -> Rating:
    """Hold the TDX module against the one that Intel names for its major version.

    Returns:
        Its rating; a module without an identity of its own is rated with the platform.

    Raises:
        AttestationError: attestation.tdx_module where it is another, or older than any that Intel rates.
    """
    minor, major = report.tee_tcb_svn[0], report.tee_tcb_svn[1]
    named: TdxModule | None = info.module
    rating: Rating | None = Rating(status=TcbStatus.UP_TO_DATE)
    if major:
        identity = next((one for one in info.modules if one.id.upper() == f"TDX_{major:02X}"), None)
        named = identity
        rating = _enclave_rating(identity.levels, minor) if identity is not None else None
    same = (
        named is not None
        and report.mrsignerseam == bytes.fromhex(named.mrsigner)
        and _masked(report.seamattributes, named.mask) == bytes.fromhex(named.attributes)
    )
    if rating is None or not same:
        raise AttestationError("attestation.tdx_module", "The TDX module is not the one that Intel names.")
    return rating


def rate_platform(info: TcbInfo, platform: Platform, tee_tcb_svn: bytes | None) -> Rating | None:
    """Find the level of a platform.

    Args:
        info: of this kind of platform.
        platform: what its PCK certificate says.
        tee_tcb_svn: 16 versions of what carries a trust domain; None for an enclave.

    Returns:
        The level's rating, or None where the platform is below all levels.
    """
    for level in info.levels:
        needed = level.tcb
        if platform.pcesvn < needed.pcesvn or not _reaches(platform.components, needed.sgx, 0):
            continue
        if tee_tcb_svn is not None:
            first = _FROM_MODULE_IDENTITY if tee_tcb_svn[1] > 0 else 0
            if needed.tdx is None or not _reaches(tee_tcb_svn, needed.tdx, first):
                continue
        return Rating(status=level.status, advisories=level.advisories)
    return None


def worst_of(ratings: Sequence[Rating]) -> Rating:
    """The status that all parts together have, and the advisories on any of them."""
    found = {one.status for one in ratings}
    advisories = tuple(sorted({name for one in ratings for name in one.advisories}))
    configuration = bool(found & _CONFIGURATION)
    if TcbStatus.REVOKED in found:
        status = TcbStatus.REVOKED
    elif found & _OUT_OF_DATE:
        status = TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED if configuration else TcbStatus.OUT_OF_DATE
    elif found & _HARDENING:
        status = (
            TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED
            if configuration
            else TcbStatus.SW_HARDENING_NEEDED
        )
    else:
        status = TcbStatus.CONFIGURATION_NEEDED if configuration else TcbStatus.UP_TO_DATE
    return Rating(status=status, advisories=advisories)


def _enclave_rating(levels: tuple[EnclaveLevel, ...], isvsvn: int) -> Rating | None:
    fitting = next((one for one in levels if isvsvn >= one.tcb.isvsvn), None)
    return Rating(status=fitting.status, advisories=fitting.advisories) if fitting is not None else None


def _reaches(versions: Sequence[int], needed: tuple[Component, ...], first: int) -> bool:
    return all(versions[index] >= needed[index].svn for index in range(first, len(needed)))


def _masked(value: bytes, mask: str) -> bytes:
    return bytes(one & other for one, other in zip(value, bytes.fromhex(mask), strict=True))
