"""Every refusal that a genuine sample doesn't reach, on a simulated machine by the one way there is."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cloister.core.canonical import b64decode
from cloister.core.clock import fixed_clock
from cloister.core.hashes import sha256_hex
from cloister.core.keys import ECDSA_P256, EphemeralKeyStore
from cloister.enclave import AttestationError, Status, TrustStore, Verifier
from cloister.enclave.attestation import (
    CheckOutcome,
    Collateral,
    CollateralDocument,
    CollateralKind,
    Evidence,
    Platforms,
    TcbStatus,
    Tee,
    verdict_fields,
)
from cloister.enclave.attestation.ear import issue, read
from cloister.enclave.attestation.intel.certificates import pem_of, read_pem
from cloister.enclave.attestation.intel.dcap import sound_collateral
from cloister.enclave.attestation.intel.quote import Quote
from cloister.enclave.attestation.record import collateral_of
from cloister.enclave.attestation.simulated.intel import VENDOR_FILE, SigningAuthority, SimulatedIntel
from cloister.enclave.attestation.simulated.intel_collateral import Published, publish
from cloister.enclave.attestation.trimming import evidence_sha256, trimmed
from tests.enclave.intel.scene import (
    ISSUED,
    MRTD,
    NOW,
    Scene,
    domain,
    failing,
    policy,
    published,
    vendor,
)

NAMED = ("INTEL-SA-00615",)


def test_a_fresh_answer_of_the_expected_code_is_trusted_and_every_check_is_listed() -> None:
    verdict = Scene().verify()
    assert verdict.status is Status.TRUSTED
    assert [check.name for check in verdict.checks] == [
        "structure",
        "root",
        "chain",
        "validity",
        "quoting-enclave",
        "attestation-key",
        "signature",
        "revocation-lists",
        "quoting-enclave-identity",
        "tdx-module",
        "event-log",
        "platform",
        "debug",
        "collateral",
        "collateral-age",
        "tcb-evaluation",
        "tcb-status",
        "page-removal",
        "migration",
        "attributes",
        "service-domain",
        "revocation",
        "measurement",
        "binding",
        "composition",
    ]
    assert {c.name for c in verdict.checks if c.outcome is not CheckOutcome.PASSED} == {"event-log"}
    assert verdict.simulated
    assert verdict.hardware_type == "SIMULATED_INTEL_TDX"
    assert verdict.tcb_status is TcbStatus.UP_TO_DATE
    assert verdict.measurement == MRTD.hex()


def test_an_enclave_on_the_same_machine_is_trusted_with_collateral_of_its_own_kind() -> None:
    scene = Scene().said(kind="SGX")
    verdict = scene.verify(scene.enclave())
    assert verdict.status is Status.TRUSTED
    assert "tdx-module" not in {check.name for check in verdict.checks}
    assert Scene().verify(scene.enclave()).code == "attestation.collateral_missing"


def test_production_trust_refuses_the_simulation() -> None:
    verdict = replace(Scene(), trust=TrustStore.production()).verify()
    assert verdict.code == "attestation.untrusted_root"


def test_a_policy_for_hardware_refuses_the_simulation() -> None:
    hardware = policy().model_copy(update={"platforms": Platforms.HARDWARE_ONLY})
    assert replace(Scene(), policy=hardware).verify().code == "attestation.simulated"


def test_an_answer_to_another_nonce_is_refused() -> None:
    verdict = Scene().verify(domain().quote(bytes(64)))
    assert verdict.code == "attestation.key_binding"


@pytest.mark.parametrize(
    ("scene", "code", "checks"),
    [
        (Scene().quoting(tdattributes=1), "attestation.debug", {"debug", "page-removal"}),
        (Scene().quoting(tdattributes=1 << 28 | 1 << 4), "attestation.debug", {"debug"}),
        (Scene().quoting(tdattributes=0), "attestation.policy_bits", {"page-removal"}),
        (Scene().quoting(tdattributes=1 << 28 | 1 << 29), "attestation.policy_bits", {"migration"}),
        (Scene().quoting(tdattributes=1 << 28 | 1 << 40), "attestation.policy_bits", {"attributes"}),
        (Scene().quoting(mrservicetd=b"\1" * 48), "attestation.policy_bits", {"service-domain"}),
        (Scene().quoting(rtmrs=(bytes(48), b"\1" * 48, bytes(48), bytes(48))), None, {"measurement"}),
        (Scene().quoting(rtmrs=(bytes(48), bytes(48), b"\1" * 48, bytes(48))), None, {"measurement"}),
        (Scene().said(status=TcbStatus.OUT_OF_DATE), "attestation.tcb_unacceptable", {"tcb-status"}),
        (Scene().said(qe_status=TcbStatus.OUT_OF_DATE), "attestation.tcb_unacceptable", {"tcb-status"}),
        (Scene().said(module_status=TcbStatus.OUT_OF_DATE), "attestation.tcb_unacceptable", {"tcb-status"}),
        (Scene().said(status=TcbStatus.CONFIGURATION_NEEDED), None, {"tcb-status"}),
        (Scene().said(status=TcbStatus.REVOKED), "attestation.tcb_unacceptable", {"tcb-status"}),
        (Scene().said(status=TcbStatus.SW_HARDENING_NEEDED, advisories=NAMED), None, {"tcb-status"}),
        (Scene().said(platform_svn=3), "attestation.tcb_unacceptable", {"tcb-status"}),
    ],
)
def test_an_authentic_answer_is_refused_for_exactly_what_is_wrong_with_it(
    scene: Scene, code: str | None, checks: set[str]
) -> None:
    verdict = scene.verify()
    assert set(failing(verdict)) == checks
    assert code is None or verdict.code == code


@pytest.mark.parametrize(
    ("scene", "step", "code"),
    [
        (Scene().said(revoked_platforms=(domain().serial,)), "revocation-lists", "attestation.revoked"),
        (
            Scene().said(revoked_authorities=(vendor().platform_ca.certificate.serial_number,)),
            "revocation-lists",
            "attestation.revoked",
        ),
        (Scene().said(qe_signer=b"\1" * 32), "quoting-enclave-identity", "attestation.qe_identity"),
        (Scene().said(qe_svn=5), "quoting-enclave-identity", "attestation.qe_identity"),
        (Scene().said(module_signer=b"\1" * 48), "tdx-module", "attestation.tdx_module"),
        (Scene().said(module_svn=5), "tdx-module", "attestation.tdx_module"),
        (Scene().quoting(mrsignerseam=b"\1" * 48), "tdx-module", "attestation.tdx_module"),
        (Scene().quoting(tee_tcb_svn=bytes([9, 2]).ljust(16, b"\0")), "tdx-module", "attestation.tdx_module"),
    ],
)
def test_an_answer_is_not_authentic_where_its_vendor_disowns_what_made_it(
    scene: Scene, step: str, code: str
) -> None:
    verdict = scene.verify()
    assert failing(verdict) == [step]
    assert verdict.code == code
    assert verdict.claims is None


def test_a_debugged_enclave_is_refused() -> None:
    scene = Scene().said(kind="SGX")
    assert scene.verify(scene.enclave(attributes=b"\x07".ljust(16, b"\0"))).code == "attestation.debug"


def test_an_enclave_of_other_code_is_refused() -> None:
    scene = Scene().said(kind="SGX")
    assert scene.verify(scene.enclave(mrenclave=b"\1" * 32)).code == "attestation.measurement"


def test_software_hardening_is_accepted_where_the_policy_names_it_and_each_advisory() -> None:
    scene = Scene().said(status=TcbStatus.SW_HARDENING_NEEDED, advisories=(*NAMED, "INTEL-SA-00001"))
    assert scene.verify().code == "attestation.tcb_unacceptable"
    hardening, every = (TcbStatus.SW_HARDENING_NEEDED.value,), (*NAMED, "INTEL-SA-00001")
    for short in (
        {"accepted_tcb_statuses": hardening},
        {"accepted_tcb_statuses": hardening, "accepted_advisories": NAMED},
        {"accepted_advisories": every},
        {"accepted_tcb_statuses": ("ConfigurationNeeded",), "accepted_advisories": every},
    ):
        verdict = replace(scene, policy=policy(**short)).verify()
        assert verdict.code == "attestation.tcb_unacceptable"
        (told,) = (one.detail for one in verdict.checks if one.name == "tcb-status")
        assert "accepted_tcb_statuses" in told
        assert ("INTEL-SA-00001" in told.partition("not in accepted_advisories: ")[2]) == (
            short.get("accepted_advisories") != every
        )
    whole = replace(scene, policy=policy(accepted_tcb_statuses=hardening, accepted_advisories=every))
    verdict = whole.verify()
    assert verdict.status is Status.TRUSTED
    assert verdict.advisories == ("INTEL-SA-00001", *NAMED)


def test_without_collateral_the_answer_is_authentic_and_the_appraisal_names_what_is_missing() -> None:
    verdict = replace(Scene(), collateral=()).verify()
    assert verdict.code == "attestation.collateral_missing"
    assert verdict.claims is not None
    assert verdict.tcb_status is TcbStatus.UNKNOWN


def test_a_policy_that_does_without_revocation_does_not_do_without_collateral() -> None:
    lenient = policy(without_revocation=(Tee.INTEL_TDX,))
    verdict = replace(Scene(), collateral=(), policy=lenient).verify()
    assert set(failing(verdict)) == {"collateral", "tcb-status"}


def test_collateral_that_is_out_of_date_is_refused_by_the_second() -> None:
    end = ISSUED + timedelta(days=30)
    assert replace(Scene(), now=end).verify().status is Status.TRUSTED
    late = replace(Scene(), now=end + timedelta(seconds=1)).verify()
    assert late.code == "attestation.collateral_expired"
    early = replace(Scene(), now=ISSUED - timedelta(seconds=1)).verify()
    assert early.code == "attestation.collateral_expired"
    assert replace(Scene(), now=ISSUED).verify().status is Status.TRUSTED


def test_a_list_that_is_out_of_date_still_revokes() -> None:
    scene = Scene().said(revoked_platforms=(domain().serial,), lifetime=timedelta(hours=1))
    assert scene.verify().code == "attestation.revoked"


def test_a_certificate_that_any_list_at_hand_names_is_revoked() -> None:
    naming = published(Published(fmspc="000000000000", revoked_platforms=(domain().serial,)))
    assert replace(Scene(), collateral=(published(), naming)).verify().code == "attestation.revoked"


SIGNER = vendor().tcb_signer.certificate.serial_number


@pytest.mark.parametrize(
    "naming",
    [
        Published(revoked_authorities=(SIGNER,)),
        Published(revoked_authorities=(SIGNER,), evaluation=1),
        Published(revoked_authorities=(SIGNER,), fmspc="000000000000"),
        Published(revoked_authorities=(SIGNER,), kind="SGX"),
        Published(revoked_authorities=(SIGNER,), lifetime=timedelta(hours=1)),
    ],
    ids=["newer", "of a lower evaluation", "of another platform", "of another hardware", "out of date"],
)
def test_a_signer_whom_the_roots_list_in_any_set_names_rates_nothing(naming: Published) -> None:
    """A set that was kept from before the revocation doesn't outlive the newer list beside it."""
    kept = published(at=ISSUED - timedelta(days=5))
    revoking = published(naming)
    assert replace(Scene(), collateral=(kept,)).verify().status is Status.TRUSTED
    for order in ((kept, revoking), (revoking, kept)):
        verdict = replace(Scene(), collateral=order).verify()
        assert verdict.status is Status.UNTRUSTED
        assert verdict.code == "attestation.revoked"
        assert verdict.tcb_status is TcbStatus.UNKNOWN
        again = replace(Scene(), collateral=verdict.collateral).verify()
        assert again.checks == verdict.checks


def test_a_set_of_a_signer_who_was_not_revoked_rates_beside_one_of_a_revoked_signer() -> None:
    successor = replace(
        vendor(), tcb_signer=SimulatedIntel.create(fixed_clock(NOW - timedelta(days=90))).tcb_signer
    )
    key = successor.tcb_signer.key
    certificate = successor.tcb_signer.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(vendor().root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(certificate.serial_number)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    for one in certificate.extensions:
        builder = builder.add_extension(one.value, critical=one.critical)
    issued = SigningAuthority(builder.sign(vendor().root.key, hashes.SHA256()), key)
    fresh = publish(
        replace(vendor(), tcb_signer=issued), ISSUED, Published(revoked_authorities=(SIGNER,), evaluation=3)
    )
    verdict = replace(Scene(), collateral=(published(), fresh)).verify()
    assert verdict.status is Status.TRUSTED
    assert verdict.claims is not None
    assert fresh in verdict.claims.collateral


@pytest.mark.parametrize("kind", ["TDX", "SGX"])
def test_lists_that_nobody_had_were_not_looked_at(kind: str) -> None:
    """No set, a set for another platform, and one that is out of date all leave revocation unknown."""
    scene = Scene()
    evidence = scene.evidence() if kind == "TDX" else scene.enclave()
    for documents in (
        (),
        (published(Published(kind=kind, fmspc="0" * 12)),),
        (published(Published(kind=kind, lifetime=timedelta(hours=1))),),
    ):
        verdict = replace(scene, collateral=documents).verify(evidence)
        outcomes = {check.name: check.outcome for check in verdict.checks}
        assert outcomes["revocation-lists"] is CheckOutcome.NOT_RUN
        assert outcomes["revocation"] is CheckOutcome.FAILED
    verdict = replace(scene, collateral=(published(Published(kind=kind)),)).verify(evidence)
    outcomes = {check.name: check.outcome for check in verdict.checks}
    assert outcomes["revocation-lists"] is CheckOutcome.PASSED
    assert outcomes["revocation"] is CheckOutcome.PASSED


def test_a_list_of_another_authority_revokes_nothing() -> None:
    other = SimulatedIntel.create(fixed_clock(NOW - timedelta(days=90)))
    authority = vendor().platform_ca.certificate.serial_number
    naming = publish(
        other,
        ISSUED,
        Published(revoked_platforms=(domain().serial,), revoked_authorities=(authority,)),
    )
    assert replace(Scene(), collateral=(published(), naming)).verify().status is Status.TRUSTED
    assert replace(Scene(), collateral=(naming,)).verify().code == "attestation.collateral_missing"


def test_a_strangers_collateral_rates_nothing_though_it_names_the_same_authority() -> None:
    """Anyone can certify the key of the platforms' authority, and sign TCB info of their own beside it."""
    stranger, real = SimulatedIntel.create(fixed_clock(NOW - timedelta(days=90))), vendor().platform_ca
    builder = (
        x509.CertificateBuilder()
        .subject_name(real.certificate.subject)
        .issuer_name(stranger.root.certificate.subject)
        .public_key(real.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(real.certificate.not_valid_before_utc)
        .not_valid_after(real.certificate.not_valid_after_utc)
    )
    for one in real.certificate.extensions:
        builder = builder.add_extension(one.value, critical=one.critical)
    certified = SigningAuthority(builder.sign(stranger.root.key, hashes.SHA256()), real.key)
    flattering = publish(replace(stranger, platform_ca=certified), ISSUED, Published(evaluation=99))
    assert sound_collateral(flattering.data) is not None
    assert replace(Scene(), collateral=(flattering,)).verify().code == "attestation.collateral_missing"
    honest = published(Published(status=TcbStatus.OUT_OF_DATE))
    verdict = replace(Scene(), collateral=(flattering, honest)).verify()
    assert verdict.tcb_status is TcbStatus.OUT_OF_DATE


def test_the_newest_set_that_holds_is_the_one_that_rates() -> None:
    older = published(Published(evaluation=19), at=ISSUED + timedelta(hours=1))
    newer = published(Published(evaluation=20, status=TcbStatus.OUT_OF_DATE), at=ISSUED)
    not_yet = published(Published(evaluation=21), at=NOW + timedelta(days=1))
    for order in ((older, newer, not_yet), (not_yet, newer, older)):
        verdict = replace(Scene(), collateral=order).verify()
        assert verdict.tcb_status is TcbStatus.OUT_OF_DATE


def test_collateral_older_than_the_policy_allows_is_refused() -> None:
    assert replace(Scene(), policy=policy(maximum_collateral_age_days=2)).verify().status is Status.TRUSTED
    verdict = replace(Scene(), policy=policy(maximum_collateral_age_days=1)).verify()
    assert failing(verdict) == ["collateral-age"]
    assert verdict.code == "attestation.collateral_expired"


def test_an_evaluation_below_the_policys_is_refused() -> None:
    assert replace(Scene(), policy=policy(minimum_tcb_evaluation=20)).verify().status is Status.TRUSTED
    verdict = replace(Scene(), policy=policy(minimum_tcb_evaluation=21)).verify()
    assert failing(verdict) == ["tcb-evaluation"]


def test_collateral_that_isnt_what_its_issuer_signed_is_named_as_such() -> None:
    broken = CollateralDocument(CollateralKind.INTEL_DCAP, published().data.replace(b"UpToDate", b"Revoked!"))
    verdict = replace(Scene(), collateral=(broken,)).verify()
    assert verdict.code == "attestation.collateral"
    assert replace(Scene(), collateral=(broken, published())).verify().status is Status.TRUSTED


@pytest.mark.parametrize("kind", ["TDX", "SGX"])
def test_bytes_behind_a_quote_are_told_and_are_no_part_of_any_hash(kind: str) -> None:
    scene = Scene().said(kind=kind)
    plain = scene.evidence() if kind == "TDX" else scene.enclave()
    padded = replace(plain, report=plain.report + b"text of a stranger")
    first, second = scene.verify(plain), scene.verify(padded)
    assert first.status is second.status is Status.TRUSTED
    structure = next(check for check in second.checks if check.name == "structure")
    assert f"a quote of {len(plain.report)} bytes; the 18 behind its end" in structure.detail
    assert "stranger" not in structure.detail
    assert "behind" not in first.checks[0].detail
    assert evidence_sha256(padded) == evidence_sha256(plain) == sha256_hex(plain.encode())
    assert trimmed(padded) == plain
    signer = EphemeralKeyStore().generate("verifier", ECDSA_P256)
    tokens = [
        read(
            issue(
                one,
                signer,
                asked=scene.binding,
                policy_id="ab" * 32,
                build="1",
                lifetime=timedelta(minutes=5),
            ),
            signer.public_key,
            NOW,
        )
        for one in (first, second)
    ]
    hashes_of = {token.submods["cpu0"].evidence.evidence_sha256 for token in tokens}
    assert hashes_of == {sha256_hex(plain.encode())}


def test_what_is_no_quote_is_hashed_as_it_is() -> None:
    for tee in (Tee.INTEL_TDX, Tee.INTEL_SGX, Tee.AWS_NITRO):
        broken = Evidence(tee, b"no quote at all")
        assert trimmed(broken) == broken


def test_extras_and_certificates_that_nothing_vouches_for_are_refused() -> None:
    scene = Scene()
    evidence = scene.evidence()
    for strange in (
        replace(evidence, extras={"note": b"x"}),
        replace(evidence, chain=(vendor().root_der,)),
        replace(scene.enclave(), extras={"ccel": b"x"}),
    ):
        assert scene.verify(strange).code == "attestation.malformed"


def test_a_quote_signed_by_a_key_that_the_quoting_enclave_did_not_bind_is_refused() -> None:
    stranger = vendor().domain("south", MRTD)
    scene = Scene()
    mine = Quote.parse(scene.evidence().report)
    theirs = Quote.parse(stranger.quote(scene.binding.report_data()).report)
    swapped = replace(mine, attestation_key=theirs.attestation_key, signature=theirs.signature)
    verdict = scene.verify(replace(scene.evidence(), report=swapped.encode()))
    assert verdict.code == "attestation.qe_binding"


def test_a_platform_certificate_cannot_sign_tcb_info_and_a_tcb_signer_cannot_be_a_platform() -> None:
    scene = Scene()
    quote = Quote.parse(scene.evidence().report)
    leaf, authority, root = read_pem(quote.certificates)
    as_leaf = b"".join(map(pem_of, (vendor().tcb_signer.der, authority, root)))
    as_authority = b"".join(map(pem_of, (leaf, vendor().tcb_signer.der, root)))
    for certificates in (as_leaf, as_authority):
        report = replace(quote, certificates=certificates).encode()
        verdict = scene.verify(replace(scene.evidence(), report=report))
        assert verdict.code in {"attestation.malformed", "attestation.chain"}


@pytest.mark.parametrize(
    "scene",
    [
        Scene(),
        Scene().said(status=TcbStatus.OUT_OF_DATE),
        Scene().said(revoked_platforms=(domain().serial,)),
        Scene().said(qe_svn=5),
        replace(Scene(), collateral=()),
        replace(Scene(), now=NOW + timedelta(days=90)),
        replace(Scene(), collateral=(CollateralDocument(CollateralKind.INTEL_DCAP, b"{}"),)),
    ],
)
def test_a_recorded_verdict_is_reached_again_from_what_the_record_holds(scene: Scene) -> None:
    scene = replace(scene, collateral=(*scene.collateral, published(Published(fmspc="0" * 12))))
    verdict = scene.verify()
    written = verdict_fields("north", verdict, scene.binding, scene.policy)
    kept = collateral_of((one["kind"], one["data"]) for one in written["collateral"])
    verifier = Verifier(scene.trust, fixed_clock(verdict.evaluated_at), kept)
    again = verifier.verify(verdict.evidence, expected=scene.binding, policy=scene.policy)
    assert verdict_fields("north", again, scene.binding, scene.policy) == written
    assert all(b64decode(one["data"]) for one in written["collateral"])


def test_the_vendor_of_a_folder_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first = SimulatedIntel.open(tmp_path, fixed_clock(NOW))
    again = SimulatedIntel.open(tmp_path, fixed_clock(NOW + timedelta(days=1)))
    assert first.root_der == again.root_der
    assert stat.S_IMODE((tmp_path / VENDOR_FILE).stat().st_mode) == 0o600
    quote = again.domain("north", MRTD).quote(bytes(64))
    verifier = Verifier(TrustStore.simulated(first.root_der), fixed_clock(NOW), Collateral())
    scene = Scene()
    verdict = verifier.verify(quote, expected=scene.binding, policy=scene.policy)
    assert verdict.claims is not None


@pytest.mark.parametrize("damage", [b"", b"no key", None])
def test_a_file_that_holds_no_vendor_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    SimulatedIntel.open(tmp_path, fixed_clock(NOW))
    path = tmp_path / VENDOR_FILE
    path.write_bytes(path.read_bytes()[:1500] if damage is None else damage)
    with pytest.raises(AttestationError) as refused:
        SimulatedIntel.open(tmp_path, fixed_clock(NOW))
    assert refused.value.code == "attestation.malformed"


def test_lengths_that_no_quote_has_are_refused_by_the_simulator_too() -> None:
    with pytest.raises(AttestationError):
        domain().quote(bytes(63))
    with pytest.raises(AttestationError):
        vendor().domain("north", bytes(47))
