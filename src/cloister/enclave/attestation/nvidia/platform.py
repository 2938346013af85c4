"""NVIDIA GPUs, as the verifier sees them: a transcript, its chain, and what only a GPU is asked.

What runs on a GPU is judged by NVIDIA's reference manifests for its driver and its firmware, both of which
must be at hand. A GPU's evidence proves that it is genuine and answered this nonce; that it is attached to
this machine follows only from the machine's own measured code, which asked it.

NVIDIA's report doesn't say whether the driver's developer tools mode is on: the collector refuses that, and
only a measured collector is to be believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from cloister.enclave.attestation.authenticator import Ground
from cloister.enclave.attestation.checks import Finding, Steps
from cloister.enclave.attestation.claims import Claims, PlatformDetail, Revocation
from cloister.enclave.attestation.collateral import CollateralDates, CollateralDocument, CollateralKind
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.nvidia.dice import firmware_of
from cloister.enclave.attestation.nvidia.manifest import Manifest, may_be_for, read_manifest
from cloister.enclave.attestation.nvidia.ocsp import Inquiry, Standing, inquire
from cloister.enclave.attestation.nvidia.transcript import SIGNATURE_BYTES, Transcript
from cloister.enclave.attestation.p384_chain import ChainCertificate, P384Chain
from cloister.enclave.attestation.policy import AppraisalPolicy
from cloister.enclave.errors import AttestationError
from cloister.evidence.hardware_terms import driver_order
from cloister.evidence.pki.certificates import UNREADABLE

STEPS = ("structure", "root", "chain", "validity", "signature", "firmware", "revocation-answers")
FINDINGS = (
    "device",
    "firmware-id",
    "gpu-mode",
    "minimum-driver",
    "driver-manifest",
    "vbios-manifest",
    "measurement",
    "answers",
)
CHAIN_LENGTH = 5
_CHIPS = ("GH", "GB")


@dataclass(frozen=True)
class Reference:
    """The manifest for one part of a GPU, or why there is none.

    Attributes:
        manifest: signed, valid, and not revoked as far as is known.
        code: else why not: attestation.collateral_missing where no document is for this version.
    """

    manifest: Manifest | None
    code: str = "attestation.collateral_missing"


@dataclass(frozen=True)
class GpuDetail(PlatformDetail):
    """A transcript that NVIDIA's root vouches for.

    Attributes:
        transcript: its fields.
        chip: such as "GH100", as the device's certificate names it.
        driver: the manifest of its driver.
        vbios: the manifest of its firmware.
        stale: whether an answer on revocation was at hand, but out of date.
        answers: from when and until when the answers on revocation hold that were used.
    """

    transcript: Transcript
    chip: str
    driver: Reference
    vbios: Reference
    stale: bool
    answers: tuple[CollateralDates, ...]


def authenticate(evidence: Evidence, ground: Ground, steps: Steps) -> Claims:
    """See `Authenticator.authenticate`."""
    with steps.step("structure"):
        transcript = Transcript.parse(evidence.report)
        if len(evidence.chain) != CHAIN_LENGTH or evidence.extras or evidence.devices:
            raise AttestationError("attestation.malformed", "A GPU's chain has five certificates.")
        chain = P384Chain(evidence.chain, ground.facts)
        firmware = firmware_of(chain.leaf.x509)
    with steps.step("root"):
        root = ground.pinned_root(chain.root_sha256, Tee.NVIDIA_GPU)
    with steps.step("chain"):
        chain.verify()
    with steps.step("validity"):
        chain.verify_validity(ground.now)
    with steps.step("signature"):
        chain.leaf.verify_signature(transcript.signature, evidence.report[:-SIGNATURE_BYTES])
    with steps.step("firmware"):
        if transcript.fwid is not None and transcript.fwid != firmware.fwid:
            raise AttestationError("attestation.fwid", "Transcript and certificate name different firmware.")
    chip = _chip(chain.leaf)
    driver = _reference(transcript.driver_version, chip, transcript, ground)
    vbios = _reference(transcript.vbios_version, chip, transcript, ground)
    manifests = [one.manifest for one in (driver, vbios) if one.manifest is not None]
    # The GPU makes its own first certificate, so no responder knows of it.
    inquiries = [*_inquiries(chain.certificates[1:], ground)]
    with steps.step("revocation-answers"):
        if any(one.standing is Standing.REVOKED for one in inquiries):
            raise AttestationError("attestation.revoked", "A certificate was revoked by who issued it.")
    for manifest in manifests:
        inquiries.extend(_inquiries(manifest.chain.certificates, ground))
    known = all(one.standing is Standing.GOOD for one in inquiries)
    if not known:
        steps.skipped(
            "revocation-answers", "not known of every certificate: an answer is missing or out of date"
        )
    dates = tuple({one.dates.sha256: one.dates for one in inquiries if one.dates is not None}.values())
    return Claims(
        tee=Tee.NVIDIA_GPU,
        registers=_registers(transcript, firmware.fwid),
        sealed_in=transcript.nonce,
        debug=firmware.debug,
        simulated=root.simulated or any(_simulated(one, ground) for one in manifests),
        revocation=Revocation.CHECKED if known else Revocation.UNKNOWN,
        detail=GpuDetail(
            transcript=transcript,
            chip=chip,
            driver=driver,
            vbios=vbios,
            stale=any(one.standing is Standing.STALE for one in inquiries),
            answers=dates,
        ),
        device_id=_device_id(chain),
        collateral=_used(manifests, inquiries),
        collateral_dates=(*(one.dates for one in manifests), *dates),
    )


def appraise(claims: Claims, policy: AppraisalPolicy, ground: Ground) -> tuple[Finding, ...]:
    """See `Authenticator.appraise`."""
    detail = claims.detail
    if not isinstance(detail, GpuDetail):
        raise TypeError("claims of another kind of hardware")
    transcript = detail.transcript
    version = transcript.driver_version
    minimum = policy.minimum_gpu_driver
    is_gpu = detail.chip.startswith(_CHIPS) and bool(version)
    mode = "unknown" if transcript.mode is None else transcript.mode.value
    waived = Tee.NVIDIA_GPU in policy.without_revocation
    return (
        Finding("device", "attestation.unsupported", is_gpu, "a GPU" if is_gpu else "another device"),
        Finding(
            "firmware-id",
            "attestation.fwid",
            transcript.fwid is not None,
            "the firmware is that of the certificate" if transcript.fwid is not None else "none is stated",
        ),
        Finding(
            "gpu-mode",
            "attestation.policy_bits",
            transcript.mode in policy.gpu_modes,
            f"mode {mode}; gpu_modes names {', '.join(policy.gpu_modes)}",
        ),
        Finding(
            "minimum-driver",
            "attestation.tcb_unacceptable",
            minimum is None or driver_order(version) >= driver_order(minimum),
            f"driver {version}; minimum_gpu_driver {minimum or 'not asked for'}",
        ),
        *_manifests(detail),
        Finding(
            "answers",
            "attestation.collateral_expired",
            waived or not (detail.stale or _too_old(detail.answers, policy, ground.collateral_now)),
            "the policy does without" if waived else f"{len(detail.answers)} answer(s) on revocation",
        ),
    )


def _manifests(detail: GpuDetail) -> tuple[Finding, ...]:
    found = []
    for name, reference in (("driver-manifest", detail.driver), ("vbios-manifest", detail.vbios)):
        version = "" if reference.manifest is None else reference.manifest.version
        sentence = f"signed for {version}" if version else "no usable manifest: " + reference.code
        found.append(Finding(name, reference.code, reference.manifest is not None, sentence))
    manifests = [one.manifest for one in (detail.driver, detail.vbios) if one.manifest is not None]
    wrong = sorted({index for one in manifests for index in _mismatches(one, detail.transcript)})
    twice = set.intersection(*(set(one.active) for one in manifests)) if len(manifests) == 2 else set()
    matched = len(manifests) == 2 and not wrong and not twice
    sentence = f"{len(manifests)} of 2 manifests"
    if wrong:
        sentence += "; differs at " + ", ".join(str(index) for index in wrong)
    if twice:
        sentence += "; both manifests claim the same measurement"
    found.append(Finding("measurement", "attestation.measurement", matched, sentence))
    return tuple(found)


def _reference(version: str, chip: str, transcript: Transcript, ground: Ground) -> Reference:
    """The manifest for a version: of several that are good, the one that differs least."""
    best: Manifest | None = None
    code = "attestation.collateral_missing"
    for document in ground.collateral.of(CollateralKind.NVIDIA_RIM):
        if not may_be_for(document, version):
            continue
        try:
            manifest = read_manifest(document, ground.facts)
            if manifest.version != version or manifest.product != chip:
                continue
            _verify_current(manifest, ground)
        except AttestationError as error:
            code = error.code
            continue
        if best is None or len(_mismatches(manifest, transcript)) < len(_mismatches(best, transcript)):
            best = manifest
    return Reference(best, code)


def _verify_current(manifest: Manifest, ground: Ground) -> None:
    if ground.trust.find_reference(manifest.chain.root_sha256, Tee.NVIDIA_GPU) is None:
        raise AttestationError("attestation.untrusted_root", "A manifest's root is not NVIDIA's.")
    try:
        manifest.chain.verify_validity(ground.collateral_now)
    except AttestationError:
        raise AttestationError(
            "attestation.collateral_expired",
            "A manifest's signer is out of date.",
            "Fetch the manifest anew.",
        ) from None
    inquiries = _inquiries(manifest.chain.certificates, ground)
    if any(one.standing is Standing.REVOKED for one in inquiries):
        raise AttestationError("attestation.revoked", "A manifest's signer was revoked.")


def _mismatches(manifest: Manifest, transcript: Transcript) -> tuple[int, ...]:
    digests = tuple(digest for _, digest in transcript.measurements)
    return manifest.mismatches(digests, nvdec0_enabled=transcript.nvdec0_enabled)


def _inquiries(certificates: tuple[ChainCertificate, ...], ground: Ground) -> tuple[Inquiry, ...]:
    """What is known of each certificate but the root."""
    documents = ground.collateral.of(CollateralKind.NVIDIA_OCSP)
    return tuple(
        inquire(certificate, issuer, documents, ground.collateral_now, ground.facts)
        for certificate, issuer in pairwise(certificates)
    )


def _chip(leaf: ChainCertificate) -> str:
    try:
        names = leaf.x509.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except UNREADABLE:
        return ""
    return str(names[0].value).split(" ", 1)[0] if names else ""


def _device_id(chain: P384Chain) -> str:
    """SHA-256 of the key that NVIDIA certified in the chip; the first certificate's key comes and goes with
    the firmware."""
    info = chain.certificates[1].key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(info).hexdigest()


def _registers(transcript: Transcript, fwid: bytes) -> dict[str, str]:
    blocks = {
        f"block{number}": digest.hex() for number, (_, digest) in enumerate(transcript.measurements, start=1)
    }
    return {"fwid": fwid.hex(), **blocks}


def _simulated(manifest: Manifest, ground: Ground) -> bool:
    root = ground.trust.find_reference(manifest.chain.root_sha256, Tee.NVIDIA_GPU)
    return root is None or root.simulated


def _used(manifests: Iterable[Manifest], inquiries: Iterable[Inquiry]) -> tuple[CollateralDocument, ...]:
    used = {one.document.sha256: one.document for one in manifests}
    used |= {one.document.sha256: one.document for one in inquiries if one.document is not None}
    return tuple(used.values())


def _too_old(dates: tuple[CollateralDates, ...], policy: AppraisalPolicy, now: datetime) -> bool:
    days = policy.maximum_collateral_age_days
    return days is not None and any(now - one.issued_at > timedelta(days=days) for one in dates)
