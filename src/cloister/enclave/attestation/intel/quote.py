"""A DCAP quote, versions 3, 4 and 5, read strictly.

Layouts: Intel SGX ECDSA Quote Library Reference, appendix A (version 3); Intel TDX DCAP Quoting Library API,
appendix A (versions 4 and 5). All numbers are little-endian. Rules kept here:

* Every length must be the one its content has: ``Quote.parse(data).encode() == data[:quote.length]``, so no
  byte of a quote is outside the reading of it.
* A quote ends where its lengths say. Quoting services round their buffers up and leave padding behind: those
  bytes are counted, never read, and no part of what is hashed or bound.
* Nothing is judged here; a parsed quote is not yet authentic.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES, Tee
from cloister.enclave.attestation.intel.reports import EnclaveReport, TdReport, malformed_quote
from cloister.enclave.errors import AttestationError

VERSIONS: Final = (3, 4, 5)
ECDSA_P256: Final = 2
INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
TEE_TYPES: Final = {0: Tee.INTEL_SGX, 0x81: Tee.INTEL_TDX}
PEM_CHAIN: Final = 5
QE_CERTIFICATION: Final = 6

HEADER: Final = struct.Struct("<HHI4s16s20s")
_BODY_HEADER = struct.Struct("<HI")
_LENGTH = struct.Struct("<I")
_SHORT = struct.Struct("<H")
_CERTIFICATION = struct.Struct("<HI")
_SIGNATURE_BYTES = 64
_KEY_BYTES = 64

_BODY_TYPES: Final = {
    1: (Tee.INTEL_SGX, EnclaveReport.BYTES),
    2: (Tee.INTEL_TDX, TdReport.BYTES_10),
    3: (Tee.INTEL_TDX, TdReport.BYTES_15),
}


@dataclass(frozen=True)
class Quote:
    """A quote's parts.

    Attributes:
        version: 3, 4 or 5.
        tee: SGX or TDX, as the header says.
        user_data: 20 bytes of the quoting enclave's own.
        svns: 4 bytes: versions of QE and PCE (version 3), reserved later; signed like the rest.
        body: what is attested.
        signed: the bytes as received that the attestation key signs: header and body.
        signature: r and s, 32 bytes each.
        attestation_key: x and y of the P-256 key that signs, 32 bytes each.
        qe_report: the quoting enclave, as its processor describes it.
        qe_report_signed: the bytes of that report as received.
        qe_signature: r and s of the PCK's signature over it.
        auth_data: what the quoting enclave binds beside the key.
        certificates: PEM: PCK certificate, its authority, the root.
        length: bytes that the quote has; whatever comes after them isn't part of it.
    """

    version: int
    tee: Tee
    svns: bytes
    user_data: bytes
    body: EnclaveReport | TdReport
    signed: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: EnclaveReport
    qe_report_signed: bytes
    qe_signature: bytes
    auth_data: bytes
    certificates: bytes
    length: int

    @classmethod
    def parse(cls, data: bytes) -> Quote:
        """Read a quote, and leave alone what comes after it.

        Args:
            data: at most 1 MiB.

        Raises:
            AttestationError: attestation.malformed; attestation.unsupported for another version or another
                vendor's quoting enclave; attestation.alg for another kind of attestation key.
        """
        if len(data) > MAX_EVIDENCE_BYTES:
            raise malformed_quote()
        try:
            return cls._parse(data)
        except struct.error:
            raise malformed_quote() from None

    @classmethod
    def _parse(cls, data: bytes) -> Quote:
        version, key_type, tee_type, svns, vendor, user_data = HEADER.unpack_from(data)
        tee = TEE_TYPES.get(tee_type)
        if version not in VERSIONS or vendor != INTEL_QE_VENDOR:
            raise AttestationError(
                "attestation.unsupported",
                "The quote is of another version, or not by Intel's quoting enclave.",
            )
        if key_type != ECDSA_P256:
            raise AttestationError("attestation.alg", "The quote's key is of another kind than ECDSA P-256.")
        if tee is None or (version == 3 and tee is not Tee.INTEL_SGX):
            raise malformed_quote()
        body_at, body_bytes = _place_of_body(data, version, tee)
        body_end = body_at + body_bytes
        read = EnclaveReport.parse if tee is Tee.INTEL_SGX else TdReport.parse
        body = read(_exactly(data, body_at, body_bytes))
        (signature_bytes,) = _LENGTH.unpack_from(data, body_end)
        part = _exactly(data, body_end + _LENGTH.size, signature_bytes)
        at = _SIGNATURE_BYTES + _KEY_BYTES
        signature, key = part[:_SIGNATURE_BYTES], part[_SIGNATURE_BYTES:at]
        if version > 3:
            kind, size = _CERTIFICATION.unpack_from(part, at)
            at += _CERTIFICATION.size
            if kind != QE_CERTIFICATION or size != len(part) - at:
                raise malformed_quote()
        report = _exactly(part, at, EnclaveReport.BYTES)
        at += EnclaveReport.BYTES
        qe_signature = _exactly(part, at, _SIGNATURE_BYTES)
        at += _SIGNATURE_BYTES
        (auth_bytes,) = _SHORT.unpack_from(part, at)
        at += _SHORT.size
        auth_data = _exactly(part, at, auth_bytes)
        at += auth_bytes
        kind, size = _CERTIFICATION.unpack_from(part, at)
        at += _CERTIFICATION.size
        if kind != PEM_CHAIN:
            raise AttestationError(
                "attestation.unsupported", "The quote holds no certificates, only a name for them."
            )
        if size != len(part) - at:
            raise malformed_quote()
        return cls(
            version=version,
            tee=tee,
            svns=svns,
            user_data=user_data,
            body=body,
            signed=data[:body_end],
            signature=signature,
            attestation_key=key,
            qe_report=EnclaveReport.parse(report),
            qe_report_signed=report,
            qe_signature=qe_signature,
            auth_data=auth_data,
            certificates=part[at:],
            length=body_end + _LENGTH.size + signature_bytes,
        )

    def encode(self) -> bytes:
        """The quote's ``length`` bytes."""
        certification = (
            self.qe_report.encode()
            + self.qe_signature
            + _SHORT.pack(len(self.auth_data))
            + self.auth_data
            + _CERTIFICATION.pack(PEM_CHAIN, len(self.certificates))
            + self.certificates
        )
        if self.version > 3:
            certification = _CERTIFICATION.pack(QE_CERTIFICATION, len(certification)) + certification
        part = self.signature + self.attestation_key + certification
        return self.encode_signed() + _LENGTH.pack(len(part)) + part

    def encode_signed(self) -> bytes:
        """Header and body: what the attestation key signs."""
        tee_type = next(number for number, tee in TEE_TYPES.items() if tee is self.tee)
        body = self.body.encode()
        header = HEADER.pack(self.version, ECDSA_P256, tee_type, self.svns, INTEL_QE_VENDOR, self.user_data)
        if self.version < 5:
            return header + body
        kind = next(number for number, form in _BODY_TYPES.items() if form == (self.tee, len(body)))
        return header + _BODY_HEADER.pack(kind, len(body)) + body


def _place_of_body(data: bytes, version: int, tee: Tee) -> tuple[int, int]:
    if version < 5:
        return HEADER.size, EnclaveReport.BYTES if tee is Tee.INTEL_SGX else TdReport.BYTES_10
    kind, size = _BODY_HEADER.unpack_from(data, HEADER.size)
    if _BODY_TYPES.get(kind) != (tee, size):
        raise malformed_quote()
    return HEADER.size + _BODY_HEADER.size, size


def _exactly(data: bytes, start: int, size: int) -> bytes:
    part = data[start : start + size]
    if len(part) != size:
        raise malformed_quote()
    return part
