"""An SNP guest of Azure: a paravisor's report, and a quote of the virtual TPM that it gives to the guest.

Azure runs its guests below a paravisor (HCL). The report's measurement is that of the paravisor, its report
data the hash of a JSON text that holds the attestation key of the virtual TPM. The guest's nonce stands in a
quote that this key signed, and what the guest booted is in the quote's PCR digest.

Rules kept here:

* Three further documents come with the report: the blob of NV index 0x01400001 without the zeros after it,
  the quote (TPMS_ATTEST), and its RSA signature. All or none; nothing else.
* The blob holds the report again, which must be the same bytes, and the text whose SHA-256 the report has.
* The attestation key is RSA of 2,048 bits; the quote is signed with RSASSA-PKCS1-v1_5 and SHA-256, over PCRs
  of SHA-256, and has no byte left over.
* What was asked for is sealed in as its SHA-256. The quote's ``extraData`` is a TPM2B_DATA, whose size is
  that of the largest digest the TPM knows (TPM 2.0 Part 2, 10.4.3): 48 bytes where there is no SHA-512, so
  the 64 bytes of report data don't fit everywhere.
* Measurement alone says only which paravisor ran, so a policy must name the PCRs' selection and digest too.

Layout: Azure, "Virtual TPMs in Azure confidential VMs" and the igvm attestation crate of OpenHCL; TPM 2.0
Library Part 2, TPMS_ATTEST (10.12.12).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cloister.core.canonical import JSON, parse
from cloister.core.errors import InputError
from cloister.enclave.attestation.amd.report import REPORT_BYTES, SnpReport
from cloister.enclave.errors import AttestationError

HCL, QUOTE, SIGNATURE = "azure-hcl", "tpm-quote", "tpm-signature"
EXTRAS: Final = frozenset({HCL, QUOTE, SIGNATURE})
PCR_REGISTERS: Final = frozenset({"pcr_selection", "pcr_digest"})
HEADER_BYTES = 32
MAX_RUNTIME_BYTES = 16 * 1024

_HEADER = struct.Struct("<4sIIII12s")
_RUNTIME = struct.Struct("<IIIII")
_SIGNATURE_OF_BLOB, _BLOB_VERSIONS, _REQUEST_REPORT = b"HCLA", (1, 2), 2
_RUNTIME_VERSION, _REPORT_IS_SNP, _HASH_SHA256 = 1, 2, 1
_QUOTE_MAGIC, _QUOTE_TYPE, _TPM_SHA256 = 0xFF544347, 0x8018, 0x000B
_AK_NAME, _AK_BITS, _AK_EXPONENT = "HCLAkPub", 2048, "AQAB"
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_MAX_EXTRA_DATA = 64
_SELECT_BYTES = 3


@dataclass(frozen=True)
class Quote:
    """A TPM's quote (TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE); nothing about it is verified yet.

    Attributes:
        signer: the qualified name of the key that signed, as the TPM states it.
        extra_data: what the relying party had sealed in.
        clock: milliseconds the TPM has run.
        resets: TPM resets since it was made.
        restarts: restarts since the last reset.
        clock_safe: whether no later clock than this was ever shown.
        firmware: the TPM's firmware version.
        pcr_selection: which PCRs are quoted: their hash, size and bits, as the quote has them.
        pcr_digest: SHA-256 over the values of those PCRs.
    """

    signer: bytes
    extra_data: bytes
    clock: int
    resets: int
    restarts: int
    clock_safe: bool
    firmware: int
    pcr_selection: bytes
    pcr_digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> Quote:
        """Read a quote.

        Raises:
            AttestationError: attestation.malformed, or attestation.unsupported for other hashes than SHA-256.
        """
        fields = _Fields(data)
        if fields.number(4) != _QUOTE_MAGIC or fields.number(2) != _QUOTE_TYPE:
            raise _malformed()
        signer, extra_data = fields.sized(), fields.sized()
        clock, resets, restarts, safe = (fields.number(size) for size in (8, 4, 4, 1))
        firmware, selections = fields.number(8), fields.number(4)
        selection = fields.take(3 + _SELECT_BYTES)
        digest = fields.sized()
        if not fields.done or len(extra_data) > _MAX_EXTRA_DATA or safe > 1 or selections != 1:
            raise _malformed()
        sha256 = _TPM_SHA256.to_bytes(2, "big")
        if signer[:2] != sha256 or selection[:2] != sha256:
            raise AttestationError("attestation.unsupported", "The TPM's quote is not over SHA-256 PCRs.")
        if len(signer) != 34 or selection[2] != _SELECT_BYTES or len(digest) != 32:
            raise _malformed()
        return cls(signer, extra_data, clock, resets, restarts, bool(safe), firmware, selection, digest)

    def registers(self) -> dict[str, str]:
        """What the guest booted, in hex."""
        return {"pcr_selection": self.pcr_selection.hex(), "pcr_digest": self.pcr_digest.hex()}


@dataclass(frozen=True)
class VirtualTpm:
    """What came beside a report of Azure, read; nothing about it is verified yet.

    Attributes:
        runtime: the JSON text that the report's data is the hash of.
        quote: the quote's fields.
        signed: the quote as received.
        signature: over the quote.
    """

    runtime: bytes = field(repr=False)
    quote: Quote
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read_virtual_tpm(extras: Mapping[str, bytes], report: bytes) -> VirtualTpm | None:
    """Read what came beside a report.

    Args:
        extras: of the evidence.
        report: the report's bytes.

    Returns:
        The documents, or None where there are none.

    Raises:
        AttestationError: attestation.malformed or attestation.unsupported.
    """
    if not extras:
        return None
    if extras.keys() != EXTRAS:
        raise _malformed()
    runtime = _runtime(extras[HCL], report)
    return VirtualTpm(runtime, Quote.parse(extras[QUOTE]), extras[QUOTE], extras[SIGNATURE])


def verify_runtime(machine: VirtualTpm, report: SnpReport) -> rsa.RSAPublicKey:
    """The report vouches for the runtime text.

    Args:
        machine: as read.
        report: verified.

    Returns:
        The virtual TPM's attestation key.

    Raises:
        AttestationError: attestation.key_binding; attestation.malformed or attestation.alg for a text without
            one usable key.
    """
    if report.report_data != hashlib.sha256(machine.runtime).digest() + bytes(32):
        raise AttestationError(
            "attestation.key_binding", "The report does not vouch for the virtual TPM's key."
        )
    return _attestation_key(machine.runtime)


def verify_quote(machine: VirtualTpm, key: rsa.RSAPublicKey) -> None:
    """The attestation key signed the quote.

    Raises:
        AttestationError: attestation.signature.
    """
    try:
        key.verify(machine.signature, machine.signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise AttestationError(
            "attestation.signature", "The quote is not signed by the virtual TPM's key."
        ) from None


def split_blob(index: bytes) -> tuple[bytes, bytes]:
    """The blob as the NV index holds it, without the zeros after it, and the report in it.

    Args:
        index: what NV index 0x01400001 holds.

    Returns:
        The blob for ``azure-hcl``, and the report.

    Raises:
        AttestationError: attestation.malformed.
    """
    size = int.from_bytes(index[8:12], "little")
    blob = index[:size]
    report = blob[HEADER_BYTES : HEADER_BYTES + REPORT_BYTES]
    if any(index[size:]):
        raise _malformed()
    _runtime(blob, report)
    return blob, report


def _runtime(blob: bytes, report: bytes) -> bytes:
    start = HEADER_BYTES + REPORT_BYTES + _RUNTIME.size
    if not start < len(blob) <= start + MAX_RUNTIME_BYTES:
        raise _malformed()
    magic, version, size, request, status, reserved = _HEADER.unpack_from(blob)
    if magic != _SIGNATURE_OF_BLOB or size != len(blob) or status or any(reserved):
        raise _malformed()
    data_size, layout, of_kind, hashed, text_size = _RUNTIME.unpack_from(blob, HEADER_BYTES + REPORT_BYTES)
    if text_size != len(blob) - start or data_size != _RUNTIME.size + text_size:
        raise _malformed()
    kinds = (version in _BLOB_VERSIONS, request == _REQUEST_REPORT, layout == _RUNTIME_VERSION)
    if not all(kinds) or of_kind != _REPORT_IS_SNP or hashed != _HASH_SHA256:
        raise AttestationError("attestation.unsupported", "The paravisor's blob is of an unknown version.")
    if blob[HEADER_BYTES : HEADER_BYTES + REPORT_BYTES] != report:
        raise _malformed()
    return blob[start:]


def _attestation_key(runtime: bytes) -> rsa.RSAPublicKey:
    try:
        text = parse(runtime, max_bytes=MAX_RUNTIME_BYTES, max_depth=8)
    except InputError:
        raise _malformed() from None
    keys = text.get("keys") if isinstance(text, dict) else None
    listed = keys if isinstance(keys, list) else []
    found = [key for key in listed if isinstance(key, dict) and key.get("kid") == _AK_NAME]
    if len(found) != 1:
        raise _malformed()
    (key,) = found
    if (key.get("kty"), key.get("e"), key.get("key_ops")) != ("RSA", _AK_EXPONENT, ["sign"]):
        raise _algorithm()
    modulus = _modulus(key.get("n"))
    if modulus.bit_length() != _AK_BITS or not modulus % 2:
        raise _algorithm()
    return rsa.RSAPublicNumbers(65537, modulus).public_key()


def _modulus(text: JSON) -> int:
    """A base64url number of as many octets as it needs (RFC 7518 section 6.3.1.1)."""
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text):
        raise _malformed()
    try:
        octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise _malformed() from None
    return int.from_bytes(octets, "big")


class _Fields:
    """Big-endian fields of a TPM structure, in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) != size:
            raise _malformed()
        self._at += size
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    @property
    def done(self) -> bool:
        return self._at == len(self._data)


def _malformed() -> AttestationError:
    return AttestationError(
        "attestation.malformed", "What came beside the report is not a virtual TPM's, in its exact form."
    )


def _algorithm() -> AttestationError:
    return AttestationError("attestation.alg", "The virtual TPM's key is not an RSA key of 2048 bits.")
