"""What ``/dev/tdx_guest`` gives: a TDREPORT, which is local evidence and no quote.

A TDREPORT is authenticated by a key that only this processor has (Intel TDX module ABI, TDREPORT_STRUCT,
1,024 bytes), so nobody elsewhere can verify it. A quote is made from it by Intel's quoting enclave on the
host, which a guest reaches through configfs-tsm. This module reads the TDREPORT to tell an operator what the
TD is; it never stands in for a quote.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.enclave.attestation.collect.device import (
    Device,
    asking,
    malformed_answer,
    other_answer,
    require_report_data,
)
from cloister.enclave.attestation.evidence import Evidence
from cloister.enclave.errors import CollectError

TDX_GUEST = "/dev/tdx_guest"
GET_REPORT = 0xC4405401
TD_REPORT_BYTES = 1024
_ASKED_BYTES = 64
_TDX = 0x81
_DATA_AT = 128
_INFO_AT = 512


@dataclass(frozen=True)
class TdReport:
    """What this processor says of the TD, to this machine alone.

    Attributes:
        raw: the 1,024 bytes, for a quoting service of one's own.
        debug: whether the host may look into the TD.
        mrtd: the measurement of the TD's first memory, 48 bytes.
        rtmrs: its four run-time registers, 48 bytes each.
    """

    raw: bytes
    debug: bool
    mrtd: bytes
    rtmrs: tuple[bytes, ...]


def td_report(device: Device, report_data: bytes) -> TdReport:
    """Ask the TDX module for a TDREPORT.

    Args:
        device: the operating system.
        report_data: the 64 bytes to seal in.

    Raises:
        CollectError: what kept it from an answer.
    """
    require_report_data(report_data)
    frame = bytearray(report_data + bytes(TD_REPORT_BYTES))
    with asking(TDX_GUEST):
        device.ioctl(TDX_GUEST, GET_REPORT, frame)
    if len(frame) != _ASKED_BYTES + TD_REPORT_BYTES:
        raise malformed_answer(TDX_GUEST)
    raw = bytes(frame[_ASKED_BYTES:])
    if raw[0] != _TDX:
        raise malformed_answer(TDX_GUEST)
    if raw[_DATA_AT : _DATA_AT + _ASKED_BYTES] != report_data:
        raise other_answer(TDX_GUEST)
    info = raw[_INFO_AT:]
    return TdReport(
        raw=raw,
        debug=bool(info[0] & 1),
        mrtd=info[16:64],
        rtmrs=tuple(info[208 + 48 * number : 256 + 48 * number] for number in range(4)),
    )


class TdxGuest:
    """A TD whose kernel offers no configfs-tsm: it can say what it is, and prove it to nobody.

    Args:
        device: the operating system.
    """

    def __init__(self, device: Device) -> None:
        self._device = device

    def quote(self, report_data: bytes) -> Evidence:
        """Refuse, with what the TDREPORT says.

        Raises:
            CollectError: collect.no_quote, or what kept the device from a TDREPORT.
        """
        local = td_report(self._device, report_data)
        raise CollectError(
            "collect.no_quote",
            f"{TDX_GUEST} gives a TDREPORT only, which nobody elsewhere can verify.",
            "Run a kernel with configfs-tsm (6.7 or newer), mount configfs, and have the host run Intel's "
            "quote generation service.",
            details=[
                f"MRTD {local.mrtd.hex()}",
                f"debugging by the host is {'on' if local.debug else 'off'}",
            ],
        )
