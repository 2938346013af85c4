"""The event log of a trust domain's firmware and boot loader, read where Linux shows ACPI's table CCEL.

``/sys/firmware/acpi/tables/CCEL`` says that there is a log and of which kind of guest (ACPI 6.5, "CC Event
Log ACPI Table"); ``/sys/firmware/acpi/tables/data/CCEL`` is the log's area, with erased bytes behind its end.
Both are for root alone. Rules kept here:

* A log explains a quote's registers and proves nothing: a guest that can't read one answers without it.
* What goes along is the log up to its last event, and only if its replay gives the registers of the quote
  that it goes along with. Registers that were extended after the firmware's log was closed are explained by
  no log of firmware, and a log that doesn't explain would have the verifier refuse the quote.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from typing import Final

from cloister.enclave.attestation.collect.device import Device
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.errors import AttestationError

TABLE: Final = "/sys/firmware/acpi/tables/CCEL"
LOG: Final = "/sys/firmware/acpi/tables/data/CCEL"
EVENT_LOG: Final = "ccel"
MAX_AREA_BYTES: Final = 1024 * 1024
MAX_SENT_BYTES: Final = 256 * 1024
_TABLE = struct.Struct("<4sI28sBBHQQ")
_OF_TDX = 2
_NO_LOG = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV, errno.EFBIG)


def with_event_log(device: Device, evidence: Evidence) -> Evidence:
    """Evidence of a trust domain, with the event log that explains its registers where there is one.

    Args:
        device: the operating system.
        evidence: a TDX quote.

    Raises:
        OSError: the kernel failed in another way than by having no log for this process.
    """
    area = _area(device) if evidence.tee is Tee.INTEL_TDX else None
    log = None if area is None else _explaining(area, evidence)
    return evidence if log is None else replace(evidence, extras={**evidence.extras, EVENT_LOG: log})


def _area(device: Device) -> bytes | None:
    try:
        table = device.read(TABLE, 4096)
        area = device.read(LOG, MAX_AREA_BYTES)
    except OSError as error:
        if error.errno in _NO_LOG:
            return None
        raise
    if len(table) < _TABLE.size:
        return None
    signature, length, _, kind, *_ = _TABLE.unpack_from(table)
    return area if (signature, length, kind) == (b"CCEL", len(table), _OF_TDX) else None


def _explaining(area: bytes, evidence: Evidence) -> bytes | None:
    """The log without what is erased, if its replay gives the quote's registers."""
    from cloister.enclave.attestation.intel.eventlog import verify_event_log, written_part
    from cloister.enclave.attestation.intel.quote import Quote
    from cloister.enclave.attestation.intel.reports import TdReport

    try:
        body = Quote.parse(evidence.report).body
        log = written_part(area)
        if not isinstance(body, TdReport) or len(log) > MAX_SENT_BYTES:
            return None
        verify_event_log(log, body.rtmrs)
    except AttestationError:
        return None
    return log
