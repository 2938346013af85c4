"""A made-up GPU under a labelled root, with manifests and OCSP answers of its own, for the tests."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from lxml import etree

from cloister.enclave.attestation import (
    AppraisalPolicy,
    Collateral,
    CollateralDocument,
    CollateralKind,
    Evidence,
    Platforms,
    Tee,
    TrustStore,
)
from cloister.enclave.attestation.authenticator import Ground
from cloister.enclave.attestation.nvidia.dice import OID_COMPOSITE
from cloister.enclave.attestation.nvidia.transcript import (
    DRIVER_VERSION,
    FWID,
    NVDEC0_STATUS,
    PROTECTED_PCIE,
    VBIOS_VERSION,
    Transcript,
)
from cloister.enclave.attestation.simulated.certificates import (
    authority,
    certificate_der,
    issued,
    key_usage,
    new_key,
    simulated_name,
)

NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
NONCE = bytes(range(32))
DRIVER, VBIOS = "570.124.03", "96.00.5E.00.04"
FIRMWARE = hashlib.sha384(b"firmware").digest()
ALWAYS = (NOW - timedelta(days=400), NOW + timedelta(days=4000))


@dataclass(frozen=True)
class Holder:
    """A key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return certificate_der(self.certificate)


def holder(
    name: str,
    issuer: Holder | None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...],
    validity: tuple[datetime, datetime] = ALWAYS,
) -> Holder:
    key = new_key()
    subject = simulated_name(name)
    by = key if issuer is None else issuer.key
    by_name = subject if issuer is None else issuer.certificate.subject
    return Holder(key, issued(subject, key.public_key(), by_name, by, validity, extensions))


def composite(fwid: bytes) -> bytes:
    """A DICE extension as Hopper's; nobody reads the key in its middle."""
    key = bytes.fromhex("30020500")
    digest = bytes.fromhex("060960864801650304020204") + bytes([48]) + fwid
    body = b"\x02\x01\x01" + key + bytes([0x30, len(digest)]) + digest
    return bytes([0x30, len(body)]) + body


def signer_of_evidence(fwid: bytes) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    dice = x509.UnrecognizedExtension(x509.ObjectIdentifier(OID_COMPOSITE), composite(fwid))
    return ((key_usage(signs=True), True), (dice, False))


PLAIN_SIGNER = (
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (key_usage(signs=True), True),
)


@lru_cache(maxsize=1)
def root() -> Holder:
    return holder("GPU-SIMULATED root", None, authority(None))


@lru_cache(maxsize=1)
def device() -> tuple[Holder, ...]:
    """The GPU's five certificates, its own first."""
    identity = holder("GH100 Identity", root(), authority(None))
    provisioner = holder("GH100 Provisioner", identity, authority(None))
    boot = holder("GH100 BROM", provisioner, authority(None))
    leaf = holder("GH100 A01 GSP FMC LF", boot, signer_of_evidence(FIRMWARE))
    return leaf, boot, provisioner, identity, root()


@lru_cache(maxsize=4)
def manifest_signers(until: datetime = ALWAYS[1]) -> tuple[Holder, ...]:
    """The manifest's certificates, the signer's first."""
    issuer = holder("Reference Value CA", root(), authority(0))
    return holder("RIM Signer", issuer, PLAIN_SIGNER, (ALWAYS[0], until)), issuer, root()


def raw_signature(key: ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def measured(index: int) -> bytes:
    return hashlib.sha384(b"block %d" % index).digest()


@dataclass(frozen=True)
class GpuScene:
    """One GPU, what is at hand about it, and what is asked of it."""

    transcript: Transcript
    documents: tuple[CollateralDocument, ...]
    policy: AppraisalPolicy
    now: datetime = NOW
    chain: tuple[bytes, ...] = field(default_factory=lambda: tuple(one.der for one in device()))

    def evidence(self) -> Evidence:
        unsigned = self.transcript
        signature = raw_signature(device()[0].key, unsigned.encode_signed())
        return Evidence(Tee.NVIDIA_GPU, replace(unsigned, signature=signature).encode(), self.chain)

    def ground(self) -> Ground:
        return Ground(TrustStore.simulated(root().der), self.now, Collateral.joined(self.documents))

    def with_opaque(self, **changes: bytes | None) -> GpuScene:
        numbers = {
            "driver": DRIVER_VERSION,
            "vbios": VBIOS_VERSION,
            "nvdec": NVDEC0_STATUS,
            "fwid": FWID,
            "pcie": PROTECTED_PCIE,
            "flag": 36,
        }
        opaque = dict(self.transcript.opaque)
        for name, value in changes.items():
            if value is None:
                opaque.pop(numbers[name], None)
            else:
                opaque[numbers[name]] = value
        return replace(self, transcript=replace(self.transcript, opaque=opaque))


def scene() -> GpuScene:
    transcript = Transcript(
        nonce=NONCE,
        slot=0,
        measurements=tuple((1, measured(index)) for index in range(64)),
        device_nonce=os.urandom(32),
        opaque={
            VBIOS_VERSION: bytes.fromhex("005e009604000000"),
            DRIVER_VERSION: DRIVER.encode() + b"\0",
            NVDEC0_STATUS: b"\x55",
            FWID: FIRMWARE,
            PROTECTED_PCIE: b"\x55",
        },
        signature=bytes(96),
    )
    policy = AppraisalPolicy(measurements=("ab" * 48,), platforms=Platforms.HARDWARE_OR_SIMULATED)
    return GpuScene(transcript, (*manifests(), *answers()), policy)


@lru_cache(maxsize=1)
def manifests() -> tuple[CollateralDocument, ...]:
    return (
        manifest(DRIVER, {index: (measured(index),) for index in (7, 21, 63)}),
        manifest(VBIOS, {index: (bytes(48), measured(index)) for index in (9, 10)}),
    )


def manifest(
    version: str,
    active: dict[int, tuple[bytes, ...]],
    signers: tuple[Holder, ...] | None = None,
    product: str = "GH100",
) -> CollateralDocument:
    """A manifest as NVIDIA writes it, signed by the scene's own signer."""
    signers = signers or manifest_signers()
    resources = []
    for index in range(64):
        digests = active.get(index, (bytes(48),))
        hashed = " ".join(f'ns2:Hash{number}="{one.hex()}"' for number, one in enumerate(digests))
        resources.append(
            f'<ns0:Resource type="Measurement" index="{index}" active="{index in active}" '
            f'alternatives="{len(digests)}" {hashed} name="Measurement_{index}" size="48"/>'
        )
    text = (
        '<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" '
        'xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" '
        'xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" name="SIMULATED - NOT HARDWARE">\n'
        f'    <ns0:Meta colloquialVersion="{version}" edition="GPU" product="{product}"/>\n'
        f"    <ns0:Payload>{''.join(resources)}</ns0:Payload>\n</SoftwareIdentity>"
    )
    return CollateralDocument(CollateralKind.NVIDIA_RIM, sign_xml(text.encode(), signers))


def sign_xml(document: bytes, signers: tuple[Holder, ...]) -> bytes:
    """Sign a document the enveloped way; written apart from the code that verifies it."""
    tree = etree.fromstring(document)
    digest = hashlib.sha384(etree.tostring(tree, method="c14n")).digest()
    more, dsig = "http://www.w3.org/2001/04/xmldsig-more#", "http://www.w3.org/2000/09/xmldsig#"
    c14n = "http://www.w3.org/2006/12/xml-c14n11"
    certificates = "".join(
        f"<ds:X509Certificate>{base64.b64encode(one.der).decode()}</ds:X509Certificate>" for one in signers
    )
    signature = (
        f'<ds:Signature xmlns:ds="{dsig}"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{c14n}"/>'
        f'<ds:SignatureMethod Algorithm="{more}ecdsa-sha384"/><ds:Reference URI=""><ds:Transforms>'
        f'<ds:Transform Algorithm="{dsig}enveloped-signature"/><ds:Transform Algorithm="{c14n}"/>'
        f'</ds:Transforms><ds:DigestMethod Algorithm="{more}sha384"/><ds:DigestValue>'
        f"{base64.b64encode(digest).decode()}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
        f"<ds:SignatureValue>VALUE</ds:SignatureValue><ds:KeyInfo><ds:X509Data>{certificates}"
        "</ds:X509Data></ds:KeyInfo></ds:Signature>"
    )
    unsigned = document.replace(b"</SoftwareIdentity>", signature.encode() + b"</SoftwareIdentity>")
    info = next(etree.fromstring(unsigned).iter(f"{{{dsig}}}SignedInfo"))
    value = raw_signature(signers[0].key, etree.tostring(info, method="c14n"))
    return unsigned.replace(b"VALUE", base64.b64encode(value))


def answers(**changes: object) -> tuple[CollateralDocument, ...]:
    """Good answers on every certificate but the roots and the GPU's own."""
    chains = (device()[1:], manifest_signers())
    return tuple(
        answer(certificate, issuer, **changes)  # type: ignore[arg-type]
        for chain in chains
        for certificate, issuer in pairwise(chain)
    )


def answer(
    certificate: Holder,
    issuer: Holder,
    *,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    reason: x509.ReasonFlags | None = None,
    at: datetime = NOW - timedelta(hours=1),
    lasts: timedelta | None = timedelta(days=2),
    responder: Holder | None = None,
    certid: hashes.HashAlgorithm | None = None,
) -> CollateralDocument:
    signer = responder or issuer
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            certificate.certificate,
            issuer.certificate,
            certid or hashes.SHA384(),
            status,
            at,
            None if lasts is None else at + lasts,
            at if status is ocsp.OCSPCertStatus.REVOKED else None,
            reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    )
    if responder is not None:
        builder = builder.certificates([responder.certificate])
    response = builder.sign(signer.key, hashes.SHA384())
    return CollateralDocument(CollateralKind.NVIDIA_OCSP, response.public_bytes(Encoding.DER))


def responder(
    issuer: Holder,
    purpose: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.OCSP_SIGNING,
    until: datetime = ALWAYS[1],
) -> Holder:
    extensions = PLAIN_SIGNER
    if purpose is not None:
        extensions = (*PLAIN_SIGNER, (x509.ExtendedKeyUsage([purpose]), False))
    return holder("OCSP responder", issuer, extensions, (ALWAYS[0], until))
