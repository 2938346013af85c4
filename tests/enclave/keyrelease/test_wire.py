"""A key service behind a socket: keys come over it as they do without, and nobody who comes to its door holds
up, puts out or ends anybody else."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.logging import LogLevel, configure_logging, stop_logging
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease import (
    REFUSAL,
    Ask,
    DataKey,
    KeyDesk,
    KeyRequest,
    KeyServiceEndpoint,
    KeyServiceListener,
    Reply,
)
from cloister.enclave.keyrelease.messages import MAX_REQUEST_BYTES, MAX_SHORT_BYTES
from cloister.enclave.keyrelease.wire import KEY_RELEASE
from cloister.enclave.wire import Channel, Kind, ListenerLimits, Pace
from tests.enclave.attestation_scene import JOB, MEASUREMENT, vendor
from tests.enclave.keyrelease.scene import DATASET, SEAL, FailingLog, Hospital
from tests.enclave.wire import ended, frame, raw, serving

QUICK = ListenerLimits(
    pace=Pace(0.3, 64 * 1024 * 1024), first_seconds=1.0, idle_seconds=1.0, drain_seconds=5.0
)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


@contextmanager
def door(hospital: Hospital, limits: ListenerLimits = QUICK) -> Iterator[KeyServiceListener]:
    listener = KeyServiceListener(str(hospital.folder / "socket"), limits)
    with serving(listener, KeyDesk(hospital.service)):
        yield listener


def asked_over(hospital: Hospital, listener: KeyServiceListener, policy_id: str) -> bytes:
    """What a worker gets whose node carries its messages."""
    endpoint = KeyServiceEndpoint(listener.address)
    try:
        asking = KeyRequest(JOB, policy_id, SEAL)
        request = asking.answer(endpoint.challenge(asking.ask()), hospital.platform.quote)
        return bytes(asking.open(endpoint.release(request), dataset=DATASET))
    finally:
        endpoint.close()


def got_in_time(hospital: Hospital, listener: KeyServiceListener, policy_id: str) -> bytes | None:
    """What a worker gets who tries again for a while."""
    for _ in range(200):
        try:
            return asked_over(hospital, listener, policy_id)
        except ReleaseError:
            time.sleep(0.02)
    return None


def code_of(use: Callable[[], object]) -> str:
    with pytest.raises(ReleaseError) as caught:
        use()
    return caught.value.code


def test_a_key_comes_over_a_socket_to_an_attested_worker_and_is_stated(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    with door(hospital) as listener:
        assert asked_over(hospital, listener, policy_id) == hospital.data_key()
    (stated,) = hospital.statements()
    assert (stated.outcome, stated.number) == ("released", 1)


def test_several_workers_at_a_time_are_counted_one_by_one(hospital: Hospital) -> None:
    policy_id = hospital.admitted(releases=3)
    got: list[bytes] = []
    refused: list[str] = []

    def ask(listener: KeyServiceListener) -> None:
        try:
            got.append(asked_over(hospital, listener, policy_id))
        except ReleaseError as error:
            refused.append(error.code)

    with door(hospital, replace(QUICK, first_seconds=30)) as listener:
        threads = [threading.Thread(target=ask, args=(listener,)) for _ in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert got == [hospital.data_key()] * 3
    assert refused == ["release.refused"] * 3
    assert sorted(one.number for one in hospital.statements()) == [0, 0, 0, 1, 2, 3]


def test_whatever_the_reason_who_is_refused_hears_the_same_and_the_log_says_why(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    with door(hospital) as listener:
        heard = set()

        def refusal(use: Callable[[], object]) -> None:
            with pytest.raises(ReleaseError) as caught:
                use()
            heard.add((caught.value.code, caught.value.message, caught.value.hint))

        right = hospital.platform
        hospital.platform = vendor().platform("north", bytes([1]) + MEASUREMENT[1:])
        refusal(lambda: asked_over(hospital, listener, policy_id))
        hospital.platform = right
        refusal(lambda: asked_over(hospital, listener, "0" * 64))
        refusal(lambda: KeyServiceEndpoint(listener.address).challenge(b"no ask"))
        hospital.book.revoke_policy(policy_id, hospital.clock())
        refusal(lambda: asked_over(hospital, listener, policy_id))
        assert len(heard) == 1
        assert next(iter(heard))[0] == "release.refused"
    assert [one.code for one in hospital.statements()] == ["attestation.measurement", "release.revoked"]


def test_a_reply_that_was_sealed_to_another_worker_opens_for_nobody_else_on_the_way(
    hospital: Hospital,
) -> None:
    policy_id = hospital.admitted()
    with door(hospital) as listener:
        endpoint = KeyServiceEndpoint(listener.address)
        asking, thief = KeyRequest(JOB, policy_id, SEAL), KeyRequest(JOB, policy_id, SEAL)
        challenge = endpoint.challenge(asking.ask())
        thief.bind(challenge)
        reply = endpoint.release(asking.answer(challenge, hospital.platform.quote))
        assert code_of(lambda: thief.open(reply, dataset=DATASET)) == "release.sealed"
        assert hospital.data_key() not in reply
        assert Reply.decode(reply).dataset == DATASET
        endpoint.close()


def test_a_request_before_an_ask_and_one_that_is_too_large_are_not_even_read(hospital: Hospital) -> None:
    with door(hospital, replace(QUICK, first_seconds=60)) as listener:
        for head in (
            struct.pack(">IB", 100, Kind.REQUEST),
            struct.pack(">IB", MAX_SHORT_BYTES + 1, Kind.ASK),
            struct.pack(">IB", 2**32 - 1, Kind.ASK),
            struct.pack(">IB", 10, Kind.HELLO),
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            eager = raw(listener)
            eager.sendall(head)
            assert ended(eager, 3), head
        greedy = raw(listener)
        greedy.sendall(frame(Kind.ASK, Ask(JOB, "0" * 64).encode()))
        Channel(greedy, KEY_RELEASE).read({Kind.CHALLENGE: MAX_SHORT_BYTES}, 5)
        greedy.sendall(struct.pack(">IB", MAX_REQUEST_BYTES + 1, Kind.REQUEST))
        assert ended(greedy, 3)
    assert hospital.statements() == []


def test_a_byte_now_and_then_holds_no_connection_and_no_other_worker(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    with door(hospital, replace(QUICK, first_seconds=60)) as listener:
        slow = raw(listener)
        slow.sendall(frame(Kind.ASK, bytes(1000))[:40])
        began = time.monotonic()
        assert asked_over(hospital, listener, policy_id) == hospital.data_key()
        try:
            while time.monotonic() - began < 10:
                slow.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - began < 5, "the connection was held"


def test_who_comes_to_a_full_service_hears_that_it_is_busy_and_who_asks_nothing_makes_room(
    hospital: Hospital,
) -> None:
    policy_id = hospital.admitted()
    limits = replace(QUICK, connections=8, per_peer=8, first_seconds=0.8)
    with door(hospital, limits) as listener, ExitStack() as held:
        for _ in range(8):
            held.enter_context(raw(listener))
        assert code_of(lambda: asked_over(hospital, listener, policy_id)) == "release.busy"
        assert got_in_time(hospital, listener, policy_id) == hospital.data_key()


def test_hundreds_of_connections_at_once_leave_a_service_that_serves(hospital: Hospital) -> None:
    policy_id = hospital.admitted()
    with door(hospital, replace(QUICK, first_seconds=0.5)) as listener:
        with ExitStack() as held:
            for number in range(300):
                try:
                    held.enter_context(raw(listener)).sendall(bytes([number % 256]) * 5)
                except OSError:  # the machine's queue is full, or the service has turned it away
                    continue
        assert got_in_time(hospital, listener, policy_id) == hospital.data_key()


def test_a_service_that_ends_or_is_not_there_is_said_to_be_unreachable(hospital: Hospital) -> None:
    with door(hospital) as listener:
        address = listener.address
        endpoint = KeyServiceEndpoint(address)
        endpoint.challenge(Ask(JOB, "0" * 64).encode())
    assert code_of(lambda: endpoint.challenge(Ask(JOB, "0" * 64).encode())) == "release.unreachable"
    assert code_of(lambda: KeyServiceEndpoint(address)) == "release.unreachable"
    assert code_of(lambda: KeyServiceEndpoint("127.0.0.1:1")) == "release.unreachable"


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=64), kind=st.sampled_from([Kind.ASK, Kind.REQUEST]))
def test_garbage_in_a_frame_is_refused_and_raises_nothing_else(data: bytes, kind: Kind) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(frame(kind, data)[: 5 + len(data) // 2])
        theirs.shutdown(socket.SHUT_WR)
        try:
            Channel(ours, KEY_RELEASE, Pace(1.0)).read(KEY_RELEASE.bounds, 1.0)
        except ReleaseError:
            return


# What fails in the service itself


class StoppedCall(RuntimeError):  # noqa: N818 - as the immune system's own
    """As what the immune system raises in place of a call: no error of ours, with figures in its message."""


FIGURES = "duration 41.7x median, p=3e-05"


class Stopped:
    """A keeper of whom every call is stopped."""

    def challenge(self, ask: bytes) -> bytes:
        raise StoppedCall(FIGURES)

    release = challenge


def test_whose_call_is_stopped_hears_a_refusal_and_the_next_one_is_served(
    hospital: Hospital, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging(path=hospital.folder / "run.jsonl", level=LogLevel.INFO, experiment_id="test")
    try:
        listener = KeyServiceListener(
            str(hospital.folder / "socket"), replace(QUICK, connections=1, per_peer=1)
        )
        with serving(listener, KeyDesk(Stopped())):
            for _ in range(5):
                code = "release.busy"
                while code == "release.busy":
                    endpoint = KeyServiceEndpoint(listener.address)
                    code = code_of(lambda: endpoint.challenge(b"anything"))  # noqa: B023
                    endpoint.close()
                assert code == "release.refused"
    finally:
        stop_logging()
    log = (hospital.folder / "run.jsonl").read_text()
    said = [json.loads(one) for one in log.splitlines()]
    assert [(one["event"], one["error"], one["refusals"]) for one in said] == [
        ("wire.answer-failed", "RuntimeError", count) for count in (1, 2, 4)
    ]
    assert "41.7" not in log + "".join(capfd.readouterr())


def test_a_stopped_unwrap_is_a_refusal_that_the_log_states(
    hospital: Hospital, capfd: pytest.CaptureFixture[str]
) -> None:
    policy_id = hospital.admitted()

    def stopped(_: DataKey) -> bytearray:
        raise StoppedCall(FIGURES)

    served, hospital.service._unwrap = hospital.service._unwrap, stopped
    with door(hospital) as listener:
        assert hospital.refusal(lambda: asked_over(hospital, listener, policy_id)) == "release.failed"
        hospital.service._unwrap = served
        assert asked_over(hospital, listener, policy_id) == hospital.data_key()
    # A release that failed before it was stated costs none.
    assert [(one.outcome, one.number) for one in hospital.statements()] == [("refused", 0), ("released", 1)]
    assert "41.7" not in repr(hospital.statements()) + "".join(capfd.readouterr())


def test_a_keeper_whose_log_fails_by_whatever_error_answers_with_the_refusal(hospital: Hospital) -> None:
    _, request = hospital.request(hospital.admitted())
    failing = hospital.new_service(FailingLog(hospital.log, StoppedCall(FIGURES)))
    assert failing.release(request) == REFUSAL
    assert hospital.book.all_policies()[0].released == 0
    assert failing.challenge(b"no ask") == REFUSAL
