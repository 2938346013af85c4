"""Release policies and the book: one form, one signer, nothing overwritten."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister.core.canonical import canonicalize
from cloister.core.clock import format_time
from cloister.core.errors import KeyStoreError, StorageError
from cloister.core.keys import EphemeralKeyStore, FileWrappingKey
from cloister.enclave import Platforms
from cloister.enclave.attestation import ReferenceValues, Tee
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease import (
    DataKeyBook,
    KeyPurpose,
    decode_release_policy,
    open_release_policy,
    sign_release_policy,
)
from cloister.evidence.envelope import sign_envelope
from tests.enclave.attestation_scene import NOW
from tests.enclave.keyrelease.scene import DATASET, Hospital, appraisal


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("hospital"))


def test_a_policy_comes_back_from_its_envelope_as_it_was_signed(hospital: Hospital) -> None:
    tdx = ReferenceValues(
        tee=Tee.INTEL_TDX,
        registers={"mrtd": "ab" * 48} | {f"rtmr{index}": f"0{index}" * 48 for index in range(3)},
    )
    policy = hospital.policy(
        tees=(Tee.INTEL_TDX, Tee.AMD_SEV_SNP),
        appraisal=appraisal(
            references=(tdx,),
            minimum_tcb={"Milan": {"boot_loader": 4, "tee": 0, "snp": 24, "microcode": 219}},
            accepted_tcb_statuses=("SWHardeningNeeded",),
            accepted_advisories=("INTEL-SA-00614",),
            maximum_collateral_age_days=30,
            gpus="required",
        ),
    )
    assert (
        open_release_policy(sign_release_policy(policy, hospital.owner), hospital.owner.public_key) == policy
    )


def test_only_the_owners_signature_counts(hospital: Hospital) -> None:
    envelope = sign_release_policy(hospital.policy(), EphemeralKeyStore().generate("other"))
    with pytest.raises(ReleaseError) as caught:
        open_release_policy(envelope, hospital.owner.public_key)
    assert caught.value.code == "release.policy"


def test_a_signature_over_something_else_is_no_policy(hospital: Hospital) -> None:
    payload = hospital.policy().encode()
    for kind, signed in (
        ("application/vnd.in-toto+json", payload),
        (PAYLOAD, b"{}"),
        (PAYLOAD, payload + b" "),
    ):
        with pytest.raises(ReleaseError) as caught:
            open_release_policy(sign_envelope(kind, signed, hospital.owner), hospital.owner.public_key)
        assert caught.value.code == "release.policy"


PAYLOAD = "application/vnd.cloister.release-policy+json"


@pytest.mark.parametrize(
    "change",
    [
        {"releases": 0},
        {"releases": True},
        {"releases": 10_001},
        {"tees": ()},
        {"tees": (Tee.NVIDIA_GPU,)},
        {"data_key": "dk-1"},
        {"scope": ""},
        {"scope": "a b"},
        {"dataset": "\u202e"},
        {"not_before": "yesterday"},
        {"expires_at": format_time(NOW)},
        {"debug": True},
    ],
    ids=str,
)
def test_a_policy_out_of_bounds_cannot_be_made(hospital: Hospital, change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        hospital.policy(**change)


def test_no_policy_can_allow_debugging(hospital: Hospital) -> None:
    assert "debug" not in json.dumps(hospital.policy().as_json())


def test_a_field_more_or_less_or_in_another_form_is_refused(hospital: Hospital) -> None:
    value = hospital.policy().as_json()
    wrong = [
        {**value, "debug": True},
        {name: value[name] for name in value if name != "releases"},
        {**value, "schema": "urn:cloister:release-policy:v1"},
        {**value, "tees": ["intel-tdx", "amd-sev-snp"]},
        {**value, "releases": 1.5},
        {**value, "expires_at": "2026-12-21T14:00:00Z"},
        {**value, "appraisal": None},
        [],
    ]
    for one in wrong:
        with pytest.raises(ReleaseError) as caught:
            decode_release_policy(canonicalize(one))  # type: ignore[arg-type]
        assert caught.value.code == "release.policy"


@given(st.binary(max_size=200))
def test_garbage_is_no_policy_and_no_other_error(data: bytes) -> None:
    with pytest.raises(ReleaseError):
        decode_release_policy(data)


def test_a_policy_for_an_unknown_key_or_another_dataset_is_not_admitted(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    with pytest.raises(ReleaseError) as caught:
        hospital.admitted(data_key="dk-" + "0" * 32)
    assert caught.value.code == "release.unknown"
    with pytest.raises(ReleaseError) as caught:
        hospital.admitted(dataset="lung-cancer")
    assert caught.value.code == "release.policy"


def test_a_policy_is_admitted_once_and_its_count_is_not_begun_anew(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    policy_id = hospital.admitted(releases=1)
    hospital.ask_for_key(policy_id)
    with pytest.raises(ReleaseError) as caught:
        hospital.admitted(releases=1)
    assert caught.value.code == "release.exists"
    assert hospital.book.policy(policy_id).released == 1


def test_a_key_that_is_in_use_already_can_be_brought_into_the_book(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    made = hospital.book.wrap_key(bytes(32), "x-rays", KeyPurpose.RECORDS, hospital.wrapping, NOW)
    assert hospital.book.unwrap(made, hospital.wrapping) == bytes(32)
    with pytest.raises(KeyStoreError):
        hospital.book.wrap_key(bytes(16), "x-rays", KeyPurpose.RECORDS, hospital.wrapping, NOW)


def test_a_book_is_its_owners_alone_and_found_again(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    policy_id = hospital.admitted()
    hospital.ask_for_key(policy_id)
    hospital.book.revoke_key(hospital.key.data_key, NOW)
    hospital.book.revoke_key(hospital.key.data_key, NOW + timedelta(days=1))
    hospital.book.close()
    assert (tmp_path / "keys.db").stat().st_mode & 0o777 == 0o600
    book = DataKeyBook.open(tmp_path / "keys.db")
    assert book.policy(policy_id).released == 1
    assert [one.revoked_at for one in book.all_keys()] == [format_time(NOW)]
    assert book.all_keys()[0].dataset == DATASET


def test_a_book_whose_maker_was_stopped_before_its_first_entry_is_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch(0o600)
    book = DataKeyBook.open(tmp_path / "empty.db")
    assert book.all_keys() == ()
    book.close()
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE something (x)")
    with pytest.raises(ReleaseError) as caught:
        DataKeyBook.open(tmp_path / "other.db")
    assert caught.value.code == "release.book"


def test_a_book_is_not_made_over_another_file_and_not_read_from_something_else(tmp_path: Path) -> None:
    Hospital(tmp_path).book.close()
    with pytest.raises(StorageError):
        DataKeyBook.create(tmp_path / "keys.db")
    with pytest.raises(StorageError):
        DataKeyBook.open(tmp_path / "absent.db")
    (tmp_path / "text.db").write_text("no book" * 1000)
    with pytest.raises(StorageError):
        DataKeyBook.open(tmp_path / "text.db")


def test_what_is_not_in_the_book_cannot_be_revoked(tmp_path: Path) -> None:
    book = Hospital(tmp_path).book
    for use in (book.revoke_key, book.revoke_policy):
        with pytest.raises(ReleaseError) as caught:
            use("dk-" + "0" * 32, NOW)
        assert caught.value.code == "release.unknown"


def test_a_simulated_enclave_needs_both_the_policy_and_the_key_to_say_so(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, purpose=KeyPurpose.RECORDS)
    assert hospital.admitted(appraisal=appraisal(platforms=Platforms.HARDWARE_ONLY))
    with pytest.raises(ReleaseError):
        hospital.admitted()


def test_each_hospital_key_wraps_only_its_own(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    with pytest.raises(KeyStoreError) as caught:
        hospital.book.unwrap(hospital.key, FileWrappingKey.create(tmp_path, "other"))
    assert caught.value.code == "key.wrapped"
