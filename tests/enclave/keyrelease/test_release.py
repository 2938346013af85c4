"""Key release: an attested enclave gets the key it was promised; everybody else hears one refusal, and the
keeper's log says why."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.canonical import canonicalize
from cloister.core.clock import format_time
from cloister.core.errors import StorageError
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore, FileWrappingKey, TokenWrappingKey
from cloister.enclave import Binding, Platforms, TrustStore
from cloister.enclave.attestation import Evidence, GuestSettings, SimulatedVendor, Tee
from cloister.enclave.attestation.binding import INFERENCE, SELF_TEST, TAKING_PART
from cloister.enclave.attestation.challenge import _Issued
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease import (
    REFUSAL,
    Challenge,
    DataKeyBook,
    EnclaveKey,
    KeyPurpose,
    KeyRequest,
    Reply,
    Request,
    seal_to,
    sealing_info,
    sign_release_policy,
)
from tests.core.hsm import software_token
from tests.enclave.attestation_scene import JOB, MEASUREMENT, NOW, vendor
from tests.enclave.keyrelease.scene import DATASET, SEAL, FailingLog, Hospital, appraisal, guest

OTHER_JOB = "5b2c1f8e-6d7a-4c7e-9f33-3a1f0f7d2b11"


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def test_an_attested_enclave_gets_the_key(hospital: Hospital) -> None:
    assert hospital.ask_for_key(hospital.admitted()) == hospital.data_key()


def test_the_verdict_is_in_the_keepers_log_before_the_key_leaves(hospital: Hospital) -> None:
    asking, request = hospital.request(hospital.admitted())
    hospital.service = hospital.new_service(FailingLog(hospital.log, StorageError("storage.failed", "No.")))
    assert hospital.service.release(request) == REFUSAL
    hospital.service = hospital.new_service()
    asking, request = hospital.request(hospital.book.all_policies()[0].policy_id)
    reply = hospital.service.release(request)
    assert [one.outcome for one in hospital.statements()] == ["released"]
    asking.open(reply, dataset=DATASET)


def test_the_statement_says_what_was_released_to_whom_and_on_which_evidence(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    asking, request = hospital.request(policy_id)
    asking.open(hospital.service.release(request), dataset=DATASET)
    stated, asked = hospital.statements()[0], Request.decode(request)
    assert (stated.outcome, stated.code, stated.number, stated.limit) == ("released", None, 1, 3)
    assert stated.policy_sha256 == policy_id
    assert (stated.data_key, stated.dataset, stated.scope) == (hospital.key.data_key, DATASET, JOB)
    assert stated.enclave_key == asked.binding.key_id
    assert stated.nonce_sha256 == sha256_hex(asked.nonce)
    assert stated.attested is not None
    assert stated.attested.simulated
    assert stated.attested.platform == "SIMULATED_AMD_SEV_SNP"
    assert stated.attested.measurement == MEASUREMENT.hex()
    assert {one.outcome for one in stated.checks} <= {"passed", "not_run"}
    kept = hospital.book.evidence(policy_id, 1)
    assert sha256_hex(kept) == stated.evidence_sha256
    assert Evidence.decode(kept) == asked.evidence


def test_no_statement_and_no_file_of_the_keeper_holds_the_key(hospital: Hospital, tmp_path: Path) -> None:
    key = hospital.ask_for_key(hospital.admitted())
    hospital.log.close()
    hospital.book.close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert key not in path.read_bytes()
            assert key.hex().encode() not in path.read_bytes()


ATTACKS: dict[str, tuple[Callable[[Hospital], object], str]] = {
    "other code": (
        lambda h: setattr(h, "platform", vendor().platform("north", bytes(48))),
        "attestation.measurement",
    ),
    "a guest that its host may debug": (
        lambda h: setattr(h, "platform", guest(GuestSettings(policy=0x30000 | 1 << 19))),
        "attestation.debug",
    ),
    "a guest that may migrate": (
        lambda h: setattr(h, "platform", guest(GuestSettings(policy=0x30000 | 1 << 18))),
        "attestation.policy_bits",
    ),
    "another privilege level": (
        lambda h: setattr(h, "platform", guest(GuestSettings(vmpl=2))),
        "attestation.vmpl",
    ),
    "another vendor's machine": (
        lambda h: setattr(h, "platform", SimulatedVendor.create(h.clock).platform("north", MEASUREMENT)),
        "attestation.untrusted_root",
    ),
    "a time before the policy's": (lambda h: h.clock.advance(hours=-1), "release.not_yet"),
    "a time after the policy's": (lambda h: h.clock.advance(days=30), "release.expired"),
    "a revoked key": (lambda h: h.book.revoke_key(h.key.data_key, h.clock()), "release.revoked"),
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda name: name.replace(" ", "-"))
def test_each_attack_hears_the_one_refusal_and_has_its_own_code_in_the_log(
    hospital: Hospital, attack: str
) -> None:
    prepare, code = ATTACKS[attack]
    policy_id = hospital.admitted()
    prepare(hospital)
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == code


def test_a_machine_whose_certificates_expired_is_refused_under_a_policy_that_holds(
    hospital: Hospital,
) -> None:
    policy_id = hospital.admitted(expires_at=format_time(NOW + timedelta(days=8000)))
    hospital.clock.advance(days=4000)
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "attestation.expired"


def test_a_platform_older_than_the_policy_asks_is_refused(hospital: Hospital) -> None:
    newer = appraisal(minimum_tcb={"Milan": {"boot_loader": 4, "tee": 0, "snp": 25, "microcode": 219}})
    policy_id = hospital.admitted(appraisal=newer)
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "attestation.tcb_unacceptable"


def test_without_a_revocation_list_nothing_is_released_unless_the_policy_does_without(
    hospital: Hospital,
) -> None:
    policy_id = hospital.admitted(appraisal=appraisal(without_revocation=()))
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "attestation.revocation_unknown"


def test_a_machine_without_the_gpu_that_the_policy_asks_for_is_refused(hospital: Hospital) -> None:
    policy_id = hospital.admitted(appraisal=appraisal(gpus="required"))
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "attestation.gpu_missing"


def test_a_policy_for_other_hardware_releases_nothing(hospital: Hospital) -> None:
    policy_id = hospital.admitted(tees=(Tee.INTEL_TDX,))
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "release.tee"


def test_a_policy_for_hardware_gives_a_simulated_enclave_nothing(hospital: Hospital) -> None:
    policy_id = hospital.admitted(appraisal=appraisal(platforms=Platforms.HARDWARE_ONLY))
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "attestation.simulated"


def test_production_trust_gives_a_simulated_enclave_nothing_whatever_policy_and_key_say(
    tmp_path: Path,
) -> None:
    hospital = Hospital(tmp_path, trust=TrustStore.production())
    policy_id = hospital.admitted()
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "attestation.untrusted_root"


def test_a_key_of_records_is_not_even_admitted_under_a_policy_for_simulated_enclaves(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, purpose=KeyPurpose.RECORDS)
    with pytest.raises(ReleaseError) as caught:
        hospital.admitted()
    assert caught.value.code == "release.test_data"


def test_a_key_of_records_stays_closed_to_simulated_enclaves_even_where_the_book_was_edited(
    tmp_path: Path,
) -> None:
    hospital = Hospital(tmp_path, purpose=KeyPurpose.RECORDS)
    policy = hospital.policy()
    with sqlite3.connect(tmp_path / "keys.db") as book:
        envelope = sign_release_policy(policy, hospital.owner).encode()
        book.execute(
            "INSERT INTO policies VALUES (?, ?, ?, ?, NULL)",
            (policy.sha256, policy.data_key, envelope, format_time(NOW)),
        )
    assert hospital.refusal(lambda: hospital.ask_for_key(policy.sha256)) == "release.test_data"
    with sqlite3.connect(tmp_path / "keys.db") as book:
        book.execute("UPDATE keys SET purpose = 'test-data'")
    before = len(hospital.statements())
    with pytest.raises(ReleaseError, match="refuses"):
        hospital.ask_for_key(policy.sha256)
    stated = hospital.statements()[before:]
    assert [(one.outcome, one.code) for one in stated] == [("refused", "key.wrapped")]


def test_an_answer_is_taken_once(hospital: Hospital) -> None:
    asking, request = hospital.request(hospital.admitted())
    asking.open(hospital.service.release(request), dataset=DATASET)
    assert hospital.service.release(request) == REFUSAL
    assert hospital.statements()[-1].code == "attestation.replay"


def test_an_answer_is_taken_once_even_by_a_keeper_that_was_started_anew(hospital: Hospital) -> None:
    _, request = hospital.request(hospital.admitted())
    hospital.service.release(request)
    again = hospital.new_service()
    assert again.release(request) == REFUSAL
    assert hospital.statements()[-1].code == "attestation.nonce"
    asked = Request.decode(request)  # the memory of challenges restored by an attacker
    again._nonces._issued[asked.nonce] = _Issued(asked.ask.policy_id, NOW + timedelta(seconds=60))
    assert again.release(request) == REFUSAL
    assert hospital.statements()[-1].code == "release.count"
    assert hospital.book.all_policies()[0].released == 1


def test_a_challenge_is_answered_within_a_minute(hospital: Hospital) -> None:
    _, request = hospital.request(hospital.admitted())
    hospital.clock.advance(seconds=61)
    assert hospital.service.release(request) == REFUSAL
    assert hospital.statements()[-1].code == "attestation.nonce"


def test_a_challenge_for_one_policy_serves_no_other(hospital: Hospital) -> None:
    first, second = hospital.admitted(), hospital.admitted(releases=5)
    asking = KeyRequest(JOB, first, SEAL)
    challenge = hospital.service.challenge(asking.ask())
    other = KeyRequest(JOB, second, SEAL)
    request = other.answer(challenge, hospital.platform.quote)
    assert hospital.service.release(request) == REFUSAL
    assert hospital.statements()[-1].code == "attestation.nonce"


@pytest.mark.parametrize("domain", [TAKING_PART, INFERENCE, SELF_TEST])
def test_evidence_made_for_another_purpose_releases_nothing(hospital: Hospital, domain: bytes) -> None:
    policy_id = hospital.admitted()
    asking, key = KeyRequest(JOB, policy_id, SEAL), EnclaveKey()
    nonce = Challenge.decode(hospital.service.challenge(asking.ask())).nonce
    other = Binding(nonce, key.key_id, JOB, policy_id, domain)
    evidence = hospital.platform.quote(other.report_data())
    request = Request(asking._ask, nonce, key.public_bytes, SEAL, evidence).encode()
    assert hospital.service.release(request) == REFUSAL
    assert hospital.statements()[-1].code == "attestation.key_binding"


def test_a_carrier_that_puts_its_own_key_in_the_request_gets_nothing(hospital: Hospital) -> None:
    _, request = hospital.request(hospital.admitted())
    swapped = replace(Request.decode(request), public=EnclaveKey().public_bytes).encode()
    assert hospital.service.release(swapped) == REFUSAL
    assert hospital.statements()[-1].code == "attestation.key_binding"


def test_another_job_gets_nothing_even_with_evidence_of_its_own(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id, OTHER_JOB)) == "release.scope"


def test_a_study_may_be_named_in_place_of_a_job(hospital: Hospital) -> None:
    policy_id = hospital.admitted(scope="study:HEART-2")
    assert hospital.ask_for_key(policy_id, "study:HEART-2") == hospital.data_key()


def test_a_reply_opens_only_in_the_request_that_it_answers(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    first, request = hospital.request(policy_id)
    second, _ = hospital.request(policy_id)
    reply = hospital.service.release(request)
    with pytest.raises(ReleaseError) as caught:
        second.open(reply, dataset=DATASET)
    assert caught.value.code == "release.sealed"
    assert bytes(first.open(reply, dataset=DATASET)) == hospital.data_key()


def test_a_keeper_can_be_impersonated_by_nobody_who_changes_what_the_key_is_for(hospital: Hospital) -> None:
    asking, request = hospital.request(hospital.admitted())
    reply = Reply.decode(hospital.service.release(request))
    with pytest.raises(ReleaseError) as caught:
        asking.open(replace(reply, dataset="lung-cancer").encode(), dataset="lung-cancer")
    assert caught.value.code == "release.sealed"


def test_a_key_for_another_dataset_is_not_taken(hospital: Hospital) -> None:
    asking, request = hospital.request(hospital.admitted())
    with pytest.raises(ReleaseError, match="another dataset"):
        asking.open(hospital.service.release(request), dataset="lung-cancer")


def test_a_request_is_used_up_by_its_first_reply(hospital: Hospital) -> None:
    asking, request = hospital.request(hospital.admitted())
    reply = hospital.service.release(request)
    asking.open(reply, dataset=DATASET)
    with pytest.raises(ReleaseError):
        asking.open(reply, dataset=DATASET)
    with pytest.raises(ReleaseError):
        asking.answer(hospital.service.challenge(asking.ask()), hospital.platform.quote)


def test_no_more_is_released_than_the_policy_allows(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=2)
    for _ in range(2):
        hospital.ask_for_key(policy_id)
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "release.count"
    assert [one.number for one in hospital.statements()] == [1, 2, 0]


def test_many_who_ask_at_once_get_no_more_than_the_policy_allows(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=3)
    requests = [hospital.request(policy_id)[1] for _ in range(8)]
    replies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda one=one: replies.append(hospital.service.release(one)))
        for one in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(reply != REFUSAL for reply in replies) == 3
    assert sorted(one.number for one in hospital.statements()) == [0, 0, 0, 0, 0, 1, 2, 3]


def test_two_keepers_on_one_book_release_no_more_than_the_policy_allows(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=1)
    hospital.ask_for_key(policy_id)
    hospital.book = DataKeyBook.open(hospital.folder / "keys.db")
    hospital.service = hospital.new_service()
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "release.count"


def test_what_cannot_be_logged_is_not_released(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    hospital.service = hospital.new_service(
        FailingLog(hospital.log, StorageError("storage.no_space", "Full."))
    )
    with pytest.raises(ReleaseError, match="refuses"):
        hospital.ask_for_key(policy_id)


def test_a_revoked_policy_releases_nothing_more_and_others_of_the_key_go_on(hospital: Hospital) -> None:
    first, second = hospital.admitted(), hospital.admitted(releases=5)
    hospital.ask_for_key(first)
    hospital.book.revoke_policy(first, hospital.clock())
    assert hospital.refusal(lambda: hospital.ask_for_key(first)) == "release.revoked"
    assert hospital.ask_for_key(second) == hospital.data_key()


def test_a_key_revoked_while_its_release_is_judged_is_not_released(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy_id = hospital.admitted()
    unwrap = hospital.book.unwrap

    def late(*arguments: object) -> bytearray:
        hospital.book.revoke_key(hospital.key.data_key, hospital.clock())
        return unwrap(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hospital.book, "unwrap", late)
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "release.revoked"


def test_a_policy_that_was_edited_in_the_book_releases_nothing(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=1)
    hospital.ask_for_key(policy_id)
    wider = sign_release_policy(hospital.policy(releases=9), EphemeralKeyStore().generate("attacker"))
    edits = [wider.encode(), sign_release_policy(hospital.policy(releases=9), hospital.owner).encode()]
    for envelope in edits:
        with sqlite3.connect(hospital.folder / "keys.db") as book:
            book.execute("UPDATE policies SET envelope = ?", (envelope,))
        before = len(hospital.statements())
        with pytest.raises(ReleaseError, match="refuses"):
            hospital.ask_for_key(policy_id)
        assert len(hospital.statements()) == before


def test_a_policy_that_its_owner_never_signed_releases_nothing_though_it_is_in_the_book(
    hospital: Hospital,
) -> None:
    wider = hospital.policy(releases=9)
    envelope = sign_release_policy(wider, EphemeralKeyStore().generate("attacker")).encode()
    with sqlite3.connect(hospital.folder / "keys.db") as book:
        row = (wider.sha256, wider.data_key, envelope, format_time(NOW))
        book.execute("INSERT INTO policies VALUES (?, ?, ?, ?, NULL)", row)
    with pytest.raises(ReleaseError, match="refuses"):
        hospital.ask_for_key(wider.sha256)
    assert hospital.statements() == []


def test_a_key_wrapped_inside_a_token_is_released_the_same_way(tmp_path: Path) -> None:
    token = software_token()
    hospital = Hospital(tmp_path)
    hospital.wrapping = TokenWrappingKey.create(
        token.library, token.label, lambda: token.pin, "kek", owner=tmp_path.name
    )
    hospital.key = hospital.book.create_key(DATASET, hospital.purpose, hospital.wrapping, NOW)
    hospital.service = hospital.new_service()
    assert hospital.ask_for_key(hospital.admitted()) == hospital.data_key()


def test_a_hospital_whose_key_encryption_key_is_another_releases_nothing(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    hospital.wrapping = FileWrappingKey.create(hospital.folder, "other")
    hospital.service = hospital.new_service()
    with pytest.raises(ReleaseError, match="refuses"):
        hospital.ask_for_key(policy_id)
    assert hospital.statements()[-1].code == "key.wrapped"


def test_every_refusal_is_the_same_bytes(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=1)
    _, good = hospital.request(policy_id)
    value = json.loads(good)
    heard = {
        hospital.service.release(b""),
        hospital.service.release(b"\xff" * 100),
        hospital.service.release(b"[" * 100_000),
        hospital.service.release(bytes(2 * 1024 * 1024)),
        hospital.service.release(canonicalize({**value, "policy_id": "0" * 64})),
        hospital.service.release(canonicalize({**value, "evidence": None})),
        hospital.service.release(canonicalize({**value, "insecure": True})),
        hospital.service.release(canonicalize({**value, "scope": "other"})),
        hospital.service.challenge(b"garbage"),
    }
    assert heard == {REFUSAL}


def test_whether_a_policy_exists_is_not_told_by_the_challenge(hospital: Hospital) -> None:
    known, unknown = KeyRequest(JOB, hospital.admitted(), SEAL), KeyRequest(JOB, "0" * 64, SEAL)
    lengths = {len(hospital.service.challenge(one.ask())) for one in (known, unknown)}
    assert len(lengths) == 1


@settings(max_examples=60)
@given(data=st.data())
def test_no_message_from_a_hostile_peer_raises_or_releases(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    hospital = _shared(tmp_path_factory)
    hospital.clock.advance(seconds=61)
    _, request = hospital.request(hospital.book.all_policies()[0].policy_id)
    changed = bytearray(request)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    if bytes(changed) != request:
        assert hospital.service.release(bytes(changed)) == REFUSAL


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_an_enclave_survives_any_reply_and_any_challenge(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    hospital = _shared(tmp_path_factory)
    hospital.clock.advance(seconds=61)
    asking, _ = hospital.request(hospital.book.all_policies()[0].policy_id)
    with pytest.raises(ReleaseError):
        asking.open(data, dataset=DATASET)
    with pytest.raises(ReleaseError):
        KeyRequest(JOB, "0" * 64, SEAL).answer(data, hospital.platform.quote)


def test_a_request_cannot_be_opened_before_it_was_answered() -> None:
    with pytest.raises(ReleaseError):
        KeyRequest(JOB, "0" * 64, SEAL).open(REFUSAL, dataset=DATASET)


def test_a_keepers_sealed_thing_for_one_purpose_opens_for_no_other() -> None:
    key = EnclaveKey()
    binding = Binding(bytes(32), key.key_id, JOB, "p")
    sealed = seal_to(key.public_bytes, b"secret", sealing_info(binding, "a"))
    assert key.open(sealed, sealing_info(binding, "a")) == b"secret"
    for other in (
        sealing_info(binding, "b"),
        sealing_info(replace(binding, domain=INFERENCE), "a"),
        sealing_info(replace(binding, nonce=b"1" * 32), "a"),
        b"",
    ):
        with pytest.raises(ReleaseError):
            key.open(sealed, other)


_HOSPITALS: list[Hospital] = []


def _shared(factory: pytest.TempPathFactory) -> Hospital:
    if not _HOSPITALS:
        _HOSPITALS.append(Hospital(factory.mktemp("shared")))
        _HOSPITALS[0].admitted()
    return _HOSPITALS[0]
