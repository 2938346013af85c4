"""The AMD SEV-SNP attestation report: 1,184 bytes, read strictly.

Layout: AMD SEV Secure Nested Paging Firmware ABI Specification (publication 56860), table ATTESTATION_REPORT,
versions 2, 3 and 5; little-endian. Rules kept here:

* exact length, a known version, reserved bits zero;
* ``SnpReport.parse(data).encode() == data``, so no bit of a report is outside the reading of it;
* nothing is judged here; a parsed report is not yet authentic.
"""

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cloister.enclave.errors import AttestationError

REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0
SIGNATURE_COMPONENT_BYTES = 72
P384_BYTES = 48
VERSIONS = (2, 3, 5)
ECDSA_P384_SHA384 = 1
KEY_VCEK, KEY_VLEK = 0, 1

_POLICY_ALWAYS = 1 << 17
_POLICY_MIGRATE = 1 << 18
_POLICY_DEBUG = 1 << 19
_POLICY_KNOWN = (1 << 26) - 1
_KEY_INFO_KNOWN = 0b11111

# Everything before the signature. Names with a leading underscore are reserved and must be zero.
_BODY = struct.Struct("<IIQ16s16sIIQQI4s64s48s32s48s48s32s32sQ3s21s64sQ3ss3ssQQQ152s")


@dataclass(frozen=True)
class Tcb:
    """Versions of the platform's components, each 0 to 255; fmc exists from Turin on."""

    boot_loader: int
    tee: int
    snp: int
    microcode: int
    fmc: int = 0

    def as_dict(self) -> dict[str, int]:
        """The components by name."""
        return {
            "boot_loader": self.boot_loader,
            "tee": self.tee,
            "snp": self.snp,
            "microcode": self.microcode,
            "fmc": self.fmc,
        }


def milan_tcb(packed: int) -> Tcb:
    """Unpack a TCB version as Milan and Genoa lay it out (ABI specification, TCB_VERSION)."""
    parts = packed.to_bytes(8, "little")
    return Tcb(boot_loader=parts[0], tee=parts[1], snp=parts[6], microcode=parts[7])


def turin_tcb(packed: int) -> Tcb:
    """Unpack a TCB version as Turin lays it out."""
    parts = packed.to_bytes(8, "little")
    return Tcb(fmc=parts[0], boot_loader=parts[1], tee=parts[2], snp=parts[3], microcode=parts[7])


@dataclass(frozen=True)
class SnpReport:
    """A report's fields as the specification names them; multi-byte integers decoded, the rest raw bytes."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: int
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: int
    cpuid: bytes
    chip_id: bytes
    committed_tcb: int
    current_version: bytes
    committed_version: bytes
    launch_tcb: int
    launch_mitigations: int
    current_mitigations: int
    signature_r: int
    signature_s: int

    @classmethod
    def parse(cls, data: bytes) -> "SnpReport":
        """Read a report.

        Args:
            data: exactly 1,184 bytes.

        Returns:
            Its fields; nothing about them is verified yet.

        Raises:
            AttestationError: attestation.malformed, or attestation.unsupported for other versions.
        """
        if len(data) != REPORT_BYTES:
            raise AttestationError("attestation.malformed", "The report has another length than 1184 bytes.")
        (
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            signature_algorithm,
            current_tcb,
            platform_info,
            key_info,
            _,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            cpuid,
            _,
            chip_id,
            committed_tcb,
            current_version,
            _,
            committed_version,
            _,
            launch_tcb,
            launch_mitigations,
            current_mitigations,
            _,
        ) = _BODY.unpack_from(data)
        signature, component = data[SIGNED_BYTES:], SIGNATURE_COMPONENT_BYTES
        report = cls(
            version=version,
            guest_svn=guest_svn,
            policy=policy,
            family_id=family_id,
            image_id=image_id,
            vmpl=vmpl,
            signature_algorithm=signature_algorithm,
            current_tcb=current_tcb,
            platform_info=platform_info,
            key_info=key_info,
            report_data=report_data,
            measurement=measurement,
            host_data=host_data,
            id_key_digest=id_key_digest,
            author_key_digest=author_key_digest,
            report_id=report_id,
            report_id_ma=report_id_ma,
            reported_tcb=reported_tcb,
            cpuid=cpuid,
            chip_id=chip_id,
            committed_tcb=committed_tcb,
            current_version=current_version,
            committed_version=committed_version,
            launch_tcb=launch_tcb,
            launch_mitigations=launch_mitigations,
            current_mitigations=current_mitigations,
            signature_r=int.from_bytes(signature[:component], "little"),
            signature_s=int.from_bytes(signature[component : 2 * component], "little"),
        )
        if report.version not in VERSIONS:
            raise AttestationError("attestation.unsupported", "The report's version is not 2, 3 or 5.")
        if not report._reserved_clear() or report.encode() != data:
            raise AttestationError("attestation.malformed", "The report has reserved bits set.")
        return report

    def encode(self) -> bytes:
        """The report's 1,184 bytes, reserved ones zero."""
        return self.encode_body() + (
            self.signature_r.to_bytes(SIGNATURE_COMPONENT_BYTES, "little")
            + self.signature_s.to_bytes(SIGNATURE_COMPONENT_BYTES, "little")
        ).ljust(REPORT_BYTES - SIGNED_BYTES, b"\0")

    def encode_body(self) -> bytes:
        """The 672 bytes that the signature covers."""
        return _BODY.pack(
            self.version,
            self.guest_svn,
            self.policy,
            self.family_id,
            self.image_id,
            self.vmpl,
            self.signature_algorithm,
            self.current_tcb,
            self.platform_info,
            self.key_info,
            b"",
            self.report_data,
            self.measurement,
            self.host_data,
            self.id_key_digest,
            self.author_key_digest,
            self.report_id,
            self.report_id_ma,
            self.reported_tcb,
            self.cpuid,
            b"",
            self.chip_id,
            self.committed_tcb,
            self.current_version,
            b"",
            self.committed_version,
            b"",
            self.launch_tcb,
            self.launch_mitigations,
            self.current_mitigations,
            b"",
        )

    def signature_der(self) -> bytes:
        """The signature as the DER that X.509 libraries verify."""
        return encode_dss_signature(self.signature_r, self.signature_s)

    @property
    def debug(self) -> bool:
        """The host may read the guest's memory."""
        return bool(self.policy & _POLICY_DEBUG)

    @property
    def migratable(self) -> bool:
        """The guest may be bound to a migration agent."""
        return bool(self.policy & _POLICY_MIGRATE)

    @property
    def chip_id_masked(self) -> bool:
        """The platform was told to leave the chip id out."""
        return bool(self.key_info & 0b10)

    @property
    def signing_key(self) -> int:
        """Which key signed: 0 VCEK (the chip's), 1 VLEK (the cloud provider's)."""
        return self.key_info >> 2 & 0b111

    def identity(self) -> dict[str, str]:
        """The registers that say what runs, in hex or decimal."""
        return {
            "measurement": self.measurement.hex(),
            "host_data": self.host_data.hex(),
            "family_id": self.family_id.hex(),
            "image_id": self.image_id.hex(),
            "id_key_digest": self.id_key_digest.hex(),
            "author_key_digest": self.author_key_digest.hex(),
            "guest_svn": str(self.guest_svn),
            "policy": f"{self.policy:#x}",
            "vmpl": str(self.vmpl),
        }

    def _reserved_clear(self) -> bool:
        before_cpuid = self.version < 3 and any(self.cpuid)
        before_mitigations = self.version < 5 and (self.launch_mitigations or self.current_mitigations)
        return not (
            before_cpuid
            or before_mitigations
            or self.policy & ~_POLICY_KNOWN
            or not self.policy & _POLICY_ALWAYS
            or self.key_info & ~_KEY_INFO_KNOWN
            or self.vmpl > 3
            or max(self.signature_r, self.signature_s).bit_length() > 8 * P384_BYTES
        )
