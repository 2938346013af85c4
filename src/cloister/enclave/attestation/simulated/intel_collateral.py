"""What the simulated vendor of TDX machines publishes: TCB info, QE identity and revocation lists.

The form is Intel's, the signatures are those of the simulated root, and a verifier reads them as it reads
Intel's own. Nothing published here says anything about a machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from cloister.core.canonical import JSON, canonicalize
from cloister.enclave.attestation.claims import TcbStatus
from cloister.enclave.attestation.collateral import CollateralDocument, CollateralKind
from cloister.enclave.attestation.intel.certificates import pem_of
from cloister.enclave.attestation.simulated.intel import (
    QE_ATTRIBUTES,
    QE_PRODUCT,
    QE_SIGNER,
    QE_SVN,
    SIMULATED_PLATFORM,
    TEE_TCB_SVN,
    SigningAuthority,
    SimulatedIntel,
)


@dataclass(frozen=True)
class Published:
    """What the vendor shall publish; the defaults rate its machines as up to date.

    Attributes:
        kind: "TDX" or "SGX".
        lifetime: how long all of it holds.
        evaluation: the tcbEvaluationDataNumber.
        fmspc: the kind of platform it is about, 12 hex digits.
        status: the level of platforms.
        advisories: on platforms of that level.
        platform_svn: least version of each component.
        qe_status: the level of the quoting enclave.
        qe_signer: who the quoting enclave must be signed by.
        qe_svn: least version of the quoting enclave that is rated.
        module_status: the level of the TDX module.
        module_svn: least version of the TDX module that is rated.
        module_signer: who the TDX module must be signed by.
        revoked_platforms: serial numbers of machines' certificates.
        revoked_authorities: serial numbers of certificates that the root issued.
    """

    kind: str = "TDX"
    lifetime: timedelta = timedelta(days=30)
    evaluation: int = 20
    fmspc: str = SIMULATED_PLATFORM.fmspc
    status: TcbStatus = TcbStatus.UP_TO_DATE
    advisories: tuple[str, ...] = ()
    platform_svn: int = 1
    qe_status: TcbStatus = TcbStatus.UP_TO_DATE
    qe_signer: bytes = QE_SIGNER
    qe_svn: int = QE_SVN
    module_status: TcbStatus = TcbStatus.UP_TO_DATE
    module_svn: int = TEE_TCB_SVN[0]
    module_signer: bytes = bytes(48)
    revoked_platforms: tuple[int, ...] = ()
    revoked_authorities: tuple[int, ...] = ()


_DEFAULTS = Published()


def publish(vendor: SimulatedIntel, at: datetime, published: Published = _DEFAULTS) -> CollateralDocument:
    """A set of collateral as a simulated vendor issues it.

    Args:
        vendor: whose machines it is for.
        at: when it is issued.
        published: what it says.

    Returns:
        A document for a verifier that trusts the simulated root.
    """
    until = at + published.lifetime
    info, identity = _tcb_info(published, at, until), _qe_identity(published, at, until)
    signer_chain = _chain(vendor.tcb_signer, vendor)
    parts: dict[str, JSON] = {
        "tcb_info": info,
        "tcb_info_signature": vendor.tcb_signer.sign(info.encode()).hex(),
        "tcb_info_issuer_chain": signer_chain,
        "qe_identity": identity,
        "qe_identity_signature": vendor.tcb_signer.sign(identity.encode()).hex(),
        "qe_identity_issuer_chain": signer_chain,
        "pck_crl": _revocation_list(vendor.platform_ca, at, until, published.revoked_platforms).hex(),
        "pck_crl_issuer_chain": _chain(vendor.platform_ca, vendor),
        "root_ca_crl": _revocation_list(vendor.root, at, until, published.revoked_authorities).hex(),
    }
    return CollateralDocument(CollateralKind.INTEL_DCAP, canonicalize(parts))


def _tcb_info(published: Published, at: datetime, until: datetime) -> str:
    domain = published.kind == "TDX"
    components: list[JSON] = [{"svn": published.platform_svn}] * 16
    tcb: dict[str, JSON] = {"sgxtcbcomponents": components, "pcesvn": SIMULATED_PLATFORM.pcesvn}
    if domain:
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in TEE_TCB_SVN]
    module: dict[str, JSON] = {
        "mrsigner": published.module_signer.hex(),
        "attributes": "00" * 8,
        "attributesMask": "FF" * 8,
    }
    rated = _level({"isvsvn": published.module_svn}, published.module_status, ())
    modules: dict[str, JSON] = {
        "tdxModule": module,
        "tdxModuleIdentities": [{"id": f"TDX_{TEE_TCB_SVN[1]:02X}", **module, "tcbLevels": [rated]}],
    }
    document: dict[str, JSON] = {
        "id": published.kind,
        "version": 3,
        "issueDate": _time(at),
        "nextUpdate": _time(until),
        "fmspc": published.fmspc.upper(),
        "pceId": SIMULATED_PLATFORM.pceid,
        "tcbType": 0,
        "tcbEvaluationDataNumber": published.evaluation,
        **(modules if domain else {}),
        "tcbLevels": [_level(tcb, published.status, published.advisories)],
    }
    return json.dumps(document, separators=(",", ":"))


def _qe_identity(published: Published, at: datetime, until: datetime) -> str:
    document: dict[str, JSON] = {
        "id": "TD_QE" if published.kind == "TDX" else "QE",
        "version": 2,
        "issueDate": _time(at),
        "nextUpdate": _time(until),
        "tcbEvaluationDataNumber": published.evaluation,
        "miscselect": "00" * 4,
        "miscselectMask": "FF" * 4,
        "attributes": (QE_ATTRIBUTES[:8] + bytes(8)).hex().upper(),
        "attributesMask": "FF" * 8 + "00" * 8,
        "mrsigner": published.qe_signer.hex().upper(),
        "isvprodid": QE_PRODUCT,
        "tcbLevels": [_level({"isvsvn": published.qe_svn}, published.qe_status, ())],
    }
    return json.dumps(document, separators=(",", ":"))


def _level(tcb: dict[str, JSON], status: TcbStatus, advisories: tuple[str, ...]) -> JSON:
    level: dict[str, JSON] = {
        "tcb": tcb,
        "tcbDate": "2026-01-01T00:00:00Z",
        "tcbStatus": status.value,
        "advisoryIDs": [*advisories],
    }
    return level


def _revocation_list(
    issuer: SigningAuthority, at: datetime, until: datetime, serials: tuple[int, ...]
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(at)
        .next_update(until)
        .add_extension(x509.CRLNumber(int(at.timestamp())), critical=False)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _chain(signer: SigningAuthority, vendor: SimulatedIntel) -> str:
    return (pem_of(signer.der) + pem_of(vendor.root.der)).decode("ascii")


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
