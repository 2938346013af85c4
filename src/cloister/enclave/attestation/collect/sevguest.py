"""Evidence through ``/dev/sev-guest``, for SNP guests on kernels before configfs-tsm (Linux 5.19).

Frames are those of ``include/uapi/linux/sev-guest.h``: a request of 96 bytes (user data 64, VMPL 4, reserved
28), extended by the address and length of a buffer for the host's certificates; an answer of 4,000 bytes that
begins with the firmware's status and the report's size (AMD publication 56860, MSG_REPORT_RSP).
"""

from __future__ import annotations

import ctypes
import struct

from cloister.enclave.attestation.amd.report import REPORT_BYTES
from cloister.enclave.attestation.collect.device import (
    Device,
    device_error,
    malformed_answer,
    require_report_data,
)
from cloister.enclave.attestation.collect.snp_answer import snp_evidence
from cloister.enclave.attestation.evidence import Evidence
from cloister.enclave.errors import CollectError

SEV_GUEST = "/dev/sev-guest"
GET_EXTENDED_REPORT = 0xC0205302
CALL = struct.Struct("<B7xQQQ")
"""struct snp_guest_request_ioctl: message version, request, answer, and the two errors in one word."""
REQUEST = struct.Struct("<64sI28xQI4x")
"""struct snp_ext_report_req: user data, VMPL, address and length of the certificates' buffer."""
ANSWER_BYTES = 4000
CERTIFICATES_BYTES = 16 * 1024
"""SEV_FW_BLOB_MAX_SIZE: the most that the kernel takes."""
_REPORT_AT = 0x20
_STATUS = struct.Struct("<II")


class SevGuest:
    """This guest, asked through its SNP device.

    Args:
        device: the operating system.
        vmpl: the privilege level to report; the guest's own or a lesser one.
        certificates: the operator's own chain, where the host gives none; DER, the endorsed key's first.
    """

    def __init__(self, device: Device, vmpl: int = 0, certificates: tuple[bytes, ...] = ()) -> None:
        self._device = device
        self._vmpl = vmpl
        self._certificates = certificates

    def quote(self, report_data: bytes) -> Evidence:
        """Answer a challenge.

        Args:
            report_data: the 64 bytes to seal in.

        Returns:
            A signed report and its chain.

        Raises:
            CollectError: what kept it from an answer.
        """
        require_report_data(report_data)
        table = ctypes.create_string_buffer(CERTIFICATES_BYTES)
        answer = ctypes.create_string_buffer(ANSWER_BYTES)
        fields = REQUEST.pack(report_data, self._vmpl, ctypes.addressof(table), CERTIFICATES_BYTES)
        request = ctypes.create_string_buffer(fields, len(fields))
        frame = bytearray(CALL.pack(1, ctypes.addressof(request), ctypes.addressof(answer), 0))
        try:
            self._device.ioctl(SEV_GUEST, GET_EXTENDED_REPORT, frame)
        except OSError as error:
            errors = CALL.unpack(frame)[3]
            if errors:
                raise _refused(errors & 0xFFFFFFFF, errors >> 32) from None
            raise device_error(error, SEV_GUEST) from None
        errors = CALL.unpack(frame)[3]
        if errors:
            raise _refused(errors & 0xFFFFFFFF, errors >> 32)
        status, size = _STATUS.unpack_from(answer.raw)
        if status:
            raise _refused(status, 0)
        if size != REPORT_BYTES:
            raise malformed_answer(SEV_GUEST)
        report = answer.raw[_REPORT_AT : _REPORT_AT + size]
        return snp_evidence(report, table.raw, report_data, self._vmpl, self._certificates)


def _refused(firmware: int, host: int) -> CollectError:
    """A refusal by the firmware or the host, by the numbers that both publish."""
    return CollectError(
        "collect.refused",
        f"{SEV_GUEST} refused: firmware status {firmware:#x}, host status {host:#x}.",
        "Ask again a little later: a host limits how often a guest may ask." if host == 2 else "",
    )
