"""A made-up CPU vendor that keeps its root key, so that tests can have it sign revocation lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.enclave.attestation import Collateral, CollateralDocument, CollateralKind, Evidence, Tee
from cloister.enclave.attestation.simulated.certificates import (
    authority,
    issued,
    new_key,
    revocation_list,
    simulated_name,
)
from cloister.enclave.attestation.simulator import VALIDITY, SimulatedVendor
from tests.enclave.attestation_scene import NOW

ARK, ASK = "ARK-KEPT", "SEV-SIMULATED"
START = NOW - timedelta(days=1)
Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Entry:
    """One line of a revocation list; without an issuer it is the list's own."""

    serial: int
    issuer: str | None = None
    reason: x509.ReasonFlags | None = None
    at: datetime = NOW

    def built(self) -> x509.RevokedCertificate:
        builder = x509.RevokedCertificateBuilder().serial_number(self.serial).revocation_date(self.at)
        if self.issuer is not None:
            name = x509.DirectoryName(simulated_name(self.issuer))
            builder = builder.add_extension(x509.CertificateIssuer([name]), critical=True)
        if self.reason is not None:
            builder = builder.add_extension(x509.CRLReason(self.reason), critical=False)
        return builder.build()


@dataclass(frozen=True)
class KeptVendor:
    """A vendor whose root key is at hand."""

    key: Key = field(default_factory=new_key)
    intermediate_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    root: x509.Certificate = field(init=False)
    intermediate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        ark, validity = simulated_name(ARK), (START, START + VALIDITY)
        root = issued(ark, self.key.public_key(), ark, self.key, validity, authority(None))
        middle = issued(
            simulated_name(ASK),
            self.intermediate_key.public_key(),
            ark,
            self.key,
            validity,
            authority(0),
        )
        object.__setattr__(self, "root", root)
        object.__setattr__(self, "intermediate", middle)

    @property
    def root_der(self) -> bytes:
        return self.root.public_bytes(Encoding.DER)

    def simulated(self) -> SimulatedVendor:
        """The same vendor as the simulator has it."""
        der = revocation_list(simulated_name(ARK), self.key, (START, START + VALIDITY))
        listed = x509.load_der_x509_crl(der)
        return SimulatedVendor(self.intermediate_key, self.intermediate, self.root, listed)

    def crl(
        self,
        entries: Sequence[Entry] = (),
        *,
        issued_at: datetime = START,
        lives: timedelta = timedelta(days=30),
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        signed_by: Key | None = None,
        issuer: str = ARK,
        digest: hashes.SHA256 | hashes.SHA384 | None = None,
    ) -> bytes:
        """A list signed by the root key, or another."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(simulated_name(issuer))
            .last_update(issued_at)
            .next_update(issued_at + lives)
        )
        for entry in entries:
            builder = builder.add_revoked_certificate(entry.built())
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signed_by or self.key, digest or hashes.SHA384()).public_bytes(Encoding.DER)


def naming_serial_zero(vendor: KeptVendor, issuer: str | None) -> bytes:
    """A list that revokes serial number 0, signed by the root; libraries don't make such either."""
    marker = 0x55
    body = x509.load_der_x509_crl(vendor.crl([Entry(marker, issuer)])).tbs_certlist_bytes
    assert body.count(bytes((0x02, 0x01, marker))) == 1
    body = body.replace(bytes((0x02, 0x01, marker)), bytes((0x02, 0x01, 0x00)))
    return signed(body, vendor.key)


def signed(body: bytes, key: Key) -> bytes:
    """A body with an ECDSA signature beside it."""
    algorithm = bytes.fromhex("300a06082a8648ce3d040303")
    signature = key.sign(body, ec.ECDSA(hashes.SHA384()))
    return wrapped(0x30, body + algorithm + wrapped(0x03, b"\0" + signature))


def collateral(*lists: bytes) -> Collateral:
    return Collateral(tuple(CollateralDocument(CollateralKind.AMD_CRL, one) for one in lists))


def with_serial_zero(der: bytes, issuer_key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate again with serial number 0, as AMD's are, signed anew; libraries don't make such."""
    tbs = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    # SEQUENCE header of four octets, [0] version of five, then the serial number.
    assert tbs[4:9] == bytes.fromhex("a003020102")
    serial_ends = 11 + tbs[10]
    inner = tbs[4:9] + bytes.fromhex("020100") + tbs[serial_ends:]
    return signed(wrapped(0x30, inner), issuer_key)


def wrapped(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def replaced_leaf(evidence: Evidence, leaf: bytes) -> Evidence:
    return Evidence(Tee.AMD_SEV_SNP, evidence.report, (leaf, *evidence.chain[1:]))
