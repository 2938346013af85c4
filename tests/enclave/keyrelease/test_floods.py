"""A peer that asks without end: others are answered, and the keeper's log stays small and still tells."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.core.clock import format_time
from cloister.core.logging import LogLevel, configure_logging, stop_logging
from cloister.enclave.attestation.challenge import MAX_PLACES_OF_ONE
from cloister.enclave.keyrelease import REFUSAL, Ask, Challenge, EnclaveKey, Request
from cloister.enclave.keyrelease.refusals import SAID_EACH, RefusalCounts, is_said
from tests.enclave.attestation_scene import JOB, NOW
from tests.enclave.keyrelease.scene import Hospital


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def test_a_flood_of_asks_under_one_policy_takes_nobody_elses_challenge(hospital: Hospital) -> None:
    flooded, other = hospital.admitted(), hospital.admitted(releases=5)
    _, request = hospital.request(other)
    for _ in range(MAX_PLACES_OF_ONE + 50):
        hospital.service.challenge(Ask(JOB, flooded).encode())
    assert hospital.service.release(request) != REFUSAL
    assert hospital.ask_for_key(other) == hospital.data_key()


def test_a_challenge_that_is_open_survives_the_flood_of_its_own_policy(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    _, request = hospital.request(policy_id)
    for _ in range(MAX_PLACES_OF_ONE * 2):
        hospital.service.challenge(Ask(JOB, policy_id).encode())
    assert hospital.refusal(lambda: hospital.ask_for_key(policy_id)) == "attestation.nonce"
    assert hospital.service.release(request) != REFUSAL
    hospital.clock.advance(seconds=61)
    assert hospital.ask_for_key(policy_id) == hospital.data_key()


def test_nothing_is_kept_of_asks_under_policies_that_are_not_in_the_book(hospital: Hospital) -> None:
    for number in range(100):
        answer = hospital.service.challenge(Ask(f"job-{number}", f"{number:064x}").encode())
        assert len(Challenge.decode(answer).nonce) == 32
    assert len(hospital.service._nonces._issued) == 0


def test_other_jobs_named_under_a_policy_take_no_more_places(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    for number in range(MAX_PLACES_OF_ONE * 2):
        hospital.service.challenge(Ask(f"job-{number}", policy_id).encode())
    assert len(hospital.service._nonces._issued) == MAX_PLACES_OF_ONE


def test_a_peer_that_is_refused_again_and_again_leaves_few_statements_and_their_number(
    hospital: Hospital,
) -> None:
    _, good = hospital.request(hospital.admitted())
    forged = replace(Request.decode(good), nonce=bytes(32)).encode()
    for _ in range(150):
        assert hospital.service.release(forged) == REFUSAL
    stated = hospital.statements()
    assert [one.refusals for one in stated] == [*range(1, SAID_EACH + 1), 16, 32, 64, 128]
    assert {one.code for one in stated} == {"attestation.nonce"}
    assert hospital.book.all_policies()[0].refused == 150


def test_a_release_states_how_many_were_refused_before_it(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    _, good = hospital.request(policy_id)
    forged = replace(Request.decode(good), nonce=bytes(32)).encode()
    for _ in range(100):
        hospital.service.release(forged)
    hospital.ask_for_key(policy_id)
    assert hospital.statements()[-1].outcome == "released"
    assert hospital.statements()[-1].refusals == 100


def test_noise_does_not_hide_a_refusal_for_another_reason(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    _, good = hospital.request(policy_id)
    forged = replace(Request.decode(good), nonce=bytes(32)).encode()
    for _ in range(60):
        hospital.service.release(forged)
    swapped = replace(Request.decode(good), public=EnclaveKey().public_bytes).encode()
    assert hospital.service.release(swapped) == REFUSAL
    assert (hospital.statements()[-1].code, hospital.statements()[-1].refusals) == (
        "attestation.key_binding",
        1,
    )


def test_refusals_are_counted_on_by_a_keeper_that_was_started_anew(hospital: Hospital) -> None:
    policy_id = hospital.admitted(expires_at=format_time(NOW.replace(year=2027)))
    _, good = hospital.request(policy_id)
    forged = replace(Request.decode(good), nonce=bytes(32)).encode()
    for _ in range(30):
        hospital.service = hospital.new_service()
        hospital.service.release(forged)
    assert [one.refusals for one in hospital.statements()] == [*range(1, SAID_EACH + 1), 16]


def test_messages_that_name_no_policy_leave_few_lines_in_the_machines_log(
    hospital: Hospital,
) -> None:
    path = hospital.folder / "machine.log"
    configure_logging(path=path, level=LogLevel.INFO, experiment_id="floods")
    try:
        for _ in range(1000):
            hospital.service.release(b"garbage")
    finally:
        stop_logging()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["refusals"] for one in lines] == [*range(1, SAID_EACH + 1), 16, 32, 64, 128, 256, 512]
    assert {one["code"] for one in lines} == {"release.malformed"}
    assert hospital.statements() == []


def test_of_a_million_refusals_twenty_four_are_said() -> None:
    assert sum(is_said(count) for count in range(1, 1_000_001)) == 24


def test_refusals_are_counted_by_many_threads() -> None:
    counts = RefusalCounts()
    threads = [
        threading.Thread(target=lambda: [counts.add("release.malformed") for _ in range(200)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.add("release.malformed") == 1601
