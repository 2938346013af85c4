"""Trust in roots, the simulated vendor's file, and nonces that are answered once."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloister.core.clock import fixed_clock
from cloister.core.errors import CloisterError
from cloister.enclave import (
    AttestationError,
    EnclaveError,
    NonceBook,
    SimulatedVendor,
    TrustStore,
    certificate_pem,
    orchestrate,
)
from cloister.enclave.attestation import Tee
from cloister.enclave.attestation.challenge import MAX_PLACES, MAX_PLACES_OF_ONE
from tests.enclave.attestation_scene import MEASUREMENT, NOW, vendor


def self_signed(organisation: str) -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA384())
        .public_bytes(Encoding.DER)
    )


@pytest.mark.parametrize("organisation", ["Advanced Micro Devices", "simulated - not hardware", "Hospital"])
def test_a_root_that_is_neither_pinned_nor_labelled_is_never_trusted(organisation: str) -> None:
    root = self_signed(organisation)
    for build in (TrustStore.simulated, lambda der: TrustStore.from_certificates([der])):
        with pytest.raises(AttestationError) as refused:
            build(root)
        assert refused.value.code == "attestation.trust_store"


def test_production_trust_has_no_simulated_root_and_no_door_for_one() -> None:
    found = TrustStore.production().find(vendor_digest(), Tee.AMD_SEV_SNP)
    assert found is None
    labelled = TrustStore.from_certificates([vendor().root_der]).find(vendor_digest(), Tee.AMD_SEV_SNP)
    assert labelled is not None
    assert labelled.simulated


def vendor_digest() -> str:
    import hashlib

    return hashlib.sha256(vendor().root_der).hexdigest()


def test_roots_are_read_as_pem_too_and_garbage_is_refused() -> None:
    pem = certificate_pem(vendor().root_der)
    assert pem.startswith(b"-----BEGIN CERTIFICATE-----")
    assert TrustStore.from_certificates([pem]).find(vendor_digest(), Tee.AMD_SEV_SNP) is not None
    for bad in (b"", b"x", pem[:100]):
        with pytest.raises(AttestationError) as refused:
            TrustStore.from_certificates([bad])
        assert refused.value.code == "attestation.trust_store"


def test_a_vendor_is_kept_in_one_private_file_and_opened_again(tmp_path: Path) -> None:
    first = SimulatedVendor.open(tmp_path, fixed_clock(NOW))
    again = SimulatedVendor.open(tmp_path, fixed_clock(NOW + timedelta(days=9)))
    assert first.root_der == again.root_der
    assert first.crl_der == again.crl_der
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert again.platform("north", MEASUREMENT).chain[1:] == first.platform("south", MEASUREMENT).chain[1:]


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_vendor_file_is_refused(tmp_path: Path, content: bytes) -> None:
    SimulatedVendor.open(tmp_path, fixed_clock(NOW))
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    with pytest.raises(CloisterError) as refused:
        SimulatedVendor.open(tmp_path, fixed_clock(NOW))
    assert refused.value.code == "attestation.malformed"


def test_a_vendor_of_before_revocation_lists_is_refused_with_what_to_do(tmp_path: Path) -> None:
    SimulatedVendor.open(tmp_path, fixed_clock(NOW))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"-----BEGIN X509 CRL")])
    with pytest.raises(AttestationError) as refused:
        SimulatedVendor.open(tmp_path, fixed_clock(NOW))
    assert refused.value.code == "attestation.malformed"
    assert file.name in refused.value.hint


def test_a_platform_takes_48_bytes_of_measurement_and_64_of_report_data() -> None:
    with pytest.raises(AttestationError):
        vendor().platform("north", bytes(32))
    with pytest.raises(AttestationError):
        vendor().platform("north", MEASUREMENT).quote(bytes(63))


class MovingClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def refused(book: NonceBook, nonce: bytes, subject: str) -> str:
    with pytest.raises(AttestationError) as caught:
        book.redeem(nonce, subject)
    return caught.value.code


def test_a_nonce_is_answered_once() -> None:
    book = NonceBook(MovingClock())
    nonce = book.issue("north")
    assert len(nonce) == 32
    book.redeem(nonce, "north")
    assert refused(book, nonce, "north") == "attestation.replay"


def test_nonces_differ() -> None:
    book = NonceBook(MovingClock())
    assert len({book.issue("north") for _ in range(100)}) == 100


def test_a_nonce_that_was_never_issued_is_refused() -> None:
    assert refused(NonceBook(MovingClock()), bytes(32), "north") == "attestation.nonce"


def test_a_nonce_is_for_one_subject_and_is_used_up_by_a_wrong_one() -> None:
    book = NonceBook(MovingClock())
    nonce = book.issue("north")
    assert refused(book, nonce, "south") == "attestation.nonce"
    assert refused(book, nonce, "north") == "attestation.replay"


def test_a_nonce_lives_for_a_minute() -> None:
    clock = MovingClock()
    book = NonceBook(clock)
    early, late = book.issue("north"), book.issue("north")
    clock.now = NOW + timedelta(seconds=60)
    book.redeem(early, "north")
    clock.now = NOW + timedelta(seconds=60, microseconds=1)
    assert refused(book, late, "north") == "attestation.nonce"


def busy(book: NonceBook, subject: str) -> bool:
    try:
        book.issue(subject)
    except AttestationError as error:
        return error.code == "attestation.busy"
    return False


def test_who_floods_one_subject_takes_its_places_and_no_other_and_evicts_no_open_challenge() -> None:
    book = NonceBook(MovingClock())
    first, other = book.issue("north"), book.issue("south")
    for _ in range(MAX_PLACES_OF_ONE - 1):
        book.issue("north")
    assert busy(book, "north")
    assert not busy(book, "south")
    book.redeem(other, "south")
    book.redeem(first, "north")
    assert busy(book, "north"), "an answered challenge keeps its place: answers are no way to more of them"


def test_open_challenges_are_bounded_in_all_and_the_oldest_of_them_still_holds() -> None:
    clock = MovingClock()
    book = NonceBook(clock)
    first = book.issue("0")
    for number in range(1, MAX_PLACES):
        book.issue(str(number))
    assert busy(book, "north")
    book.redeem(first, "0")
    clock.now += timedelta(seconds=60, microseconds=1)
    assert not busy(book, "north")
    assert len(book._issued) == len(book._places) == 1


def test_of_many_threads_that_redeem_one_nonce_one_succeeds() -> None:
    book = NonceBook(MovingClock())
    nonce = book.issue("north")
    outcomes: list[str] = []

    def redeem() -> None:
        try:
            book.redeem(nonce, "north")
            outcomes.append("accepted")
        except AttestationError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=redeem) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["accepted"] + ["attestation.replay"] * 15


def test_without_an_installed_orchestrator_no_job_is_run(tmp_path: Path) -> None:
    with pytest.raises(EnclaveError) as caught:
        orchestrate(tmp_path / "job.yaml", orchestrator="no-such-orchestrator")
    assert caught.value.code == "enclave.no_orchestrator"
