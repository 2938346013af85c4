"""What a DCAP quote speaks of: an enclave's report, or that of a trust domain, read strictly.

Layouts: as in `cloister.enclave.attestation.intel.quote`. Reserved bytes of an enclave's report are zero, as
the processor leaves them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Final

from cloister.enclave.errors import AttestationError

SEPT_VE_DISABLE: Final = 1 << 28

_ENCLAVE = struct.Struct("<16s4s12s16s16s32s32s32s32s64sHHH42s16s64s")
_TD_10 = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_TD_15 = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s16s48s")

_SGX_DEBUG = 1 << 1
_TD_UNDER_DEBUG = 0xFF
_MIGRATABLE = 1 << 29
_TD_KNOWN = _TD_UNDER_DEBUG | 1 << 27 | SEPT_VE_DISABLE | _MIGRATABLE | 1 << 30 | 1 << 31 | 1 << 63


@dataclass(frozen=True)
class EnclaveReport:
    """The 384 bytes in which a processor describes an enclave (sgx_report_body_t); raw bytes and integers."""

    cpusvn: bytes
    miscselect: bytes
    isvextprodid: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    configid: bytes
    isvprodid: int
    isvsvn: int
    configsvn: int
    isvfamilyid: bytes
    report_data: bytes

    BYTES = _ENCLAVE.size

    @classmethod
    def parse(cls, data: bytes) -> EnclaveReport:
        """Read 384 bytes.

        Raises:
            AttestationError: attestation.malformed.
        """
        (
            cpusvn,
            miscselect,
            reserved1,
            isvextprodid,
            attributes,
            mrenclave,
            reserved2,
            mrsigner,
            reserved3,
            configid,
            isvprodid,
            isvsvn,
            configsvn,
            reserved4,
            isvfamilyid,
            report_data,
        ) = _ENCLAVE.unpack(data)
        if any(reserved1) or any(reserved2) or any(reserved3) or any(reserved4):
            raise malformed_quote()
        return cls(
            cpusvn,
            miscselect,
            isvextprodid,
            attributes,
            mrenclave,
            mrsigner,
            configid,
            isvprodid,
            isvsvn,
            configsvn,
            isvfamilyid,
            report_data,
        )

    def encode(self) -> bytes:
        """The 384 bytes, reserved ones zero."""
        return _ENCLAVE.pack(
            self.cpusvn,
            self.miscselect,
            b"",
            self.isvextprodid,
            self.attributes,
            self.mrenclave,
            b"",
            self.mrsigner,
            b"",
            self.configid,
            self.isvprodid,
            self.isvsvn,
            self.configsvn,
            b"",
            self.isvfamilyid,
            self.report_data,
        )

    @property
    def debug(self) -> bool:
        """The host may read the enclave's memory."""
        return bool(self.attributes[0] & _SGX_DEBUG)

    def registers(self) -> dict[str, str]:
        """The registers that say what runs, in hex or decimal."""
        return {
            "mrenclave": self.mrenclave.hex(),
            "mrsigner": self.mrsigner.hex(),
            "isvprodid": str(self.isvprodid),
            "isvsvn": str(self.isvsvn),
            "attributes": self.attributes.hex(),
            "miscselect": self.miscselect.hex(),
            "configid": self.configid.hex(),
            "configsvn": str(self.configsvn),
            "isvextprodid": self.isvextprodid.hex(),
            "isvfamilyid": self.isvfamilyid.hex(),
        }


@dataclass(frozen=True)
class TdReport:
    """What the TDX module says of a trust domain: 584 bytes, 648 from TDX 1.5 on; raw bytes."""

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seamattributes: bytes
    tdattributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mrservicetd: bytes | None = None

    BYTES_10 = _TD_10.size
    BYTES_15 = _TD_15.size

    @classmethod
    def parse(cls, data: bytes) -> TdReport:
        """Read 584 or 648 bytes."""
        return cls(*(_TD_15 if len(data) == _TD_15.size else _TD_10).unpack(data))

    def encode(self) -> bytes:
        """The 584 or 648 bytes."""
        values = [getattr(self, one.name) for one in fields(self)]
        return _TD_10.pack(*values[:15]) if self.mrservicetd is None else _TD_15.pack(*values)

    @property
    def rtmrs(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The registers that are extended at run time."""
        return (self.rtmr0, self.rtmr1, self.rtmr2, self.rtmr3)

    @property
    def debug(self) -> bool:
        """The host may look into the domain: any bit of the group TUD ("TD under debug")."""
        return bool(self._attributes & _TD_UNDER_DEBUG)

    @property
    def sept_ve_disabled(self) -> bool:
        """The host can't bring the domain to run on by taking pages away (SEPT_VE_DISABLE)."""
        return bool(self._attributes & SEPT_VE_DISABLE)

    @property
    def migratable(self) -> bool:
        """The domain may be moved to another machine."""
        return bool(self._attributes & _MIGRATABLE)

    @property
    def unknown_attributes(self) -> bool:
        """An attribute is set that has no meaning known here."""
        return bool(self._attributes & ~_TD_KNOWN)

    @property
    def _attributes(self) -> int:
        return int.from_bytes(self.tdattributes, "little")

    def registers(self) -> dict[str, str]:
        """The registers that say what runs, in hex."""
        found = {
            "mrtd": self.mrtd.hex(),
            "rtmr0": self.rtmr0.hex(),
            "rtmr1": self.rtmr1.hex(),
            "rtmr2": self.rtmr2.hex(),
            "rtmr3": self.rtmr3.hex(),
            "mrconfigid": self.mrconfigid.hex(),
            "mrowner": self.mrowner.hex(),
            "mrownerconfig": self.mrownerconfig.hex(),
            "mrseam": self.mrseam.hex(),
            "mrsignerseam": self.mrsignerseam.hex(),
            "seamattributes": self.seamattributes.hex(),
            "tdattributes": self.tdattributes.hex(),
            "xfam": self.xfam.hex(),
        }
        if self.mrservicetd is not None:
            found["mrservicetd"] = self.mrservicetd.hex()
        return found


def malformed_quote() -> AttestationError:
    """The refusal of bytes that are no quote."""
    return AttestationError("attestation.malformed", "The quote is not of its exact form.")
