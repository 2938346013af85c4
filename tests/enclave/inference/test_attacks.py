"""Somebody between clients and a service, who keeps, changes, repeats, reorders and swaps what passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from cloister.core.clock import fixed_clock
from cloister.core.errors import CloisterError
from cloister.enclave import AttestationError, TrustStore, Verifier
from cloister.enclave.errors import InferenceError
from cloister.enclave.inference import (
    Answer,
    Endpoint,
    Hello,
    InferenceListener,
    InferenceWorker,
    Query,
    SocketEndpoint,
    Welcome,
    open_session,
)
from cloister.enclave.inference.messages import session_id
from cloister.enclave.keyrelease import EnclaveKey
from cloister.enclave.sealed import SealLevel
from tests.enclave.attestation_scene import NOW, vendor
from tests.enclave.inference.scene import (
    CARD,
    MODEL_SHA256,
    SEAL,
    Desk,
    Rows,
    halves,
    machine,
    rows,
    session,
)
from tests.enclave.keyrelease.scene import appraisal
from tests.enclave.wire import serving


class Mallory:
    """Carries a client's messages over a connection of its own, and does with them what a test wants."""

    def __init__(self, onward: Endpoint) -> None:
        self.onward = onward
        self.hellos: list[tuple[bytes, bytes]] = []
        self.queries: list[tuple[bytes, bytes]] = []
        self.on_welcome: Callable[[bytes], bytes] = bytes
        self.on_query: Callable[[bytes], bytes] = bytes
        self.on_answer: Callable[[bytes], bytes] = bytes

    def hello(self, message: bytes) -> bytes:
        self.hellos.append((message, self.onward.hello(message)))
        return self.on_welcome(self.hellos[-1][1])

    def query(self, message: bytes) -> bytes:
        self.queries.append((message, self.onward.query(self.on_query(message))))
        return self.on_answer(self.queries[-1][1])


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[InferenceListener]:
    with serving(InferenceListener(str(tmp_path / "socket")), Desk()) as made:
        yield made


@contextmanager
def between(listener: InferenceListener) -> Iterator[Mallory]:
    endpoint = SocketEndpoint(listener.address)
    try:
        yield Mallory(endpoint)
    finally:
        endpoint.close()


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(CloisterError) as caught:
        act()
    return caught.value.code


def test_a_query_that_is_sent_again_is_answered_to_nobody(listener: InferenceListener) -> None:
    with between(listener) as mallory:
        session(mallory).predict(rows())
        (query, _) = mallory.queries[0]
        assert refusal(lambda: mallory.onward.query(query)) == "inference.refused"
    with between(listener) as other:
        (hello, _) = mallory.hellos[0]
        welcome = Welcome.decode(other.onward.hello(hello))
        assert welcome.public != Welcome.decode(mallory.hellos[0][1]).public
        assert refusal(lambda: other.onward.query(query)) == "inference.refused"
    with between(listener) as third:
        welcome = Welcome.decode(third.onward.hello(hello))
        moved = replace(Query.decode(query), session=session_id(welcome.public)).encode()
        assert refusal(lambda: third.onward.query(moved)) == "inference.refused"


def test_queries_in_another_order_are_not_answered(listener: InferenceListener) -> None:
    with between(listener) as mallory:
        found = session(mallory)
        first, second = (found._sealed(rows(), bytearray(32)).encode() for _ in range(2))
        mallory.onward.query(second)
        assert refusal(lambda: mallory.onward.query(first)) == "inference.refused"


def test_an_answer_held_back_is_not_taken_for_a_later_query(listener: InferenceListener) -> None:
    with between(listener) as mallory:
        found = session(mallory)
        mallory.on_answer = lambda answer: bytes(answer)[:-1] + b"x"
        assert refusal(lambda: found.predict(rows())) == "inference.sealed"
        kept = mallory.queries[0][1]
        mallory.on_answer = lambda _: kept
        assert refusal(lambda: found.predict(rows())) == "inference.malformed"
        mallory.on_answer = lambda _: replace(Answer.decode(kept), sequence=2).encode()
        assert refusal(lambda: found.predict(rows())) == "inference.sealed"


def test_two_clients_predictions_swapped_are_taken_by_neither(listener: InferenceListener) -> None:
    with between(listener) as one, between(listener) as two:
        sessions = [session(one), session(two)]
        ready, answers = threading.Barrier(2), dict[int, bytes]()

        def swapping(mine: int) -> Callable[[bytes], bytes]:
            def swap(answer: bytes) -> bytes:
                answers[mine] = answer
                ready.wait(10)
                return answers[1 - mine]

            return swap

        one.on_answer, two.on_answer = swapping(0), swapping(1)
        codes: list[str] = []
        threads = [
            threading.Thread(target=lambda at=at: codes.append(refusal(lambda: sessions[at].predict(rows()))))
            for at in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == ["inference.sealed", "inference.sealed"]


def test_two_clients_queries_swapped_are_answered_to_neither(listener: InferenceListener) -> None:
    with between(listener) as one, between(listener) as two:
        first, second = session(one), session(two)
        query = second._sealed(rows(), bytearray(32)).encode()
        one.on_query = lambda _: query
        assert refusal(lambda: first.predict(rows())) == "inference.refused"


def test_an_own_query_slipped_into_a_clients_connection_gives_the_client_no_other_prediction(
    listener: InferenceListener,
) -> None:
    """Whoever carries can seal to the session's key too: it is answered what it asked, the client nothing."""
    with between(listener) as mallory:
        found = session(mallory)
        forged = found._sealed(np.ones((3, 4), np.float32), bytearray(b"k" * 32)).encode()
        mallory.on_query = lambda _: forged
        found._sequence = 0
        assert refusal(lambda: found.predict(rows())) == "inference.sealed"


def test_who_ends_the_connection_in_the_middle_with_its_own_key_is_sent_nothing(
    listener: InferenceListener,
) -> None:
    with between(listener) as mallory:
        mine = EnclaveKey()
        mallory.on_welcome = lambda data: replace(Welcome.decode(data), public=mine.public_bytes).encode()
        assert refusal(lambda: session(mallory)) == "attestation.key_binding"
        assert mallory.queries == []


def test_another_genuine_enclave_in_the_middle_is_known_by_its_code_or_its_model(
    listener: InferenceListener,
) -> None:
    del listener
    rogue = Desk(quote=vendor().platform("rogue", bytes(48)).quote).connect()
    assert refusal(lambda: session(rogue)) == "attestation.measurement"
    other = CARD.model_copy(update={"model_sha256": "d" * 64})
    swapped = Desk(InferenceWorker(other, SEAL, halves)).connect()
    assert refusal(lambda: session(swapped, model_sha256=MODEL_SHA256)) == "inference.other_model"


@pytest.mark.parametrize("age", [timedelta(seconds=1), timedelta(days=400)])
def test_a_welcome_of_an_earlier_session_is_stale_whatever_its_age(
    listener: InferenceListener, age: timedelta
) -> None:
    with between(listener) as mallory:
        session(mallory)
        kept = mallory.hellos[0][1]
    with between(listener) as mallory:
        mallory.on_welcome = lambda _: kept
        later = Verifier(TrustStore.simulated(vendor().root_der), fixed_clock(NOW + age))
        with pytest.raises(AttestationError):
            open_session(mallory, later, appraisal())
        assert mallory.queries == []


def test_one_policys_welcome_doesnt_serve_a_client_with_another(listener: InferenceListener) -> None:
    with between(listener) as mallory:
        hello = Hello(bytes(32), "f" * 64)

        def redirected(_: bytes) -> bytes:
            with between(listener) as again:
                return again.onward.hello(hello.encode())

        mallory.on_welcome = redirected
        assert refusal(lambda: session(mallory)) == "attestation.key_binding"


def test_a_client_of_hardware_is_not_talked_down_to_a_simulation(listener: InferenceListener) -> None:
    with between(listener) as mallory:
        production = Verifier(TrustStore.production(), fixed_clock(NOW))
        code = refusal(lambda: open_session(mallory, production, appraisal()))
        assert code == "attestation.untrusted_root"
        assert mallory.queries == []


@pytest.mark.parametrize(
    "change",
    [
        lambda welcome: replace(welcome, card=welcome.card.model_copy(update={"classes": 3})),
        lambda welcome: replace(welcome, card=welcome.card.model_copy(update={"features": 5})),
        lambda welcome: replace(welcome, card=welcome.card.model_copy(update={"parameters": {"a": 1}})),
        lambda welcome: replace(welcome, seal=replace(welcome.seal, level=SealLevel.NO_NAMESPACES)),
        lambda welcome: replace(welcome, evidence=machine().quote(bytes(64))),
    ],
    ids=["classes", "features", "parameters", "seal", "evidence"],
)
def test_no_part_of_a_welcome_can_be_exchanged(
    listener: InferenceListener, change: Callable[[Welcome], Welcome]
) -> None:
    with between(listener) as mallory:
        mallory.on_welcome = lambda data: change(Welcome.decode(data)).encode()
        assert refusal(lambda: session(mallory)) == "attestation.key_binding"
        assert mallory.queries == []


def test_what_passes_tells_neither_rows_nor_answers_nor_how_many(listener: InferenceListener) -> None:
    def passed(asked: Rows) -> tuple[bytes, list[int]]:
        with between(listener) as mallory:
            session(mallory).predict(asked)
            seen = [part for pair in mallory.queries for part in pair]
            return b"".join(seen), [len(part) for part in seen]

    asked = np.full((7, 4), 0.123456789, np.float32)
    content, sizes = passed(asked)
    assert asked.tobytes()[:8] not in content
    assert halves(asked).tobytes()[:8] not in content
    assert passed(rows(1))[1] == sizes


def test_a_session_that_was_interfered_with_gives_an_error_and_never_a_wrong_prediction(
    listener: InferenceListener,
) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        with between(listener) as mallory:
            found = session(mallory)

            def noise(message: bytes) -> bytes:
                changed = bytearray(message)
                changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
                return bytes(changed)

            if rng.integers(2):
                mallory.on_query = noise
            else:
                mallory.on_answer = noise
            with pytest.raises(InferenceError):
                found.predict(rows())
