"""The event log of a trust domain's firmware and boot loader (ACPI table CCEL), replayed to its registers.

Format: TCG PC Client Platform Firmware Profile, crypto-agile log (section 10.2); Intel's
Guest-Hypervisor Communication Interface for TDX numbers the registers: index 0 is MRTD, index i extends RTMR
i-1. Rules kept here:

* A log explains registers and is worth nothing by itself: what it says counts only where its replay gives
  the values that a verified quote holds.
* Digests are SHA-384 and no other. Events of the type "no action" extend nothing.
* A log ends in erased bytes, all zero or all one. The number of events and all sizes are bounded.
* An event's data are its author's words. Only where the digest is that of the data are they what was
  measured; other events' digests are over something else, such as a boot loader's code.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from cloister.enclave.errors import AttestationError

MAX_LOG_BYTES: Final = 1024 * 1024
MAX_EVENTS: Final = 8192
REGISTERS: Final = 4
_ERASED = (0x00, 0xFF)
_NO_ACTION = 3
_SHA384 = 0x000C
_SHA384_BYTES = 48
_SIGNATURE = b"Spec ID Event03\0"
_FIRST = struct.Struct("<II20sI")
_SPECIFICATION = struct.Struct("<16sIBBBBI")
_ALGORITHM = struct.Struct("<HH")
_EVENT = struct.Struct("<III")
_SIZE = struct.Struct("<I")
_EVENT_FRAME = _EVENT.size + 2 + _SHA384_BYTES + _SIZE.size


@dataclass(frozen=True)
class MeasuredEvent:
    """One event.

    Attributes:
        register: which RTMR it extends; -1 for MRTD, which nothing extends.
        kind: the event type, as the TCG numbers it.
        digest: SHA-384 that extends the register.
        data: what its author says of it.
    """

    register: int
    kind: int
    digest: bytes
    data: bytes

    @property
    def extends(self) -> bool:
        """Whether it changes a register."""
        return self.kind != _NO_ACTION

    @property
    def data_are_measured(self) -> bool:
        """Whether the digest is that of the data, so that they are what was measured."""
        return hashlib.sha384(self.data).digest() == self.digest


def read_event_log(data: bytes) -> tuple[MeasuredEvent, ...]:
    """Read a log.

    Args:
        data: at most 1 MiB.

    Raises:
        AttestationError: attestation.malformed.
    """
    if len(data) > MAX_LOG_BYTES:
        raise _malformed()
    try:
        return tuple(_events(data))
    except struct.error:
        raise _malformed() from None


def written_part(data: bytes) -> bytes:
    """A log up to the end of its last event, without the erased bytes of the area behind it.

    Args:
        data: at most 1 MiB.

    Raises:
        AttestationError: attestation.malformed.
    """
    events = read_event_log(data)
    return data[: _first_event(data) + sum(_EVENT_FRAME + len(event.data) for event in events)]


def replay(events: tuple[MeasuredEvent, ...]) -> tuple[bytes, bytes, bytes, bytes]:
    """The four registers that the events give, each from 48 zero bytes on."""
    registers = [bytes(_SHA384_BYTES)] * REGISTERS
    for event in events:
        if event.extends:
            registers[event.register] = hashlib.sha384(registers[event.register] + event.digest).digest()
    return (registers[0], registers[1], registers[2], registers[3])


def verify_event_log(data: bytes, rtmrs: tuple[bytes, bytes, bytes, bytes]) -> tuple[MeasuredEvent, ...]:
    """Read a log and hold its replay against the registers of a verified quote.

    RTMR0 to RTMR2, which firmware, boot loader and kernel extend, must all come out. RTMR3 is the
    application's: it must come out if the log has an event of it.

    Args:
        data: the log.
        rtmrs: the quote's registers, 48 bytes each.

    Returns:
        The events.

    Raises:
        AttestationError: attestation.malformed, or attestation.measurement where a register differs.
    """
    events = read_event_log(data)
    told = {0, 1, 2} | {event.register for event in events if event.extends}
    found = replay(events)
    if any(found[register] != rtmrs[register] for register in told):
        raise AttestationError(
            "attestation.measurement", "The event log doesn't give the registers that the quote holds."
        )
    return events


def _events(data: bytes) -> list[MeasuredEvent]:
    at = _first_event(data)
    erased_from = len(data.rstrip(data[-1:])) if data[-1] in _ERASED else len(data)
    found: list[MeasuredEvent] = []
    while at < erased_from:
        if len(found) == MAX_EVENTS:
            raise _malformed()
        index, kind, digests = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        algorithm, _ = _ALGORITHM.unpack_from(data, at)
        at += 2
        if digests != 1 or algorithm != _SHA384 or index > REGISTERS:
            raise _malformed()
        digest = data[at : at + _SHA384_BYTES]
        at += _SHA384_BYTES
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if at + size > len(data):
            raise _malformed()
        event = MeasuredEvent(index - 1, kind, digest, data[at : at + size])
        if event.extends and event.register < 0:
            raise _malformed()
        found.append(event)
        at += size
    return found


def _first_event(data: bytes) -> int:
    """Read the event that names the log's form; the place after it."""
    _, kind, digest, size = _FIRST.unpack_from(data)
    at = _FIRST.size
    signature, _, _, major, _, _, algorithms = _SPECIFICATION.unpack_from(data, at)
    if kind != _NO_ACTION or any(digest) or signature != _SIGNATURE or major != 2 or algorithms != 1:
        raise _malformed()
    at += _SPECIFICATION.size
    algorithm, digest_bytes = _ALGORITHM.unpack_from(data, at)
    at += _ALGORITHM.size
    vendor_bytes = data[at] if at < len(data) else 0
    at += 1 + vendor_bytes
    if (algorithm, digest_bytes) != (_SHA384, _SHA384_BYTES) or at != _FIRST.size + size or at > len(data):
        raise _malformed()
    return at


def _malformed() -> AttestationError:
    return AttestationError("attestation.malformed", "The event log is not of its exact form.")
