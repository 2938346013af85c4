"""AMD's revocation lists: which one counts, what it revokes, and what is no list of the root's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import b64encode
from cloister.core.clock import fixed_clock
from cloister.enclave import AttestationError, TrustStore, verdict_fields
from cloister.enclave.attestation import (
    CheckOutcome,
    Collateral,
    CollateralDocument,
    CollateralKind,
    Revocation,
    SimulatedVendor,
    Status,
    Tee,
    Verdict,
    authenticate,
)
from cloister.enclave.attestation.amd.chain import PSS_SHA384
from cloister.enclave.attestation.amd.revocation import lists_of
from cloister.enclave.attestation.der import BIT_STRING, SEQUENCE, Reader, read_certificate
from cloister.enclave.attestation.record import collateral_of
from cloister.enclave.attestation.revocation_list import read_list
from tests.enclave.amd_vendor import (
    ARK,
    ASK,
    START,
    Entry,
    KeptVendor,
    collateral,
    naming_serial_zero,
    replaced_leaf,
    with_serial_zero,
    wrapped,
)
from tests.enclave.attestation_scene import MEASUREMENT, NOW, Scene, scene, vendor

KEPT = KeptVendor()
PLATFORM = KEPT.simulated().platform("north", MEASUREMENT)


def kept_scene(*lists: bytes) -> Scene:
    trust = TrustStore.simulated(KEPT.root_der)
    return replace(scene(), platform=PLATFORM, trust=trust, collateral=collateral(*lists))


def verdict_under(*lists: bytes) -> Verdict:
    return kept_scene(*lists).verify()


def serial_of(index: int) -> int:
    return x509.load_der_x509_certificate(PLATFORM.chain[index]).serial_number


def test_a_list_that_names_none_of_the_chain_is_checked_and_its_dates_are_told() -> None:
    crl = KEPT.crl([Entry(5), Entry(6, issuer="ANOTHER")])
    verdict = verdict_under(crl)
    assert verdict.status is Status.TRUSTED
    assert verdict.claims is not None
    assert verdict.claims.revocation is Revocation.CHECKED
    assert [one.data for one in verdict.claims.collateral] == [crl]
    (dates,) = verdict.claims.collateral_dates
    assert (dates.what, dates.issued_at, dates.next_update) == ("AMD CRL", START, START + timedelta(days=30))
    assert dates.sha256 == verdict.claims.collateral[0].sha256


REVOKED = {
    "the root": lambda: [Entry(serial_of(2))],
    "the intermediate": lambda: [Entry(3), Entry(serial_of(1))],
    "the intermediate, its issuer spelt out": lambda: [Entry(serial_of(1), issuer=ARK)],
    "the intermediate, on hold": lambda: [Entry(serial_of(1), reason=x509.ReasonFlags.certificate_hold)],
    "the intermediate, from later on": lambda: [Entry(serial_of(1), at=NOW + timedelta(days=9))],
    "the endorsed key": lambda: [Entry(serial_of(0), issuer=ASK)],
    "the endorsed key, its issuer named by the entry before": lambda: [
        Entry(9, issuer=ASK),
        Entry(serial_of(0)),
    ],
}


@pytest.mark.parametrize("name", REVOKED)
def test_a_revoked_certificate_is_refused(name: str) -> None:
    verdict = verdict_under(KEPT.crl(REVOKED[name]()))
    assert verdict.code == "attestation.revoked"
    check = next(one for one in verdict.checks if one.name == "revocation-list")
    assert check.outcome is CheckOutcome.FAILED
    assert verdict.claims is None


def test_a_serial_number_of_another_issuer_revokes_nothing() -> None:
    for entry in (
        Entry(serial_of(1), issuer=ASK),
        Entry(serial_of(0), issuer=ARK),
        Entry(serial_of(0)),
        Entry(serial_of(0), issuer="SEV-OTHER"),
    ):
        assert verdict_under(KEPT.crl([entry])).status is Status.TRUSTED


def test_serial_number_0_on_a_list_revokes_every_endorsed_key_as_they_all_carry_it() -> None:
    leaf = with_serial_zero(PLATFORM.chain[0], KEPT.intermediate_key)
    evidence = replaced_leaf(kept_scene().evidence(), leaf)
    assert kept_scene(KEPT.crl()).verify(evidence).status is Status.TRUSTED
    for issuer, code in (
        (ASK, "attestation.revoked"),
        (ARK, "attestation.revoked"),
        (None, "attestation.revoked"),
        ("SEV-OTHER", None),
    ):
        crl = naming_serial_zero(KEPT, issuer)
        assert kept_scene(crl).verify(evidence).code == code
        assert verdict_under(crl).status is Status.TRUSTED


def test_the_newest_list_that_has_begun_counts_and_no_older_one_stands_in_for_it() -> None:
    older = KEPT.crl(issued_at=START - timedelta(days=20), lives=timedelta(days=400))
    newer = KEPT.crl([Entry(serial_of(1))], issued_at=START)
    assert verdict_under(older).status is Status.TRUSTED
    for order in ((older, newer), (newer, older)):
        assert verdict_under(*order).code == "attestation.revoked"
    out = KEPT.crl(issued_at=START - timedelta(days=9), lives=timedelta(days=8))
    assert verdict_under(out, older).code == "attestation.collateral_expired"


def test_a_list_from_later_than_now_revokes_and_does_nothing_else() -> None:
    """Its root signed it: this clock is behind, or old evidence is looked at."""
    older = KEPT.crl(issued_at=START - timedelta(days=20), lives=timedelta(days=400))
    naming = KEPT.crl([Entry(serial_of(1))], issued_at=NOW + timedelta(days=1))
    silent = KEPT.crl(issued_at=NOW + timedelta(days=2))
    for lists in ((older, naming), (naming,), (older, naming, silent)):
        verdict = verdict_under(*lists)
        assert verdict.code == "attestation.revoked"
        assert replace(kept_scene(), collateral=Collateral(verdict.collateral)).verify().code == verdict.code
    assert verdict_under(silent).code == "attestation.not_yet_valid"
    assert verdict_under(older, silent).status is Status.TRUSTED
    dropped = KEPT.crl([Entry(serial_of(1))], issued_at=START)
    assert verdict_under(dropped, silent).code == "attestation.revoked"


def test_a_list_is_held_against_the_time_of_evaluation() -> None:
    crl = KEPT.crl(lives=timedelta(days=3))
    one = kept_scene(crl)
    codes = {days: replace(one, now=NOW + timedelta(days=days)).verify().code for days in (0, 2, 2.01)}
    assert codes == {0: None, 2: None, 2.01: "attestation.collateral_expired"}
    assert verdict_under(KEPT.crl(issued_at=NOW + timedelta(seconds=1))).code == "attestation.not_yet_valid"
    assert verdict_under(KEPT.crl(issued_at=NOW)).status is Status.TRUSTED


def test_a_policy_may_ask_for_a_younger_list_than_the_list_itself() -> None:
    crl = KEPT.crl(issued_at=NOW - timedelta(days=8), lives=timedelta(days=400))
    one = kept_scene(crl)
    for days, code in ((8, None), (7, "attestation.collateral_expired")):
        policy = one.policy.model_copy(update={"maximum_collateral_age_days": days})
        assert replace(one, policy=policy).verify().code == code


def test_without_a_list_evidence_is_refused_unless_the_policy_does_without() -> None:
    one = kept_scene()
    verdict = one.verify()
    assert verdict.code == "attestation.revocation_unknown"
    assert next(check for check in verdict.checks if check.name == "revocation-list").detail == (
        "no list of this root at hand"
    )
    waived = one.policy.model_copy(update={"without_revocation": (Tee.AMD_SEV_SNP,)})
    trusted = replace(one, policy=waived).verify()
    assert trusted.status is Status.TRUSTED
    assert any("the policy does without one" in check.detail for check in trusted.checks)
    other = one.policy.model_copy(update={"without_revocation": (Tee.INTEL_TDX,)})
    assert replace(one, policy=other).verify().code == "attestation.revocation_unknown"


def test_another_roots_list_is_no_list_of_this_root() -> None:
    assert verdict_under(vendor().crl_der).code == "attestation.revocation_unknown"
    assert verdict_under(vendor().crl_der, KEPT.crl()).status is Status.TRUSTED


POINT = {
    "full_name": None,
    "relative_name": None,
    "only_contains_user_certs": False,
    "only_contains_ca_certs": False,
    "only_some_reasons": None,
    "indirect_crl": False,
    "only_contains_attribute_certs": False,
}
WHERE = [x509.UniformResourceIdentifier("https://kdsintf.amd.com/vcek/v1/Milan/crl")]


def point(**fields: object) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.IssuingDistributionPoint(**{**POINT, **fields}), True)]  # type: ignore[arg-type]


def test_a_list_may_say_its_number_its_key_where_it_is_published_and_that_it_is_indirect() -> None:
    key = x509.AuthorityKeyIdentifier.from_issuer_public_key(KEPT.root.public_key())  # type: ignore[arg-type]
    for extensions in (
        [(x509.CRLNumber(7), False), (key, False)],
        point(indirect_crl=True),
        point(full_name=WHERE),
        point(full_name=WHERE, indirect_crl=True),
    ):
        assert verdict_under(KEPT.crl(extensions=extensions)).status is Status.TRUSTED
        revoking = KEPT.crl([Entry(serial_of(1))], extensions=extensions)
        assert verdict_under(revoking).code == "attestation.revoked"


UNSOUND = {
    "signed by another key": lambda: KEPT.crl(signed_by=KeptVendor().key),
    "signed by the intermediate": lambda: KEPT.crl(signed_by=KEPT.intermediate_key),
    "signed with SHA-256": lambda: KEPT.crl(digest=hashes.SHA256()),
    "of users only": lambda: KEPT.crl(extensions=point(only_contains_user_certs=True)),
    "of authorities only": lambda: KEPT.crl(extensions=point(only_contains_ca_certs=True)),
    "for some reasons only": lambda: KEPT.crl(
        extensions=point(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise}))
    ),
    "indirect, and of attributes only": lambda: KEPT.crl(
        extensions=[
            (
                x509.UnrecognizedExtension(
                    x509.ObjectIdentifier("2.5.29.28"), bytes.fromhex("30068401ff8501ff")
                ),
                True,
            )
        ]
    ),
    "changes to another list": lambda: KEPT.crl(extensions=[(x509.DeltaCRLIndicator(1), True)]),
    "changes, and it needn't be known": lambda: KEPT.crl(extensions=[(x509.DeltaCRLIndicator(1), False)]),
    "an extension nobody knows": lambda: KEPT.crl(
        extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]
    ),
    "no list at all": lambda: b"x",
    "nothing": lambda: b"",
    "a certificate": lambda: KEPT.root_der,
    "a byte after it": lambda: KEPT.crl() + b"\0",
    "too large": lambda: KEPT.crl() + bytes(1024 * 1024),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_is_no_whole_list_of_the_roots_is_refused_whatever_stands_beside_it(name: str) -> None:
    unsound = UNSOUND[name]()
    for lists in ((unsound,), (unsound, KEPT.crl()), (KEPT.crl(), unsound)):
        assert verdict_under(*lists).code == "attestation.collateral"


def test_a_root_that_may_not_sign_lists_has_none() -> None:
    from tests.enclave.test_chain import LEAF_KEY, sound

    made = sound()
    root = made.root.signed_by(made.root.key)
    chain = (made.leaf.signed_by(made.intermediate.key), made.intermediate.signed_by(made.root.key), root)
    crl = KEPT.crl(issuer="ARK", signed_by=made.root.key)
    platform = replace(PLATFORM, chain=chain, chip_id=bytes(range(64)), _key=LEAF_KEY)
    one = replace(kept_scene(crl), platform=platform, trust=TrustStore.simulated(root))
    assert one.verify().code == "attestation.collateral"


def test_a_list_as_amd_signs_its_own_is_verified() -> None:
    """RSASSA-PSS under a 4,096-bit key, in each of the two spellings that AMD's certificates have."""
    key = rsa.generate_private_key(65537, 4096)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    unsigned = x509.load_der_x509_crl(KEPT.crl())
    body = unsigned.tbs_certlist_bytes
    ecdsa = bytes.fromhex("300a06082a8648ce3d040303")
    root = replace(read_certificate(KEPT.root_der), public_key=spki(key))
    for algorithm in sorted(PSS_SHA384):
        inner = Reader(body).content(SEQUENCE).replace(ecdsa, algorithm)
        signed = wrapped(SEQUENCE, inner)
        signature = key.sign(signed, pss, hashes.SHA384())
        crl = wrapped(SEQUENCE, signed + algorithm + wrapped(BIT_STRING, b"\0" + signature))
        found = lists_of(root, collateral(crl), NOW).current(NOW)
        assert found is not None
        assert found.document.data == crl
        short = key.sign(signed, padding.PSS(padding.MGF1(hashes.SHA384()), 32), hashes.SHA384())
        forged = wrapped(SEQUENCE, signed + algorithm + wrapped(BIT_STRING, b"\0" + short))
        with pytest.raises(AttestationError) as refused:
            lists_of(root, collateral(forged), NOW)
        assert refused.value.code == "attestation.collateral"


def spki(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@given(st.integers(0, len(KEPT.crl()) * 8 - 1))
def test_no_flipped_bit_of_a_list_is_accepted_as_the_roots(bit: int) -> None:
    changed = bytearray(KEPT.crl())
    bit %= len(changed) * 8
    changed[bit // 8] ^= 1 << bit % 8
    assert verdict_under(bytes(changed)).code in ("attestation.collateral", "attestation.revocation_unknown")


@given(st.binary(max_size=400))
def test_garbage_in_a_lists_place_raises_nothing_but_the_rooms_error(data: bytes) -> None:
    with pytest.raises(AttestationError) as refused:
        read_list(CollateralDocument(CollateralKind.AMD_CRL, data))
    assert refused.value.code == "attestation.collateral"


def test_the_library_reads_the_same_in_a_list() -> None:
    entries = [Entry(serial) for serial in (1, 127, 128, 2**64, 2**150)]
    crl = KEPT.crl([*entries, Entry(77, issuer=ASK)], issued_at=START.replace(microsecond=0))
    ours = read_list(CollateralDocument(CollateralKind.AMD_CRL, crl))
    theirs = x509.load_der_x509_crl(crl)
    assert {serial for _, serial in ours.revoked} == {one.serial_number for one in theirs}
    assert ours.issuer == theirs.issuer.public_bytes()
    assert ours.issued_at == theirs.last_update_utc
    assert ours.next_update == theirs.next_update_utc
    assert ours.signed.body == theirs.tbs_certlist_bytes
    assert ours.signed.signature == theirs.signature


def test_a_simulated_vendor_signs_an_empty_list_that_holds_as_long_as_its_root() -> None:
    made = SimulatedVendor.create(fixed_clock(NOW))
    listed = read_list(made.collateral.documents[0])
    assert listed.revoked == frozenset()
    certificate = x509.load_der_x509_certificate(made.root_der)
    assert listed.next_update == certificate.not_valid_after_utc
    assert SimulatedVendor.create(fixed_clock(NOW)).crl_der != made.crl_der


def test_a_statement_carries_the_list_that_was_used_and_no_other() -> None:
    used, other = KEPT.crl(), vendor().crl_der
    one = kept_scene(used, other)
    fields = verdict_fields("north", one.verify(), one.binding, one.policy)
    assert fields["collateral"] == [{"kind": "amd-crl", "data": b64encode(used)}]


@pytest.mark.parametrize("name", ["revoked", "out of date", "not the root's"])
def test_a_refusal_carries_what_it_was_judged_by_so_that_it_is_reached_again(name: str) -> None:
    lists = {
        "revoked": KEPT.crl([Entry(serial_of(1))]),
        "out of date": KEPT.crl(issued_at=START - timedelta(days=9), lives=timedelta(days=8)),
        "not the root's": KEPT.crl(signed_by=KeptVendor().key),
    }
    one = kept_scene(lists[name])
    verdict = one.verify()
    fields = verdict_fields("north", verdict, one.binding, one.policy)
    again = collateral_of((document["kind"], document["data"]) for document in fields["collateral"])
    assert verdict.status is Status.UNTRUSTED
    assert replace(one, collateral=again).verify().checks == verdict.checks
    assert replace(one, collateral=Collateral()).verify().checks != verdict.checks


def test_authentication_alone_says_that_no_list_was_at_hand() -> None:
    claims = authenticate(PLATFORM.quote(bytes(64)), TrustStore.simulated(KEPT.root_der), NOW, Collateral())
    assert claims.revocation is Revocation.UNKNOWN
    assert claims.collateral == ()
