"""What a GPU's certificate says of its firmware: the DICE extension with the firmware's digest (FWID).

Hopper carries a composite device id (2.23.133.5.4.1), Blackwell TCB information (2.23.133.5.4.1.1), whose
first firmware id is the measured one.

Source: TCG, DICE Attestation Architecture 1.1, sections 6.1.1 and 6.1.2; ITU-T X.690 (DER).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509

from cloister.enclave.errors import AttestationError

OID_COMPOSITE: Final = "2.23.133.5.4.1"
OID_TCB_INFO: Final = "2.23.133.5.4.1.1"
FWID_BYTES: Final = 48

_SEQUENCE, _FWIDS, _FLAGS = 0x30, 0xA6, 0x87
_SHA384_DIGEST = bytes.fromhex("0609608648016503040202") + bytes([0x04, FWID_BYTES])
_DEBUG_FLAG = 0x10
_VERSION_1 = (0x02, b"\1")


@dataclass(frozen=True)
class Firmware:
    """The firmware that a GPU's key was derived from.

    Attributes:
        fwid: SHA-384 of it.
        debug: whether the certificate says that it may be debugged; Hopper's says nothing of it.
    """

    fwid: bytes
    debug: bool


def firmware_of(leaf: x509.Certificate) -> Firmware:
    """What the certificate of a GPU's key says of its firmware.

    Raises:
        AttestationError: attestation.malformed where it says nothing, or not in its exact form.
    """
    values = {
        one.oid.dotted_string: one.value.value
        for one in leaf.extensions
        if isinstance(one.value, x509.UnrecognizedExtension)
    }
    composite, tcb_info = values.get(OID_COMPOSITE), values.get(OID_TCB_INFO)
    if (composite is None) == (tcb_info is None):
        raise _malformed()
    if composite is not None:
        return Firmware(_composite_fwid(composite), debug=False)
    return _tcb_info(tcb_info or b"")


def _composite_fwid(der: bytes) -> bytes:
    parts = _sequence(der)
    if len(parts) != 3 or parts[0] != _VERSION_1:
        raise _malformed()
    return _fwid(parts[2])


def _tcb_info(der: bytes) -> Firmware:
    parts = _sequence(der)
    numbers = [tag & 0x1F for tag, _ in parts]
    if numbers != sorted(set(numbers)):
        raise _malformed()
    fields = dict(parts)
    listed = _items(fields.get(_FWIDS, b""))
    if not listed:
        raise _malformed()
    flags = fields.get(_FLAGS, b"\0\0")
    return Firmware(_fwid(listed[0]), debug=len(flags) < 2 or bool(flags[1] & _DEBUG_FLAG))


def _fwid(item: tuple[int, bytes]) -> bytes:
    tag, value = item
    if tag != _SEQUENCE or not value.startswith(_SHA384_DIGEST):
        raise _malformed()
    fwid = value.removeprefix(_SHA384_DIGEST)
    if len(fwid) != FWID_BYTES:
        raise _malformed()
    return fwid


def _sequence(der: bytes) -> list[tuple[int, bytes]]:
    outer = _items(der)
    if len(outer) != 1 or outer[0][0] != _SEQUENCE:
        raise _malformed()
    return _items(outer[0][1])


def _items(der: bytes) -> list[tuple[int, bytes]]:
    """The items of a DER value, one after the other: tag and content of each."""
    found, place = [], 0
    while place < len(der):
        header = der[place : place + 3]
        if len(header) < 2 or header[1] > 0x81 or header[1] == 0x80:
            raise _malformed()
        long_form = header[1] == 0x81
        if long_form and (len(header) < 3 or header[2] < 0x80):
            raise _malformed()
        start = place + (3 if long_form else 2)
        length = header[2] if long_form else header[1]
        if start + length > len(der):
            raise _malformed()
        found.append((header[0], der[start : start + length]))
        place = start + length
    return found


def _malformed() -> AttestationError:
    return AttestationError("attestation.malformed", "The GPU's certificate does not name its firmware.")
