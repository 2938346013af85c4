"""An SPDM 1.1 transcript: the request for measurements and the GPU's signed answer.

Rules kept here:

* Every byte belongs to a field: lengths add up exactly, blocks are numbered from 1, each holds one SHA-384
  digest, no opaque field comes twice. One more byte is malformed.
* The request's nonce is the relying party's, the answer's is the GPU's own; both are signed.
* The signature covers request and answer as received, without the signature itself.

Source: DMTF DSP0274 1.1.1, sections 10.11 and 10.12; opaque fields as NVIDIA's nvtrust names them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cloister.enclave.errors import AttestationError
from cloister.evidence.hardware_terms import GpuMode

NONCE_BYTES: Final = 32
DIGEST_BYTES: Final = 48
SIGNATURE_BYTES: Final = 96
DRIVER_VERSION, VBIOS_VERSION, NVDEC0_STATUS = 3, 6, 11
FWID, PROTECTED_PCIE, FEATURE_FLAG = 20, 21, 36
MAX_TRANSCRIPT_BYTES: Final = 64 * 1024

_REQUEST = b"\x11\xe0\x01\xff"
_ANSWER = b"\x11\x60\x00\x00"
_REQUEST_BYTES = 37
_MAX_SLOT = 7
_BLOCK = struct.Struct("<BBHBH")
_DMTF, _DMTF_HEADER, _MAX_TYPE = 1, 3, 0x7F
_FIELD = struct.Struct("<HH")
_DRIVER = re.compile(rb"([0-9]{1,4}(?:\.[0-9]{1,4}){1,3})\x00")
_VBIOS_BYTES = 8
_ON, _OFF = b"\xaa", b"\x55"


_FLAGS = {b"\0\0": GpuMode.SINGLE, b"\1\0": GpuMode.MULTI, b"\2\0": GpuMode.PROTECTED_PCIE}


@dataclass(frozen=True)
class Transcript:
    """A transcript that could be read whole; nothing about it is verified.

    Attributes:
        nonce: 32 bytes that the relying party asked with.
        slot: the certificate slot it asked for.
        measurements: type and digest of each block, in the order of their numbers, which start at 1.
        device_nonce: 32 bytes of the GPU's own.
        opaque: fields of the answer by their number, in their order.
        signature: r and s, 48 bytes each, big endian.
    """

    nonce: bytes
    slot: int
    measurements: tuple[tuple[int, bytes], ...] = field(repr=False)
    device_nonce: bytes
    opaque: Mapping[int, bytes] = field(repr=False)
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "opaque", MappingProxyType(dict(self.opaque)))

    @classmethod
    def parse(cls, data: bytes) -> Transcript:
        """Read a transcript strictly.

        Args:
            data: at most 64 KiB.

        Raises:
            AttestationError: attestation.malformed.
        """
        if len(data) > MAX_TRANSCRIPT_BYTES:
            raise _malformed()
        try:
            read = cls._read(data)
        except (IndexError, struct.error):
            raise _malformed() from None
        if read.encode() != data:
            raise _malformed()
        return read

    @classmethod
    def _read(cls, data: bytes) -> Transcript:
        answer = data[_REQUEST_BYTES:]
        blocks, length = answer[4], int.from_bytes(answer[5:8], "little")
        place, end = 8, 8 + length
        measurements = []
        while place < end:
            _, _, _, kind, size = _BLOCK.unpack_from(answer, place)
            place += _BLOCK.size
            measurements.append((kind, answer[place : place + size]))
            place += size
        if len(measurements) != blocks or not measurements:
            raise _malformed()
        device_nonce = answer[end : end + NONCE_BYTES]
        (opaque_length,) = struct.unpack_from("<H", answer, end + NONCE_BYTES)
        place = end + NONCE_BYTES + 2
        end = place + opaque_length
        opaque: dict[int, bytes] = {}
        while place < end:
            kind, size = _FIELD.unpack_from(answer, place)
            place += _FIELD.size
            opaque[kind] = answer[place : place + size]
            place += size
        return cls(
            nonce=data[4:36],
            slot=data[36],
            measurements=tuple(measurements),
            device_nonce=device_nonce,
            opaque=opaque,
            signature=answer[end:],
        )

    def encode_signed(self) -> bytes:
        """Request and answer as the signature covers them.

        Raises:
            AttestationError: attestation.malformed where a field isn't of its size.
        """
        sound = (
            len(self.nonce) == len(self.device_nonce) == NONCE_BYTES
            and 0 <= self.slot <= _MAX_SLOT
            and 0 < len(self.measurements) <= 255
            and all(len(digest) == DIGEST_BYTES and kind <= _MAX_TYPE for kind, digest in self.measurements)
        )
        if not sound:
            raise _malformed()
        record = b"".join(
            _BLOCK.pack(number, _DMTF, _DMTF_HEADER + DIGEST_BYTES, kind, DIGEST_BYTES) + digest
            for number, (kind, digest) in enumerate(self.measurements, start=1)
        )
        opaque = b"".join(_FIELD.pack(kind, len(value)) + value for kind, value in self.opaque.items())
        return b"".join(
            (
                _REQUEST,
                self.nonce,
                bytes([self.slot]),
                _ANSWER,
                bytes([len(self.measurements)]),
                len(record).to_bytes(3, "little"),
                record,
                self.device_nonce,
                struct.pack("<H", len(opaque)),
                opaque,
            )
        )

    def encode(self) -> bytes:
        """The whole transcript.

        Raises:
            AttestationError: attestation.malformed where a field isn't of its size.
        """
        if len(self.signature) != SIGNATURE_BYTES:
            raise _malformed()
        return self.encode_signed() + self.signature

    @property
    def driver_version(self) -> str:
        """The driver's version, such as "570.124.03"; "" where it states none."""
        found = _DRIVER.fullmatch(self.opaque.get(DRIVER_VERSION, b""))
        return "" if found is None else found.group(1).decode("ascii")

    @property
    def vbios_version(self) -> str:
        """The version of the GPU's firmware, such as "96.00.5E.00.01"; "" where it states none."""
        raw = self.opaque.get(VBIOS_VERSION, b"")
        if len(raw) != _VBIOS_BYTES or any(raw[5:]):
            return ""
        return ".".join(f"{byte:02X}" for byte in (*reversed(raw[:4]), raw[4]))

    @property
    def fwid(self) -> bytes | None:
        """The digest of the firmware that the GPU's key was derived from; older drivers state none."""
        return self.opaque.get(FWID)

    @property
    def nvdec0_enabled(self) -> bool:
        """Whether the first video decoder runs, so that its firmware is measured."""
        return self.opaque.get(NVDEC0_STATUS) != _OFF

    @property
    def mode(self) -> GpuMode | None:
        """How the GPU is given to the machine; None where what it says is unknown or contradicts itself."""
        protected, flag = self.opaque.get(PROTECTED_PCIE, _OFF), self.opaque.get(FEATURE_FLAG)
        if protected not in (_ON, _OFF):
            return None
        by_status = GpuMode.PROTECTED_PCIE if protected == _ON else GpuMode.SINGLE
        if flag is None:
            return by_status
        mode = _FLAGS.get(flag)
        agrees = (mode is GpuMode.PROTECTED_PCIE) == (protected == _ON)
        return mode if agrees else None


def _malformed() -> AttestationError:
    return AttestationError("attestation.malformed", "The evidence is not a transcript of measurements.")
