"""Secure inference: the client verifies before it sends, alone reads the answer, and nobody in between learns
more than sizes in few steps."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import canonicalize
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.enclave import AttestationError, Binding, Platforms
from cloister.enclave.attestation import GuestSettings
from cloister.enclave.attestation.binding import KEY_RELEASE, TAKING_PART
from cloister.enclave.errors import InferenceError, SealedError
from cloister.enclave.inference import Answer, Counts, Hello, InferenceWorker, ModelCard, Query, Welcome
from cloister.enclave.inference.card import INPUT_HEAD, MAX_FEATURES, USUAL_BUCKET, padded_size
from cloister.enclave.inference.messages import MAX_ANSWER_BYTES, MAX_SESSIONS, inference_binding, session_id
from cloister.enclave.inference.worker import PREDICTION_SECONDS, SESSION_SECONDS
from cloister.enclave.keyrelease import EnclaveKey, seal_to, sealing_info
from cloister.enclave.sealed import Measure, SealClaims, SealLevel, SealPolicy
from cloister.enclave.sealed.claims import SWAP_OFF
from tests.enclave.attestation_scene import vendor
from tests.enclave.inference.scene import (
    CARD,
    MODEL_SHA256,
    SEAL,
    Rows,
    carrier,
    halves,
    machine,
    rows,
    session,
)
from tests.enclave.keyrelease.scene import appraisal, guest


def code_of(caught: pytest.ExceptionInfo[CloisterError]) -> str:
    return caught.value.code


def test_a_client_gets_the_models_answer() -> None:
    found = session(carrier(), model_sha256=MODEL_SHA256)
    assert found.verdict.simulated
    for count in (1, 3, 700):
        assert np.array_equal(found.predict(rows(count)), halves(rows(count)))


def test_no_message_holds_input_or_output() -> None:
    endpoint = carrier()
    asked = np.full((5, 4), 0.123456789, dtype=np.float32)
    answered = session(endpoint).predict(asked)
    wire = b"".join(part for pair in endpoint.seen for part in pair)
    assert asked.tobytes()[:8] not in wire
    assert answered.tobytes()[:8] not in wire


def test_all_inputs_of_a_bucket_and_their_answers_have_one_size() -> None:
    endpoint = carrier()
    found = session(endpoint)
    most = (4096 - INPUT_HEAD.size) // 16
    for count in (1, 2, most):
        found.predict(rows(count))
    assert len({(len(query), len(answer)) for query, answer in endpoint.seen[1:]}) == 1
    found.predict(rows(most + 1))
    assert len(endpoint.seen[-1][0]) > len(endpoint.seen[-2][0])
    found.predict(rows(2 * most))
    assert len(endpoint.seen[-1][0]) == len(endpoint.seen[-2][0])


def test_a_refused_input_looks_outside_like_an_accepted_one() -> None:
    endpoint = carrier()
    found = session(endpoint)
    found.predict(rows())
    wrong = found._welcome.card.model_copy(update={"features": 3})
    found._welcome = replace(found._welcome, card=wrong)
    with pytest.raises(InferenceError):
        found.predict(rows(3, 3))
    sizes = [(len(query), len(answer)) for query, answer in endpoint.seen[1:]]
    assert sizes[0] == sizes[1]
    assert endpoint.worker.take_counts() == Counts(requests=1, predictions=3)


def test_a_model_that_chokes_on_an_input_says_so_inside_the_answer_only() -> None:
    def choking(asked: Rows) -> Rows:
        raise RuntimeError(f"a patient's value {asked[0, 0]}")

    endpoint = carrier(InferenceWorker(CARD, SEAL, choking))
    with pytest.raises(InferenceError) as caught:
        session(endpoint).predict(rows())
    assert code_of(caught) == "inference.input"
    assert "value" not in str(caught.value)


@pytest.mark.parametrize(
    ("platform", "code"),
    [
        (lambda: vendor().platform("provider", bytes(48)), "attestation.measurement"),
        (lambda: guest(GuestSettings(policy=0x30000 | 1 << 19)), "attestation.debug"),
        (lambda: guest(GuestSettings(vmpl=3)), "attestation.vmpl"),
    ],
)
def test_an_enclave_that_is_not_acceptable_is_sent_nothing(platform: object, code: str) -> None:
    assert callable(platform)
    endpoint = carrier(quote=platform().quote)
    with pytest.raises(AttestationError) as caught:
        session(endpoint)
    assert code_of(caught) == code
    assert len(endpoint.seen) == 1


def test_a_client_that_asks_for_hardware_sends_a_simulation_nothing() -> None:
    with pytest.raises(AttestationError) as caught:
        session(carrier(), appraisal(platforms=Platforms.HARDWARE_ONLY))
    assert code_of(caught) == "attestation.simulated"


def test_an_operator_that_puts_its_own_key_in_the_welcome_is_found_out() -> None:
    endpoint = carrier()
    mine = EnclaveKey()
    endpoint.change_welcome = lambda data: replace(Welcome.decode(data), public=mine.public_bytes).encode()
    with pytest.raises(AttestationError) as caught:
        session(endpoint)
    assert code_of(caught) == "attestation.key_binding"


def test_an_operator_that_shows_an_earlier_welcome_is_found_out() -> None:
    endpoint = carrier()
    session(endpoint)
    earlier = endpoint.seen[0][1]
    endpoint.change_welcome = lambda _: earlier
    with pytest.raises(AttestationError) as caught:
        session(endpoint)
    assert code_of(caught) == "attestation.key_binding"


@pytest.mark.parametrize("domain", [TAKING_PART, KEY_RELEASE])
def test_evidence_made_for_another_purpose_opens_no_session(domain: bytes) -> None:
    key = EnclaveKey()
    endpoint = carrier()

    def forged(data: bytes) -> bytes:
        hello = Hello.decode(endpoint.seen[-1][0])
        right = inference_binding(hello, key.public_bytes, CARD, SEAL)
        wrong = Binding(right.nonce, right.key_id, right.job_id, right.policy_id, domain)
        return Welcome(CARD, SEAL, key.public_bytes, machine().quote(wrong.report_data())).encode()

    endpoint.change_welcome = forged
    with pytest.raises(AttestationError) as caught:
        session(endpoint)
    assert code_of(caught) == "attestation.key_binding"


def test_an_operator_that_serves_another_model_is_found_out() -> None:
    other = CARD.model_copy(update={"model_sha256": "d" * 64})
    with pytest.raises(InferenceError) as caught:
        session(carrier(InferenceWorker(other, SEAL, halves)), model_sha256=MODEL_SHA256)
    assert code_of(caught) == "inference.other_model"


def test_an_operator_that_shows_the_card_of_another_model_is_found_out() -> None:
    endpoint = carrier(InferenceWorker(CARD.model_copy(update={"model_sha256": "d" * 64}), SEAL, halves))
    endpoint.change_welcome = lambda data: replace(Welcome.decode(data), card=CARD).encode()
    with pytest.raises(AttestationError) as caught:
        session(endpoint, model_sha256=MODEL_SHA256)
    assert code_of(caught) == "attestation.key_binding"


def test_what_seals_the_worker_is_shown_to_the_client_under_the_machines_signature() -> None:
    endpoint = carrier()
    assert session(endpoint).seal == SEAL
    better = replace(SEAL, kernel="7.0")
    endpoint.change_welcome = lambda data: replace(Welcome.decode(data), seal=better).encode()
    with pytest.raises(AttestationError) as caught:
        session(endpoint)
    assert code_of(caught) == "attestation.key_binding"


@pytest.mark.parametrize(
    "sealed",
    [
        replace(SEAL, level=SealLevel.NO_NAMESPACES),
        replace(SEAL, level=SealLevel.NAMESPACES_UNREPORTED),
        replace(SEAL, measures=(replace(SEAL.measures[0], outcome="failed"), *SEAL.measures[1:])),
        replace(SEAL, measures=tuple(replace(one, outcome="not_tried") for one in SEAL.measures)),
    ],
    ids=["no namespaces", "unreported", "failed", "not tried"],
)
def test_a_client_asks_a_worker_nothing_that_is_sealed_less_than_it_demands(sealed: SealClaims) -> None:
    endpoint = carrier(InferenceWorker(CARD, sealed, halves))
    with pytest.raises(SealedError) as caught:
        session(endpoint)
    assert code_of(caught) == "sealed.measure_missing"
    assert len(endpoint.seen) == 1


def test_a_client_may_accept_another_level_by_name_and_demand_more_than_a_level() -> None:
    sealed = replace(SEAL, level=SealLevel.NO_NAMESPACES)
    accepts = SealPolicy((SealLevel.NAMESPACES, SealLevel.NO_NAMESPACES))
    assert session(carrier(InferenceWorker(CARD, sealed, halves)), seal=accepts).seal == sealed
    swapping = replace(SEAL, measures=(*SEAL.measures[:-1], Measure(SWAP_OFF, "failed", "1 swap devices")))
    endpoint = carrier(InferenceWorker(CARD, swapping, halves))
    assert session(endpoint).seal.lacking((SWAP_OFF,))
    with pytest.raises(SealedError):
        session(endpoint, seal=SealPolicy(also=(SWAP_OFF,)))


def test_a_query_is_answered_once_and_in_its_order() -> None:
    endpoint = carrier()
    found = session(endpoint)
    for _ in range(3):
        found.predict(rows())
    for query, _ in endpoint.seen[1:]:
        with pytest.raises(InferenceError) as caught:
            endpoint.worker.query(query)
        assert code_of(caught) == "inference.replay"


def test_a_query_of_one_session_opens_in_no_other() -> None:
    endpoint = carrier()
    first, second = session(endpoint), session(endpoint)
    first.predict(rows())
    query = Query.decode(endpoint.seen[-1][0])
    second.predict(rows())
    other = Query.decode(endpoint.seen[-1][0])
    with pytest.raises(InferenceError) as caught:
        endpoint.worker.query(replace(query, session=other.session, sequence=7).encode())
    assert code_of(caught) == "inference.sealed"


def test_a_carrier_cannot_use_up_a_clients_sequence_numbers() -> None:
    endpoint = carrier()
    found = session(endpoint)
    found.predict(rows())
    query = Query.decode(endpoint.seen[-1][0])
    with pytest.raises(InferenceError):
        endpoint.worker.query(replace(query, sequence=2**63).encode())
    found.predict(rows())


def test_an_answer_to_another_query_is_not_taken() -> None:
    endpoint = carrier()
    found = session(endpoint)
    found.predict(rows())
    earlier = endpoint.seen[-1][1]
    endpoint.change_answer = lambda _: replace(Answer.decode(earlier), sequence=1).encode()
    with pytest.raises(InferenceError) as caught:
        found.predict(rows())
    assert code_of(caught) == "inference.sealed"


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_changed_bit_of_query_or_answer_is_taken(place: int, bit: int) -> None:
    def flipped(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[place % len(changed)] ^= 1 << bit
        return bytes(changed)

    for part in ("change_query", "change_answer"):
        endpoint = carrier()
        found = session(endpoint)
        setattr(endpoint, part, flipped)
        with pytest.raises(InferenceError):
            found.predict(rows())


def test_a_session_ends_with_its_time() -> None:
    now = [0.0]
    endpoint = carrier(InferenceWorker(CARD, SEAL, halves, lambda: now[0]))
    found = session(endpoint)
    found.predict(rows())
    now[0] = SESSION_SECONDS + 1
    with pytest.raises(InferenceError) as caught:
        found.predict(rows())
    assert code_of(caught) == "inference.session"


def test_hellos_beyond_the_bound_are_refused_and_put_nobody_out() -> None:
    now = [0.0]
    worker = InferenceWorker(CARD, SEAL, halves, lambda: now[0])
    endpoint = carrier(worker)
    found = session(endpoint)
    hello = Hello(bytes(32), "0" * 64).encode()
    opened = [worker.hello(hello) for _ in range(MAX_SESSIONS - 1)]
    for _ in range(3):
        with pytest.raises(InferenceError) as caught:
            worker.hello(hello)
        assert code_of(caught) == "inference.busy"
    found.predict(rows())
    worker.end(session_id(opened[0]))
    worker.hello(hello)
    now[0] = SESSION_SECONDS + 1
    worker.hello(hello)


def test_a_session_that_was_ended_is_no_more() -> None:
    endpoint = carrier()
    found = session(endpoint)
    endpoint.worker.end(session_id(found._welcome.public))
    endpoint.worker.end(b"none of them")
    with pytest.raises(InferenceError) as caught:
        found.predict(rows())
    assert code_of(caught) == "inference.session"


def test_more_rows_than_one_query_holds_are_asked_for_in_several() -> None:
    endpoint = carrier()
    found = session(endpoint)
    asked = rows(2 * CARD.most_rows + 1)
    assert np.array_equal(found.predict(asked), halves(asked))
    sizes = [Query.decode(query).bucket for query, _ in endpoint.seen[1:]]
    assert sizes == [USUAL_BUCKET, USUAL_BUCKET, 4096]
    assert endpoint.worker.take_counts() == Counts(requests=3, predictions=len(asked))


@given(features=st.integers(1, MAX_FEATURES), classes=st.integers(2, 10_000))
def test_no_query_that_a_card_allows_has_an_answer_larger_than_answers_may_be(
    features: int, classes: int
) -> None:
    card = CARD.model_copy(update={"features": features, "classes": classes})
    assert card.most_rows >= 1
    assert INPUT_HEAD.size + 4 * features * card.most_rows <= card.largest_bucket <= 4 * 1024 * 1024
    answer = Answer(0, bytes(12), bytes(card.output_bytes(card.largest_bucket) + 16)).encode()
    assert len(answer) <= MAX_ANSWER_BYTES


def test_a_query_larger_than_the_cards_largest_is_refused_unread() -> None:
    worker = InferenceWorker(CARD, SEAL, halves)
    public = worker.hello(Hello(bytes(32), "0" * 64).encode())
    sealed = seal_to(public, bytes(2 * USUAL_BUCKET), b"")
    with pytest.raises(InferenceError) as caught:
        worker.query(Query(session_id(public), 0, sealed).encode())
    assert code_of(caught) == "inference.malformed"


def test_a_model_sees_few_rows_at_a_time_and_ever_more_while_it_is_fast() -> None:
    seen: list[int] = []

    def noting(asked: Rows) -> Rows:
        seen.append(len(asked))
        return halves(asked)

    session(carrier(InferenceWorker(CARD, SEAL, noting, lambda: 0.0))).predict(rows(100))
    assert seen == [1, 4, 16, 64, 15]


def test_rows_for_which_a_model_takes_too_long_are_given_up_and_said_to_be_inside_the_answer_only() -> None:
    now = [0.0]

    def slow(asked: Rows) -> Rows:
        now[0] += 2
        return halves(asked)

    endpoint = carrier(InferenceWorker(CARD, SEAL, slow, lambda: now[0]))
    found = session(endpoint)
    with pytest.raises(InferenceError) as caught:
        found.predict(rows(100))
    assert (code_of(caught), "too long" in str(caught.value)) == ("inference.input", True)
    assert now[0] <= PREDICTION_SECONDS + 4
    assert found.predict(rows(2)).shape == (2, 2)
    assert [len(one) for one in endpoint.seen[1]] == [len(one) for one in endpoint.seen[2]]


@pytest.mark.parametrize("answer", [np.zeros((1, 3), np.float32), np.zeros(2, np.float32)])
def test_a_model_that_answers_otherwise_than_its_card_says_is_not_served(answer: Rows) -> None:
    with pytest.raises(InferenceError) as caught:
        InferenceWorker(CARD, SEAL, lambda asked: answer).try_out()
    assert code_of(caught) == "inference.worker"


def test_a_model_that_fails_on_a_row_of_zeros_is_not_served() -> None:
    def failing(asked: Rows) -> Rows:
        raise KeyError("a layer's name")

    with pytest.raises(InferenceError) as caught:
        InferenceWorker(CARD, SEAL, failing).try_out()
    assert (code_of(caught), "layer" in str(caught.value)) == ("inference.worker", False)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 4), np.float32),
        np.zeros((2, 3), np.float32),
        np.zeros(4, np.float32),
        np.array([[1, 2, 3, np.nan]], np.float32),
        np.array([[1, 2, 3, np.inf]], np.float32),
        np.full((1, 4), 1e60),
    ],
    ids=["none", "narrow", "flat", "nan", "infinite", "past 32 bits"],
)
def test_an_input_that_is_no_input_is_not_sent(wrong: Rows) -> None:
    endpoint = carrier()
    found = session(endpoint)
    with pytest.raises(InferenceError) as caught:
        found.predict(wrong)
    assert code_of(caught) == "inference.input"
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize(
    "body",
    [
        INPUT_HEAD.pack(bytes(32), 0, 4),
        INPUT_HEAD.pack(bytes(32), 2**32 - 1, 4),
        INPUT_HEAD.pack(bytes(32), 2**30, 2**2),
        INPUT_HEAD.pack(bytes(32), 1, 2**32 - 1),
        INPUT_HEAD.pack(bytes(32), 1, 5) + bytes(20),
        INPUT_HEAD.pack(bytes(32), 1, 4) + bytes(16) + b"x",
        INPUT_HEAD.pack(bytes(32), 1, 4) + np.array([np.nan] * 4, "<f4").tobytes(),
    ],
    ids=[
        "no rows",
        "rows past the end",
        "rows past 32 bits",
        "features past the end",
        "other features",
        "padding",
        "nan",
    ],
)
def test_a_hostile_client_is_refused_inside_the_answer_and_the_worker_goes_on(body: bytes) -> None:
    endpoint = carrier()
    found = session(endpoint)
    plain = body + bytes(padded_size(len(body)) - len(body))
    sealed = seal_to(found._welcome.public, plain, sealing_info(found._binding, "query", "0"))
    session_id = bytes.fromhex(sha256_hex(found._welcome.public))
    endpoint.worker.query(Query(session_id, 0, sealed).encode())
    assert endpoint.worker.take_counts() == Counts()
    found._sequence = 1
    assert found.predict(rows()).shape == (3, 2)


def test_more_rows_than_an_answer_holds_are_refused_inside_it() -> None:
    card = CARD.model_copy(update={"features": 1, "classes": 10_000})
    worker = InferenceWorker(card, SEAL, lambda asked: np.full((len(asked), 10_000), 1e-4, np.float32))
    endpoint = carrier(worker)
    found = session(endpoint)
    assert (card.most_rows, card.rows_in(4096)) == (104, 104)
    endpoint.worker.query(found._sealed(rows(105, 1), bytearray(32)).encode())
    assert worker.take_counts() == Counts()
    assert found.predict(rows(208, 1)).shape == (208, 10_000)
    assert worker.take_counts() == Counts(requests=2, predictions=208)


@given(st.binary(max_size=400))
def test_garbage_is_refused_by_worker_and_client_and_nothing_else_is_raised(data: bytes) -> None:
    worker = InferenceWorker(CARD, SEAL, halves)
    for message in (data, b"CLINFQ1\n" + data, b"CLINFA1\n" + data):
        for use in (worker.query, worker.hello, Welcome.decode):
            with pytest.raises(InferenceError):
                use(message)
    for message in (data, data + bytes(5000)):
        if message.startswith(b"CLINFA1\n") and len(message) > 400:
            continue  # of an answer's form: whether anybody sealed it is for whoever opens it to say
        with pytest.raises(InferenceError):
            Answer.decode(message)


def test_a_card_with_another_field_or_form_is_refused() -> None:
    value = CARD.as_json()
    for wrong in (
        {**value, "price": 1},
        {**value, "features": 0},
        {**value, "schema": "x"},
        [],
    ):
        with pytest.raises(InferenceError):
            ModelCard.from_json(json.loads(canonicalize(wrong)))  # type: ignore[arg-type]


def test_counts_are_taken_once() -> None:
    endpoint = carrier()
    found = session(endpoint)
    found.predict(rows(2))
    found.predict(rows(5))
    assert endpoint.worker.take_counts() == Counts(requests=2, predictions=7)
    assert endpoint.worker.take_counts() == Counts()
