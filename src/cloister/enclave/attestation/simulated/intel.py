"""A simulated TDX machine and its vendor: real quote layout, real signatures, labelled root.

Rules kept here:

* Every certificate's organisation is ``SIMULATED - NOT HARDWARE``, so no production trust accepts the chain
  and every verdict on it says ``simulated``. Common names are Intel's, because the verifier asks for them.
* Its evidence goes through the same verifier as hardware's; there is no second path.
* Keys are made on the machine that simulates. None is in the code or the distribution. The root's key is kept
  with the others, since a root has to renew its revocation list.
* What a quote says is what the caller says: a simulation proves nothing about the machine.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloister.core.clock import Clock
from cloister.core.files import read_or_make
from cloister.enclave.attestation.binding import REPORT_DATA_BYTES
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.intel.certificates import (
    PCK_NAME,
    SGX_EXTENSION,
    SHA256,
    TCB_SIGNER_NAME,
    Platform,
    pem_of,
)
from cloister.enclave.attestation.intel.quote import Quote
from cloister.enclave.attestation.intel.reports import SEPT_VE_DISABLE, EnclaveReport, TdReport
from cloister.enclave.attestation.simulated.certificates import (
    authority,
    certificate_der,
    issued,
    simulated_name,
)
from cloister.enclave.errors import AttestationError

VENDOR_FILE: Final = "simulated-intel.pem"
VALIDITY: Final = timedelta(days=3650)
PLATFORM_CA_NAME: Final = "Intel SGX PCK Platform CA"
SIMULATED_PLATFORM: Final = Platform(components=(2,) * 16, pcesvn=11, pceid="0000", fmspc="5155ca7ed000")
TEE_TCB_SVN: Final = bytes([4, 1, 2]).ljust(16, b"\0")
QE_SIGNER: Final = hashlib.sha256(b"SIMULATED quoting enclave").digest()
QE_PRODUCT, QE_SVN = 2, 4
QE_ATTRIBUTES: Final = bytes([0x15]).ljust(8, b"\0") + bytes([0xE7]).ljust(8, b"\0")
_REGISTER_BYTES = 48
_AUTH_DATA_BYTES = 32
_MAX_VENDOR_BYTES = 64 * 1024
_KEY_END = b"-----END PRIVATE KEY-----\n"
_HASH = hashes.SHA256()


@dataclass(frozen=True)
class DomainSettings:
    """What a simulated domain's quotes shall say; the defaults are what a verifier accepts.

    Attributes:
        rtmrs: the registers extended at run time, 48 bytes each.
        tdattributes: attribute bits (0 to 7 debug, 28 SEPT_VE_DISABLE, 29 migration).
        tee_tcb_svn: 16 versions of what carries the domain.
        mrsignerseam: who signed the TDX module.
        mrservicetd: the service domain that is bound; None for the quote version that doesn't say.
    """

    rtmrs: tuple[bytes, bytes, bytes, bytes] = (bytes(_REGISTER_BYTES),) * 4
    tdattributes: int = SEPT_VE_DISABLE
    tee_tcb_svn: bytes = TEE_TCB_SVN
    mrsignerseam: bytes = bytes(_REGISTER_BYTES)
    mrservicetd: bytes | None = None


@dataclass(frozen=True)
class SimulatedDomain:
    """One simulated trust domain on a machine of its own.

    Attributes:
        name: the machine's name, as its certificate carries it.
        mrtd: 48 bytes its quotes state.
        settings: what else they state.
        serial: serial number of the machine's certificate.
        certificates: PEM: the machine's, its authority's, the root's.
    """

    name: str
    mrtd: bytes
    settings: DomainSettings
    serial: int
    certificates: bytes = field(repr=False)
    _platform_key: ec.EllipticCurvePrivateKey = field(repr=False)
    _attestation_key: ec.EllipticCurvePrivateKey = field(repr=False)

    def quote(self, report_data: bytes) -> Evidence:
        """Answer a challenge.

        Args:
            report_data: the 64 bytes to seal in.

        Returns:
            A signed quote; version 4, or 5 where a service domain is named.

        Raises:
            AttestationError: attestation.malformed for another length.
        """
        if len(report_data) != REPORT_DATA_BYTES:
            raise AttestationError("attestation.malformed", "Report data has another length than 64 bytes.")
        said = self.settings
        later = said.mrservicetd is not None
        body = TdReport(
            tee_tcb_svn=said.tee_tcb_svn,
            mrseam=bytes(_REGISTER_BYTES),
            mrsignerseam=said.mrsignerseam,
            seamattributes=bytes(8),
            tdattributes=said.tdattributes.to_bytes(8, "little"),
            xfam=(0xE7).to_bytes(8, "little"),
            mrtd=self.mrtd,
            mrconfigid=bytes(_REGISTER_BYTES),
            mrowner=bytes(_REGISTER_BYTES),
            mrownerconfig=bytes(_REGISTER_BYTES),
            rtmr0=said.rtmrs[0],
            rtmr1=said.rtmrs[1],
            rtmr2=said.rtmrs[2],
            rtmr3=said.rtmrs[3],
            report_data=report_data,
            tee_tcb_svn2=said.tee_tcb_svn if later else None,
            mrservicetd=said.mrservicetd,
        )
        return self.sign(body, version=5 if later else 4)

    def sign(self, body: TdReport | EnclaveReport, version: int) -> Evidence:
        """A quote over any body.

        Args:
            body: what the quote shall attest.
            version: 3 for an enclave; 4 or 5.
        """
        auth_data = bytes(range(_AUTH_DATA_BYTES))
        public = self._attestation_key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )[1:]
        report = quoting_enclave(hashlib.sha256(public + auth_data).digest())
        tee = Tee.INTEL_TDX if isinstance(body, TdReport) else Tee.INTEL_SGX
        unsigned = Quote(
            version=version,
            tee=tee,
            svns=bytes(4),
            user_data=bytes(20),
            body=body,
            signed=b"",
            signature=bytes(64),
            attestation_key=public,
            qe_report=report,
            qe_report_signed=report.encode(),
            qe_signature=_raw_signature(self._platform_key, report.encode()),
            auth_data=auth_data,
            certificates=self.certificates,
            length=0,
        )
        signature = _raw_signature(self._attestation_key, unsigned.encode_signed())
        return Evidence(tee, replace(unsigned, signature=signature).encode())


@dataclass(frozen=True)
class SigningAuthority:
    """A key of the simulated vendor and the certificate over it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate's bytes."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def sign(self, data: bytes) -> bytes:
        """r and s of its signature, 32 bytes each."""
        return _raw_signature(self.key, data)


@dataclass(frozen=True)
class SimulatedIntel:
    """A made-up vendor: a root, an authority for platforms, and the signer of TCB info."""

    root: SigningAuthority
    platform_ca: SigningAuthority
    tcb_signer: SigningAuthority

    @classmethod
    def create(cls, clock: Clock) -> SimulatedIntel:
        """A vendor in memory only.

        Args:
            clock: certificates are valid from a day before its time.
        """
        start = clock() - timedelta(days=1)
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
        root, span = simulated_name("SGX Root CA SIMULATED"), (start, start + VALIDITY)
        kinds = (
            (root, authority(1)),
            (simulated_name(PLATFORM_CA_NAME), authority(0)),
            (simulated_name(TCB_SIGNER_NAME), _end_entity()),
        )
        return cls(
            *(
                SigningAuthority(issued(name, key.public_key(), root, keys[0], span, extensions), key)
                for key, (name, extensions) in zip(keys, kinds, strict=True)
            )
        )

    @classmethod
    def open(cls, directory: Path, clock: Clock) -> SimulatedIntel:
        """The vendor kept in a folder, made there on first use (file mode 0600).

        Args:
            directory: an existing folder.
            clock: the time of making.

        Raises:
            AttestationError: attestation.malformed when the file isn't a vendor's.
            StorageError: it cannot be written.
            InputError: it cannot be read.
        """
        return cls._from_pem(
            read_or_make(directory / VENDOR_FILE, _MAX_VENDOR_BYTES, lambda: cls.create(clock)._pem())
        )

    @property
    def root_der(self) -> bytes:
        """The root certificate: what a relying party pins, knowing it is simulated."""
        return self.root.der

    def domain(self, name: str, mrtd: bytes, settings: DomainSettings | None = None) -> SimulatedDomain:
        """A trust domain on a machine of this vendor.

        Args:
            name: the machine's name, up to 64 characters.
            mrtd: 48 bytes its quotes shall state.
            settings: what else they shall state.

        Raises:
            AttestationError: attestation.malformed for an MRTD of another length.
        """
        if len(mrtd) != _REGISTER_BYTES:
            raise AttestationError("attestation.malformed", "An MRTD has another length than 48 bytes.")
        key = ec.generate_private_key(ec.SECP256R1())
        start = self.root.certificate.not_valid_before_utc
        platform = x509.UnrecognizedExtension(SGX_EXTENSION, _platform_der(SIMULATED_PLATFORM))
        leaf = issued(
            simulated_name(PCK_NAME, name),
            key.public_key(),
            self.platform_ca.certificate.subject,
            self.platform_ca.key,
            (start, start + VALIDITY),
            (*_end_entity(), (platform, False)),
        )
        chain = (certificate_der(leaf), self.platform_ca.der, self.root.der)
        return SimulatedDomain(
            name=name,
            mrtd=mrtd,
            settings=settings if settings is not None else DomainSettings(),
            serial=leaf.serial_number,
            certificates=b"".join(pem_of(der) for der in chain),
            _platform_key=key,
            _attestation_key=ec.generate_private_key(ec.SECP256R1()),
        )

    def _pem(self) -> bytes:
        all_three = (self.root, self.platform_ca, self.tcb_signer)
        form = (
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        keys = b"".join(one.key.private_bytes(*form) for one in all_three)
        return keys + b"".join(pem_of(one.der) for one in all_three)

    @classmethod
    def _from_pem(cls, data: bytes) -> SimulatedIntel:
        parts = data.split(_KEY_END)
        try:
            keys = [serialization.load_pem_private_key(part + _KEY_END, None) for part in parts[:-1]]
            certificates = x509.load_pem_x509_certificates(parts[-1])
        except (ValueError, TypeError):
            keys, certificates = [], []
        found = [
            SigningAuthority(certificate, key)
            for certificate, key in zip(certificates, keys, strict=False)
            if isinstance(key, ec.EllipticCurvePrivateKey) and certificate.public_key() == key.public_key()
        ]
        if len(found) != 3 or len(keys) != 3:
            raise AttestationError("attestation.malformed", "The file is not a simulated vendor's.")
        return cls(*found)


def quoting_enclave(bound: bytes) -> EnclaveReport:
    """The simulated quoting enclave's report.

    Args:
        bound: the 32 bytes that it vouches for.
    """
    return EnclaveReport(
        cpusvn=bytes(16),
        miscselect=bytes(4),
        isvextprodid=bytes(16),
        attributes=QE_ATTRIBUTES,
        mrenclave=bytes(32),
        mrsigner=QE_SIGNER,
        configid=bytes(64),
        isvprodid=QE_PRODUCT,
        isvsvn=QE_SVN,
        configsvn=0,
        isvfamilyid=bytes(16),
        report_data=bound.ljust(REPORT_DATA_BYTES, b"\0"),
    )


def _raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, SHA256))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _end_entity() -> tuple[tuple[x509.ExtensionType, bool], ...]:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (x509.BasicConstraints(ca=False, path_length=None), True), (usage, True)


_SGX = bytes.fromhex("2a864886f84d010d01")


def _platform_der(platform: Platform) -> bytes:
    """Intel's extension of a PCK certificate, with what a verifier reads of it."""
    versions = [*platform.components, platform.pcesvn]
    tcb = b"".join(
        _entry(bytes([2, index]), _integer(value)) for index, value in enumerate(versions, start=1)
    )
    return _der(
        0x30,
        _entry(b"\x01", _der(0x04, os.urandom(16)))
        + _entry(b"\x02", _der(0x30, tcb))
        + _entry(b"\x03", _der(0x04, bytes.fromhex(platform.pceid)))
        + _entry(b"\x04", _der(0x04, bytes.fromhex(platform.fmspc))),
    )


def _entry(suffix: bytes, value: bytes) -> bytes:
    return _der(0x30, _der(0x06, _SGX + suffix) + value)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _der(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body
