"""A GPU under a root of the tests' own: what is asked of it, and each defect refused with its own code.

No genuine OCSP answer of NVIDIA's is published, so answers are made here, under the same root.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.clock import fixed_clock
from cloister.enclave.attestation import (
    AppraisalPolicy,
    Claims,
    Collateral,
    CollateralDocument,
    CollateralKind,
    Evidence,
    Finding,
    GpuMode,
    Gpus,
    Revocation,
    Status,
    Steps,
    Tee,
    TrustStore,
    Verdict,
    Verifier,
    appraise,
)
from cloister.enclave.attestation.authenticator import authenticator
from cloister.enclave.attestation.nvidia.dice import OID_COMPOSITE, OID_TCB_INFO, firmware_of
from cloister.enclave.attestation.nvidia.ocsp import Standing, inquire
from cloister.enclave.attestation.nvidia.xmldsig import open_signed
from cloister.enclave.attestation.p384_chain import P384Chain
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError
from tests.enclave.attestation_scene import scene as machine_scene
from tests.enclave.attestation_scene import vendor
from tests.enclave.edits import edits
from tests.enclave.gpu_scene import (
    DRIVER,
    FIRMWARE,
    NONCE,
    NOW,
    PLAIN_SIGNER,
    VBIOS,
    GpuScene,
    answer,
    answers,
    composite,
    device,
    holder,
    manifest,
    manifest_signers,
    manifests,
    measured,
    responder,
    root,
    scene,
    sign_xml,
)

GPU = authenticator(Tee.NVIDIA_GPU)
SCENE, ANSWERS = scene(), answers()


def claims_of(one: GpuScene, evidence: Evidence | None = None) -> Claims:
    return GPU.authenticate(evidence or one.evidence(), one.ground(), Steps(GPU.STEPS))


def findings(one: GpuScene, nonce: bytes = NONCE) -> tuple[Finding, ...]:
    return appraise(claims_of(one), one.policy, nonce, one.ground())


def refusals(one: GpuScene, nonce: bytes = NONCE) -> list[str]:
    return [found.code.removeprefix("attestation.") for found in findings(one, nonce) if not found.right]


def without(kind: CollateralKind, one: GpuScene) -> GpuScene:
    return replace(one, documents=tuple(each for each in one.documents if each.kind is not kind))


def with_policy(one: GpuScene, **changes: object) -> GpuScene:
    return replace(one, policy=AppraisalPolicy.model_validate({**one.policy.model_dump(), **changes}))


def with_block(one: GpuScene, index: int, digest: bytes) -> GpuScene:
    blocks = list(one.transcript.measurements)
    blocks[index] = (1, digest)
    return replace(one, transcript=replace(one.transcript, measurements=tuple(blocks)))


def test_a_gpu_whose_manifests_and_answers_are_at_hand_passes_every_check() -> None:
    one = scene()
    known = claims_of(one)
    assert refusals(one) == []
    assert known.simulated
    assert known.revocation is Revocation.CHECKED
    assert len(known.collateral) == len(one.documents)
    assert known.registers["block8"] == measured(7).hex()


DEFECTS: list[tuple[str, Callable[[GpuScene], GpuScene], list[str]]] = [
    (
        "a changed block that the driver's manifest names",
        lambda s: with_block(s, 21, bytes(48)),
        ["measurement"],
    ),
    ("a changed block that the firmware's names", lambda s: with_block(s, 9, measured(1)), ["measurement"]),
    ("a changed block that none names", lambda s: with_block(s, 40, bytes(48)), []),
    ("the other alternative", lambda s: with_block(s, 9, bytes(48)), []),
    ("no firmware id", lambda s: s.with_opaque(fwid=None), ["fwid"]),
    ("protected PCIe", lambda s: s.with_opaque(pcie=b"\xaa"), ["policy_bits"]),
    ("an unknown mode", lambda s: s.with_opaque(flag=b"\x09\x00"), ["policy_bits"]),
    ("a flag against its status", lambda s: s.with_opaque(flag=b"\x02\x00"), ["policy_bits"]),
    ("a status against its flag", lambda s: s.with_opaque(pcie=b"\xaa", flag=b"\0\0"), ["policy_bits"]),
    ("several GPUs", lambda s: s.with_opaque(flag=b"\x01\x00"), ["policy_bits"]),
    (
        "no driver version",
        lambda s: s.with_opaque(driver=None),
        ["unsupported", "collateral_missing", "measurement"],
    ),
    (
        "another driver than the manifests'",
        lambda s: s.with_opaque(driver=b"570.124.04\0"),
        ["collateral_missing", "measurement"],
    ),
    (
        "another firmware than the manifests'",
        lambda s: s.with_opaque(vbios=bytes.fromhex("005e009605000000")),
        ["collateral_missing", "measurement"],
    ),
    (
        "no manifests",
        lambda s: without(CollateralKind.NVIDIA_RIM, s),
        ["collateral_missing", "collateral_missing", "measurement"],
    ),
    ("no answers", lambda s: without(CollateralKind.NVIDIA_OCSP, s), ["revocation_unknown"]),
    (
        "answers out of date",
        lambda s: replace(s, now=NOW + timedelta(days=3)),
        ["collateral_expired", "revocation_unknown"],
    ),
    (
        "an old driver",
        lambda s: with_policy(s, minimum_gpu_driver="570.124.4"),
        ["tcb_unacceptable"],
    ),
    ("a new enough driver", lambda s: with_policy(s, minimum_gpu_driver="570.124"), []),
    (
        "several GPUs where allowed",
        lambda s: with_policy(s.with_opaque(flag=b"\x01\x00"), gpu_modes=("multi",)),
        [],
    ),
    (
        "answers older than the policy allows",
        lambda s: replace(
            with_policy(s, maximum_collateral_age_days=1),
            now=NOW + timedelta(days=1, hours=1),
        ),
        ["collateral_expired"],
    ),
    (
        "no answers, and the policy does without",
        lambda s: with_policy(without(CollateralKind.NVIDIA_OCSP, s), without_revocation=("nvidia-gpu",)),
        [],
    ),
]


@pytest.mark.parametrize(
    ("change", "expected"), [one[1:] for one in DEFECTS], ids=[one[0] for one in DEFECTS]
)
def test_each_state_of_a_gpu_is_judged_with_its_own_codes(
    change: Callable[[GpuScene], GpuScene], expected: list[str]
) -> None:
    assert refusals(change(scene())) == expected


def test_a_gpu_that_answers_twice_is_one_gpu_and_refused_as_two() -> None:
    """With one signed transcript, and with another."""
    machine = machine_scene()
    policy = machine.policy.model_copy(update={"gpus": Gpus.REQUIRED})
    binding = replace(machine.binding, policy_id=policy.sha256)
    nonce = binding.device_nonce()
    one = replace(scene(), transcript=replace(scene().transcript, nonce=nonce))
    other = replace(one, transcript=replace(one.transcript, device_nonce=os.urandom(32)))
    trust = TrustStore.simulated(vendor().root_der, root().der)
    documents = Collateral.joined(vendor().collateral.documents, scene().documents)

    def judged(*gpus: Evidence) -> Verdict:
        evidence = replace(machine.platform.quote(binding.report_data()), devices=gpus)
        return Verifier(trust, fixed_clock(NOW), documents).verify(evidence, expected=binding, policy=policy)

    assert judged(one.evidence()).status is Status.TRUSTED
    for gpus in ((one.evidence(), one.evidence()), (one.evidence(), other.evidence())):
        verdict = judged(*gpus)
        assert verdict.code == "attestation.gpu_missing"
        check = next(each for each in verdict.checks if each.name == "composition")
        assert check.detail == "a machine with 2 GPU(s), 1 of them different; gpus is required"


def spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_device_is_told_by_the_key_that_was_certified_in_its_chip(
    shared_data: Callable[[str], Path],
) -> None:
    folder = shared_data("attestation/nvgpu")
    found = [
        x509.load_pem_x509_certificates((folder / name / "cert_chain.pem").read_bytes())[1]
        for name in ("hopper-550.90", "hopper-570.124", "hopper-590.12-ppcie-a", "blackwell-575.32")
    ]
    assert len({spki(certificate) for certificate in found}) == len(found)
    assert claims_of(scene()).device_id == claims_of(scene()).device_id != ""


def test_a_wrong_nonce_is_refused_as_a_binding() -> None:
    assert refusals(scene(), bytes(32)) == ["key_binding"]


def test_the_35th_measurement_counts_only_while_the_first_decoder_runs() -> None:
    driver = manifest(DRIVER, {7: (measured(7),), 35: (bytes(48),)})
    one = replace(scene(), documents=(driver, manifests()[1], *answers()))
    assert refusals(one) == []
    assert refusals(one.with_opaque(nvdec=b"\xaa")) == ["measurement"]
    assert refusals(one.with_opaque(nvdec=None)) == ["measurement"]


def test_two_manifests_that_claim_the_same_measurement_are_refused() -> None:
    driver = manifest(DRIVER, {9: (measured(9),)})
    one = replace(scene(), documents=(driver, manifests()[1], *answers()))
    assert refusals(one) == ["measurement"]


def test_of_two_good_manifests_for_one_version_the_one_that_fits_counts() -> None:
    other_board = manifest(VBIOS, {9: (bytes(47) + b"1",)})
    one = replace(scene(), documents=(other_board, *scene().documents))
    assert refusals(one) == []


def test_a_manifest_for_another_chip_is_none() -> None:
    driver = manifest(DRIVER, {7: (measured(7),)}, product="GB100")
    one = replace(scene(), documents=(driver, manifests()[1], *answers()))
    assert refusals(one) == ["collateral_missing", "measurement"]


def test_a_manifest_whose_signer_is_out_of_date_has_to_be_fetched_anew() -> None:
    signers = manifest_signers(NOW - timedelta(days=1))
    documents = (manifest(DRIVER, {7: (measured(7),)}, signers), manifests()[1], *answers())
    one = replace(scene(), documents=documents)
    assert refusals(one) == ["collateral_expired", "measurement"]


def test_a_manifest_under_another_root_is_refused() -> None:
    from cloister.enclave.attestation.simulated.certificates import authority

    foreign_root = holder("Another root", None, authority(None))
    signers = (holder("Signer", foreign_root, PLAIN_SIGNER), foreign_root)
    documents = (manifest(DRIVER, {7: (measured(7),)}, signers), manifests()[1], *answers())
    assert refusals(replace(scene(), documents=documents)) == ["untrusted_root", "measurement"]


def test_a_broken_manifest_beside_a_good_one_does_no_harm_and_alone_is_refused() -> None:
    good = manifests()[0]
    broken = CollateralDocument(good.kind, good.data.replace(measured(7).hex().encode(), b"0" * 96))
    assert refusals(replace(scene(), documents=(broken, *scene().documents))) == []
    one = replace(scene(), documents=(broken, manifests()[1], *answers()))
    assert refusals(one) == ["collateral", "measurement"]


def test_production_trust_refuses_the_gpu_of_this_test() -> None:
    one = scene()
    ground = replace(one.ground(), trust=TrustStore.production())
    with pytest.raises(AttestationError) as refused:
        GPU.authenticate(one.evidence(), ground, Steps(GPU.STEPS))
    assert refused.value.code == "attestation.untrusted_root"


def test_the_root_of_manifests_vouches_for_no_device() -> None:
    from cloister.enclave.attestation.trust import NVIDIA_DEVICE_ROOT, NVIDIA_MANIFEST_ROOT

    store = TrustStore.production()
    assert all(store.find(NVIDIA_MANIFEST_ROOT, tee) is None for tee in Tee)
    assert store.find_reference(NVIDIA_DEVICE_ROOT, Tee.NVIDIA_GPU) is None


def test_a_simulated_gpu_is_refused_where_the_policy_asks_for_hardware() -> None:
    assert "simulated" in refusals(with_policy(scene(), platforms="hardware-only"))


def test_a_firmware_id_that_the_certificate_does_not_name_is_refused() -> None:
    with pytest.raises(AttestationError) as refused:
        claims_of(scene().with_opaque(fwid=bytes(48)))
    assert refused.value.code == "attestation.fwid"


@pytest.mark.parametrize("reason", [x509.ReasonFlags.key_compromise, x509.ReasonFlags.certificate_hold, None])
@pytest.mark.parametrize("age", [timedelta(hours=1), timedelta(days=300)], ids=["fresh", "old"])
def test_a_revoked_certificate_of_the_device_is_refused_on_hold_too_and_for_ever(
    reason: x509.ReasonFlags | None, age: timedelta
) -> None:
    _, boot, provisioner, *_ = device()
    revoked = answer(
        boot,
        provisioner,
        status=ocsp.OCSPCertStatus.REVOKED,
        reason=reason,
        at=NOW - age,
        lasts=timedelta(days=1),
    )
    others = tuple(one for one in answers() if one.data != answer(boot, provisioner).data)
    rest = without(CollateralKind.NVIDIA_OCSP, scene()).documents
    kept = tuple(
        one
        for one in others
        if ocsp.load_der_ocsp_response(one.data).serial_number != boot.certificate.serial_number
    )
    with pytest.raises(AttestationError) as refused:
        claims_of(replace(scene(), documents=(*rest, *kept, revoked)))
    assert refused.value.code == "attestation.revoked"


def test_a_later_good_answer_lifts_a_hold_and_an_earlier_one_does_not() -> None:
    _, boot, provisioner, *_ = device()

    def held(age: timedelta) -> GpuScene:
        hold = answer(
            boot,
            provisioner,
            status=ocsp.OCSPCertStatus.REVOKED,
            reason=x509.ReasonFlags.certificate_hold,
            at=NOW - age,
        )
        return replace(scene(), documents=(hold, *scene().documents))

    assert refusals(held(timedelta(hours=2))) == []
    with pytest.raises(AttestationError):
        claims_of(held(timedelta(minutes=1)))


def on_boot(*given: CollateralDocument, now: datetime = NOW) -> GpuScene:
    """The scene with these answers on the second certificate, before or after good ones on all."""
    return replace(scene(), documents=(*given, *scene().documents), now=now)


def boot_revoked(**how: object) -> CollateralDocument:
    _, boot, provisioner, *_ = device()
    return answer(boot, provisioner, status=ocsp.OCSPCertStatus.REVOKED, **how)  # type: ignore[arg-type]


ENDED = timedelta(days=1)
STILL_REVOKED: dict[str, Callable[[], CollateralDocument]] = {
    "by a responder whose certificate has ended": lambda: boot_revoked(
        responder=responder(device()[2], until=NOW - ENDED), at=NOW - timedelta(days=2)
    ),
    "on hold, later than the good one, by such a responder": lambda: boot_revoked(
        responder=responder(device()[2], until=NOW - ENDED),
        reason=x509.ReasonFlags.certificate_hold,
        at=NOW - timedelta(minutes=1),
    ),
    "long before a good answer": lambda: boot_revoked(at=NOW - timedelta(days=200)),
    "at the time of the good answer": lambda: boot_revoked(at=NOW - timedelta(hours=1)),
    "on hold at the time of the good answer": lambda: boot_revoked(
        at=NOW - timedelta(hours=1), reason=x509.ReasonFlags.certificate_hold
    ),
    "from later than now": lambda: boot_revoked(at=NOW + timedelta(days=3)),
}


@pytest.mark.parametrize("how", STILL_REVOKED)
def test_a_good_answer_does_not_bring_back_what_is_revoked(how: str) -> None:
    revoked = STILL_REVOKED[how]()
    for documents in ((revoked, *scene().documents), (*scene().documents, revoked)):
        with pytest.raises(AttestationError) as refused:
            claims_of(replace(scene(), documents=documents))
        assert refused.value.code == "attestation.revoked"


def test_a_forged_revocation_revokes_nothing() -> None:
    for by in (responder(root()), responder(device()[2], None)):
        assert refusals(on_boot(boot_revoked(responder=by))) == []


@pytest.mark.parametrize("year", [1, 9999])
def test_the_first_and_the_last_day_there_is_bring_no_other_error(year: int) -> None:
    edge = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) if year == 9999 else datetime(1, 1, 1, tzinfo=UTC)
    _, boot, provisioner, *_ = device()
    last = answer(boot, provisioner, at=datetime(9999, 12, 31, 23, 59, tzinfo=UTC), lasts=None)
    certificate, issuer = P384Chain(scene().chain, VerifiedFacts()).certificates[1:3]
    found = inquire(certificate, issuer, (last,), edge, VerifiedFacts())
    assert found.standing is (Standing.GOOD if year == 9999 else Standing.UNKNOWN)
    with pytest.raises(AttestationError):
        claims_of(on_boot(last, now=edge))


def test_a_revoked_signer_of_a_manifest_makes_it_unusable() -> None:
    signer, issuer, _ = manifest_signers()
    revoked = answer(signer, issuer, status=ocsp.OCSPCertStatus.REVOKED, at=NOW - timedelta(minutes=1))
    one = replace(scene(), documents=(*scene().documents, revoked))
    assert refusals(one) == ["revoked", "revoked", "measurement"]


UNUSABLE: dict[str, Callable[[], tuple[CollateralDocument, ...]]] = {
    "from the future": lambda: answers(at=NOW + timedelta(minutes=6)),
    "without a next update, over a day old": lambda: answers(lasts=None, at=NOW - timedelta(hours=25)),
    "longer than seven days": lambda: answers(lasts=timedelta(days=90), at=NOW - timedelta(days=8)),
    "of unknown certificates": lambda: answers(status=ocsp.OCSPCertStatus.UNKNOWN),
    "garbage": lambda: (CollateralDocument(CollateralKind.NVIDIA_OCSP, b"\x30\x03\x0a\x01\x00"),),
    "with a byte behind": lambda: tuple(CollateralDocument(one.kind, one.data + b"\0") for one in answers()),
    "with a changed signature": lambda: tuple(
        CollateralDocument(one.kind, one.data[:-1] + bytes([one.data[-1] ^ 1])) for one in answers()
    ),
    "signed by a responder that nobody named": lambda: answers(responder=responder(device()[0])),
}


@pytest.mark.parametrize("made", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_answers_that_do_not_hold_are_none(made: Callable[[], tuple[CollateralDocument, ...]]) -> None:
    one = replace(scene(), documents=(*manifests(), *made()))
    assert "revocation_unknown" in refusals(one)


def test_a_responder_that_the_issuer_named_may_answer_while_it_is_valid() -> None:
    _, boot, provisioner, *_ = device()
    rest = tuple(
        one
        for one in scene().documents
        if one.kind is CollateralKind.NVIDIA_RIM
        or ocsp.load_der_ocsp_response(one.data).serial_number != boot.certificate.serial_number
    )

    def refused_with(by: object) -> list[str]:
        given = answer(boot, provisioner, responder=by)  # type: ignore[arg-type]
        return refusals(replace(scene(), documents=(*rest, given)))

    assert refused_with(responder(provisioner)) == []
    assert refused_with(responder(provisioner, None)) == ["revocation_unknown"]
    assert refused_with(responder(provisioner, ExtendedKeyUsageOID.CODE_SIGNING)) == ["revocation_unknown"]
    assert refused_with(responder(provisioner, until=NOW - timedelta(days=1))) == ["revocation_unknown"]
    assert refused_with(responder(root())) == ["revocation_unknown"]


@pytest.mark.parametrize(
    "algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384()], ids=lambda one: one.name
)
def test_answers_name_certificates_by_any_of_the_usual_hashes(algorithm: hashes.HashAlgorithm) -> None:
    one = replace(scene(), documents=(*manifests(), *answers(certid=algorithm)))
    assert refusals(one) == []


@given(st.data())
def test_an_edited_answer_is_none_or_refuses_and_brings_no_other_error(data: st.DataObject) -> None:
    first, *others = ANSWERS
    changed = CollateralDocument(first.kind, data.draw(edits(first.data)))
    one = replace(SCENE, documents=(*manifests(), *others, changed))
    assert "revocation_unknown" in refusals(one)


def test_an_answer_that_names_another_issuer_is_none() -> None:
    _, boot, provisioner, identity, _ = device()
    rest = tuple(
        one
        for one in scene().documents
        if one.kind is CollateralKind.NVIDIA_RIM
        or ocsp.load_der_ocsp_response(one.data).serial_number != boot.certificate.serial_number
    )
    given_answer = answer(boot, identity, responder=provisioner)
    assert refusals(replace(scene(), documents=(*rest, given_answer))) == ["revocation_unknown"]


def test_a_manifest_longer_than_256_kib_is_refused_though_it_is_signed() -> None:
    def signed(spaces: int) -> CollateralDocument:
        text = b'<SoftwareIdentity xmlns="x:y">' + b" " * spaces + b"</SoftwareIdentity>"
        return CollateralDocument(CollateralKind.NVIDIA_RIM, sign_xml(text, manifest_signers()))

    assert open_signed(signed(1000).data).certificates
    with pytest.raises(AttestationError):
        open_signed(signed(256 * 1024).data)


DICE = {
    "nothing": b"",
    "no sequence": b"\x04\x00",
    "a cut length": b"\x30\x81",
    "a length that isn't the shortest": b"\x30\x81\x05" + bytes(5),
    "an endless length": b"\x30\x80\x00\x00",
    "another version": composite(bytes(48)).replace(b"\x02\x01\x01", b"\x02\x01\x02"),
    "another digest": composite(bytes(48)).replace(b"\x04\x02\x02\x04", b"\x04\x02\x01\x04"),
    "a byte behind": composite(bytes(48)) + b"\0",
}


@pytest.mark.parametrize("value", DICE.values(), ids=DICE.keys())
@pytest.mark.parametrize("oid", [OID_COMPOSITE, OID_TCB_INFO])
def test_a_certificate_that_does_not_name_its_firmware_in_the_exact_form_is_malformed(
    value: bytes, oid: str
) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
    leaf = holder("GH100 LF", root(), ((extension, False),))
    with pytest.raises(AttestationError) as refused:
        firmware_of(leaf.certificate)
    assert refused.value.code == "attestation.malformed"


@pytest.mark.parametrize(("flags", "debug"), [("0080000001", False), ("0090000001", True), ("00", True)])
def test_blackwells_certificate_says_whether_its_firmware_may_be_debugged(flags: str, debug: bool) -> None:
    fwid = composite(FIRMWARE)[-63:]
    listed = bytes([0xA6, len(fwid)]) + fwid
    body = listed + bytes([0x87, len(flags) // 2]) + bytes.fromhex(flags)
    value = bytes([0x30, len(body)]) + body
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(OID_TCB_INFO), value)
    firmware = firmware_of(holder("GB100 LF", root(), ((extension, False),)).certificate)
    assert (firmware.fwid, firmware.debug) == (FIRMWARE, debug)


def test_a_responder_s_certificate_signs_no_evidence_and_no_manifest() -> None:
    by = responder(manifest_signers()[1])
    documents = (
        manifest(DRIVER, {7: (measured(7),)}, (by, *manifest_signers()[1:])),
        manifests()[1],
        *answers(),
    )
    assert refusals(replace(scene(), documents=documents)) == ["collateral", "measurement"]


def test_a_policy_names_modes_and_driver_in_its_hash() -> None:
    policies = [
        scene().policy,
        with_policy(scene(), gpu_modes=("multi", "single")).policy,
        with_policy(scene(), minimum_gpu_driver="570").policy,
    ]
    assert len({one.sha256 for one in policies}) == 3
    assert policies[1].gpu_modes == (GpuMode.MULTI, GpuMode.SINGLE)
