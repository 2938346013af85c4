"""What a machine shows: a signed report, the certificates beside it, and what came along.

One form for every kind of hardware. Nothing here is judged: evidence is bytes with a name for their kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.enclave.errors import AttestationError
from cloister.evidence.hardware_terms import Tee

__all__ = ["MAX_DEVICES", "MAX_EVIDENCE_BYTES", "Evidence", "Tee", "malformed_evidence"]

MAX_EVIDENCE_BYTES = 1024 * 1024
MAX_DEVICES = 16
_MAX_CERTIFICATES = 16
_MAX_EXTRAS = 16
_KEYS = {"tee", "report", "chain", "extras", "devices"}


@dataclass(frozen=True)
class Evidence:
    """A signed report and what is needed to verify it.

    Attributes:
        tee: which kind of hardware is said to have made it; nothing is believed of it before the report is
            verified as that kind.
        report: the signed bytes as the device gave them: an SNP report, a DCAP quote, a Nitro attestation
            document, an SPDM transcript.
        chain: DER certificates that came beside the report, the endorsed key's first; empty where the report
            carries its own.
        extras: further documents by name, such as an event log or a virtual TPM's quote.
        devices: evidence of devices that belong to the machine, such as GPUs.
    """

    tee: Tee
    report: bytes
    chain: tuple[bytes, ...] = ()
    extras: Mapping[str, bytes] = field(default_factory=dict)
    devices: tuple[Evidence, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "extras", MappingProxyType(dict(self.extras)))

    def as_json(self) -> dict[str, JSON]:
        """The evidence as plain JSON values, bytes in base64, as statements carry it."""
        return {
            "tee": self.tee.value,
            "report": b64encode(self.report),
            "chain": [b64encode(certificate) for certificate in self.chain],
            "extras": {name: b64encode(self.extras[name]) for name in sorted(self.extras)},
            "devices": [device.as_json() for device in self.devices],
        }

    def encode(self) -> bytes:
        """The RFC 8785 form of ``as_json``; ``decode`` accepts nothing else."""
        return canonicalize(self.as_json())

    @classmethod
    def decode(cls, data: bytes) -> Evidence:
        """Read what ``encode`` wrote.

        Args:
            data: at most 1 MiB.

        Raises:
            AttestationError: attestation.malformed.
        """
        try:
            return cls.from_json(parse_canonical(data, max_bytes=MAX_EVIDENCE_BYTES, max_depth=6))
        except InputError:
            raise malformed_evidence() from None

    @classmethod
    def from_json(cls, value: JSON) -> Evidence:
        """Read what ``as_json`` gave.

        Raises:
            AttestationError: attestation.malformed; attestation.unsupported for another kind of hardware.
        """
        return _read(value, devices_allowed=MAX_DEVICES)


def _read(value: JSON, devices_allowed: int) -> Evidence:
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise malformed_evidence()
    tee, chain, extras, devices = value["tee"], value["chain"], value["extras"], value["devices"]
    if not isinstance(chain, list) or not isinstance(extras, dict) or not isinstance(devices, list):
        raise malformed_evidence()
    if len(chain) > _MAX_CERTIFICATES or len(extras) > _MAX_EXTRAS or len(devices) > devices_allowed:
        raise malformed_evidence()
    if tee not in tuple(Tee):
        raise AttestationError("attestation.unsupported", "The evidence is of an unknown kind of hardware.")
    return Evidence(
        tee=Tee(tee),
        report=_bytes(value["report"]),
        chain=tuple(_bytes(one) for one in chain),
        extras={name: _bytes(one) for name, one in extras.items()},
        devices=tuple(_read(one, devices_allowed=0) for one in devices),
    )


def _bytes(value: JSON) -> bytes:
    if not isinstance(value, str):
        raise malformed_evidence()
    try:
        return b64decode(value)
    except InputError:
        raise malformed_evidence() from None


def malformed_evidence() -> AttestationError:
    """The refusal of evidence that isn't of its exact form."""
    return AttestationError("attestation.malformed", "The evidence is not of its exact form.")
