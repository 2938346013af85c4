"""Nitro attestation documents: a CBOR map that the Nitro security module signs as a COSE_Sign1 message.

Rules kept here:

* Untagged, as the module emits it, or behind tag 18; ES384 only; empty unprotected headers.
* One encoding: bytes are CBOR as `strict_cbor` reads it, no key is unknown or twice, every value of its type
  and size.
* The signature covers the payload as received; nothing is serialised again to verify it.

Source: AWS Nitro Enclaves, "Verifying the root of trust" (attestation document specification); RFC 9052
sections 4.2 and 4.4; RFC 9053 section 2.1 (ES384 is -35).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cloister.enclave.attestation.strict_cbor import CBOR, decode, encode
from cloister.enclave.errors import AttestationError

DIGEST: Final = "SHA384"
PCR_BYTES: Final = 48
MAX_FIELD_BYTES: Final = 1024
SIGNATURE_BYTES: Final = 96
DEBUG_REGISTERS: Final = (0, 1, 2)
"""The image, its kernel and boot code, and the application: zero in debug mode."""

_TAG_18 = 0xD2
_ES384 = encode({1: -35})
_MAX_PCRS = 32
_MAX_CERTIFICATES = 7
_LATEST = 253_402_300_800_000  # the year 10000
_REQUIRED = frozenset({"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"})
_OPTIONAL = ("public_key", "user_data", "nonce")
_MODULE_ID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True)
class NitroDocument:
    """What a Nitro security module says.

    Attributes:
        module_id: its name; says where an enclave runs, not what.
        timestamp: when the document was made, milliseconds since 1970.
        pcrs: the registers by number, 48 bytes each: 0 the image, 1 kernel and boot code, 2 the application,
            3 the role of the instance, 4 the instance, 8 who signed the image.
        certificate: the module's own, DER.
        cabundle: its issuers in DER, the root first.
        public_key: what the enclave handed in as its key, if anything.
        user_data: what it had sealed in, if anything.
        nonce: what it handed in as nonce, if anything.
    """

    module_id: str
    timestamp: int
    pcrs: Mapping[int, bytes]
    certificate: bytes = field(repr=False)
    cabundle: tuple[bytes, ...] = field(repr=False)
    public_key: bytes | None = None
    user_data: bytes | None = None
    nonce: bytes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pcrs", MappingProxyType(dict(self.pcrs)))

    @property
    def debug(self) -> bool:
        """The enclave's console is open to the host: a register that measures what was loaded is zero."""
        return not all(any(self.pcrs[index]) for index in DEBUG_REGISTERS)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """All certificates, the module's own first and the root last."""
        return (self.certificate, *reversed(self.cabundle))

    def registers(self) -> dict[str, str]:
        """All registers given, zero ones too, in hex by their names "pcr0", "pcr1", ..."""
        return {f"pcr{index}": self.pcrs[index].hex() for index in sorted(self.pcrs)}

    def payload(self) -> bytes:
        """The document's CBOR, keys in the order of the security module."""
        return encode(
            {
                "module_id": self.module_id,
                "digest": DIGEST,
                "timestamp": self.timestamp,
                "pcrs": {index: self.pcrs[index] for index in self.pcrs},
                "certificate": self.certificate,
                "cabundle": list(self.cabundle),
                "public_key": self.public_key,
                "user_data": self.user_data,
                "nonce": self.nonce,
            }
        )


@dataclass(frozen=True)
class SignedDocument:
    """A document that could be read whole; its signature isn't verified.

    Attributes:
        document: its fields.
        signed: the bytes the signature covers.
        signature: r and s, 48 bytes each, big endian.
    """

    document: NitroDocument
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> SignedDocument:
        """Read a COSE_Sign1 message strictly.

        Args:
            data: the document as the device gave it.

        Raises:
            AttestationError: attestation.malformed; attestation.alg for other headers than ES384's.
        """
        parts = decode(data[1:] if data[:1] == bytes([_TAG_18]) else data)
        if not isinstance(parts, list) or len(parts) != 4:
            raise _malformed()
        protected, unprotected, payload, signature = parts
        if not isinstance(protected, bytes) or unprotected != {} or not isinstance(unprotected, dict):
            raise _malformed()
        if protected != _ES384:
            raise AttestationError("attestation.alg", "The document's signature algorithm is not ES384.")
        if not isinstance(payload, bytes) or _sized(signature, SIGNATURE_BYTES, SIGNATURE_BYTES) is None:
            raise _malformed()
        document = _document(decode(payload))
        return cls(document, signed_bytes(payload), _bytes(signature))


def signed_bytes(payload: bytes) -> bytes:
    """The Sig_structure that ES384 signs over a payload (RFC 9052 section 4.4)."""
    return encode(["Signature1", _ES384, b"", payload])


def sign1(payload: bytes, signature: bytes) -> bytes:
    """The untagged COSE_Sign1 message of a payload and its signature."""
    return encode([_ES384, {}, payload, signature])


def _document(value: CBOR) -> NitroDocument:
    if not isinstance(value, dict) or not _REQUIRED <= value.keys() <= _REQUIRED.union(_OPTIONAL):
        raise _malformed()
    module_id, timestamp, pcrs, bundle = (
        value[name] for name in ("module_id", "timestamp", "pcrs", "cabundle")
    )
    if not isinstance(module_id, str) or not _MODULE_ID.fullmatch(module_id) or value["digest"] != DIGEST:
        raise _malformed()
    if not _is_int(timestamp) or not 0 < timestamp < _LATEST:
        raise _malformed()
    if not isinstance(pcrs, dict) or not isinstance(bundle, list) or not 0 < len(bundle) <= _MAX_CERTIFICATES:
        raise _malformed()
    registers = {index: _sized(pcr, PCR_BYTES, PCR_BYTES) for index, pcr in pcrs.items() if _is_int(index)}
    if len(registers) != len(pcrs) or not set(DEBUG_REGISTERS) <= registers.keys():
        raise _malformed()
    if not all(0 <= index < _MAX_PCRS for index in registers):
        raise _malformed()
    carried = {name: value.get(name) for name in _OPTIONAL}
    for name, one in carried.items():
        if one is not None and _sized(one, 1 if name == "public_key" else 0, MAX_FIELD_BYTES) is None:
            raise _malformed()
    certificates = [_sized(one, 1, MAX_FIELD_BYTES) for one in (value["certificate"], *bundle)]
    return NitroDocument(
        module_id=module_id,
        timestamp=timestamp,
        pcrs={index: _bytes(pcr) for index, pcr in registers.items()},
        certificate=_bytes(certificates[0]),
        cabundle=tuple(_bytes(one) for one in certificates[1:]),
        **{name: None if one is None else _bytes(one) for name, one in carried.items()},
    )


def _is_int(value: CBOR) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sized(value: CBOR, least: int, most: int) -> bytes | None:
    return value if isinstance(value, bytes) and least <= len(value) <= most else None


def _bytes(value: CBOR) -> bytes:
    if not isinstance(value, bytes):
        raise _malformed()
    return value


def _malformed() -> AttestationError:
    return AttestationError("attestation.malformed", "The evidence is not a Nitro attestation document.")
