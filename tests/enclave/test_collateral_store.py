"""A folder of collateral: what is let in, what isn't and why, and what lies there afterwards."""

from __future__ import annotations

import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import StorageError
from cloister.enclave import AttestationError, TrustStore
from cloister.enclave.attestation import CollateralDocument, CollateralKind
from cloister.enclave.attestation.collateral_kinds import Signature, examine, recognise
from cloister.enclave.attestation.collateral_store import CollateralStore, Outcome
from cloister.enclave.attestation.issuers import Issuers
from cloister.enclave.attestation.revocation_list import kind_of_list
from cloister.enclave.attestation.simulated.certificates import (
    authority,
    certificate_der,
    issued,
    new_key,
    simulated_name,
)
from cloister.enclave.attestation.simulated.intel_collateral import Published
from tests.enclave import gpu_scene
from tests.enclave.intel.scene import ISSUED, NOW, domain, published, vendor

ARK, AWS = new_key(), new_key()
SPAN = (ISSUED - timedelta(days=9), ISSUED + timedelta(days=3650))
ARK_NAME, AWS_NAME = simulated_name("ARK-Example"), simulated_name("Example nitro-enclaves", "AWS")
ARK_DER, AWS_DER = (
    certificate_der(issued(name, key.public_key(), name, key, SPAN, authority(None)))
    for name, key in ((ARK_NAME, ARK), (AWS_NAME, AWS))
)
TRUST = TrustStore.simulated(vendor().root_der, gpu_scene.root().der, ARK_DER, AWS_DER)
ISSUERS = Issuers((ARK_DER, AWS_DER, *(one.der for one in gpu_scene.device())))


def crl(
    number: int = 1,
    at: datetime = ISSUED,
    days: int = 30,
    key: ec.EllipticCurvePrivateKey = ARK,
    name: x509.Name = ARK_NAME,
) -> CollateralDocument:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name)
        .last_update(at)
        .next_update(at + timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    der = builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.DER)
    return CollateralDocument(kind_of_list(name.public_bytes()), der)


def aws_list(number: int = 1, at: datetime = ISSUED) -> CollateralDocument:
    return crl(number, at, key=AWS, name=AWS_NAME)


def answer(at: datetime = ISSUED) -> CollateralDocument:
    _, boot, provisioner, *_ = gpu_scene.device()
    return gpu_scene.answer(boot, provisioner, at=at, lasts=timedelta(days=7))


MANIFEST = gpu_scene.manifests()[0]


@pytest.fixture
def store(tmp_path: Path) -> CollateralStore:
    return CollateralStore(tmp_path / "collateral")


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(AttestationError) as error:
        action()
    return error.value.code


def test_a_document_is_kept_under_its_kind_and_hash_for_its_owner_alone(
    store: CollateralStore, tmp_path: Path
) -> None:
    document = published()
    assert store.bring(document, TRUST, NOW).outcome is Outcome.ADDED
    assert store.bring(document, TRUST, NOW).outcome is Outcome.HELD
    (path,) = (tmp_path / "collateral").iterdir()
    assert path.name == f"intel-dcap.{document.sha256}"
    assert path.read_bytes() == document.data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert store.load().documents == (document,)


def test_every_kind_is_told_by_its_content() -> None:
    for document in (published(), crl(), aws_list(), answer(), MANIFEST):
        assert recognise(document.data) == document


def test_what_was_verified_and_what_is_checked_when_it_is_used_are_told_apart() -> None:
    for document in (published(), MANIFEST):
        assert examine(document, TRUST).signature is Signature.VERIFIED
        assert examine(document, TRUST).simulated
    for document in (crl(), aws_list(), answer()):
        facts = examine(document, TRUST)
        assert facts.signature is Signature.CHECKED_WHEN_USED
        assert facts.subject.endswith("(not verified)")
        verified = examine(document, TRUST, ISSUERS)
        assert verified.signature is Signature.VERIFIED
        assert verified.simulated
        assert verified.document == document
    assert examine(crl(), TRUST, ISSUERS).subject.startswith("revoked by ARK-Example (key ")
    assert examine(answer(), TRUST).valid_until == (ISSUED + timedelta(days=7))
    assert examine(MANIFEST, TRUST).valid_until == gpu_scene.ALWAYS[1]


def test_a_list_or_an_answer_that_nobody_at_hand_signed_is_not_taken_in(store: CollateralStore) -> None:
    strangers = Issuers((vendor().root_der, gpu_scene.root().der))
    unpinned = TrustStore.simulated(vendor().root_der)
    for document in (crl(), aws_list(), answer()):
        for trust, issuers in ((TRUST, Issuers(())), (TRUST, strangers), (unpinned, ISSUERS)):
            with pytest.raises(AttestationError) as error:
                store.bring(document, trust, NOW, issuers)
            assert error.value.code == "attestation.collateral"
            assert "--issuer" in (error.value.hint or "")
            assert refused(lambda: store.bring_older(document, trust, NOW, issuers)) == error.value.code  # noqa: B023
        assert store.bring(document, TRUST, NOW, ISSUERS).outcome is Outcome.ADDED


def test_a_strangers_list_under_the_vendors_name_does_not_keep_the_vendors_out(
    store: CollateralStore, tmp_path: Path
) -> None:
    """Neither through an import nor put into the folder by hand."""
    for name, key, genuine in ((ARK_NAME, ARK, crl(number=2)), (AWS_NAME, AWS, aws_list(2))):
        forged = crl(99, ISSUED + timedelta(days=1), key=new_key(), name=name)
        assert refused(lambda: store.bring(forged, TRUST, NOW, ISSUERS)) == "attestation.collateral"  # noqa: B023
        folder = tmp_path / "collateral"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{forged.kind.value}.{forged.sha256}"
        path.write_bytes(forged.data)
        assert store.bring(genuine, TRUST, NOW, ISSUERS).outcome is Outcome.ADDED
        newer = crl(3, ISSUED + timedelta(hours=1), key=key, name=name)
        store.bring(newer, TRUST, NOW, ISSUERS)
        older = crl(1, key=key, name=name)
        assert refused(lambda: store.bring(older, TRUST, NOW, ISSUERS)) == "attestation.collateral_older"  # noqa: B023


def test_a_strangers_answer_does_not_keep_the_vendors_out(store: CollateralStore, tmp_path: Path) -> None:
    _, boot, provisioner, *_ = gpu_scene.device()
    by = gpu_scene.responder(gpu_scene.holder("GH100 Provisioner", None, authority(None)))
    later = ISSUED + timedelta(hours=9)
    forged = gpu_scene.answer(boot, provisioner, at=later, lasts=timedelta(days=7), responder=by)
    assert refused(lambda: store.bring(forged, TRUST, NOW, ISSUERS)) == "attestation.collateral"
    folder = tmp_path / "collateral"
    folder.mkdir(mode=0o700)
    (folder / f"{forged.kind.value}.{forged.sha256}").write_bytes(forged.data)
    assert store.bring(answer(), TRUST, NOW, ISSUERS).outcome is Outcome.ADDED
    earlier = answer(ISSUED - timedelta(hours=1))
    assert refused(lambda: store.bring(earlier, TRUST, NOW, ISSUERS)) == "attestation.collateral_older"


def test_the_certificates_of_held_manifests_vouch_for_answers_about_their_signers(
    store: CollateralStore,
) -> None:
    signer, issuer, _ = gpu_scene.manifest_signers()
    given = gpu_scene.answer(signer, issuer, at=ISSUED, lasts=timedelta(days=7))
    assert refused(lambda: store.bring(given, TRUST, NOW)) == "attestation.collateral"
    store.bring(MANIFEST, TRUST, NOW)
    assert store.bring(given, TRUST, NOW).outcome is Outcome.ADDED


@pytest.mark.parametrize("days", [-1, 31])
def test_what_does_not_hold_now_is_refused(store: CollateralStore, days: int) -> None:
    for document in (published(), crl(), answer()):
        at = ISSUED + timedelta(days=days)
        code = refused(lambda: store.bring(document, TRUST, at, ISSUERS))  # noqa: B023
        assert code == "attestation.collateral_expired"
    assert store.load().documents == ()


def test_what_its_issuer_did_not_sign_is_refused(store: CollateralStore) -> None:
    changed = CollateralDocument(
        CollateralKind.INTEL_DCAP, published().data.replace(b"UpToDate", b"Revoked!")
    )
    assert refused(lambda: store.bring(changed, TRUST, NOW)) == "attestation.collateral"


def test_a_set_under_a_root_that_nobody_pinned_is_refused(store: CollateralStore) -> None:
    code = refused(lambda: store.bring(published(), TrustStore.production(), NOW))
    assert code == "attestation.untrusted_root"


@pytest.mark.parametrize("kind", list(CollateralKind))
def test_a_document_of_another_kind_than_was_said_is_refused(
    store: CollateralStore, kind: CollateralKind
) -> None:
    for document in (published(), crl(), answer(), MANIFEST):
        if document.kind is not kind:
            declared = CollateralDocument(kind, document.data)
            assert refused(lambda: store.bring(declared, TRUST, NOW, ISSUERS)) == "attestation.collateral"  # noqa: B023


def test_a_manifest_is_verified_up_to_a_pinned_root(shared_data: Callable[[str], Path]) -> None:
    genuine = (shared_data("attestation/nvgpu/rims") / "DRIVER_GH100_550.144.03.xml").read_bytes()
    facts = examine(recognise(genuine), TrustStore.production())
    assert (facts.signature, facts.simulated) == (Signature.VERIFIED, False)
    assert "550.144.03" in facts.subject
    assert refused(lambda: examine(MANIFEST, TrustStore.production())) == "attestation.untrusted_root"
    changed = recognise(genuine.replace(b'active="True"', b'active="False"', 1))
    assert refused(lambda: examine(changed, TrustStore.production())) == "attestation.collateral"


@pytest.mark.parametrize("text", [b"<!DOCTYPE x>", b'<!ENTITY a "b">'])
def test_a_manifest_with_definitions_of_its_own_is_refused(text: bytes) -> None:
    data = MANIFEST.data + text
    assert refused(lambda: examine(recognise(data), TRUST)) == "attestation.collateral"


def test_a_document_older_than_one_that_is_held_is_refused_unless_it_is_meant(
    store: CollateralStore,
) -> None:
    newer, older = published(Published(evaluation=20)), published(Published(evaluation=19))
    store.bring(newer, TRUST, NOW)
    assert refused(lambda: store.bring(older, TRUST, NOW)) == "attestation.collateral_older"
    assert store.load().documents == (newer,)
    assert store.bring_older(older, TRUST, NOW).outcome is Outcome.ADDED
    assert set(store.load().documents) == {newer, older}


def test_a_list_from_before_a_revocation_is_not_brought_back(store: CollateralStore) -> None:
    before = published(at=ISSUED - timedelta(days=1))
    revoking = published(Published(revoked_platforms=(domain().serial,)))
    store.bring(revoking, TRUST, NOW)
    assert refused(lambda: store.bring(before, TRUST, NOW)) == "attestation.collateral_older"
    store.bring(crl(number=9), TRUST, NOW, ISSUERS)
    assert refused(lambda: store.bring(crl(number=8), TRUST, NOW, ISSUERS)) == "attestation.collateral_older"
    assert store.bring(crl(number=10), TRUST, NOW, ISSUERS).outcome is Outcome.ADDED


def test_documents_about_different_subjects_do_not_compete(store: CollateralStore) -> None:
    store.bring(published(Published(evaluation=20)), TRUST, NOW)
    other = published(Published(evaluation=3, fmspc="00806f050000"))
    assert store.bring(other, TRUST, NOW).outcome is Outcome.ADDED


def test_a_held_file_that_was_changed_is_refused_by_name(store: CollateralStore, tmp_path: Path) -> None:
    store.bring(published(), TRUST, NOW)
    (path,) = (tmp_path / "collateral").iterdir()
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(AttestationError) as error:
        store.load()
    assert error.value.code == "attestation.collateral"
    assert path.name in error.value.message


def test_a_stranger_among_the_documents_is_refused(store: CollateralStore, tmp_path: Path) -> None:
    store.bring(published(), TRUST, NOW)
    (tmp_path / "collateral" / "notes.txt").write_text("x")
    assert refused(store.load) == "attestation.collateral"


def test_a_folder_in_which_others_may_write_takes_nothing(store: CollateralStore, tmp_path: Path) -> None:
    (tmp_path / "collateral").mkdir()
    (tmp_path / "collateral").chmod(0o770)
    with pytest.raises(StorageError) as error:
        store.bring(published(), TRUST, NOW)
    assert error.value.code == "storage.permission"


def test_a_folder_that_is_not_there_holds_nothing(store: CollateralStore) -> None:
    assert store.load().documents == ()


def test_a_genuine_set_is_taken_in_while_it_holds_and_never_one_from_before(
    store: CollateralStore, shared_data: Callable[[str], Path]
) -> None:
    root = shared_data("attestation/tdx/collateral")
    newer = recognise((root / "phala-tdx-90c06f-2026-02.json").read_bytes())
    older = recognise((root / "automata-tdx-90c06f-2025-06.json").read_bytes())
    production = TrustStore.production()
    assert store.bring(older, production, datetime(2025, 6, 20, tzinfo=UTC)).outcome is Outcome.ADDED
    assert store.bring(newer, production, datetime(2026, 2, 20, tzinfo=UTC)).outcome is Outcome.ADDED
    at = datetime(2025, 6, 21, tzinfo=UTC)
    assert store.bring(older, production, at).outcome is Outcome.HELD
    assert examine(older, production).older_than(examine(newer, production))
    assert not examine(newer, production).older_than(examine(older, production))


@given(st.binary(max_size=400))
def test_garbage_is_of_no_kind(data: bytes) -> None:
    try:
        examine(recognise(data), TRUST)
    except AttestationError as error:
        if error.code != "attestation.collateral":
            raise
