"""A simulated SEV-SNP platform: real report layout, real signatures, labelled root.

Rules kept here:

* Every certificate's organisation is ``SIMULATED - NOT HARDWARE``, so no production trust accepts the chain
  and every verdict on it says ``simulated``.
* Its evidence goes through the same verifier as hardware's; there is no second path.
* Keys are made on the machine that simulates. None is in the code or the distribution.
* Measurement, guest policy and versions are what the caller says: a simulation proves nothing about the
machine.

The root key signs one revocation list, an empty one that holds as long as the root, and is gone: a simulated
vendor revokes nothing.

All three keys are ECDSA P-384. AMD's own roots are RSA-4096, whose generation takes seconds; the verifier
accepts both, and each only with SHA-384.
"""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloister.core.clock import Clock
from cloister.core.files import read_or_make
from cloister.enclave.attestation.amd.chain import (
    OID_BOOT_LOADER,
    OID_HARDWARE_ID,
    OID_MICROCODE,
    OID_SNP,
    OID_TEE,
)
from cloister.enclave.attestation.amd.report import ECDSA_P384_SHA384, SnpReport, Tcb
from cloister.enclave.attestation.collateral import Collateral, CollateralDocument, CollateralKind
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.simulated.certificates import (
    authority,
    certificate_der,
    issued,
    new_key,
    revocation_list,
    simulated_name,
)
from cloister.enclave.errors import AttestationError

VENDOR_FILE = "simulated-vendor.pem"
VALIDITY = timedelta(days=3650)
SIMULATED_TCB = Tcb(boot_loader=4, tee=0, snp=24, microcode=219)
GUEST_POLICY = 0x30000
CHIP_ID_BYTES = 64
_INTERMEDIATE = "SEV-SIMULATED"
_MAX_VENDOR_BYTES = 64 * 1024
_HASH = hashes.SHA384()


@dataclass(frozen=True)
class GuestSettings:
    """What a simulated guest's report shall say; the defaults are what a verifier accepts.

    Attributes:
        policy: guest policy bits (bit 17 always set, bit 18 migration, bit 19 debug).
        vmpl: privilege level.
        tcb: component versions of the platform.
    """

    policy: int = GUEST_POLICY
    vmpl: int = 0
    tcb: Tcb = SIMULATED_TCB


@dataclass(frozen=True)
class SimulatedPlatform:
    """One simulated machine with a chip key endorsed by its simulated vendor.

    Attributes:
        name: the machine's name, as its certificate carries it.
        measurement: 48 bytes its reports state.
        chain: DER certificates, the chip key's first.
        settings: what else its reports state.
    """

    name: str
    measurement: bytes
    chain: tuple[bytes, ...]
    settings: GuestSettings
    chip_id: bytes = field(repr=False)
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    def quote(self, report_data: bytes) -> Evidence:
        """Answer a challenge.

        Args:
            report_data: the 64 bytes to seal in.

        Returns:
            A signed report and the chain.

        Raises:
            AttestationError: attestation.malformed for another length.
        """
        if len(report_data) != 64:
            raise AttestationError("attestation.malformed", "Report data has another length than 64 bytes.")
        unsigned = self._report(report_data, 0, 0)
        signature = self._key.sign(unsigned.encode_body(), ec.ECDSA(_HASH))
        r, s = decode_dss_signature(signature)
        return Evidence(Tee.AMD_SEV_SNP, self._report(report_data, r, s).encode(), self.chain)

    def _report(self, report_data: bytes, r: int, s: int) -> SnpReport:
        packed = _pack(self.settings.tcb)
        return SnpReport(
            version=3,
            guest_svn=0,
            policy=self.settings.policy,
            family_id=bytes(16),
            image_id=bytes(16),
            vmpl=self.settings.vmpl,
            signature_algorithm=ECDSA_P384_SHA384,
            current_tcb=packed,
            platform_info=0,
            key_info=0,
            report_data=report_data,
            measurement=self.measurement,
            host_data=bytes(32),
            id_key_digest=bytes(48),
            author_key_digest=bytes(48),
            report_id=bytes(32),
            report_id_ma=b"\xff" * 32,
            reported_tcb=packed,
            cpuid=b"\x19\x01\x01",
            chip_id=self.chip_id,
            committed_tcb=packed,
            current_version=bytes(3),
            committed_version=bytes(3),
            launch_tcb=packed,
            launch_mitigations=0,
            current_mitigations=0,
            signature_r=r,
            signature_s=s,
        )


class SimulatedVendor:
    """A made-up hardware vendor: a root and an intermediate key, from which machines get theirs."""

    def __init__(
        self,
        intermediate_key: ec.EllipticCurvePrivateKey,
        intermediate: x509.Certificate,
        root: x509.Certificate,
        revocation_list: x509.CertificateRevocationList,
    ) -> None:
        self._intermediate_key = intermediate_key
        self._intermediate = intermediate
        self._root = root
        self._revocation_list = revocation_list

    @classmethod
    def create(cls, clock: Clock) -> "SimulatedVendor":
        """A vendor in memory only; its root key is gone when this returns.

        Args:
            clock: certificates are valid from a day before its time.
        """
        start = clock() - timedelta(days=1)
        root_key, intermediate_key = new_key(), new_key()
        root_name = f"ARK-SIMULATED {os.urandom(8).hex()}"
        validity, name = (start, start + VALIDITY), simulated_name(root_name)
        root = issued(name, root_key.public_key(), name, root_key, validity, authority(None))
        intermediate = issued(
            simulated_name(_INTERMEDIATE),
            intermediate_key.public_key(),
            name,
            root_key,
            validity,
            authority(0),
        )
        listed = x509.load_der_x509_crl(revocation_list(name, root_key, validity))
        return cls(intermediate_key, intermediate, root, listed)

    @classmethod
    def open(cls, directory: Path, clock: Clock) -> "SimulatedVendor":
        """The vendor kept in a folder, made there on first use (file mode 0600).

        Args:
            directory: an existing folder.
            clock: the time of making.

        Raises:
            AttestationError: attestation.malformed when the file isn't a vendor's, or is of before vendors
                signed a revocation list.
            StorageError: it cannot be written.
            InputError: it cannot be read.
        """
        return cls._from_pem(
            read_or_make(directory / VENDOR_FILE, _MAX_VENDOR_BYTES, lambda: cls.create(clock)._pem())
        )

    @property
    def root_der(self) -> bytes:
        """The root certificate: what a relying party pins, knowing it is simulated."""
        return certificate_der(self._root)

    @property
    def crl_der(self) -> bytes:
        """The root's revocation list: what a verifier needs beside the root, as AMD publishes one."""
        return self._revocation_list.public_bytes(serialization.Encoding.DER)

    @property
    def collateral(self) -> Collateral:
        """The vendor's documents, as a verifier takes them."""
        return Collateral((CollateralDocument(CollateralKind.AMD_CRL, self.crl_der),))

    def platform(
        self, name: str, measurement: bytes, settings: GuestSettings | None = None
    ) -> SimulatedPlatform:
        """A machine of this vendor.

        Args:
            name: its name, up to 64 characters.
            measurement: 48 bytes its reports shall state.
            settings: what else they shall state.

        Raises:
            AttestationError: attestation.malformed for a measurement of another length.
        """
        if len(measurement) != 48:
            raise AttestationError("attestation.malformed", "A measurement has another length than 48 bytes.")
        chosen = settings if settings is not None else GuestSettings()
        key, chip_id = new_key(), os.urandom(CHIP_ID_BYTES)
        start = self._intermediate.not_valid_before_utc
        leaf = issued(
            simulated_name(f"SEV-VCEK-SIMULATED {name}"),
            key.public_key(),
            self._intermediate.subject,
            self._intermediate_key,
            (start, start + VALIDITY),
            _endorsement(chosen.tcb, chip_id),
        )
        chain = (certificate_der(leaf), certificate_der(self._intermediate), self.root_der)
        return SimulatedPlatform(name, measurement, chain, chosen, chip_id, key)

    def _pem(self) -> bytes:
        key = self._intermediate_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        pem = serialization.Encoding.PEM
        certificates = self._intermediate.public_bytes(pem) + self._root.public_bytes(pem)
        return key + certificates + self._revocation_list.public_bytes(pem)

    @classmethod
    def _from_pem(cls, data: bytes) -> "SimulatedVendor":
        try:
            key = serialization.load_pem_private_key(data, password=None)
            certificates = x509.load_pem_x509_certificates(data)
        except (ValueError, TypeError):
            certificates = []
        if len(certificates) != 2 or not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AttestationError("attestation.malformed", "The file is not a simulated vendor's.")
        try:
            listed = x509.load_pem_x509_crl(data)
        except ValueError:
            raise AttestationError(
                "attestation.malformed",
                "The simulated vendor has no revocation list: it was made by an earlier version.",
                f"Delete {VENDOR_FILE}; another vendor is made then. Receipts keep the root that they need.",
            ) from None
        return cls(key, certificates[0], certificates[1], listed)


def _endorsement(tcb: Tcb, chip_id: bytes) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    values = {
        OID_BOOT_LOADER: _integer(tcb.boot_loader),
        OID_TEE: _integer(tcb.tee),
        OID_SNP: _integer(tcb.snp),
        OID_MICROCODE: _integer(tcb.microcode),
        OID_HARDWARE_ID: chip_id,
    }
    return tuple(
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), False)
        for oid, value in values.items()
    )


def _integer(value: int) -> bytes:
    body = value.to_bytes(2 if value > 127 else 1, "big")
    return bytes([0x02, len(body)]) + body


def _pack(tcb: Tcb) -> int:
    return int.from_bytes(bytes([tcb.boot_loader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode]), "little")
